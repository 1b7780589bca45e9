"""The planned memory of a graph is what onnxruntime allocates, byte for byte and node by node."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.model import OptimizerState
from fd_runtime.models.onnx_model import OnnxTrainSession
from model_export.families import build_family
from model_export.graph import GraphBuilder, tensor
from model_export.planning import liveness
from model_export.planning.schedule import execution_order
from model_export.planning.selection import parse_layers, select
from model_export.surgery import open_graph, theta_of

Timeline = tuple[tuple[str, int], ...]

IMAGES, WINDOWS = (3, 16, 16), (3, 64)
STEPS = [
    ("mlp-m", (20,), "everything"),
    ("cnn-s", IMAGES, "head"),
    ("cnn-s", IMAGES, "last 2"),
    ("cnn-s", IMAGES, "biases of last 4"),
    ("cnn-m", IMAGES, "everything"),
    ("dw-s", IMAGES, "last 4"),
    ("dw-s", IMAGES, "biases"),
    ("dw-m", IMAGES, "everything"),
    ("conv1d-m", WINDOWS, "last 3"),
    ("conv1d-s", WINDOWS, "everything"),
]


def measured(model: onnx.ModelProto, rows: int, folder: Path) -> Timeline:
    """Bytes that onnxruntime has allocated beside the constants after each node, opened as a device opens a step."""
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, some_inputs(model, rows))
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    first = ran[0]["args"]
    constants = int(first["mem_bytes_requested_in_use"]) - int(first["mem_requested_in_use_delta"])
    return tuple(
        (event["name"].removesuffix("_kernel_time"), int(event["args"]["mem_bytes_requested_in_use"]) - constants)
        for event in ran
    )


def some_inputs(model: onnx.ModelProto, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = {}
    for info in model.graph.input:
        kind = info.type.tensor_type
        shape = [dimension.dim_value or rows for dimension in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        inputs[info.name] = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    return inputs


@pytest.mark.parametrize("rows", [3, 32])
@pytest.mark.parametrize(("family", "shape", "what"), STEPS, ids=str)
def test_a_train_step_takes_the_planned_bytes_at_every_node(
    family: str, shape: tuple[int, ...], what: str, rows: int, tmp_path: Path
) -> None:
    plan = select(build_family(family, shape, 10, 0), parse_layers(what), batch_rows=rows, optimizer="adam")
    assert plan.memory.timeline == measured(plan.step.model, rows, tmp_path)


def test_weight_decay_is_in_the_plan(tmp_path: Path) -> None:
    """It holds a copy of theta for a while."""
    rows, forward = 8, build_family("mlp-l", (256,), 10, 0)
    terms = {"batch_rows": rows, "optimizer": "adam"}
    bare, decaying = (select(forward, parse_layers("everything"), **terms, weight_decay=decay) for decay in (0.0, 0.01))
    assert decaying.peak_bytes > bare.peak_bytes
    assert decaying.memory.timeline == measured(decaying.step.model, rows, tmp_path)


def test_devices_open_a_train_step_as_the_plan_takes_for_granted() -> None:
    plan = select(build_family("cnn-s", IMAGES, 10, 0), parse_layers("head"), batch_rows=8, optimizer="sgd")
    theta = theta_of(plan.forward.model, plan.step.layout)
    session = OnnxTrainSession(plan.step.model.SerializeToString(), OptimizerState.fresh(theta, plan.step.slots))
    options = session._session.get_session_options()
    assert options.graph_optimization_level == GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"
    assert not options.enable_mem_pattern


@pytest.mark.parametrize("seed", range(40))
def test_any_graph_takes_the_planned_bytes_at_every_node(seed: int, tmp_path: Path) -> None:
    model = some_graph(np.random.default_rng(seed))
    assert liveness.plan(model, 5).timeline == measured(model, 5, tmp_path)


def some_graph(rng: np.random.Generator) -> onnx.ModelProto:
    """Thirty nodes on tensors [N, 4] and [N, 8], some of which nobody reads."""
    build = GraphBuilder({"x"})
    widths = {"x": 4}
    weights = {
        (a, b): build.parameter(f"w{a}{b}", rng.normal(size=(a, b)).astype(np.float32)) for a in (4, 8) for b in (4, 8)
    }
    for _ in range(30):
        name = str(rng.choice(list(widths)))
        width = widths[name]
        alike = str(rng.choice([other for other in widths if widths[other] == width]))
        match rng.integers(8):
            case 0 | 1:
                widths[build.op(str(rng.choice(["Relu", "Tanh", "Softmax", "Sigmoid"])), name)] = width
            case 2:
                widths[build.op(str(rng.choice(["Exp", "Neg", "Erf"])), name)] = width
            case 3 | 4:
                widths[build.op(str(rng.choice(["Add", "Mul", "Sum"])), name, alike)] = width
            case 5:
                target = int(rng.choice([4, 8]))
                widths[build.op("MatMul", name, weights[width, target])] = target
            case 6:
                shape = build.constant([0, 2, width // 2], np.int64)
                widths[build.op("Flatten", build.op("Reshape", name, shape), axis=1)] = width
            case _:
                both = build.op("Concat", name, alike, axis=1)
                widths |= dict.fromkeys(build.ops("Split", both, outputs=["", ""], num_outputs=2, axis=1), width)
    names = [str(name) for name in rng.choice([name for name in widths if name != "x"], 3, replace=False)]
    return build.model("some", [tensor("x", ("N", 4))], [tensor(name, ("N", widths[name])) for name in names])


def written(*nodes: tuple[str, list[str], str], outputs: list[str]) -> onnx.ModelProto:
    build = GraphBuilder({"x"})
    for op, inputs, output in nodes:
        build.op(op, *inputs, output=output)
    return build.model("m", [tensor("x", ("N", 16))], [tensor(name, ("N", 16)) for name in outputs])


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        *((op, 1) for op in ("Clip", "Elu", "HardSigmoid", "LeakyRelu", "LogSoftmax", "Relu", "Selu", "Sigmoid")),
        *((op, 1) for op in ("Softmax", "Softplus", "Softsign", "Tanh")),
        *((op, 2) for op in ("Abs", "Erf", "Exp", "Log", "Neg", "Sqrt", "Reciprocal")),
    ],
)
def test_an_op_takes_new_memory_exactly_where_onnxruntime_does(op: str, expected: int, tmp_path: Path) -> None:
    model = written(("Neg", ["x"], "a"), (op, ["a"], "b"), ("Neg", ["b"], "c"), outputs=["c"])
    assert liveness.plan(model, 2).timeline == measured(model, 2, tmp_path)
    assert liveness.plan(model, 2).timeline[1][1] == expected * 2 * 16 * 4


def test_an_activation_whose_input_is_read_again_takes_new_memory() -> None:
    model = written(("Neg", ["x"], "a"), ("Relu", ["a"], "b"), ("Mul", ["a", "b"], "c"), outputs=["c"])
    assert [size for _, size in liveness.plan(model, 1).timeline] == [64, 128, 192]


def test_the_plan_adds_what_the_caller_hands_over_and_what_the_graph_stores() -> None:
    build = GraphBuilder({"x"})
    build.op("Add", "x", build.constant(np.ones(16)), output="y")
    model = build.model("m", [tensor("x", ("N", 16), TensorProto.FLOAT)], [tensor("y", ("N", 16))])
    plan = liveness.plan(model, 10)
    assert (plan.input_bytes, plan.parameter_bytes, plan.activation_bytes) == (640, 64, 640)
    assert plan.peak_bytes == 1344
    assert plan.peak_node == "Add"


def test_an_update_written_later_runs_earlier() -> None:
    """Depth-first from the leaf that is stored last: so an update runs right behind its own gradient."""
    model = written(("Neg", ["x"], "a"), ("Exp", ["a"], "first"), ("Abs", ["a"], "second"), outputs=["first", "second"])
    assert [node.op_type for node in execution_order(open_graph(model).nodes)] == ["Neg", "Abs", "Exp"]


def test_a_batch_has_at_least_one_row() -> None:
    with pytest.raises(InvalidValueError, match="0 rows"):
        liveness.plan(written(("Neg", ["x"], "y"), outputs=["y"]), 0)
