"""The reference families: what they promise about samples, size, start and the border between backbone and tail."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.models.onnx_model import OnnxGraph
from model_export.families import FAMILIES, build_family, describe, readers
from model_export.forward import ForwardModel
from model_export.surgery import open_graph

CLASSES = 7
SAMPLES = [
    ((1, 28, 28), None),
    ((3, 9, 13), None),
    ((3, 40, 33), None),
    ((6, 64), None),
    ((2, 9), None),
    ((13,), None),
    ((8,), 50),
    ((1,), 2),
]
READABLE = [(name, shape, vocabulary) for shape, vocabulary in SAMPLES for name in readers(shape, vocabulary)]
A_SAMPLE_EACH = {name: (shape, vocabulary) for name, shape, vocabulary in reversed(READABLE)}


def build(name: str, *, classes: int = CLASSES, seed: int = 0) -> ForwardModel:
    shape, vocabulary = A_SAMPLE_EACH[name]
    return build_family(name, shape, classes, seed, vocabulary=vocabulary)


def draw(rows: int, shape: tuple[int, ...], vocabulary: int | None = None, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if vocabulary is not None:
        return rng.integers(0, vocabulary, (rows, *shape), np.int32)
    return rng.normal(size=(rows, *shape)).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    (y,) = OnnxGraph(model.SerializeToString()).run({model.graph.input[0].name: x}).values()
    return y


def initializers(forward: ForwardModel) -> dict[str, np.ndarray]:
    return {stored.name: onnx.numpy_helper.to_array(stored) for stored in forward.model.graph.initializer}


def test_every_family_can_read_something() -> None:
    assert set(A_SAMPLE_EACH) == set(FAMILIES)


@pytest.mark.parametrize(("name", "shape", "vocabulary"), READABLE, ids=str)
def test_a_family_maps_any_batch_to_logits(name: str, shape: tuple[int, ...], vocabulary: int | None) -> None:
    forward = build_family(name, shape, CLASSES, seed=0, vocabulary=vocabulary)
    for rows in (1, 5):
        assert run(forward.model, draw(rows, shape, vocabulary)).shape == (rows, CLASSES)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_row_of_a_batch_sees_another(name: str) -> None:
    model, x = build(name).model, draw(4, *A_SAMPLE_EACH[name])
    alone = np.concatenate([run(model, row[None]) for row in x])
    np.testing.assert_allclose(run(model, x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_element_of_a_sample_matters(name: str) -> None:
    """Up to the two elements that the reach of causal-s leaves out."""
    model, (shape, vocabulary) = build(name).model, A_SAMPLE_EACH[name]
    (x,) = draw(1, shape, vocabulary)
    changed = np.repeat(x[None], x.size, axis=0)
    flat = changed.reshape(x.size, x.size)
    flat[np.diag_indices(x.size)] = (flat.diagonal() + 1) % vocabulary if vocabulary else flat.diagonal() + 3
    is_noticed = (run(model, changed) != run(model, x[None])).any(axis=1)
    assert is_noticed.mean() >= (6 / 8 if name == "causal-s" else 0.99)


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_grow(name: str) -> None:
    def size(family: str) -> int:
        return sum(content.size for content in initializers(build(family)).values())

    smaller = {"l": "m", "m": "s"}.get(name[-1])
    assert smaller is None or size(name[:-1] + smaller) < size(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name: str) -> None:
    first, again, other = (build(name, seed=seed).model.SerializeToString() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("mlp-s", "d97cf46098464257"),
        ("mlp-m", "0cd5255613be768d"),
        ("mlp-l", "3dc7176c0dc89e0f"),
        ("cnn-s", "ce4da729fd2d474e"),
        ("cnn-m", "f88864513820652b"),
        ("cnn-l", "c76e571d67b9cd19"),
    ],
)
def test_weights_that_published_figures_started_from_are_drawn_for_good(name: str, digest: str) -> None:
    weights = initializers(build_family(name, (1, 28, 28), 10, seed=0))
    assert hashlib.sha256(b"".join(content.tobytes() for content in weights.values())).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_start_with_the_variance_of_he(name: str) -> None:
    for parameter, content in initializers(build(name, seed=3)).items():
        if parameter.endswith(".bias"):
            assert not content.any()
        elif parameter.endswith(".weight") and content.size > 300 and parameter != "tokens.weight":
            inputs = len(content) if content.ndim == 2 else content[0].size
            assert content.std() == pytest.approx(np.sqrt(2 / inputs), rel=0.15)


WITH_BACKBONE = [name for name in FAMILIES if build(name).features]


@pytest.mark.parametrize("name", WITH_BACKBONE)
def test_backbone_and_tail_together_are_the_model(name: str) -> None:
    forward, x = build(name), draw(3, *A_SAMPLE_EACH[name])
    features = run(forward.backbone(), x)
    assert features.ndim == 2
    assert features.dtype == np.float32
    np.testing.assert_allclose(run(forward.tail(), features), run(forward.model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tail_is_dense(name: str) -> None:
    assert {node.op_type for node in build(name).tail().graph.node} <= {"Flatten", "Gemm", "Relu"}
    assert name.startswith("mlp") == (name not in WITH_BACKBONE)


def test_the_tail_of_an_mlp_is_the_whole_model_and_reads_features() -> None:
    forward = build_family("mlp-s", (64,), CLASSES, seed=0)
    x = draw(3, (64,))
    assert forward.tail().graph.input[0].name == "features"
    assert (run(forward.tail(), x) == run(forward.model, x)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_floats_and_neither_statistics_nor_numbers_of_a_formula(name: str) -> None:
    forward = build(name)
    stored = initializers(forward)
    fixed = {n for n in stored if n.endswith((".mean", ".variance")) or n.startswith("constant")}
    assert set(forward.parameters) == set(stored) - fixed
    assert all(stored[parameter].dtype == np.float32 for parameter in forward.parameters)


@pytest.mark.parametrize(("side", "places"), [(32, 32), (33, 17)])
def test_a_depthwise_stem_skips_places_of_images_beyond_32(side: int, places: int) -> None:
    graph = open_graph(build_family("dw-s", (1, side, 8), CLASSES, seed=0).model)
    stem = next(node for node in graph.nodes if node.op_type == "Conv")
    assert graph.type_of(stem.output[0]).shape[2] == places


def test_a_causal_network_looks_back_as_far_as_its_kernels_reach() -> None:
    """causal-s: 1 + 2 (1 + 2) = 7 tokens, the last one included."""
    model = build_family("causal-s", (10,), CLASSES, seed=0, vocabulary=9).model
    tokens = np.repeat(draw(1, (10,), 9), 10, axis=0)
    tokens[np.diag_indices(10)] = (tokens.diagonal() + 1) % 9
    is_seen = (run(model, tokens) != run(model, draw(1, (10,), 9))).any(axis=1)
    assert is_seen.tolist() == [False] * 3 + [True] * 7


@pytest.mark.parametrize("name", ["gru-s", "causal-s"])
def test_the_order_of_tokens_matters(name: str) -> None:
    forward, tokens = build(name), draw(1, *A_SAMPLE_EACH[name])
    assert not np.allclose(run(forward.model, tokens), run(forward.model, tokens[:, ::-1].copy()))


@pytest.mark.parametrize("name", ["tab-s", "tab-m", "tab-l"])
def test_a_missing_value_is_no_nan_behind_the_first_layers_and_not_the_same_as_a_mean(name: str) -> None:
    model = build(name).model
    mean, missing = np.zeros((1, 13), np.float32), np.full((1, 13), np.nan, np.float32)
    assert np.isfinite(run(model, missing)).all()
    assert not np.allclose(run(model, missing), run(model, mean))


@pytest.mark.parametrize(
    ("name", "shape", "vocabulary"),
    [
        ("rnn-s", (8,), None),
        ("mlp-s", (8,), 50),
        ("cnn-s", (64,), None),
        ("cnn-s", (1, 3, 28), None),
        ("dw-s", (1, 28, 7), None),
        ("dw-s", (28, 28), None),
        ("conv1d-s", (6, 7), None),
        ("conv1d-s", (1, 28, 28), None),
        ("tab-s", (2, 3), None),
        ("tab-s", (8,), 50),
        ("gru-s", (8,), None),
        ("causal-s", (2, 8), 50),
    ],
    ids=str,
)
def test_an_unknown_family_or_an_unreadable_sample_is_refused_by_name(
    name: str, shape: tuple[int, ...], vocabulary: int | None
) -> None:
    with pytest.raises(InvalidValueError, match=name):
        build_family(name, shape, CLASSES, seed=0, vocabulary=vocabulary)


def test_a_refusal_says_what_the_family_reads_and_what_it_was_given() -> None:
    with pytest.raises(InvalidValueError, match=r"dw-s.*images \[channels.*not float32 \[6, 64\]"):
        build_family("dw-s", (6, 64), CLASSES, seed=0)


def test_every_family_is_described_in_a_line_of_its_own() -> None:
    assert tuple(describe()) == FAMILIES
    assert len(set(describe().values())) == len(FAMILIES)
    assert not any("\n" in line for line in describe().values())
