from __future__ import annotations

import numpy as np
import pytest

from edge_agent.learning.local_prior import correct, log_prior


def test_the_prior_is_a_distribution_in_which_unseen_classes_stay_possible():
    prior = log_prior(np.array([0, 0, 0, 2]), 3)
    assert np.exp(prior) == pytest.approx([4 / 7, 1 / 7, 2 / 7])
    assert prior.dtype == np.float32


def test_without_labels_no_class_is_preferred():
    logits = np.array([[1.0, 2.0, 0.0]], np.float32)
    assert correct(logits, log_prior(np.array([], np.int64), 3)).argmax() == 1


def test_a_frequent_class_wins_where_the_model_is_undecided():
    logits = np.zeros((2, 3), np.float32)
    corrected = correct(logits, log_prior(np.array([1, 1, 2]), 3))
    assert corrected.argmax(axis=1).tolist() == [1, 1]
