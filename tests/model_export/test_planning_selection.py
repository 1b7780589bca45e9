"""What trains is what was asked for, or the most that a budget allows, and nothing that is part of a formula."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import Batch, OptimizerState
from fd_runtime.models.onnx_model import OnnxGraph, OnnxTrainSession
from model_export.families import build_family
from model_export.forward import ForwardModel
from model_export.graph import GraphBuilder, live_nodes, tensor
from model_export.planning import liveness
from model_export.planning.blocks import blocks_of, cut_points
from model_export.planning.plan import Plan
from model_export.planning.profiles import PROFILES
from model_export.planning.selection import Budget, Layers, OverBudgetError, parse_layers, select
from model_export.surgery import open_graph, theta_of, with_theta

IMAGES = (3, 16, 16)
FAMILIES = [("mlp-s", (20,)), ("cnn-s", IMAGES), ("dw-s", IMAGES), ("conv1d-s", (3, 64)), ("tab-s", (20,))]


@pytest.fixture(scope="module")
def cnn() -> ForwardModel:
    return build_family("cnn-s", IMAGES, 10, 0)


@pytest.fixture(scope="module")
def depthwise() -> ForwardModel:
    return build_family("dw-s", IMAGES, 10, 0)


def planned(forward: ForwardModel, text: str, rows: int = 16) -> Plan:
    return select(forward, parse_layers(text), batch_rows=rows, optimizer="adam")


# ---- where a model can be cut -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "shape"), FAMILIES)
def test_no_path_goes_around_a_cut_point(family: str, shape: tuple[int, ...]) -> None:
    model = build_family(family, shape, 10, 0).model
    graph = open_graph(model)
    points = cut_points(model)
    assert points
    for point in points:
        behind = live_nodes(graph.nodes, ["logits"], given=[point])
        assert "input" not in {name for node in behind for name in node.input}
    makers = {name: place for place, node in enumerate(graph.nodes) for name in node.output}
    assert sorted(points, key=makers.__getitem__) == list(points)


def test_every_tensor_that_all_paths_pass_is_a_cut_point(cnn: ForwardModel) -> None:
    """A plain chain can be cut behind each of its layers."""
    outputs = [name for node in cnn.model.graph.node for name in node.output]
    assert list(cut_points(cnn.model)) == outputs[:-1]


def residual() -> ForwardModel:
    """input -> stem -> x; x -> 1x1 convolution -> + x -> Relu -> mean -> head."""
    build, rng = GraphBuilder({"input"}), np.random.default_rng(0)

    def parameter(name: str, *shape: int) -> str:
        return build.parameter(name, rng.normal(size=shape).astype(np.float32))

    x = build.op("Conv", "input", parameter("stem.weight", 4, 3, 3, 3), parameter("stem.bias", 4), output="stem")
    y = build.op("Conv", x, parameter("mixing.weight", 4, 4, 1, 1), output="mixed")
    y = build.op("Relu", build.op("Add", x, y, output="sum"), output="rectified")
    flat = build.op("Flatten", build.op("GlobalAveragePool", y), output="pooled")
    build.op("Gemm", flat, parameter("head.weight", 4, 5), parameter("head.bias", 5), output="logits")
    inputs, outputs = [tensor("input", ("N", *IMAGES))], [tensor("logits", ("N", 5))]
    return ForwardModel(build.model("residual", inputs, outputs), "")


def test_a_residual_is_one_block_that_cannot_be_cut_inside() -> None:
    model = residual()
    assert "mixed" not in cut_points(model.model)
    assert [(block.name, block.begin) for block in blocks_of(model)] == [
        ("stem", ""),
        ("mixing", "stem"),
        ("head", "pooled"),
    ]


def test_features_have_their_rows_first_and_are_float() -> None:
    build = GraphBuilder({"input"})
    turned = build.op("Transpose", build.op("Cast", "input", to=TensorProto.FLOAT), perm=[1, 0], output="turned")
    back = build.op("Transpose", build.op("Relu", turned, output="rows last"), perm=[1, 0], output="back")
    build.op("Gemm", back, build.parameter("w", np.ones((6, 3), np.float32)), output="logits")
    inputs, outputs = [tensor("input", ("N", 6), TensorProto.INT32)], [tensor("logits", ("N", 3))]
    assert cut_points(build.model("m", inputs, outputs)) == ("Cast.0", "back")


# ---- what it is made of -------------------------------------------------------------------------------------------


def test_a_layer_goes_with_its_normalisation_and_activation(depthwise: ForwardModel) -> None:
    stem, *_, head = blocks_of(depthwise)
    assert [(p.name, p.role) for p in stem.parameters] == [
        ("stem.weight", "weight"),
        ("stem.scale", "scale"),
        ("stem.shift", "bias"),
    ]
    assert head.name == "tail2"
    assert head.begin == "tail1.relu"


@pytest.mark.parametrize(("family", "shape"), FAMILIES)
def test_the_blocks_hold_every_parameter_of_a_family_once(family: str, shape: tuple[int, ...]) -> None:
    forward = build_family(family, shape, 10, 0)
    names = [parameter.name for block in blocks_of(forward) for parameter in block.parameters]
    assert sorted(names) == sorted(forward.parameters)


def test_bounds_masks_exponents_and_statistics_are_no_parameters() -> None:
    build = GraphBuilder({"input"})

    def parameter(name: str, content: object) -> str:
        return build.parameter(name, np.asarray(content, np.float32))

    x = build.op("Clip", "input", parameter("low", 0.0), parameter("high", 6.0))
    x = build.op("Pow", x, parameter("exponents", [1.0, 2.0, 1.0, 2.0]))
    x = build.op("Add", x, parameter("mask", [0.0, 0.0, -1e9, 0.0]))
    statistics = [parameter(name, np.ones(4)) for name in ("scale", "shift", "mean", "variance")]
    x = build.op("BatchNormalization", x, *statistics)
    weight = build.op("Transpose", parameter("weight", np.ones((3, 4))), perm=[1, 0])
    build.op("Add", build.op("MatMul", x, weight), parameter("bias", np.zeros(3)), output="logits")
    model = build.model("m", [tensor("input", ("N", 4))], [tensor("logits", ("N", 3))])
    parameters = [p for block in blocks_of(ForwardModel(model, "")) for p in block.parameters]
    assert [(p.name, p.role) for p in parameters] == [
        ("scale", "scale"),
        ("shift", "bias"),
        ("weight", "weight"),
        ("bias", "bias"),
    ]


# ---- named choices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("head", Layers(1)),
        ("last 3", Layers(3)),
        ("biases", Layers(None, biases_only=True)),
        ("biases of last 2", Layers(2, biases_only=True)),
        ("everything", Layers(None)),
    ],
)
def test_a_choice_is_written_as_it_is_read(text: str, layers: Layers) -> None:
    assert parse_layers(text) == layers
    assert str(layers) == text


def test_spaces_of_a_choice_do_not_matter() -> None:
    assert parse_layers("  biases of  last   2 ") == Layers(2, biases_only=True)


@pytest.mark.parametrize("text", ["", "tail", "last", "last 0", "last -1", "last 2 blocks", "biases of 2", "Head"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_layers(text)


def test_a_model_has_no_more_blocks_than_it_has(cnn: ForwardModel) -> None:
    with pytest.raises(InvalidValueError, match="'last 6' cannot train: the model has 5 blocks"):
        planned(cnn, "last 6")


@pytest.mark.parametrize(
    ("text", "features", "trainable"),
    [
        ("head", "tail1.relu", "tail2.weight tail2.bias"),
        ("last 2", "embedding", "tail1.weight tail1.bias tail2.weight tail2.bias"),
        ("biases of last 3", "conv2/Flatten.0", "embed.bias tail1.bias tail2.weight tail2.bias"),
        ("biases", "", "conv1.bias conv2.bias embed.bias tail1.bias tail2.weight tail2.bias"),
    ],
)
def test_a_choice_trains_what_it_says(cnn: ForwardModel, text: str, features: str, trainable: str) -> None:
    plan = planned(cnn, text)
    assert plan.forward.features == features
    assert plan.trainable == tuple(trainable.split())


def test_everything_leaves_no_backbone(cnn: ForwardModel) -> None:
    plan = planned(cnn, "everything")
    assert plan.trainable == cnn.parameters
    assert plan.forward.features == ""
    assert plan.feature_bytes == 0


@pytest.mark.parametrize("text", ["head", "last 2", "last 4", "last 7"])
def test_backbone_and_tail_are_the_model(depthwise: ForwardModel, text: str) -> None:
    forward = planned(depthwise, text).forward
    samples = np.random.default_rng(0).normal(size=(3, *IMAGES)).astype(np.float32)
    whole = OnnxGraph(forward.model.SerializeToString()).run({"input": samples})["logits"]
    features = OnnxGraph(forward.backbone().SerializeToString()).run({"input": samples})
    logits = OnnxGraph(forward.tail().SerializeToString()).run(features)["logits"]
    np.testing.assert_allclose(logits, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["head", "biases of last 3", "last 3", "biases", "everything"])
def test_the_planned_step_learns_and_leaves_the_frozen_part_alone(cnn: ForwardModel, text: str) -> None:
    plan = select(cnn, parse_layers(text), batch_rows=8, optimizer="adam", int8=False)
    theta = theta_of(plan.forward.model, plan.step.layout)
    session = OnnxTrainSession(plan.step.model.SerializeToString(), OptimizerState.fresh(theta, plan.step.slots))
    (batch,) = batches(plan, 1)
    losses = [session.run(batch, learning_rate=0.01, temperature=1.0) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    trained = with_theta(plan.forward.model, plan.step.layout, session.state.theta)
    changed = {
        old.name
        for old, new in zip(plan.forward.model.graph.initializer, trained.graph.initializer, strict=True)
        if old != new
    }
    assert changed <= set(plan.trainable)
    assert len(changed) >= 2


def batches(plan: Plan, count: int) -> Iterator[Batch]:
    rng = np.random.default_rng(3)
    shape = [d.dim_value for d in plan.step.model.graph.input[0].type.tensor_type.shape.dim[1:]]
    for _ in range(count):
        yield Batch(
            features=rng.normal(size=(plan.batch_rows, *shape)).astype(np.float32),
            labels=rng.integers(0, 10, plan.batch_rows),
            targets=np.full((plan.batch_rows, 10), 0.1, np.float32),
            alpha=np.ones(plan.batch_rows, np.float32),
            weight=np.ones(plan.batch_rows, np.float32),
        )


def test_a_quantised_backbone_hands_over_a_byte_for_a_number(cnn: ForwardModel) -> None:
    codes, numbers = (
        select(cnn, Layers(2), batch_rows=16, optimizer="sgd", int8=int8).feature_bytes for int8 in (True, False)
    )
    assert (codes, numbers) == (64, 256)


# ---- what it costs ------------------------------------------------------------------------------------------------


def test_more_layers_cost_more(cnn: ForwardModel) -> None:
    plans = [planned(cnn, text) for text in ("head", "last 2", "last 3", "last 4", "everything")]
    for costs in (
        [plan.trainable_bytes for plan in plans],
        [plan.peak_bytes for plan in plans],
        [plan.train_flops for plan in plans],
        [plan.milliseconds["pi-4"] for plan in plans],
    ):
        assert costs == sorted(set(costs))


def test_biases_cost_less_than_their_layers(cnn: ForwardModel) -> None:
    biases, layers = planned(cnn, "biases of last 4"), planned(cnn, "last 4")
    assert biases.train_flops < layers.train_flops
    assert biases.peak_bytes < layers.peak_bytes


def test_a_manifest_hears_of_one_sample(cnn: ForwardModel) -> None:
    plan = planned(cnn, "last 3", rows=16)
    assert plan.costs.inference_flops == plan.inference_flops
    assert plan.costs.train_flops * 16 == pytest.approx(plan.train_flops, abs=16)
    assert plan.costs.train_peak_bytes == plan.peak_bytes


def test_the_table_names_blocks_totals_and_devices(cnn: ForwardModel) -> None:
    table = planned(cnn, "last 2").table()
    assert "last 2" in table.splitlines()[0]
    assert any(line.split() == ["conv1", "224", "0"] for line in table.splitlines())
    assert any(line.split() == ["tail1", "3,120", "3,120"] for line in table.splitlines())
    assert all(name in table for name in PROFILES)
    assert len({len(line) for line in table.splitlines() if line.startswith(("conv1", "tail1", "embed"))}) == 1


# ---- budgets ------------------------------------------------------------------------------------------------------


def choices(forward: ForwardModel) -> list[Plan]:
    count = len(blocks_of(forward))
    whole = [Layers(last) for last in range(1, count)] + [Layers(None)]
    biases = [Layers(last, biases_only=True) for last in range(2, count)] + [Layers(None, biases_only=True)]
    return [select(forward, layers, batch_rows=16, optimizer="adam") for layers in whole + biases]


def test_a_budget_takes_the_most_parameters_that_fit(cnn: ForwardModel) -> None:
    plans = choices(cnn)
    for limit in plans[::3]:
        budget = Budget(limit.peak_bytes, limit.milliseconds["pi-5"], "pi-5")
        chosen = select(cnn, budget, batch_rows=16, optimizer="adam")
        fitting = [
            p for p in plans if p.peak_bytes <= limit.peak_bytes and p.milliseconds["pi-5"] <= budget.milliseconds
        ]
        assert chosen.trainable_bytes == max(plan.trainable_bytes for plan in fitting)
        assert budget.holds(chosen)


def test_time_limits_as_memory_does(cnn: ForwardModel) -> None:
    wide = select(cnn, Budget(10**8, 1e6, "pi-4"), batch_rows=16, optimizer="adam")
    narrow = select(cnn, Budget(10**8, wide.milliseconds["pi-4"] * 0.9, "pi-4"), batch_rows=16, optimizer="adam")
    assert wide.what == "everything"
    assert narrow.trainable_bytes < wide.trainable_bytes


def test_where_nothing_fits_the_least_need_is_said(cnn: ForwardModel) -> None:
    head = planned(cnn, "head")
    with pytest.raises(OverBudgetError, match="'head' at 16 rows, takes") as caught:
        select(cnn, Budget(head.peak_bytes - 1, 1000.0, "pi-zero-2w"), batch_rows=16, optimizer="adam")
    assert caught.value.least.what == "head"
    assert "8 rows at a time would fit the memory" in str(caught.value)


def test_fewer_rows_at_a_time_fit_less_memory(cnn: ForwardModel) -> None:
    plan = planned(cnn, "last 4", rows=32)
    assert plan.rows_within(plan.peak_bytes) == 32
    rows = plan.rows_within(plan.peak_bytes * 2 // 3)
    assert 0 < rows < 32
    assert liveness.plan(plan.step.model, rows).peak_bytes <= plan.peak_bytes * 2 // 3
    assert liveness.plan(plan.step.model, 2 * rows).peak_bytes > plan.peak_bytes * 2 // 3
    assert plan.rows_within(100) == 0


def test_the_search_stops_where_gradients_are_unknown() -> None:
    build = GraphBuilder({"input"})
    first = build.op("Gemm", "input", build.parameter("first", np.ones((4, 4), np.float32)))
    rounded = build.op("Ceil", first)
    build.op("Gemm", rounded, build.parameter("second", np.ones((4, 3), np.float32)), output="logits")
    model = build.model("m", [tensor("input", ("N", 4))], [tensor("logits", ("N", 3))])
    plan = select(ForwardModel(model, ""), Budget(10**8, 1e6, "x86"), batch_rows=4, optimizer="sgd")
    assert plan.trainable == ("second",)


def test_a_budget_is_of_a_known_device_and_within_its_memory() -> None:
    with pytest.raises(InvalidValueError, match="not one of"):
        Budget(10**6, 10.0, "abacus")
    with pytest.raises(InvalidValueError, match="memory"):
        Budget(10**12, 10.0, "pi-zero-2w")
    with pytest.raises(InvalidValueError):
        Budget(10**6, 0.0, "pi-4")


def test_a_choice_can_be_made_of_any_onnx_model() -> None:
    """Nameless nodes, a `Constant` node and an open extent beside the batch's are no hindrance."""
    nodes = [
        onnx.helper.make_node("Constant", [], ["shape"], value_ints=[0, 12]),
        onnx.helper.make_node("Reshape", ["input", "shape"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w1"], ["hidden"]),
        onnx.helper.make_node("Tanh", ["hidden"], ["active"]),
        onnx.helper.make_node("MatMul", ["active", "w2"], ["logits"]),
    ]
    weights = [onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in (("w1", (12, 6)), ("w2", (6, 3)))]
    graph = onnx.helper.make_graph(
        nodes, "g", [tensor("input", ("batch", 3, 4))], [tensor("logits", ("batch", 3))], weights
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    plan = planned(ForwardModel(model, ""), "head")
    assert plan.forward.features == "active"
    assert plan.trainable == ("w2",)
