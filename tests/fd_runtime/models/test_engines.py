"""Compiled engines: which is whose, and what a broken compilation leaves.

There is no GPU here. TensorRT is faked where onnxruntime is asked for it, `InferenceSession`, and the libraries that
tell of TensorRT and GPU are built by the C compiler; keys, folders and locks are the real ones.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from fd_protocol.manifest import Role
from fd_runtime.models import engines, onnx_model
from fd_runtime.models.engines import Engine, EngineKey, Hardware, keep_only
from fd_runtime.models.placing import awaits_engine, open_placed
from fd_runtime.models.providers import NAMES, GpuSettings, Placement
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.small_bundles import small_bundle

ORIN = Hardware("100300", "Orin 8.7 driver 12060")
KEY = EngineKey("a" * 64, ORIN, "1.24.0", ("trt_fp16_enable=0",))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("small") / "bundle")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("small") / "other", seed=5)


@pytest.fixture
def tensorrt(monkeypatch):
    return FakeTensorRt(ORIN).installed(monkeypatch)


@pytest.fixture
def placement(tmp_path):
    return Placement(("tensorrt", "cpu"), GpuSettings(engines=tmp_path / "engines"))


def opened(bundle, placement):
    return open_placed(bundle, "onnxruntime", threads=1, placement=placement)


OTHERS = {
    "another model": replace(KEY, model="b" * 64),
    "another TensorRT": replace(KEY, hardware=replace(ORIN, tensorrt="100400")),
    "another GPU": replace(KEY, hardware=replace(ORIN, gpu="NVIDIA H200 9.0 driver 12060")),
    "another driver": replace(KEY, hardware=replace(ORIN, gpu="Orin 8.7 driver 12080")),
    "another onnxruntime": replace(KEY, onnxruntime="1.25.0"),
    "other options": replace(KEY, options=("trt_fp16_enable=1",)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_engine_is_of_one_model_one_tensorrt_one_gpu(name):
    assert OTHERS[name].name != KEY.name
    assert replace(KEY).name == KEY.name


def test_an_engine_is_compiled_once(bundle, placement, tensorrt):
    assert awaits_engine(bundle, "onnxruntime", placement)
    assert opened(bundle, placement).provider == "tensorrt"
    assert not awaits_engine(bundle, "onnxruntime", placement)
    assert opened(bundle, placement).provider == "tensorrt"
    assert tensorrt.compiled == 1


def test_what_it_answers_is_what_the_processor_answers(bundle, placement, tensorrt):
    samples = np.zeros((3, *bundle.manifest.task.sample_shape), np.float32)
    assert np.array_equal(opened(bundle, placement).features(samples), bundle.open("onnxruntime").features(samples))


CHANGES = {
    "TensorRT": lambda faked: faked.becomes(Hardware("100400", ORIN.gpu)),
    "GPU": lambda faked: faked.becomes(Hardware(ORIN.tensorrt, "NVIDIA H200 9.0 driver 12060")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_after_an_upgrade_it_is_compiled_again_and_the_old_one_goes(bundle, placement, tensorrt, what):
    opened(bundle, placement)
    CHANGES[what](tensorrt)
    assert awaits_engine(bundle, "onnxruntime", placement)
    opened(bundle, placement)
    assert tensorrt.compiled == 2
    assert len([path for path in placement.gpu.engines.iterdir() if path.is_dir()]) == 1


def test_another_precision_is_another_engine(bundle, placement, tensorrt):
    opened(bundle, placement)
    opened(bundle, replace(placement, gpu=replace(placement.gpu, is_half_precision=True)))
    assert tensorrt.compiled == 2


def test_each_model_has_its_own(bundle, other, placement, tensorrt):
    assert bundle.read(Role.BACKBONE) != other.read(Role.BACKBONE)
    for each in (bundle, other, bundle, other):
        opened(each, placement)
    assert tensorrt.compiled == 2


def test_what_a_broken_compilation_left_is_never_read(bundle, placement, tensorrt):
    tensorrt.breaks = True
    with pytest.raises(FakeTensorRt.PowerCutError):
        opened(bundle, placement)
    (left,) = placement.gpu.engines.glob("*/half.engine")
    (left.parent / "half.profile").write_bytes(b"?")
    tensorrt.breaks = False
    assert awaits_engine(bundle, "onnxruntime", placement)
    assert opened(bundle, placement).provider == "tensorrt"
    assert not (left.parent / "half.profile").exists()


def test_an_engine_that_tensorrt_does_not_take_any_more_is_compiled_again(bundle, placement, tensorrt):
    opened(bundle, placement)
    (engine,) = placement.gpu.engines.glob("*/whole.engine")
    engine.write_bytes(b"rotten")
    assert opened(bundle, placement).provider == "cpu"
    assert opened(bundle, placement).provider == "tensorrt"
    assert tensorrt.compiled == 2


def test_where_the_disk_takes_nothing_it_compiles_each_time_and_says_so(bundle, placement, tensorrt, caplog):
    placement.gpu.engines.write_bytes(b"a file in the place of the folder")
    opened(bundle, placement)
    assert opened(bundle, placement).provider == "tensorrt"
    assert "compiled again each time" in caplog.text
    assert tensorrt.compiled == 2


def test_without_a_word_on_the_hardware_nothing_is_kept(bundle, placement, tensorrt):
    tensorrt.becomes(None)
    assert awaits_engine(bundle, "onnxruntime", placement)
    opened(bundle, placement)
    assert not placement.gpu.engines.exists()


def test_nobody_waits_for_an_engine_without_tensorrt(bundle, placement, monkeypatch):
    assert not awaits_engine(bundle, "onnxruntime", placement)  # it is not offered here
    FakeTensorRt(ORIN).installed(monkeypatch)
    monkeypatch.setattr(onnx_model, "get_available_providers", lambda: list(NAMES.values()))
    first_cuda = replace(placement, providers=("cuda", "tensorrt", "cpu"))
    assert not awaits_engine(bundle, "onnxruntime", first_cuda)
    assert not awaits_engine(bundle, "litert", placement)


def test_engines_of_models_that_are_gone_go(tmp_path):
    keys = [replace(KEY, model=letter * 64) for letter in "abc"]
    for key in keys:
        engine = Engine(tmp_path, key)
        with engine.prepared():
            engine.keep()
    (tmp_path / "somebody else's").mkdir()
    keep_only(tmp_path, {"b" * 64})
    assert [Engine(tmp_path, key).is_compiled for key in keys] == [False, True, False]
    assert (tmp_path / "somebody else's").exists()
    keep_only(tmp_path / "nowhere", set())


def test_here_there_is_no_such_hardware():
    assert engines.hardware(0) is None


SOURCES = {
    "libnvinfer.so.10": "int getInferLibVersion(void) { return 100300; }",
    "libcuda.so.1": """
        #include <string.h>
        int cuInit(unsigned flags) { return 0; }
        int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
        int cuDeviceGet(int *device, int number) { *device = 40 + number; return number > 1 ? 101 : 0; }
        int cuDeviceGetName(char *name, int bytes, int device) { strncpy(name, "Orin", bytes); return device < 40; }
        int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : 7; return 0; }
    """,
}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
def test_the_libraries_are_asked_by_their_documented_interface(tmp_path, monkeypatch):
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.c").write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", tmp_path / name, tmp_path / f"{name}.c"], check=True)
    real = ctypes.CDLL
    monkeypatch.setattr(engines.ctypes, "CDLL", lambda name: real(str(tmp_path / name)))
    assert engines.hardware(0) == ORIN
    assert engines.hardware(7) is None  # there is no such GPU
