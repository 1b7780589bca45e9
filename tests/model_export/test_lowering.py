"""A lowered train step is the plain one written faster: same theta, same loss, same gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fd_runtime.models.model import F32, Batch, OptimizerState
from fd_runtime.models.onnx_model import OnnxTrainSession
from model_export.graph import GraphBuilder, tensor
from model_export.surgery import theta_of
from model_export.trainstep import TrainStep, compile_train_step
from model_export.trainstep.draft import GRADIENT
from model_export.trainstep.lowering import lower
from model_export.trainstep.lowering.toeplitz import basis
from model_export.trainstep.rules.windows import Windows

CLASSES, ROWS = 5, 6
TERMS = {"learning_rate": 5e-3, "temperature": 2.0}


@dataclass(frozen=True)
class Net:
    """A forward model with the names of its parameters."""

    model: onnx.ModelProto
    sample_shape: tuple[int, ...]

    @property
    def parameters(self) -> list[str]:
        return [t.name for t in self.model.graph.initializer if t.name.startswith("parameter")]

    def step(self, *trainable: str, lowered: bool, **settings: object) -> TrainStep:
        return compile_train_step(
            self.model,
            input_name="input",
            logits_name="logits",
            trainable=trainable or self.parameters,
            optimizer="adam",
            lowered=lowered,
            **settings,
        )

    def batch(self, seed: int = 0) -> Batch:
        rng = np.random.default_rng(seed)
        return Batch(
            features=rng.normal(size=(ROWS, *self.sample_shape)).astype(np.float32),
            labels=rng.integers(0, CLASSES, ROWS),
            targets=rng.dirichlet(np.ones(CLASSES), ROWS).astype(np.float32),
            alpha=rng.integers(0, 2, ROWS).astype(np.float32),
            weight=rng.uniform(0.2, 1.0, ROWS).astype(np.float32),
        )

    def ops(self, *trainable: str, rows: int = 64) -> Counter[str]:
        """What the lowered forward graph consists of."""
        lowered = lower(
            self.model,
            input_name="input",
            logits_name="logits",
            trainable=trainable or self.parameters,
            batch_rows=rows,
        )
        return Counter(node.op_type for node in lowered.graph.node)


class Writer:
    """Writes small nets with random parameters."""

    def __init__(self) -> None:
        self.build = GraphBuilder({"input", "logits"})
        self.rng = np.random.default_rng(7)

    def op(self, *inputs: str, **attributes: object) -> str:
        return self.build.op(*inputs, **attributes)

    def parameter(self, *shape: int) -> str:
        content = self.rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
        return self.build.parameter(self.build.fresh("parameter"), content.astype(np.float32))

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: Sequence[int], *, bias: bool = True, **how: object
    ) -> str:
        group = how.get("group", 1)
        biases = [self.parameter(outputs)] if bias else []
        return self.op("Conv", x, self.parameter(outputs, inputs // group, *kernel), *biases, **how)

    def pointwise(self, x: str, inputs: int, outputs: int, **how: object) -> str:
        return self.conv(x, inputs, outputs, (1, 1), **how)

    def depthwise(self, x: str, channels: int, stride: int = 1, **how: object) -> str:
        how = {"strides": [stride] * 2, "pads": [1] * 4, **how}
        return self.conv(x, channels, channels, (3, 3), group=channels, **how)

    def norm(self, x: str, channels: int) -> str:
        scale, shift = self.parameter(channels), self.parameter(channels)
        mean = self.build.constant(self.rng.normal(size=channels))
        variance = self.build.constant(self.rng.uniform(0.5, 2.0, channels))
        return self.op("BatchNormalization", x, scale, shift, mean, variance)

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.build.constant(0.0), self.build.constant(6.0))

    def head(self, x: str, channels: int, sample_shape: tuple[int, ...]) -> Net:
        flat = self.op("Flatten", self.op("GlobalAveragePool", x))
        self.op("Gemm", flat, self.parameter(channels, CLASSES), self.parameter(CLASSES), output="logits")
        return self.net(sample_shape)

    def net(self, sample_shape: tuple[int, ...]) -> Net:
        inputs, outputs = [tensor("input", ("N", *sample_shape))], [tensor("logits", ("N", CLASSES))]
        return Net(self.build.model("net", inputs, outputs), sample_shape)


def inverted_residuals() -> Net:
    w = Writer()
    wide = w.relu6(w.norm(w.pointwise("input", 8, 24, bias=False), 24))
    wide = w.relu6(w.norm(w.depthwise(wide, 24, bias=False), 24))
    x = w.op("Add", "input", w.norm(w.pointwise(wide, 24, 8, bias=False), 8))
    wide = w.relu6(w.norm(w.pointwise(x, 8, 24), 24))
    wide = w.relu6(w.depthwise(wide, 24, stride=2))
    return w.head(w.pointwise(wide, 24, 12), 12, (8, 6, 5))


def wide_maps() -> Net:
    """Maps so large that the kernel's rows are taps."""
    w = Writer()
    x = w.op("Relu", w.depthwise(w.pointwise("input", 3, 8), 8))
    x = w.op("HardSwish", w.depthwise(x, 8, stride=2))
    x = w.depthwise(x, 8, stride=3, pads=[0, 2, 1, 0])
    return w.head(w.pointwise(x, 8, 6), 6, (3, 18, 16))


