"""A lent model is a model of one's own to whoever holds it."""

import numpy as np
import pytest

from fd_runtime.fitting import FitTerms, LabelledRows, fit
from fd_runtime.models.model import OptimizerState, ThetaError
from fleet_sim.factory import equip
from fleet_sim.federation.shared_models import SharedModel
from fleet_sim.scenario import ModelTerms
from fleet_sim.worlds import digits


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    models = ModelTerms(("mlp-s",), "mlp-s", pretraining=None)
    return equip(digits(0, devices=1), models, 0, tmp_path_factory.mktemp("factory")).bundles["mlp-s"]


@pytest.fixture
def shared(bundle):
    return SharedModel(bundle.open("onnxruntime"))


def rows(seed):
    rng = np.random.default_rng(seed)
    return LabelledRows(rng.random((96, 64), np.float32), rng.integers(0, 10, 96), 10)


def steps(model, seed, count=5):
    """Train in single fits, so that others may come in between."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        fit(model.train_session, rows(seed), None, FitTerms(epochs=1), rng)
        model.tail.load(model.train_session.state.theta)
        yield model.tail.logits(rows(99).features).tobytes()


def test_two_who_take_turns_learn_as_two_who_never_met(shared, bundle):
    taking_turns = list(zip(steps(shared.lend(), 1), steps(shared.lend(), 2), strict=True))
    alone = [list(steps(bundle.open("onnxruntime"), seed)) for seed in (1, 2)]
    assert taking_turns == list(zip(*alone, strict=True))


def test_a_model_is_lent_as_if_freshly_opened(shared, bundle):
    list(steps(shared.lend(), 1))
    late, fresh = shared.lend(), bundle.open("onnxruntime")
    features = rows(0).features
    np.testing.assert_array_equal(late.tail.logits(features), fresh.tail.logits(features))
    assert late.train_session.state.step == 0
    np.testing.assert_array_equal(late.train_session.state.theta, fresh.train_session.state.theta)


def test_the_last_theta_is_not_loaded_again(shared, monkeypatch):
    loads = []
    tail = shared._model.tail
    load = tail.load
    monkeypatch.setattr(tail, "load", lambda theta: (loads.append(theta), load(theta)))
    one, other = shared.lend(), shared.lend()
    changed = one.train_session.state.theta + 1
    one.tail.load(changed)
    for _ in range(3):
        one.tail.logits(rows(0).features)
    assert len(loads) == 1
    other.tail.logits(rows(0).features)
    one.tail.logits(rows(0).features)
    assert len(loads) == 3


@pytest.mark.parametrize("theta", [np.zeros(3, np.float32), np.full(1, np.nan, np.float32), np.zeros(1, np.float64)])
def test_a_theta_that_does_not_fit_is_refused_at_once_and_the_old_one_stays(shared, theta):
    model = shared.lend()
    before, features = model.train_session.state, rows(0).features
    logits = model.tail.logits(features)
    theta = np.resize(theta, before.theta.size) if theta.size == 1 else theta
    with pytest.raises(ThetaError):
        model.tail.load(theta)
    with pytest.raises(ThetaError):
        model.train_session.state = OptimizerState(theta, {}, 0)
    np.testing.assert_array_equal(model.tail.logits(features), logits)
    assert model.train_session.state is before
