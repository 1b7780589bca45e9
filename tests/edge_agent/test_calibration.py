"""How sure the model may be here: a temperature that mends over-confidence, and the class prior."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.inference.calibration import MIN_ROWS, Known, calibrate, fit_temperature
from edge_agent.learning.local_prior import log_prior

CLASSES = 4


def truthful(count, seed=0, sureness=1.0):
    """Logits that are right as often as they say at temperature 1, times `sureness`, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((count, CLASSES)).astype(np.float32) * 2
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(CLASSES, p=row / row.sum()) for row in chances.astype(float)])
    return logits * np.float32(sureness), labels


@pytest.mark.parametrize("sureness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_how_much_too_sure_the_model_is(sureness):
    logits, labels = truthful(4000, sureness=sureness)
    assert fit_temperature(logits, labels) == pytest.approx(sureness, rel=0.1)


def test_few_rows_that_are_all_right_do_not_make_it_certain():
    logits = np.eye(CLASSES, dtype=np.float32)[np.arange(40) % CLASSES]
    temperature = fit_temperature(logits, np.arange(40) % CLASSES)
    assert 0.15 < temperature < 1.0


def test_the_minimum_is_the_minimum():
    logits, labels = truthful(300, seed=3, sureness=2.0)
    prior = log_prior(labels, CLASSES)
    best = fit_temperature(logits, labels, prior)

    def loss(temperature):
        scaled = logits.astype(float) / temperature + prior
        scaled -= scaled.max(axis=1, keepdims=True)
        chance = scaled[np.arange(300), labels] - np.log(np.exp(scaled).sum(axis=1))
        return -chance.sum() + 0.5 * (np.log(temperature) / 0.5) ** 2

    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 2000))
    assert loss(best) <= min(map(loss, grid)) + 1e-6


def known(labels=(), held_out=((), ()), met=None):
    """What is known; the features of rows that are held out are their logits."""
    labels = np.array(labels, np.int64)
    logits, truth = held_out
    met = np.bincount(labels, minlength=CLASSES) if met is None else met
    return Known(
        np.array(met, float), labels, np.array(truth, np.int64), np.array(logits, np.float32).reshape(-1, CLASSES)
    )


def never(_features):
    raise AssertionError("the model was asked")


def test_without_rows_nothing_is_adjusted():
    found = calibrate(known(), never, has_prior=True, has_temperature=True)
    assert found.adjustment.log_prior is None
    assert found.adjustment.temperature == 1.0


def test_few_held_out_rows_leave_the_temperature_alone_and_the_prior_counts():
    rows = known([0] * 90 + [1] * 10, truthful(MIN_ROWS - 1))
    found = calibrate(rows, never, has_prior=True, has_temperature=True)
    assert found.adjustment.temperature == 1.0
    assert found.adjustment.log_prior.argmax() == 0
    assert (found.labelled, found.held_out) == (100 + MIN_ROWS - 1, MIN_ROWS - 1)


def test_each_half_can_be_left_out():
    rows = known(range(CLASSES), truthful(1000, sureness=3.0))
    alone = calibrate(rows, lambda logits: logits, has_prior=False, has_temperature=True).adjustment
    assert alone.log_prior is None
    assert alone.temperature == pytest.approx(3.0, rel=0.2)
    assert calibrate(rows, never, has_prior=True, has_temperature=False).adjustment.temperature == 1.0


def test_where_nobody_can_tell_how_common_classes_are_there_is_no_prior():
    rows = known([0, 0, 0, 1], met=np.zeros(CLASSES))
    assert calibrate(rows, never, has_prior=True, has_temperature=True).adjustment.log_prior is None


def test_rows_that_were_chosen_by_class_tell_the_temperature_of_samples_that_were_not():
    """A store keeps classes alike, while nine samples in ten are of class 0: two priors, one temperature."""
    rng = np.random.default_rng(5)
    prior = np.array([0.9, 0.05, 0.03, 0.02])
    came = rng.choice(CLASSES, 40_000, p=prior)
    seen = 1.5 * np.eye(CLASSES)[came] + rng.standard_normal((len(came), CLASSES))
    likelihood = 1.5 * seen  # log p(sample | class), up to a constant
    kept = np.concatenate([np.flatnonzero(came == label)[:500] for label in range(CLASSES)])
    found = calibrate(
        known(came[kept], (2.5 * likelihood[kept], came[kept]), met=np.bincount(came)),
        lambda logits: logits,
        has_prior=True,
        has_temperature=True,
    ).adjustment
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert np.exp(found.log_prior) == pytest.approx(prior, abs=0.01)