def sensor() -> Net:
    """One axis, dilated."""
    w = Writer()
    x = w.op("Relu", w.conv("input", 4, 8, (1,)))
    x = w.op("Relu", w.conv(x, 8, 8, (3,), group=8, pads=[4, 0], dilations=[2]))
    x = w.op("Relu", w.conv(x, 8, 8, (5,), group=8, strides=[2], auto_pad="SAME_UPPER"))
    return w.head(w.conv(x, 8, 8, (1,)), 8, (4, 20))


def elementwise() -> Net:
    """All forms that compute nothing dear, between two that pay for them."""
    w = Writer()
    x = w.norm(w.op("Sigmoid", w.pointwise("input", 6, 8)), 8)
    x = w.op("Mul", w.parameter(8, 1, 1), x)
    x = w.op("Sub", w.op("Add", x, w.parameter(1)), w.parameter(1, 8, 1, 1))
    x = w.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = w.op("AveragePool", w.op("Tanh", x), kernel_shape=[2, 2], strides=[2, 2])
    return w.head(w.op("Div", w.pointwise(x, 8, 8), w.parameter(8, 1, 1)), 8, (6, 8, 8))


def mixed() -> Net:
    """Stretches with borders: dense convolutions, an attention branch, a tensor with readers on both sides."""
    w = Writer()
    x = w.op("Relu", w.norm(w.conv("input", 3, 8, (3, 3), pads=[1] * 4, strides=[2, 2]), 8))
    wide = w.op("Relu", w.pointwise(x, 8, 16))
    gate = w.op("HardSigmoid", w.pointwise(w.op("GlobalAveragePool", wide), 16, 16))
    wide = w.op("Mul", w.depthwise(wide, 16), gate)
    narrow = w.pointwise(wide, 16, 8)
    x = w.op("Concat", narrow, w.conv(narrow, 8, 8, (3, 3), pads=[1] * 4), axis=1)
    return w.head(w.norm(x, 16), 16, (3, 12, 12))


def without_last_pool() -> Net:
    """A stretch that ends in a Flatten of maps."""
    w = Writer()
    x = w.op("Relu", w.depthwise(w.pointwise("input", 4, 8), 8))
    flat = w.op("Flatten", x)
    w.op("Gemm", flat, w.parameter(8 * 25, CLASSES), output="logits")
    return w.net((4, 5, 5))


NETS: Sequence[Callable[[], Net]] = (inverted_residuals, wide_maps, sensor, elementwise, mixed, without_last_pool)


@pytest.mark.parametrize("write", NETS)
def test_loss_and_gradients_are_those_of_the_plain_graph(write: Callable[[], Net]) -> None:
    net = write()
    assert_same_gradients(net, *net.parameters)


@pytest.mark.parametrize("write", NETS)
@pytest.mark.parametrize(
    "part", [slice(0, 2), slice(-4, None), slice(0, None, 3)], ids=["first", "last", "every third"]
)
def test_so_they_are_when_a_part_trains(write: Callable[[], Net], part: slice) -> None:
    net = write()
    assert_same_gradients(net, *net.parameters[part])


def assert_same_gradients(net: Net, *trainable: str) -> None:
    plain = net.step(*trainable, lowered=False, with_gradient=True)
    lowered = net.step(*trainable, lowered=True, with_gradient=True)
    assert lowered.layout == plain.layout
    expected, found = (outputs(net, step, net.batch()) for step in (plain, lowered))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for slot in plain.layout.slots:
        gradient, reference = (some[GRADIENT][slot.offset : slot.end] for some in (found, expected))
        np.testing.assert_allclose(gradient, reference, atol=1e-5 * np.abs(reference).max() + 1e-9)


