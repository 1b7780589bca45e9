"""Proving a bundle on a runtime: in this process, or in another Python where the runtime needs one of its own.

tflite-runtime 2.14 works under NumPy 1 alone, so it lives in an environment beside this one. `make tflite-runtime`
makes that environment; `interpreter_for` finds it, or what a variable names in its place.
"""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

import fd_protocol
import fd_runtime
from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import Bundle, Runtime
from fd_runtime.models.model import F32, Inputs
from fd_runtime.models.proof import check_on

PYTHON_VARIABLE: Final = "FEDISTILL_TFLITE_RUNTIME_PYTHON"
_PYTHON_IN_SOURCES: Final = Path(__file__).parent.parent / ".venv-tflite" / "bin" / "python"
_TIME_LIMIT_S: Final = 300
_PACKAGES: Final = (fd_protocol, fd_runtime)
"""All that the other Python sees of us; a whole `site-packages` would give it our NumPy too."""


class InterpreterError(FedistillError):
    """There is no Python to prove a runtime with, or it did not come to an answer."""


class UnprovenError(FedistillError):
    """Another Python ran the golden check and it failed; the text is its own."""


def prove(bundle: Bundle, runtime: Runtime, python: Path | None = None) -> None:
    """Check that `bundle` gives its golden vectors on `runtime`, whether or not its manifest lists it.

    Args:
        bundle: its files are there; its manifest need not be written yet.
        runtime: what to run it on.
        python: an interpreter that has the runtime and NumPy, this process if None.

    Raises:
        GoldenMismatchError, ModelError, MissingArtifactError, DigestError: it does not, in this process.
        UnprovenError: it does not, in the other interpreter.
        InterpreterError: the other interpreter is not there, takes minutes, or crashes.
    """
    if python is None:
        check_on(bundle, runtime)
        return
    _run_in(python, "fd_runtime.models.proof", bundle, runtime, bundle.manifest.to_json())


def prove_anywhere(bundle: Bundle, runtime: Runtime) -> None:
    """Check `bundle` on `runtime` in whichever interpreter has it; raises as `prove` and `interpreter_for`."""
    prove(bundle, runtime, interpreter_for(runtime))


def logits_on(bundle: Bundle, runtime: Runtime, inputs: Inputs, python: Path | None = None) -> F32:
    """Return the logits [n, classes] of preprocessed samples on a runtime that the manifest lists.

    Raises:
        UnverifiedRuntimeError, ModelError, UnprovenError, InterpreterError: as `prove`.
    """
    if python is None:
        model = bundle.open(runtime)
        return model.tail.logits(model.features(inputs))
    sent = io.BytesIO()
    np.save(sent, inputs, allow_pickle=False)
    answer = _run_in(python, "fd_runtime.models.answering", bundle, runtime, sent.getvalue())
    return np.asarray(np.load(io.BytesIO(answer), allow_pickle=False), np.float32)


def interpreter_for(runtime: Runtime) -> Path | None:
    """Return the Python that `prove` needs for `runtime`: None where this process will do.

    Raises:
        InterpreterError: the runtime needs one of its own and none was set up.
    """
    if runtime != "tflite-runtime":
        return None
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else _PYTHON_IN_SOURCES
    if not python.is_file():
        raise InterpreterError(
            f"no Python for {runtime} at {python}: run `make tflite-runtime`, or name one in {PYTHON_VARIABLE}"
        )
    return python


def _run_in(python: Path, module: str, bundle: Bundle, runtime: Runtime, sent: bytes) -> bytes:
    """Return what a module of fd_runtime writes, run in another interpreter that sees our two packages and no more."""
    command = [str(python), "-m", module, str(bundle.folder.resolve()), runtime]
    with tempfile.TemporaryDirectory() as folder:
        for package in _PACKAGES:
            source = Path(package.__path__[0])
            Path(folder, source.name).symlink_to(source)
        environment = {**os.environ, "PYTHONPATH": folder}
        try:
            run = subprocess.run(
                command, input=sent, env=environment, capture_output=True, check=False, timeout=_TIME_LIMIT_S
            )
        except OSError as error:
            raise InterpreterError(f"{python} cannot be started: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise InterpreterError(f"{python} proved nothing in {_TIME_LIMIT_S} s") from error
    said = run.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
    if run.returncode < 0:
        raise InterpreterError(f"{python} died of signal {-run.returncode} on the bundle; it said: {said[-1]}")
    if run.returncode:
        raise UnprovenError(f"{runtime} in {python}: {said[-1]}")
    return run.stdout
