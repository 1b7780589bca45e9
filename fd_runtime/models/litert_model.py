"""The three faces of a model in TFLite files, on one of two runtimes that read them.

`litert` is ai-edge-litert; `tflite-runtime` is its predecessor, the only one with a wheel for 32-bit ARM. They do not
compute everything alike, so a bundle is proven on each by itself and neither ever stands in for the other.

The files come from `model_export.tflite`: builtin operators only, tensors under the names of their ONNX twins. TFLite
stores quantised features as int8, everything else in fedistill as uint8; the bytes differ by their top bit, which is
flipped here and nowhere else.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_runtime.artifacts import TfliteRuntime
from fd_runtime.models.model import F32, Features, Inputs, ModelError, OptimizerState, RuntimeMissingError, check_theta
from fd_runtime.models.train_graph import Arrays, TrainGraph

_Array: TypeAlias = npt.NDArray[Any]

_MODULES: Final[Mapping[TfliteRuntime, str]] = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
_EXTRAS: Final[Mapping[TfliteRuntime, str]] = {"litert": "agent-tflite", "tflite-runtime": "agent-tflite-runtime"}
_TOP_BIT: Final = np.uint8(0x80)
_ROWS_AT_ONCE: Final = 64  # bounds the memory of a large extraction; more rows at once are no faster
_OPEN: Final = -1


class LiteRtBackbone:
    """A frozen graph `input` -> `features`, in slices of at most 64 rows."""

    def __init__(self, model: bytes, runtime: TfliteRuntime = "litert") -> None:
        """Load the file.

        Raises:
            ModelError: the runtime refuses it, or is not installed.
        """
        self._session = Session(model, runtime)

    def extract(self, samples: Inputs) -> Features:
        """Return the features of preprocessed samples [n, *sample_shape]: uint8 [n, F] from an int8 backbone."""
        parts = [
            _from_stored(self._session.run({"input": samples[start : start + _ROWS_AT_ONCE]})["features"])
            for start in range(0, len(samples), _ROWS_AT_ONCE)
        ]
        return cast("Features", np.concatenate(parts))


class LiteRtTail:
    """A graph `features`, `theta` -> `logits`: its parameters are an input, so new ones cost a copy."""

    def __init__(self, model: bytes, theta: F32, runtime: TfliteRuntime = "litert") -> None:
        """Load the file.

        Raises:
            ModelError: the runtime refuses it, or is not installed.
            ThetaError: theta does not fit the graph.
        """
        self._session = Session(model, runtime)
        self.load(theta)

    def logits(self, features: Features) -> F32:
        """Return logits [n, classes]."""
        return cast("F32", self._session.run({"features": _to_stored(features), "theta": self._theta})["logits"])

    def load(self, theta: F32) -> None:
        """Replace the parameters.

        Raises:
            ThetaError: wrong length or type, or not finite; the old parameters stay.
        """
        (size,) = self._session.shape("theta")
        self._theta = check_theta(theta, size).copy()


class LiteRtTrainSession(TrainGraph):
    """A train-step graph of a fixed number of rows, and the state that it changes."""

    def __init__(self, model: bytes, state: OptimizerState, runtime: TfliteRuntime = "litert") -> None:
        """Load the file and go on from `state`.

        Raises:
            ModelError: the runtime refuses the file, or is not installed.
            ThetaError: the state does not fit the graph.
        """
        self._session = Session(model, runtime)
        (self.rows,) = self._session.shape("weight")
        (size,) = self._session.shape("theta")
        super().__init__(size, self._session.outputs, state)

    def compute(self, feed: Arrays) -> Arrays:
        """See `TrainGraph`. Missing rows are filled up with rows of weight 0.

        Raises:
            InvalidValueError: the batch has more rows than the graph.
        """
        missing = self.rows - len(feed["weight"])
        if missing < 0:
            raise InvalidValueError(f"a batch of {len(feed['weight'])} rows; this train step takes {self.rows}")
        rows = {
            "features": _to_stored(feed["features"]),
            "labels": feed["labels"].astype(np.int32),
            **{name: feed[name] for name in ("targets", "alpha", "weight")},
        }
        return self._session.run({**feed, **{name: _with_zero_rows(array, missing) for name, array in rows.items()}})


class Session:
    """One interpreter on one thread; tensors go by name, and the batch axis follows the arrays that are fed.

    Callers may be of several threads: an interpreter keeps its tensors in itself, so they take turns.
    """

    def __init__(self, model: bytes, runtime: TfliteRuntime) -> None:
        """Load any file of `model_export.tflite`.

        Raises:
            ModelError: the runtime refuses it, or is not installed.
        """
        interpreter = _interpreter_class(runtime)
        self._runtime = runtime
        try:
            self._interpreter = interpreter(model_content=model, num_threads=1)
            self._interpreter.allocate_tensors()
            # The runner is let go at once: while one lives, the interpreter refuses to resize.
            runner = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{runtime} refuses the file: {error}") from error
        self._inputs: Mapping[str, Any] = runner.get_input_details()
        self._output_indices = {name: details["index"] for name, details in runner.get_output_details().items()}
        self._resizable = [name for name, details in self._inputs.items() if _OPEN in details["shape_signature"]]
        self._rows = 1
        self._turn = threading.Lock()

    @property
    def outputs(self) -> Collection[str]:
        return self._output_indices.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an input, its open axis counting 1.

        Raises:
            ModelError: there is no such input.
        """
        if name not in self._inputs:
            raise ModelError(f"the file has no input {name!r}, only {', '.join(self._inputs)}")
        return tuple(self._inputs[name]["shape"].tolist())

    def run(self, feed: Mapping[str, _Array]) -> dict[str, _Array]:
        """Return every output by name.

        Raises:
            ModelError: an input is missing, or has the wrong type or shape.
        """
        with self._turn:
            try:
                self._resize(feed)
                for name, details in self._inputs.items():
                    self._interpreter.set_tensor(details["index"], feed[name])
                self._interpreter.invoke()
            except (KeyError, ValueError, RuntimeError) as error:
                raise ModelError(f"{self._runtime} refuses the inputs: {error}") from error
            return {name: self._interpreter.get_tensor(index) for name, index in self._output_indices.items()}

    def _resize(self, feed: Mapping[str, _Array]) -> None:
        """Give the open axis as many rows as are fed; `strict` refuses any other change before it does harm."""
        if not self._resizable or len(feed[self._resizable[0]]) == self._rows:
            return
        for name in self._resizable:
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], feed[name].shape, strict=True)
        self._interpreter.allocate_tensors()
        self._rows = len(feed[self._resizable[0]])


def _interpreter_class(runtime: TfliteRuntime) -> Any:
    """The interpreter of exactly this runtime.

    Raises:
        ModelError: it is not installed, or not with this NumPy.
    """
    if runtime == "tflite-runtime" and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        raise ModelError("tflite-runtime dies under numpy 2: install numpy 1.26.4 beside it, or ai-edge-litert")
    try:
        return importlib.import_module(_MODULES[runtime]).Interpreter
    except ImportError as error:
        raise RuntimeMissingError(f"{runtime} is not installed: pip install 'fedistill[{_EXTRAS[runtime]}]'") from error


def _to_stored(features: Features) -> _Array:
    return _top_bit_flipped(features, np.int8) if features.dtype == np.uint8 else features


def _from_stored(features: _Array) -> _Array:
    return _top_bit_flipped(features, np.uint8) if features.dtype == np.int8 else features


def _top_bit_flipped(features: _Array, dtype: npt.DTypeLike) -> _Array:
    return (features.view(np.uint8) ^ _TOP_BIT).view(dtype)


def _with_zero_rows(array: _Array, count: int) -> _Array:
    if count == 0:
        return array
    return np.concatenate([array, np.zeros((count, *array.shape[1:]), array.dtype)])
