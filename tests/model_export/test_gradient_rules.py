"""The registry of gradient rules: what is in it, what needs no rule, and what is refused with a way out."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from model_export.graph import GraphBuilder, tensor
from model_export.trainstep import UnsupportedOpError, compile_train_step
from model_export.trainstep.autodiff import rules
from tests.support.gradients import Case, Write, agree, parameter, step_of

LISTED = [
    "MatMul", "Gemm", "Conv", "ConvTranspose", "BatchNormalization", "LayerNormalization", "InstanceNormalization",
    "Add", "Sub", "Mul", "Div", "Neg", "Exp", "Log", "Sqrt", "Pow", "Abs", "Reciprocal", "Erf", "Max", "Min", "Sum",
    "Where", "Identity", "Dropout", "Cast", "Relu", "LeakyRelu", "Elu", "Softplus", "Clip", "Sigmoid", "Tanh",
    "HardSigmoid", "HardSwish", "Softmax", "LogSoftmax", "MaxPool", "AveragePool", "GlobalAveragePool",
    "GlobalMaxPool", "Resize", "ReduceMean", "ReduceSum", "ReduceMax", "Gather", "Reshape", "Flatten", "Squeeze",
    "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Pad", "Expand", "GRU",
]  # fmt: skip
TESTED = {"activations", "arithmetic", "convolution", "dense", "normalisation"} | {
    "pooling", "recurrent", "reduction", "selection", "shaping",
}  # fmt: skip
"""The modules whose rules the other files of this name put against central differences, each rule with a case."""


@pytest.mark.parametrize("op", LISTED)
def test_an_op_of_the_list_has_a_rule(op: str) -> None:
    assert op in rules()


def test_every_module_of_rules_is_tested() -> None:
    assert {rule.__module__.rpartition(".")[2] for rule in rules().values()} == TESTED


@pytest.mark.parametrize("op", sorted(rules()))
def test_a_rule_states_its_gradient_in_its_first_line(op: str) -> None:
    stated, *_ = (rules()[op].__doc__ or "").splitlines()
    assert re.match(r"d\w+ = .*\.$", stated), stated


def test_the_registry_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        rules()["Relu"] = rules()["Clip"]  # type: ignore[index]


# What needs no rule


def _shaped_at_run_time(build: GraphBuilder, x: str) -> str:
    """A mean written with the extents of x: Shape, Gather and Cast hang on a trainable tensor, its content does not."""
    extents = build.op("Gather", build.op("Shape", x), build.constant([1], np.int64))
    total = build.op("ReduceSum", x, build.constant([1], np.int64))
    return build.op("Mul", x, build.op("Div", total, build.op("Cast", extents, to=onnx.TensorProto.FLOAT)))


def _masked_at_run_time(build: GraphBuilder, x: str) -> str:
    """A comparison is flat, and what it chooses is not."""
    below = build.op("Less", x, build.op("ReduceMean", x))
    return build.op("Where", below, x, build.op("Mul", x, build.constant(2.0)))


def _quantised_weights(build: GraphBuilder, x: str) -> str:
    """Frozen int8 weights between two layers that train."""
    codes = build.constant(np.arange(-9, 9).reshape(6, 3), np.int8)
    weights = build.op("DequantizeLinear", codes, build.constant(0.1), build.constant(0, np.int8))
    return build.op("Mul", build.op("MatMul", x, weights), parameter(build, 3))


@pytest.mark.parametrize("write", [_shaped_at_run_time, _masked_at_run_time])
def test_what_carries_no_gradient_needs_no_rule(write: Write) -> None:
    agree(Case(write.__name__, write, (2, 3)))


def test_a_frozen_quantised_weight_needs_no_rule() -> None:
    assert "DequantizeLinear" not in rules()
    step = step_of(Case("weights", _quantised_weights).forward())
    assert [slot.name for slot in step.layout.slots] == ["shift", "p"]


# What is refused


def chain(*ops: str) -> onnx.ModelProto:
    """Four dense layers a, b, c, d, with a residual sum around the second and third, and an op behind each of `ops`."""
    build = GraphBuilder({"input"})
    weights = {name: build.parameter(name, np.eye(4, dtype=np.float32)) for name in "abcd"}
    behind = dict(zip("abcd", ops, strict=False))

    def layer(x: str, name: str) -> str:
        y = build.op("MatMul", x, weights[name], output=f"{name}.y")
        return build.op(behind[name], y, output=f"{name}.z") if behind.get(name) else y

    first = layer("input", "a")
    joined = build.op("Add", first, layer(layer(first, "b"), "c"), output="joined")
    build.op("Identity", layer(joined, "d"), output="logits")
    return build.model("chain", [tensor("input", ("N", 4))], [tensor("logits", ("N", 4))])


def refusal_of(model: onnx.ModelProto, *trainable: str) -> UnsupportedOpError:
    with pytest.raises(UnsupportedOpError) as refused:
        compile_train_step(
            model, input_name="input", logits_name="logits", trainable=trainable, optimizer="sgd", lowered=False
        )
    assert refused.value.node in {node.name for node in model.graph.node}
    assert refused.value.node in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    ("ops", "trainable", "advice"),
    [
        (["Sin"], "abcd", "freeze everything up to tensor 'a.z' (parameters a)"),
        (["Sin"], "bd", None),
        (["Relu", "Sin"], "abcd", "freeze everything up to tensor 'joined' (parameters a, b, c)"),
        (["Relu", "Sin"], "bcd", "freeze everything up to tensor 'joined' (parameters b, c)"),
        (["Relu", "Sin"], "bc", "freeze what lies before it (parameters b)"),
        (["Relu", "Relu", "Relu", "Sin"], "abcd", "freeze what lies before it (parameters a, b, c, d)"),
    ],
)
def test_an_unknown_op_names_the_tensor_to_cut_at(ops: list[str], trainable: str, advice: str | None) -> None:
    model = chain(*ops)
    if advice is None:
        compile_train_step(
            model, input_name="input", logits_name="logits", trainable=list(trainable), optimizer="sgd", lowered=False
        )
        return
    error = refusal_of(model, *trainable)
    assert error.op == "Sin"
    assert error.advice == f"replace it, or {advice}"
    assert "(Sin) cannot be trained through" in str(error)


def _vector_times_matrix(build: GraphBuilder, x: str) -> str:
    return build.op("MatMul", parameter(build, 2), x)


def _second_output_of_a_norm(build: GraphBuilder, x: str) -> str:
    y, mean, _ = build.ops("LayerNormalization", x, build.constant(np.ones(3)), outputs=["", "", ""])
    return build.op("Add", y, mean)


def _training_norm(build: GraphBuilder, x: str) -> str:
    ones = [build.constant(content) for content in (np.ones(2), np.zeros(2), np.zeros(2), np.ones(2))]
    return build.ops("BatchNormalization", x, *ones, outputs=["", "", ""], training_mode=1)[0]


def _reflected(build: GraphBuilder, x: str) -> str:
    return build.op("Pad", x, build.constant([0, 0, 1, 0, 0, 0], np.int64), mode="reflect")


def _bilinear(build: GraphBuilder, x: str) -> str:
    return build.op("Resize", x, "", build.constant([1.0, 1.0, 2.0]), mode="linear")


def _by_columns(build: GraphBuilder, x: str) -> str:
    return build.op("MaxPool", x, kernel_shape=[2], strides=[1], storage_order=1)


def _same_and_more(build: GraphBuilder, x: str) -> str:
    more = {"auto_pad": "SAME_UPPER", "output_padding": [1]}
    return build.op("ConvTranspose", x, parameter(build, 2, 2, 3), strides=[2], **more)


def _with_shape(build: GraphBuilder, x: str) -> str:
    return build.op("ConvTranspose", x, parameter(build, 2, 2, 2), strides=[2], output_shape=[7])


def _open_sequence(build: GraphBuilder, x: str) -> str:
    """Samples take the place of steps, and their number is open."""
    steps = build.op("Reshape", x, build.constant([-1, 1, 3], np.int64))
    weights = [parameter(build, 1, 6, width, name=f"p{width}") for width in (3, 2)]
    return build.ops("GRU", steps, *weights, outputs=["", ""], hidden_size=2)[0]


def _ragged_sequence(build: GraphBuilder, x: str) -> str:
    weights = [parameter(build, 1, 6, width, name=f"p{width}") for width in (3, 2)]
    lengths = build.constant([1, 2, 2], np.int32)
    steps = build.op("Transpose", x, perm=[1, 0, 2])
    return build.op("Transpose", build.ops("GRU", steps, *weights, "", lengths, outputs=["", ""], hidden_size=2)[0])


def _clipped_sequence(build: GraphBuilder, x: str) -> str:
    weights = [parameter(build, 1, 6, width, name=f"p{width}") for width in (3, 2)]
    steps = build.op("Transpose", x, perm=[1, 0, 2])
    return build.op("Transpose", build.ops("GRU", steps, *weights, outputs=["", ""], hidden_size=2, clip=1.0)[0])


FORMS: list[tuple[str, Write, str]] = [
    ("Clip", lambda b, x: b.op("Clip", x, b.op("ReduceMin", x, keepdims=0)), "make its input 1 a constant"),
    ("Clip", lambda b, x: b.op("Clip", x, parameter(b)), "make its input 1 a constant"),
    ("Pad", lambda b, x: b.op("Pad", x, b.constant([0, 1, 0] * 2, np.int64), parameter(b)), "freeze its input 'p'"),
    ("Pad", _reflected, "pad with constants"),
    ("MatMul", _vector_times_matrix, "write the vector as a matrix"),
    ("LayerNormalization", _second_output_of_a_norm, "read nothing but its first output"),
    ("BatchNormalization", _training_norm, "export it in inference mode"),
    ("Resize", _bilinear, "upsample to the nearest neighbour by whole factors"),
    ("ConvTranspose", _with_shape, "say pads and output_padding in numbers"),
    ("ConvTranspose", _same_and_more, "say pads and output_padding in numbers"),
    ("GRU", _open_sequence, "fix the sequence length"),
    ("GRU", _ragged_sequence, "leave out sequence_lens"),
    ("GRU", _clipped_sequence, "use Sigmoid and Tanh, no clip, and layout 0"),
    ("MaxPool", _by_columns, "use storage_order 0"),
    ("Round", lambda b, x: b.op("Round", x), "it is flat almost everywhere"),
    ("TopK", lambda b, x: b.ops("TopK", x, b.constant([2], np.int64), outputs=["", ""])[0], "use Slice, ReduceMax"),
]


@pytest.mark.parametrize(("op", "write", "advice"), FORMS, ids=[f"{op}: {advice}" for op, _, advice in FORMS])
def test_a_form_without_gradient_is_refused_with_one_that_has_one(op: str, write: Write, advice: str) -> None:
    forward = Case("refused", write, (2, 3)).forward()
    with pytest.raises(UnsupportedOpError, match=re.escape(advice)) as refused:
        step_of(forward)
    assert refused.value.op == op
    assert refused.value.node in {node.name for node in forward.graph.node}
    assert ", or freeze " in refused.value.advice


def _argmax(build: GraphBuilder, x: str) -> str:
    """The only path from `shift` leads through the place of the largest element."""
    return build.op("Gather", parameter(build, 6, 2), build.op("ArgMax", x, axis=1, keepdims=0))


def _rounded_to_integers(build: GraphBuilder, x: str) -> str:
    whole = build.op("Cast", x, to=onnx.TensorProto.INT64)
    return build.op("Gather", parameter(build, 6, 2), build.op("Abs", whole))


def _places(build: GraphBuilder, x: str) -> str:
    places = build.op("NonZero", x)
    some = build.op(
        "Slice", places, build.constant([0], np.int64), build.constant([3], np.int64), build.constant([1], np.int64)
    )
    return build.op("Reshape", build.op("Gather", parameter(build, 6, 2), some), build.constant([3, 4], np.int64))


def _top_places(build: GraphBuilder, x: str) -> str:
    _, places = build.ops("TopK", x, build.constant([2], np.int64), outputs=["", ""])
    return build.op("Gather", parameter(build, 6, 2), places)


@pytest.mark.parametrize(
    ("write", "op"),
    [(_argmax, "ArgMax"), (_rounded_to_integers, "Cast"), (_places, "NonZero"), (_top_places, "TopK")],
)
def test_a_path_that_ends_in_integers_is_refused(write: Write, op: str) -> None:
    forward = Case("integers", write).forward()
    with pytest.raises(UnsupportedOpError, match="integers cannot follow a small change") as refused:
        step_of(forward)
    assert refused.value.op == op
    assert "shift" in refused.value.advice


def test_integers_cast_back_to_floats_are_refused() -> None:
    forward = Case("back", lambda b, x: b.op("Cast", b.op("Cast", x, to=7), to=1)).forward()
    with pytest.raises(UnsupportedOpError, match="cast between floats only"):
        step_of(forward)
