"""Loss and optimizers do what their formulas say, and follow PyTorch's where PyTorch has the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fd_runtime.models.model import F32, Batch, OptimizerState
from fd_runtime.models.onnx_model import OnnxTrainSession
from model_export.graph import GraphBuilder, tensor
from model_export.trainstep import OptimizerName, TrainStep, compile_train_step
from tests.support.dense_tails import DenseTail, dense_tail

ROWS, CLASSES = 6, 4
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "momentum", "adam")


def logits_as_theta(optimizer: OptimizerName = "momentum", **settings: Any) -> TrainStep:
    """The step of a model whose parameters are its logits: theta is [ROWS * CLASSES], the features are the identity."""
    build = GraphBuilder({"features"})
    table = build.parameter("table", np.zeros((ROWS, CLASSES), np.float32))
    build.op("MatMul", "features", table, output="logits")
    model = build.model("table", [tensor("features", ("N", ROWS))], [tensor("logits", ("N", CLASSES))])
    return compile_train_step(
        model, input_name="features", logits_name="logits", trainable=["table"], optimizer=optimizer, **settings
    )


def batch(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        np.eye(ROWS, dtype=np.float32),
        rng.integers(0, CLASSES, ROWS),
        rng.dirichlet(np.ones(CLASSES), ROWS).astype(np.float32),
        rng.random(ROWS, np.float32),
        rng.uniform(0.1, 3.0, ROWS).astype(np.float32),
    )


def theta(seed: int = 1) -> F32:
    return np.random.default_rng(seed).normal(size=ROWS * CLASSES).astype(np.float32)


def session_of(step: TrainStep, start: F32) -> OnnxTrainSession:
    return OnnxTrainSession(step.model.SerializeToString(), OptimizerState.fresh(start, step.slots))


def told(start: F32, rows: Batch, **terms: Any) -> tuple[float, F32]:
    """The loss, and the gradient as the optimizer gets it."""
    session = session_of(logits_as_theta(), start)
    loss = session.run(rows, **{"learning_rate": 0.0, "temperature": 3.0, **terms})
    return loss, session.state.slots["velocity"]


def formula(z: F32, rows: Batch, temperature: float) -> float:
    """The loss as its definition has it, in float64."""

    def entropy(target: F32, logits: F32) -> np.ndarray:
        logits = logits.astype(np.float64)
        return -(target * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1)

    hard = entropy(np.eye(CLASSES)[rows.labels], z)
    soft = temperature**2 * entropy(rows.targets, z / np.float32(temperature))
    return float(np.average(rows.alpha * hard + (1 - rows.alpha) * soft, weights=rows.weight))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_loss_and_gradient_are_those_of_the_formula(temperature: float) -> None:
    start, rows = theta(), batch()
    loss, gradient = told(start, rows, temperature=temperature)
    assert loss == pytest.approx(formula(start.reshape(ROWS, CLASSES), rows, temperature), rel=1e-6)
    for index in range(start.size):
        ahead, behind = (start + shift * np.eye(start.size, dtype=np.float32)[index] for shift in (1e-2, -1e-2))
        quotient = [formula(z.reshape(ROWS, CLASSES), rows, temperature) for z in (ahead, behind)]
        assert gradient[index] == pytest.approx((quotient[0] - quotient[1]) / 2e-2, abs=2e-5)


def test_a_label_counts_where_alpha_is_one_and_a_target_where_it_is_zero() -> None:
    hard, soft = (replace(batch(), alpha=np.full(ROWS, alpha, np.float32)) for alpha in (1, 0))
    other = replace(batch(), labels=(hard.labels + 1) % CLASSES, targets=hard.targets[::-1].copy())
    assert told(theta(), hard)[0] == told(theta(), replace(hard, targets=other.targets))[0]
    assert told(theta(), soft)[0] == told(theta(), replace(soft, labels=other.labels))[0]
    assert told(theta(), hard)[0] != told(theta(), replace(hard, labels=other.labels))[0]
    assert told(theta(), soft)[0] != told(theta(), replace(soft, targets=other.targets))[0]


def test_weights_are_shares_so_their_scale_does_not_matter() -> None:
    rows = batch()
    loss, gradient = told(theta(), rows)
    again = told(theta(), replace(rows, weight=16 * rows.weight))
    assert again[0] == pytest.approx(loss)
    np.testing.assert_allclose(again[1], gradient, rtol=1e-5)


def test_the_proximal_term_pulls_to_the_reference_before_the_clip() -> None:
    start, reference = theta(), theta(2)
    loss, gradient = told(start, batch())
    pulled = told(start, batch(), reference=reference, prox=0.5)
    assert pulled[0] == pytest.approx(loss + 0.25 * float(((start - reference) ** 2).sum()), rel=1e-5)
    np.testing.assert_allclose(pulled[1], gradient + 0.5 * (start - reference), atol=1e-6)
    clipped = told(start, batch(), reference=reference, prox=0.5, max_norm=0.1)[1]
    np.testing.assert_allclose(clipped, 0.1 * pulled[1] / np.linalg.norm(pulled[1]), atol=1e-7)


@pytest.mark.parametrize("max_norm", [0.0, 1e3, 1e38])
def test_a_gradient_within_the_norm_stays_as_it_is(max_norm: float) -> None:
    assert (told(theta(), batch(), max_norm=max_norm)[1] == told(theta(), batch())[1]).all()


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_batch_of_padding_alone_has_no_loss_and_no_gradient(optimizer: OptimizerName, max_norm: float) -> None:
    padding = replace(batch(), weight=np.zeros(ROWS, np.float32))
    session = session_of(logits_as_theta(optimizer), theta())
    terms = {"learning_rate": 0.1, "temperature": 2.0, "max_norm": max_norm}
    assert session.run(padding, **terms) == 0.0
    assert (session.state.theta == theta()).all()
    session.run(batch(), **terms)
    before = session.state
    assert session.run(padding, **terms) == 0.0
    assert np.isfinite(session.state.theta).all()
    for slot, content in session.state.slots.items():
        kept = 0.999 if slot == "moment2" else 0.9
        np.testing.assert_allclose(content, kept * before.slots[slot], rtol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_decay_is_decoupled_from_the_gradient_and_takes_all_parameters_alike(optimizer: OptimizerName) -> None:
    plain, decayed = (session_of(logits_as_theta(optimizer, weight_decay=decay), theta()) for decay in (0.0, 0.1))
    for session in (plain, decayed):
        session.run(batch(), learning_rate=0.05, temperature=2.0)
    np.testing.assert_allclose(decayed.state.theta, plain.state.theta - 0.05 * 0.1 * theta(), atol=1e-6)
    for slot, content in plain.state.slots.items():
        assert (content == decayed.state.slots[slot]).all()


class TestAgainstTorch:
    """Twenty steps of torch.optim on the same batches; an oracle that we did not write."""

    @pytest.fixture(autouse=True)
    def torch(self) -> None:
        self.torch = pytest.importorskip("torch", reason="torch is not installed: this oracle is optional")
        self.torch.set_num_threads(1)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize(
        "terms",
        [{}, {"max_norm": 0.3}, {"prox": 0.5}, {"prox": 0.5, "max_norm": 0.3}],
        ids=["plain", "clipped", "proximal", "both"],
    )
    def test_twenty_steps_follow_torch_optim(self, optimizer: OptimizerName, terms: dict[str, float]) -> None:
        tail = dense_tail(32, 24, 10, optimizer=optimizer, weight_decay=0.01 if optimizer == "adam" else 0.0)
        session = OnnxTrainSession(tail.step.model.SerializeToString(), tail.fresh)
        parameter = self.torch.nn.Parameter(self.torch.tensor(tail.theta.copy()))
        follower = self.follower(optimizer, parameter)
        for seed in range(20):
            rows = tail.batch(16, seed)
            follower.zero_grad()
            loss = self.loss(tail, parameter, rows, terms.get("prox", 0.0))
            loss.backward()
            if "max_norm" in terms:
                self.torch.nn.utils.clip_grad_norm_([parameter], terms["max_norm"])
            follower.step()
            found = session.run(rows, learning_rate=5e-3, temperature=2.0, reference=tail.theta, **terms)
            assert found == pytest.approx(loss.item(), abs=1e-4)
        np.testing.assert_allclose(session.state.theta, parameter.detach().numpy(), atol=1e-4)

    def follower(self, optimizer: OptimizerName, parameter: Any) -> Any:
        if optimizer == "adam":
            return self.torch.optim.AdamW([parameter], lr=5e-3, weight_decay=0.01)
        return self.torch.optim.SGD([parameter], lr=5e-3, momentum=0.9 if optimizer == "momentum" else 0.0)

    def loss(self, tail: DenseTail, flat: Any, rows: Batch, prox: float) -> Any:
        functional = self.torch.nn.functional
        x = self.torch.tensor(tail.numbers(rows.features))
        pieces = self.torch.split(flat, [slot.size for slot in tail.step.layout.slots])
        shaped = [p.reshape(s.shape) for p, s in zip(pieces, tail.step.layout.slots, strict=True)]
        for layer in range(0, len(shaped), 2):
            x = (self.torch.relu(x) if layer else x) @ shaped[layer] + shaped[layer + 1]
        _, labels, targets, alpha, weight = (self.torch.tensor(getattr(rows, name)) for name in Batch.__slots__)
        hard = functional.cross_entropy(x, labels, reduction="none")
        soft = functional.cross_entropy(x / 2.0, targets, reduction="none")
        of_rows = (weight * (alpha * hard + (1 - alpha) * 4.0 * soft)).sum() / weight.sum()
        return of_rows + prox / 2 * (flat - self.torch.tensor(tail.theta)).square().sum()
