"""The NumPy trainer, the oracle of the others: its gradient is checked against differences, not against a graph."""

from __future__ import annotations

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.layout import ThetaLayout
from fd_runtime.models.model import Batch, ModelError, OptimizerState, ThetaError
from fd_runtime.models.numpy_model import DenseChain, NumpyTail, NumpyTrainSession

LAYOUT = ThetaLayout.of([("w1", (3, 4)), ("b1", (4,)), ("w2", (4, 2)), ("b2", (2,))])
TERMS = {"learning_rate": 1.0, "temperature": 2.0}


def theta(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)


def batch(rows: int = 5, seed: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        rng.normal(size=(rows, 3)).astype(np.float32),
        rng.integers(0, 2, rows),
        rng.dirichlet([1, 1], rows).astype(np.float32),
        rng.random(rows, np.float32),
        rng.random(rows, np.float32),
    )


def session(slots: tuple[str, ...] = (), start: np.ndarray | None = None) -> NumpyTrainSession:
    return NumpyTrainSession(DenseChain(LAYOUT), OptimizerState.fresh(theta() if start is None else start, slots))


def test_a_step_of_plain_descent_moves_against_the_difference_quotient() -> None:
    reference, width = theta(2), np.float32(2e-3)
    terms = {**TERMS, "reference": reference, "prox": 0.5}
    trained = session()
    trained.run(batch(), **terms)
    for index, unit in enumerate(np.eye(LAYOUT.size, dtype=np.float32)):
        ahead = session(start=theta() + width * unit).run(batch(), **terms)
        behind = session(start=theta() - width * unit).run(batch(), **terms)
        moved = float(theta()[index] - trained.state.theta[index])
        assert moved == pytest.approx((ahead - behind) / (2 * width), abs=2e-3)


def test_momentum_gathers_speed() -> None:
    trained = session(("velocity",))
    trained.run(batch(), **{**TERMS, "learning_rate": 1e-6})
    first = trained.state.slots["velocity"]
    trained.run(batch(), **{**TERMS, "learning_rate": 1e-6})
    np.testing.assert_allclose(trained.state.slots["velocity"], 1.9 * first, rtol=1e-2, atol=1e-5)


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate() -> None:
    trained = session(("moment1", "moment2"))
    trained.run(batch(), **{**TERMS, "learning_rate": 0.01})
    moves = np.abs(trained.state.theta - theta())
    assert ((np.abs(moves - 0.01) < 1e-4) | (moves == 0)).all()


def test_the_gradient_is_clipped_to_its_norm() -> None:
    trained = session()
    trained.run(batch(), **TERMS, max_norm=0.01)
    assert np.linalg.norm(trained.state.theta - theta()) == pytest.approx(0.01, rel=1e-4)


def test_integer_features_are_dequantised() -> None:
    integers = np.array([[0, 128, 255]], np.uint8)
    numbers = ((integers.astype(np.float32) - 10) * 0.5).astype(np.float32)
    on_integers = NumpyTail(DenseChain(LAYOUT, scale=0.5, zero_point=10), theta()).logits(integers)
    assert (on_integers == NumpyTail(DenseChain(LAYOUT), theta()).logits(numbers)).all()


@pytest.mark.parametrize(
    "shapes",
    [
        [("w", (3, 4))],
        [("w", (3, 4)), ("b", (3,))],
        [("w", (3, 4)), ("b", (4,)), ("v", (5, 2)), ("c", (2,))],
        [("conv", (4, 1, 3, 3)), ("b", (4,))],
    ],
    ids=["no bias", "wrong bias", "no chain", "convolution"],
)
def test_only_a_chain_of_dense_layers_is_taken(shapes: list[tuple[str, tuple[int, ...]]]) -> None:
    with pytest.raises(InvalidValueError):
        DenseChain(ThetaLayout.of(shapes))


def test_a_state_that_fits_no_optimizer_or_no_layout_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        session(("moment1",))
    with pytest.raises(ThetaError):
        session(start=theta()[1:])
    with pytest.raises(ThetaError):
        NumpyTail(DenseChain(LAYOUT), np.full_like(theta(), np.inf))


def test_features_of_another_width_are_refused() -> None:
    tail = NumpyTail(DenseChain(LAYOUT), theta())
    with pytest.raises(ModelError, match="reads 3 features"):
        tail.logits(np.zeros((2, 4), np.float32))
