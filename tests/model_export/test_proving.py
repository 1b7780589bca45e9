"""A bundle is proven on a runtime where that runtime lives, in this Python or in another."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fd_protocol.manifest import FileEntry, Preprocessing, Role, Task
from fd_runtime.artifacts import Bundle, UnverifiedRuntimeError
from fd_runtime.models.golden import GoldenMismatchError
from model_export.building import build
from model_export.proving import PYTHON_VARIABLE, InterpreterError, UnprovenError, interpreter_for, prove
from model_export.recipe import FactoryData, Recipe
from tests.support.tflite_interpreters import python_of_tflite_runtime

PICTURES = Task(("a", "b", "c"), (3, 12, 12), "uint8", Preprocessing(1 / 255))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With an int8 backbone, and a tail of a convolution and dense layers."""
    pictures = np.random.default_rng(0).integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)
    data = FactoryData(pictures[:0], np.empty(0, np.int64), calibration=pictures)
    recipe = Recipe("pictures", "cnn-s", pretraining=None, trains="last 3", batch_rows=8)
    return build(recipe, PICTURES, data, tmp_path_factory.mktemp("bundles") / "pictures")


def with_file(bundle: Bundle, role: Role, content: bytes, folder: Path) -> Bundle:
    """The bundle with another file of a role, whose digest is right."""
    for entry in bundle.manifest.files.values():
        (folder / entry.path).write_bytes((bundle.folder / entry.path).read_bytes())
    entry = FileEntry.of(bundle.manifest.files[role].path, content)
    (folder / entry.path).write_bytes(content)
    return Bundle(folder, replace(bundle.manifest, files={**bundle.manifest.files, role.value: entry}))


def shifted_theta(bundle: Bundle) -> bytes:
    return (np.frombuffer(bundle.read(Role.THETA), "<f4") + np.float32(0.1)).astype("<f4").tobytes()


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_it_is_proven_in_this_process(bundle: Bundle, runtime: str) -> None:
    prove(bundle, runtime)


def test_it_is_proven_on_tflite_runtime_in_a_python_of_its_own(bundle: Bundle) -> None:
    prove(bundle, "tflite-runtime", python_of_tflite_runtime())
    assert "tflite-runtime" in bundle.manifest.verified_on or not os.environ.get(PYTHON_VARIABLE)


def test_what_the_manifest_lists_does_not_matter_nor_whether_it_is_written(bundle: Bundle, tmp_path: Path) -> None:
    draft = with_file(bundle, Role.THETA, bundle.read(Role.THETA), tmp_path)
    unlisted = Bundle(tmp_path, replace(draft.manifest, verified_on=("numpy",)))
    with pytest.raises(UnverifiedRuntimeError):
        unlisted.open("litert")
    prove(unlisted, "litert")
    prove(unlisted, "litert", Path(sys.executable))


def test_a_bundle_proven_on_one_tflite_runtime_is_refused_on_the_other(bundle: Bundle) -> None:
    on_one = Bundle(bundle.folder, replace(bundle.manifest, verified_on=("litert",)))
    with pytest.raises(UnverifiedRuntimeError, match="proven on litert, not on tflite-runtime"):
        on_one.open("tflite-runtime")


def test_another_python_says_what_fails(bundle: Bundle, tmp_path: Path) -> None:
    broken = with_file(bundle, Role.THETA, shifted_theta(bundle), tmp_path)
    with pytest.raises(GoldenMismatchError, match="golden vectors: logits off by"):
        prove(broken, "litert")
    with pytest.raises(UnprovenError, match=r"litert in .*: golden vectors: logits off by"):
        prove(broken, "litert", Path(sys.executable))


def test_a_python_without_the_runtime_says_so(bundle: Bundle) -> None:
    with pytest.raises(UnprovenError, match="onnxruntime"):
        prove(bundle, "onnxruntime", python_of_tflite_runtime())
    with pytest.raises(UnprovenError, match="dies under numpy 2"):
        prove(bundle, "tflite-runtime", Path(sys.executable))


def test_a_python_that_is_not_there_is_named(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterpreterError, match="nowhere cannot be started"):
        prove(bundle, "tflite-runtime", tmp_path / "nowhere")
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InterpreterError, match=f"nowhere: run `make tflite-runtime`, or name one in {PYTHON_VARIABLE}"):
        interpreter_for("tflite-runtime")


def test_a_python_that_dies_is_reported(bundle: Bundle, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho last words >&2\nkill -11 $$\n")
    script.chmod(0o755)
    with pytest.raises(InterpreterError, match="died of signal 11 on the bundle; it said: last words"):
        prove(bundle, "tflite-runtime", script)


def test_only_tflite_runtime_needs_a_python_of_its_own() -> None:
    assert [interpreter_for(runtime) for runtime in ("onnxruntime", "litert", "numpy")] == [None] * 3
