"""Both runtimes of .tflite files, side by side: LiteRT in this process, tflite-runtime in a Python of its own.

make tflite-runtime        makes that Python; without it, what needs it skips with a reason.
"""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fd_runtime.artifacts import TfliteRuntime
from fd_runtime.models.litert_model import Session
from model_export.proving import InterpreterError, interpreter_for

Arrays = Mapping[str, npt.NDArray[Any]]
RUNTIMES: tuple[TfliteRuntime, ...] = ("litert", "tflite-runtime")
_ROOT = Path(__file__).parent.parent.parent
_CHILD = """
import pickle, sys
import numpy as np
from fd_runtime.models.litert_model import Session
from fd_runtime.models.model import ModelError

def unpack(arrays):
    return {name: np.frombuffer(data, dtype).reshape(shape) for name, (dtype, shape, data) in arrays.items()}

def pack(arrays):
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}

while sys.stdin.buffer.peek(1):
    model, feeds = pickle.load(sys.stdin.buffer)
    try:
        session = Session(model, "tflite-runtime")
        answer = [pack(session.run(unpack(feed))) for feed in feeds]
    except ModelError as error:
        answer = str(error)
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


def python_of_tflite_runtime() -> Path:
    """Return the Python that has tflite-runtime, or skip the test."""
    try:
        python = interpreter_for("tflite-runtime")
    except InterpreterError as error:
        pytest.skip(str(error))
    assert python is not None
    return python


def run_tflite(runtime: TfliteRuntime, model: bytes, feeds: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
    """Return the outputs for each feed in turn, from one interpreter: what it wrongly keeps of the first shows."""
    if runtime == "litert":
        session = Session(model, runtime)
        return [session.run(feed) for feed in feeds]
    return _child(python_of_tflite_runtime()).run(model, feeds)


class _Child:
    def __init__(self, python: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        self._process = subprocess.Popen(
            [python, "-c", _CHILD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, model: bytes, feeds: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        packed = [{n: (a.dtype.str, a.shape, a.tobytes()) for n, a in feed.items()} for feed in feeds]
        pickle.dump((model, packed), self._process.stdin)
        self._process.stdin.flush()
        answer = pickle.load(self._process.stdout)
        assert not isinstance(answer, str), answer
        return [
            {name: np.frombuffer(data, dtype).reshape(shape) for name, (dtype, shape, data) in outputs.items()}
            for outputs in answer
        ]


@cache
def _child(python: Path) -> _Child:
    """It lives as long as this process: the end of its input ends it."""
    return _Child(python)