def outputs(net: Net, step: TrainStep, batch: Batch) -> dict[str, F32]:
    theta = theta_of(net.model, step.layout)
    session = OnnxTrainSession(step.model.SerializeToString(), OptimizerState.fresh(theta, step.slots))
    scalars = {**TERMS, "prox": 0.0, "max_norm": 0.0, "step": 1.0}
    feed = {name: getattr(batch, name) for name in Batch.__slots__}
    feed |= {name: np.array(content, np.float32) for name, content in scalars.items()}
    feed |= {"theta": theta, "reference": theta, **{slot: np.zeros_like(theta) for slot in step.slots}}
    return dict(session.compute(feed))


class TestAgainstTorch:
    """An oracle that we did not write."""

    def test_twenty_adamw_steps_follow_the_same_loss_curve(self) -> None:
        torch = pytest.importorskip("torch", reason="torch is not installed: this oracle is optional")
        torch.set_num_threads(1)
        net = inverted_residuals()
        step = net.step(lowered=True, weight_decay=0.01)
        theta = theta_of(net.model, step.layout)
        session = OnnxTrainSession(step.model.SerializeToString(), OptimizerState.fresh(theta, step.slots))
        stored = {t.name: onnx.numpy_helper.to_array(t) for t in net.model.graph.initializer}
        weights = {
            name: torch.tensor(content, requires_grad=name in net.parameters) for name, content in stored.items()
        }
        adamw = torch.optim.AdamW(
            [weights[name] for name in net.parameters], lr=TERMS["learning_rate"], weight_decay=0.01
        )
        for seed in range(20):
            batch = net.batch(seed)
            adamw.zero_grad()
            loss = torch_loss(torch, torch_logits(torch, net.model, weights, batch.features), batch)
            loss.backward()
            adamw.step()
            assert session.run(batch, **TERMS) == pytest.approx(loss.item(), abs=1e-4)


def torch_logits(torch: object, model: onnx.ModelProto, weights: dict[str, object], features: F32) -> object:
    """The few ops of `inverted_residuals`, node by node."""
    F, known = torch.nn.functional, {**weights, "input": torch.tensor(features)}
    for node in model.graph.node:
        x, *others = (known[name] for name in node.input)
        how = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        match node.op_type:
            case "Conv":
                bias = others[1] if len(others) > 1 else None
                settings = {"stride": how.get("strides", 1), "groups": how.get("group", 1)}
                y = F.conv2d(x, others[0], bias, padding=how.get("pads", [0])[0], **settings)
            case "BatchNormalization":
                scale, shift, mean, variance = others
                y = F.batch_norm(x, mean, variance, scale, shift, training=False, eps=1e-5)
            case "Clip":
                y = F.relu6(x)
            case "Add":
                y = x + others[0]
            case "GlobalAveragePool":
                y = x.mean(dim=(2, 3), keepdim=True)
            case "Flatten":
                y = x.flatten(1)
            case "Gemm":
                y = x @ others[0] + others[1]
        known[node.output[0]] = y
    return known["logits"]


def torch_loss(torch: object, logits: object, batch: Batch) -> object:
    F, T = torch.nn.functional, TERMS["temperature"]
    alpha, weight = torch.tensor(batch.alpha), torch.tensor(batch.weight)
    label = F.cross_entropy(logits, torch.tensor(batch.labels), reduction="none")
    soft = F.cross_entropy(logits / T, torch.tensor(batch.targets), reduction="none")
    return (weight * (alpha * label + (1 - alpha) * T * T * soft)).sum() / weight.sum()


def test_a_step_takes_any_batch_whatever_it_was_made_for() -> None:
    net = inverted_residuals()
    batch = net.batch()
    alone = Batch(*(getattr(batch, name)[:1] for name in Batch.__slots__))
    for rows in (1, 64):
        step, plain = (net.step(lowered=lowered, batch_rows=rows, with_gradient=True) for lowered in (True, False))
        for some in (alone, batch):
            expected = outputs(net, plain, some)[GRADIENT]
            np.testing.assert_allclose(outputs(net, step, some)[GRADIENT], expected, atol=1e-5 * np.abs(expected).max())


def test_rows_of_weight_zero_change_nothing() -> None:
    net = inverted_residuals()
    step = net.step(lowered=True, with_gradient=True)
    batch = net.batch()
    bare = Batch(*(getattr(batch, name)[:4] for name in Batch.__slots__))
    padded = replace(batch, weight=np.where(np.arange(ROWS) < 4, batch.weight, 0).astype(np.float32))
    expected = outputs(net, step, bare)[GRADIENT]
    np.testing.assert_allclose(outputs(net, step, padded)[GRADIENT], expected, atol=1e-6)


