"""The passes of an import: what each one takes away, and what it must leave alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model_export.importing import UnreadableModelError, from_onnx
from model_export.importing.checking import check_same_function, random_samples
from model_export.importing.ending import Ending
from model_export.surgery import attributes
from model_export.trainstep.compile import compile_train_step
from tests.model_export.foreign import answers, dense, model, node, ops, run, softmax, weights

ROWS = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
IMAGES = np.random.default_rng(2).standard_normal((6, 5, 5, 2)).astype(np.float32)


def same(source: onnx.ModelProto, samples: np.ndarray):
    """Import, check that the answers are the same, return the import."""
    imported = from_onnx(source)
    np.testing.assert_allclose(answers(imported, samples), run(source, samples), atol=1e-5)
    return imported


# ---- what does not depend on the samples


def test_shape_arithmetic_becomes_a_constant_with_the_batch_left_open() -> None:
    nodes = [
        node("Shape", "x", to="shape"),
        node("Gather", "shape", "zero", to="batch"),
        node("Concat", "batch", "four", to="flat", axis=0),
        node("Reshape", "x", "flat", to="f"),
        node("MatMul", "f", "w", to="y"),
    ]
    stored = weights(w=(4, 3)) | {"zero": np.array([0]), "four": np.array([4])}
    imported = same(model(nodes, stored, x=("N", 2, 2)), ROWS.reshape(6, 2, 2))
    assert ops(imported) == ["Reshape", "MatMul"]
    shape = imported.model.graph.initializer[0]
    assert (shape.name, onnx.numpy_helper.to_array(shape).tolist()) == ("constant", [0, 4])


def test_a_product_of_the_batch_is_left_over_in_a_reshape() -> None:
    nodes = [
        node("Shape", "x", to="batch", start=0, end=1),
        node("Mul", "batch", "two", to="pairs"),
        node("Concat", "pairs", "two", to="shape", axis=0),
        node("Reshape", "x", "shape", to="p"),
        node("Relu", "p", to="r"),
        node("Reshape", "r", "back", to="b"),
        node("MatMul", "b", "w", to="y"),
    ]
    stored = weights(w=(4, 3)) | {"two": np.array([2]), "back": np.array([-1, 4])}
    assert ops(same(model(nodes, stored), ROWS)) == ["Reshape", "Relu", "Reshape", "MatMul"]


def test_a_weight_that_is_stored_in_another_layout_keeps_its_name() -> None:
    nodes = [node("Transpose", "w", to="t", perm=[1, 0]), node("MatMul", "x", "t", to="y")]
    imported = same(model(nodes, weights(w=(3, 4))), ROWS)
    assert ops(imported) == ["MatMul"]
    assert [(t.name, list(t.dims)) for t in imported.model.graph.initializer] == [("w", [4, 3])]


def test_a_weight_that_is_read_in_two_ways_stays_one_weight() -> None:
    nodes = [
        node("MatMul", "x", "w", to="h"),
        node("Transpose", "w", to="t", perm=[1, 0]),
        node("MatMul", "h", "t", to="y"),
    ]
    imported = same(model(nodes, weights(w=(4, 3)), y=("N", 4)), ROWS)
    assert imported.parameters == ("w",)
    assert ops(imported) == ["MatMul", "Transpose", "MatMul"]
    assert imported.features == ""  # a cut between the two uses would make two weights of it


def test_two_weights_that_become_one_carry_both_names() -> None:
    nodes = [node("Add", "a", "b", to="s"), node("MatMul", "x", "s", to="y")]
    assert same(model(nodes, weights(a=(4, 3), b=(4, 3))), ROWS).parameters == ("a+b",)


def test_batch_normalization_is_not_folded_into_the_convolution_before_it() -> None:
    nodes = [
        node("Transpose", "x", to="t", perm=[0, 3, 1, 2]),
        node("Conv", "t", "k", to="c", kernel_shape=[5, 5]),
        node("BatchNormalization", "c", "scale", "shift", "mean", "variance", to="n"),
        node("Flatten", "n", to="y"),
    ]
    stored = weights(k=(3, 2, 5, 5), scale=(3,), shift=(3,), mean=(3,)) | {"variance": np.ones(3, np.float32)}
    imported = same(model(nodes, stored, x=("N", 5, 5, 2)), IMAGES)
    assert ops(imported) == ["Transpose", "Conv", "BatchNormalization", "Flatten"]
    assert imported.parameters == ("k", "scale", "shift")


def test_settings_that_are_split_off_one_constant_become_constants() -> None:
    nodes = [
        node("Constant", to="both", value_floats=[2.0, 2.0, 2.0, 2.0, 5.0, 5.0, 5.0, 5.0]),
        node("Split", "both", to="factor term", axis=0, num_outputs=2),
        node("Mul", "x", "factor", to="m"),
        node("Add", "m", "term", to="a"),
        node("MatMul", "a", "w", to="y"),
    ]
    imported = same(model(nodes, weights(w=(4, 3))), ROWS)
    assert (ops(imported), imported.parameters) == (["Mul", "Add", "MatMul"], ("w",))


def test_a_layer_of_which_only_the_last_state_is_read_keeps_its_weights() -> None:
    nodes = [
        node("Transpose", "x", to="t", perm=[1, 0, 2]),
        node("Unsqueeze", "flat", "zero", to="w"),
        helper.make_node("GRU", ["t", "w", "r"], ["", "last"], name="gru", hidden_size=5),
        node("Squeeze", "last", "zero", to="s"),
        node("MatMul", "s", "v", to="y"),
    ]
    stored = weights(flat=(15, 2), r=(1, 15, 5), v=(5, 3)) | {"zero": np.array([0])}
    imported = same(model(nodes, stored, x=("N", 2, 2)), ROWS.reshape(6, 2, 2))
    assert (ops(imported), imported.parameters) == (["Transpose", "GRU", "Squeeze", "MatMul"], ("flat", "r", "v"))


def test_an_initial_state_of_zeros_is_left_out() -> None:
    nodes = [
        node("Shape", "x", to="batch", start=0, end=1),
        node("Concat", "one", "batch", "five", to="shape", axis=0),
        node("Constant", to="nought", value_floats=[0.0]),
        node("Expand", "nought", "shape", to="state"),
        node("Transpose", "x", to="t", perm=[1, 0, 2]),
        node("GRU", "t", "w", "r", "b", "", "state", to="all last", hidden_size=5),
        node("Squeeze", "last", "zero", to="s"),
        node("MatMul", "s", "v", to="y"),
    ]
    stored = weights(w=(1, 15, 2), r=(1, 15, 5), b=(1, 30), v=(5, 3))
    stored |= {"one": np.array([1]), "five": np.array([5]), "zero": np.array([0])}
    imported = same(model(nodes, stored, x=("N", 2, 2)), ROWS.reshape(6, 2, 2))
    assert ops(imported) == ["Transpose", "GRU", "Squeeze", "MatMul"]


# ---- a baked batch


@pytest.mark.parametrize("batch", [1, 2])
def test_a_baked_batch_is_opened(batch: int) -> None:
    nodes = [
        node("Shape", "x", to="all"),
        node("Gather", "all", "zero", to="batch"),
        node("Concat", "batch", "rest", to="flat", axis=0),
        node("Reshape", "x", "flat", to="f"),
        node("MatMul", "f", "w", to="y"),
    ]
    stored = weights(w=(4, 3)) | {"zero": np.array([0]), "rest": np.array([4])}
    imported = from_onnx(model(nodes, stored, x=(batch, 2, 2), y=(batch, 3)))
    samples = ROWS.reshape(6, 2, 2)
    np.testing.assert_allclose(answers(imported, samples), ROWS @ stored["w"], atol=1e-5)


def test_a_baked_batch_behind_other_axes_is_opened() -> None:
    nodes = [
        node("Transpose", "x", to="t", perm=[1, 0, 2]),
        node("Reshape", "t", "split", to="s"),
        node("ReduceSum", "s", "axes", to="r", keepdims=0),
        node("MatMul", "r", "w", to="y"),
    ]
    stored = weights(w=(2, 3)) | {"split": np.array([4, 1, 2, 3]), "axes": np.array([0, 3])}
    imported = from_onnx(model(nodes, stored, x=(1, 4, 6), y=(1, 3)))
    assert answers(imported, np.ones((5, 4, 6), np.float32)).shape == (5, 3)


def test_a_baked_initial_state_of_zeros_is_left_out() -> None:
    nodes = [
        node("Constant", to="nought", value_floats=[0.0]),
        node("Expand", "nought", "shape", to="state"),
        node("Transpose", "x", to="t", perm=[1, 0, 2]),
        node("GRU", "t", "w", "r", "b", "", "state", to="all last", hidden_size=5),
        node("Squeeze", "last", "zero", to="s"),
        node("MatMul", "s", "v", to="y"),
    ]
    stored = weights(w=(1, 15, 2), r=(1, 15, 5), b=(1, 30), v=(5, 3))
    stored |= {"shape": np.array([1, 1, 5]), "zero": np.array([0])}
    imported = from_onnx(model(nodes, stored, x=(1, 2, 2), y=(1, 3)))
    assert answers(imported, ROWS.reshape(6, 2, 2)).shape == (6, 3)


# ---- what changes nothing


def test_copies_neutral_factors_and_idle_casts_are_left_out() -> None:
    nodes = [
        node("Identity", "x", to="i"),
        node("Constant", to="one", value_float=1.0),
        node("Mul", "i", "one", to="m"),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.FLOAT),
        node("CastLike", "c", "x", to="l"),
        node("Dropout", "l", to="d"),
        node("Reshape", "d", "same", to="r"),
        node("MatMul", "r", "w", to="y"),
    ]
    imported = same(model(nodes, weights(w=(4, 3)) | {"same": np.array([-1, 4])}), ROWS)
    assert ops(imported) == ["MatMul"]


def test_a_scale_of_ones_that_the_source_stores_may_train() -> None:
    nodes = [node("Mul", "x", "scale", to="m"), node("MatMul", "m", "w", to="y")]
    imported = same(model(nodes, weights(w=(4, 3)) | {"scale": np.ones(4, np.float32)}), ROWS)
    assert imported.parameters == ("scale", "w")


def test_a_bias_of_zeros_that_the_source_stores_may_train() -> None:
    source = model([node("Gemm", "x", "w", "b", to="y")], weights(w=(4, 3)) | {"b": np.zeros(3, np.float32)})
    assert from_onnx(source).parameters == ("w", "b")


def test_a_bias_that_was_computed_stays_unless_it_is_zero() -> None:
    nodes = [node("Constant", to="b", value_floats=[1.0, 0.0, 0.0]), node("Gemm", "x", "w", "b", to="y")]
    assert len(same(model(nodes, weights(w=(4, 3))), ROWS).model.graph.node[0].input) == 3


def test_a_model_in_training_mode_comes_in_for_inference() -> None:
    nodes = [
        node("BatchNormalization", "x", "s", "b", "m", "v", to="n m2 v2", training_mode=1),
        node("Dropout", "n", "half", "yes", to="d"),
        node("MatMul", "d", "w", to="y"),
    ]
    stored = weights(s=(4,), b=(4,), m=(4,), w=(4, 3)) | {"v": np.ones(4, np.float32)}
    stored |= {"half": np.array(0.5, np.float32), "yes": np.array(True)}
    imported = from_onnx(model(nodes, stored))
    expected = ((ROWS - stored["m"]) / np.sqrt(1 + 1e-5) * stored["s"] + stored["b"]) @ stored["w"]
    np.testing.assert_allclose(answers(imported, ROWS), expected, atol=1e-5)


# ---- transposes


def test_transposes_that_meet_are_joined() -> None:
    nodes = [
        node("Transpose", "x", to="a", perm=[0, 3, 1, 2]),
        node("Relu", "a", to="b"),
        node("Add", "b", "shift", to="c"),
        node("Transpose", "c", to="d", perm=[0, 2, 3, 1]),
        node("Flatten", "d", to="f"),
        node("MatMul", "f", "w", to="y"),
    ]
    imported = same(model(nodes, weights(shift=(1, 2, 1, 1), w=(50, 3)), x=("N", 5, 5, 2)), IMAGES)
    assert ops(imported) == ["Relu", "Add", "Flatten", "MatMul"]
    assert imported.parameters == ("shift", "w")


def test_transposes_that_do_not_undo_each_other_become_one() -> None:
    nodes = [
        node("Transpose", "x", to="a", perm=[0, 2, 3, 1]),
        node("Transpose", "a", to="b", perm=[0, 2, 3, 1]),
        node("Flatten", "b", to="f"),
        node("MatMul", "f", "w", to="y"),
    ]
    assert ops(same(model(nodes, weights(w=(50, 3)), x=("N", 5, 5, 2)), IMAGES)) == ["Transpose", "Flatten", "MatMul"]


def test_a_residual_between_transposes_needs_none() -> None:
    nodes = [
        node("Transpose", "x", to="a", perm=[0, 3, 1, 2]),
        node("Relu", "a", to="b"),
        node("Add", "a", "b", to="c"),
        node("Transpose", "c", to="d", perm=[0, 2, 3, 1]),
        node("Flatten", "d", to="f"),
        node("MatMul", "f", "w", to="y"),
    ]
    same(model(nodes, weights(w=(50, 3)), x=("N", 5, 5, 2)), IMAGES)


def test_a_transpose_that_something_else_reads_stays() -> None:
    nodes = [
        node("Transpose", "x", to="a", perm=[0, 2, 1]),
        node("Relu", "a", to="b"),
        node("MatMul", "x", "b", to="c"),
        node("MatMul", "c", "a", to="d"),
        node("Flatten", "d", to="f"),
        node("MatMul", "f", "w", to="y"),
    ]
    same(model(nodes, weights(w=(4, 3)), x=("N", 2, 2)), ROWS.reshape(6, 2, 2))


# ---- the end


@pytest.mark.parametrize(
    ("nodes", "ending"),
    [
        ([node("Softmax", "s", to="y")], Ending.SOFTMAX),
        ([node("Softmax", "s", to="p", axis=1), node("Identity", "p", to="y")], Ending.SOFTMAX),
        ([node("LogSoftmax", "s", to="y")], Ending.LOG_SOFTMAX),
        ([node("Identity", "s", to="y")], Ending.NONE),
    ],
)
def test_probabilities_are_cut_back_to_logits(nodes: list, ending: Ending) -> None:
    source = model([node("MatMul", "x", "w", to="s"), *nodes], weights(w=(4, 3)))
    imported = from_onnx(source)
    assert ops(imported) == ["MatMul"]
    np.testing.assert_allclose(ending.apply(answers(imported, ROWS)), run(source, ROWS), atol=1e-6)


def test_a_softmax_over_channels_of_one_pixel_ends_in_flat_logits() -> None:
    nodes = [
        node("Conv", "x", "k", to="c", kernel_shape=[5, 5]),
        node("Softmax", "c", to="s", axis=1),
        node("Reshape", "s", "flat", to="y"),
    ]
    source = model(nodes, weights(k=(3, 2, 5, 5)) | {"flat": np.array([-1, 3])}, x=("N", 2, 5, 5))
    samples = IMAGES.transpose(0, 3, 1, 2).copy()
    np.testing.assert_allclose(softmax(answers(from_onnx(source), samples)), run(source, samples), atol=1e-6)


def test_scores_with_idle_axes_are_flattened() -> None:
    source = model(
        [node("Conv", "x", "k", to="y", kernel_shape=[5, 5])],
        weights(k=(3, 2, 5, 5)),
        x=("N", 2, 5, 5),
        y=("N", 3, 1, 1),
    )
    assert answers(from_onnx(source), np.ones((2, 2, 5, 5), np.float32)).shape == (2, 3)


def test_one_sigmoid_becomes_two_logits() -> None:
    nodes = [node("MatMul", "x", "w", to="s"), node("Sigmoid", "s", to="y")]
    source = model(nodes, weights(w=(4, 1)), y=("N", 1))
    logits = answers(from_onnx(source), ROWS)
    assert (logits[:, 0] == 0).all()
    np.testing.assert_allclose(softmax(logits)[:, 1:], run(source, ROWS), atol=1e-6)


def test_a_softmax_inside_the_model_stays() -> None:
    nodes = [node("Softmax", "x", to="s"), node("MatMul", "s", "w", to="y")]
    assert ops(same(model(nodes, weights(w=(4, 3))), ROWS)) == ["Softmax", "MatMul"]


# ---- names


def test_names_that_a_train_step_needs_are_given_way() -> None:
    nodes = [node("MatMul", "x", "weight", to="loss"), node("Add", "loss", "theta", to="y")]
    imported = from_onnx(model(nodes, weights(weight=(4, 3), theta=(3,))))
    assert imported.parameters == ("model.weight", "model.theta")
    step = compile_train_step(
        imported.model, input_name="input", logits_name="logits", trainable=imported.parameters, optimizer="adam"
    )
    assert step.layout.size == 15


def test_tokens_come_in_as_int32_whatever_the_source_reads() -> None:
    nodes = [node("Gather", "table", "x", to="e"), node("Flatten", "e", to="f"), node("MatMul", "f", "w", to="y")]
    source = model(nodes, weights(table=(10, 2), w=(8, 3)), dtype=TensorProto.INT64)
    imported = from_onnx(source)
    assert imported.model.graph.input[0].type.tensor_type.elem_type == TensorProto.INT32
    tokens = np.array([[0, 9, 5, 1]], np.int32)
    np.testing.assert_allclose(answers(imported, tokens), run(source, tokens.astype(np.int64)), atol=1e-6)


def test_nothing_tells_of_the_makers_machine() -> None:
    trace = "/home/somebody/project/train.py, line 12"
    source = dense()
    source.producer_name = source.doc_string = source.graph.doc_string = source.graph.name = trace
    parts = [source, source.graph, *source.graph.node, *source.graph.input, *source.graph.initializer]
    for part in parts:
        part.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
    for part in parts[1:]:
        part.doc_string = trace
    content = from_onnx(source).model.SerializeToString()
    assert b"somebody" not in content
    assert b".py" not in content


# ---- proof


def test_an_import_that_computes_something_else_is_refused() -> None:
    source = dense()
    other = from_onnx(source).model
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 3), np.float32), "w"))
    with pytest.raises(UnreadableModelError, match="answers differ by"):
        check_same_function(source, other, Ending.NONE)


@pytest.mark.parametrize("op", ["Log", "Sqrt"])
def test_what_has_no_answer_to_negative_samples_is_tried_with_positive_ones(op: str) -> None:
    nodes = [node(op, "x", to="l"), node("MatMul", "l", "w", to="y")]
    same(model(nodes, weights(w=(4, 3))), np.abs(ROWS))


def test_what_answers_to_samples_below_one_is_tried_with_those() -> None:
    nodes = [node("Sub", "one", "x", to="s"), node("Log", "s", to="l"), node("MatMul", "l", "w", to="y")]
    same(model(nodes, weights(w=(4, 3)) | {"one": np.ones(4, np.float32)}), np.abs(ROWS) / 9)


def test_what_has_no_answer_to_any_sample_cannot_be_checked() -> None:
    nodes = [
        node("Abs", "x", to="a"),
        node("Neg", "a", to="n"),
        node("Log", "n", to="l"),
        node("MatMul", "l", "w", to="y"),
    ]
    with pytest.raises(UnreadableModelError, match="no finite numbers to random samples"):
        from_onnx(model(nodes, weights(w=(4, 3))))


def test_random_tokens_are_known_to_the_model() -> None:
    nodes = [node("Gather", "table", "x", to="e"), node("Flatten", "e", to="f"), node("MatMul", "f", "w", to="y")]
    imported = from_onnx(model(nodes, weights(table=(3, 2), w=(8, 3)), dtype=TensorProto.INT32))
    tokens = random_samples(imported.model, rows=50)
    assert (tokens.dtype, set(tokens.ravel())) == (np.int32, {0, 1, 2})


def test_a_node_keeps_its_attributes() -> None:
    source = model(
        [node("Conv", "x", "k", to="c", kernel_shape=[3, 3], strides=[2, 1], group=2), node("Flatten", "c", to="y")],
        weights(k=(2, 1, 3, 3)),
        x=("N", 2, 5, 3),
        y=("N", 4),
    )
    assert attributes(from_onnx(source).model.graph.node[0]) == {"group": 2, "kernel_shape": [3, 3], "strides": [2, 1]}
