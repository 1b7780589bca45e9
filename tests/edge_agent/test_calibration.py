"""How sure the model may be here: a temperature that mends over-confidence, and the class prior."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.inference.calibration import MIN_ROWS, calibrate, fit_temperature
from edge_agent.local_prior import log_prior
from edge_agent.private_data import PrivateRows

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


def rows_of(count, labels=None):
    labels = np.arange(count) % CLASSES if labels is None else labels
    return PrivateRows(np.zeros((count, 2), np.float32), labels.astype(np.int64))


def never(_rows):
    raise AssertionError("the model was asked")


def test_without_rows_nothing_is_adjusted():
    found = calibrate(rows_of(0), CLASSES, never, has_prior=True, has_temperature=True)
    assert found.adjustment.log_prior is None
    assert found.adjustment.temperature == 1.0


def test_few_held_out_rows_leave_the_temperature_alone_and_the_prior_counts():
    labels = np.array([0] * 90 + [1] * 10)
    found = calibrate(rows_of(100, labels), CLASSES, never, has_prior=True, has_temperature=True)
    assert found.held_out < MIN_ROWS
    assert found.adjustment.temperature == 1.0
    assert found.adjustment.log_prior.argmax() == 0
    assert found.labelled == 100


def test_each_half_can_be_left_out():
    count = 1000
    logits, labels = truthful(count, sureness=3.0)
    rows, asked = rows_of(count, labels), []

    def model(places):
        asked.append(len(places))
        return logits[places]

    alone = calibrate(rows, CLASSES, model, has_prior=False, has_temperature=True).adjustment
    assert alone.log_prior is None
    assert 1.8 < alone.temperature < 5
    assert asked == [100]  # the hold-out, and nothing that was trained on
    assert calibrate(rows, CLASSES, never, has_prior=True, has_temperature=False).adjustment.temperature == 1.0