class TestWhatIsLowered:
    def test_a_block_of_small_maps_has_no_convolution_left(self) -> None:
        ops = inverted_residuals().ops()
        assert not {"Conv", "BatchNormalization"} & ops.keys()
        assert ops["Gemm"] == 4 + 1  # two expansions, two projections and the head

    def test_a_stretch_is_transposed_at_its_borders_only(self) -> None:
        ops = inverted_residuals().ops()
        borders = 1 + 1  # its input, and the pooled output
        assert ops["Transpose"] - borders == 2  # weights of the projections

    def test_rows_of_a_wide_map_are_taps(self) -> None:
        ops = wide_maps().ops(rows=32)
        assert ops["Slice"]
        assert "Conv" not in ops

    def test_a_dense_convolution_stays_one(self) -> None:
        w = Writer()
        x = w.op("Relu", w.conv("input", 3, 8, (3, 3), pads=[1] * 4))
        assert w.head(w.conv(x, 8, 8, (3, 3), pads=[1] * 4), 8, (3, 8, 8)).ops()["Conv"] == 2

    @pytest.mark.parametrize("how", [{"strides": [2, 2]}, {"pads": [1] * 4}, {"strides": [3, 3], "pads": [1] * 4}])
    def test_a_1x1_convolution_that_skips_or_pads_stays_one(self, how: dict[str, list[int]]) -> None:
        w = Writer()
        net = w.head(w.pointwise(w.pointwise("input", 3, 8), 8, 8, **how), 8, (3, 1, 1))
        assert net.ops()["Conv"] >= 1
        assert_same_gradients(net, *net.parameters)

    def test_a_stretch_that_its_borders_would_cost_more_than_it_saves_stays(self) -> None:
        w = Writer()
        dense = {"kernel": (3, 3), "pads": [1] * 4}
        x = w.pointwise(w.conv("input", 3, 8, **dense), 8, 32)
        assert w.head(w.conv(x, 32, 8, **dense), 8, (3, 8, 8)).ops()["Conv"] == 3

    def test_a_huge_map_stays_a_convolution(self) -> None:
        w = Writer()
        assert w.head(w.depthwise("input", 4), 4, (4, 512, 512)).ops()["Conv"] == 1

    def test_what_is_frozen_stays_as_it_is(self) -> None:
        """onnxruntime prepares constant weights: before anything trains, no product is faster."""
        net = inverted_residuals()
        head = net.parameters[-2:]
        assert net.ops(*head) == Counter(node.op_type for node in net.model.graph.node)

    def test_a_normalisation_of_two_readers_stays(self) -> None:
        w = Writer()
        conv = w.conv("input", 3, 8, (3, 3), pads=[1] * 4)
        net = w.head(w.op("Add", w.norm(conv, 8), conv), 8, (3, 8, 8))
        assert net.ops()["BatchNormalization"] == 1
        assert_same_gradients(net, *net.parameters)


extents = st.integers(1, 9)


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    axes = []
    for _ in range(draw(st.integers(1, 2))):
        extent, kernel, stride, dilation = draw(extents), draw(st.integers(1, 3)), draw(st.integers(1, 3)), 1
        dilation = draw(st.integers(1, 2))
        begin, end = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        room = extent + begin + end - dilation * (kernel - 1) - 1
        if room < 0:
            extent, room = extent - room, 0
        axes.append((kernel, stride, dilation, extent, room // stride + 1, begin))
    return Windows(*zip(*axes, strict=True))


@settings(max_examples=60, deadline=None)
@given(windows())
def test_the_basis_says_for_each_tap_which_place_goes_where(window: Windows) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=window.extents), rng.normal(size=window.kernel)
    S = basis(window)
    y = x.ravel() @ np.tensordot(w.ravel(), S, axes=1)
    expected = np.zeros(window.outputs)
    for place in np.ndindex(*window.outputs):
        for tap in np.ndindex(*window.kernel):
            axes = zip(place, tap, window.strides, window.dilations, window.begins, strict=True)
            read = [p * s + t * d - b for p, t, s, d, b in axes]
            if all(0 <= r < e for r, e in zip(read, window.extents, strict=True)):
                expected[place] += w[tap] * x[tuple(read)]
    np.testing.assert_allclose(y.reshape(window.outputs), expected, atol=1e-12)
