"""The choice of an execution provider: the first of the settings that is offered, loads, and answers as it should.

There is no GPU here. What onnxruntime offers is faked; everything else is real, the fall back to the processor too.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.models import onnx_model, placing
from fd_runtime.models.golden import GoldenMismatchError
from fd_runtime.models.model import ModelError
from fd_runtime.models.placing import open_placed
from fd_runtime.models.providers import MAX_ROWS, NAMES, ON_CPU, GpuSettings, NoProviderError, Placement, ladder
from tests.support.small_bundles import small_bundle

CPU, CUDA, TENSORRT = (NAMES[name] for name in ("cpu", "cuda", "tensorrt"))
ALL = Placement(("tensorrt", "cuda", "cpu"))
INPUTS = {"input": (1, 28, 28)}


def names(rungs):
    return [(provider, [name for name, _ in listed]) for provider, listed in rungs]


def test_the_names_are_those_of_onnxruntime():
    assert set(NAMES.values()) <= set(onnxruntime.get_all_providers())


def test_every_rung_is_tried_in_the_order_of_the_settings_with_what_stands_behind_it():
    assert names(ladder(ALL, [CPU, CUDA, TENSORRT], INPUTS)) == [
        ("tensorrt", [TENSORRT, CUDA, CPU]),
        ("cuda", [CUDA, CPU]),
        ("cpu", [CPU]),
    ]


def test_what_is_not_offered_is_left_out():
    assert names(ladder(ALL, [CPU], INPUTS)) == [("cpu", [CPU])]
    assert names(ladder(ALL, ["AzureExecutionProvider", CUDA, CPU], INPUTS)) == [("cuda", [CUDA, CPU]), ("cpu", [CPU])]


def test_the_processor_stands_behind_the_last_even_unasked_but_is_no_choice_then():
    assert names(ladder(Placement(("cuda",)), [CUDA, CPU], INPUTS)) == [("cuda", [CUDA, CPU])]


def test_settings_that_fit_nothing_here_say_what_there_is():
    with pytest.raises(NoProviderError, match="offers cpu here, the settings ask for tensorrt, cuda"):
        ladder(Placement(("tensorrt", "cuda")), [CPU], INPUTS)


@pytest.mark.parametrize("providers", [(), ("cpu", "cpu")])
def test_a_list_is_neither_empty_nor_names_one_twice(providers):
    with pytest.raises(InvalidValueError):
        Placement(providers)


def test_tensorrt_compiles_once_for_all_numbers_of_rows_and_keeps_the_engine(tmp_path):
    gpu = GpuSettings(device=1, workspace_mb=100, is_half_precision=True, engines=tmp_path)
    options = dict(dict(ladder(Placement(("tensorrt",), gpu), [TENSORRT, CPU], INPUTS))["tensorrt"])[TENSORRT]
    assert options == {
        "device_id": "1",
        "trt_max_workspace_size": str(100 << 20),
        "trt_int8_enable": "1",
        "trt_fp16_enable": "1",
        "trt_profile_min_shapes": "input:1x1x28x28",
        "trt_profile_opt_shapes": "input:1x1x28x28",
        "trt_profile_max_shapes": f"input:{MAX_ROWS}x1x28x28",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
    }


def test_cuda_grows_by_what_it_needs_and_stays_below_its_limit():
    options = dict(dict(ladder(Placement(("cuda",), GpuSettings(memory_mb=512)), [CUDA, CPU], INPUTS))["cuda"])[CUDA]
    assert options == {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": str(512 << 20),
    }


pytestmark = pytest.mark.filterwarnings("ignore:Specified provider")  # onnxruntime's word on what the tests do


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("small") / "bundle")


@pytest.fixture
def offers(monkeypatch):
    """Return a function that makes onnxruntime offer what a test says."""
    return lambda *offered: monkeypatch.setattr(onnx_model, "get_available_providers", lambda: list(offered))


def test_here_the_model_runs_on_the_processor(bundle):
    model = open_placed(bundle, "onnxruntime", threads=1, placement=ALL)
    assert model.provider == "cpu"


def test_a_provider_whose_libraries_do_not_load_is_passed_over_and_told(bundle, offers, caplog):
    offers(CUDA, CPU)  # as the GPU wheel does on a machine without CUDA
    with caplog.at_level(logging.WARNING):
        model = open_placed(bundle, "onnxruntime", threads=1, placement=ALL)
    assert model.provider == "cpu"
    assert "cuda is offered, but its libraries do not load here" in caplog.messages
    samples = np.zeros((3, *bundle.manifest.task.sample_shape), np.float32)
    expected = bundle.open("onnxruntime").features(samples)
    assert np.array_equal(model.features(samples), expected)


def test_where_nothing_that_was_asked_for_works_the_model_does_not_open(bundle, offers):
    offers(CUDA, CPU)
    with pytest.raises(NoProviderError, match="none of cuda works here"):
        open_placed(bundle, "onnxruntime", threads=1, placement=Placement(("cuda",)))


def test_a_provider_that_refuses_the_graph_is_passed_over(bundle, offers, monkeypatch, caplog):
    offers(TENSORRT, CPU)
    real = onnx_model._open

    def refusing(model, threads, providers=onnx_model._ON_CPU, **how):
        if providers[0][0] == TENSORRT:
            raise ModelError("no engine for this graph")
        return real(model, threads, providers, **how)

    monkeypatch.setattr(onnx_model, "_open", refusing)
    with caplog.at_level(logging.WARNING):
        assert open_placed(bundle, "onnxruntime", threads=1, placement=ALL).provider == "cpu"
    assert "tensorrt does not work here: no engine for this graph" in caplog.messages


def test_a_provider_that_answers_otherwise_than_the_bundle_says_is_passed_over(bundle, monkeypatch, caplog):
    """What a GPU would answer cannot be known here, so its place is taken by a model that says it ran on one."""
    tried = []

    def opened(self, runtime, *, threads=1, placement=ON_CPU):
        tried.append(placement.providers)
        return replace(real(self, runtime, threads=threads), provider=placement.providers[0])

    real = type(bundle).open
    monkeypatch.setattr(type(bundle), "open", opened)
    answers = iter([GoldenMismatchError("logits", 0.4, 0.05), None])

    def check(_bundle, _model):
        if (error := next(answers)) is not None:
            raise error

    monkeypatch.setattr(placing, "_check", check)
    with caplog.at_level(logging.WARNING):
        assert open_placed(bundle, "onnxruntime", threads=1, placement=ALL).provider == "cuda"
    assert tried == [("tensorrt", "cuda", "cpu"), ("cuda", "cpu")]
    assert caplog.messages == [
        "tensorrt does not answer as it should: golden vectors: logits off by 0.4, at most 0.05 allowed"
    ]


def test_the_golden_check_of_another_provider_is_the_real_one(bundle):
    model = bundle.open("onnxruntime")
    placing._check(bundle, model)

    class Wrong:
        def logits(self, features):
            return model.tail.logits(features) + 3 * np.eye(len(bundle.manifest.task.classes), dtype=np.float32)[0]

    with pytest.raises(GoldenMismatchError):
        placing._check(bundle, replace(model, tail=Wrong()))


def test_other_runtimes_have_no_providers(bundle):
    with pytest.raises(NoProviderError, match="litert runs on the processor"):
        open_placed(bundle, "litert", threads=1, placement=Placement(("cuda",)))
