"""Models on the stock onnxruntime wheel: the only home of onnxruntime at run time.

Traps that this module exists for (each measured or met):
- `add_initializer` swaps parameters wrongly (convolutions keep their old weights), checks neither shape nor name, and
  ends in a segfault if its OrtValue is dropped: `onnx_parameters` writes theta into the file's bytes instead;
- scalars must be arrays of rank 0; `np.float32(x)` is refused;
- x86 processors without VNNI add products of uint8 and int8 in 16 bits, which overflow: there, and only there,
  `x64quantprecision` makes the weights unsigned;
- spinning threads starve a shared board, and memory patterns keep the first run's arena: both are off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fd_protocol.identity import sha256
from fd_protocol.layout import ThetaLayout
from fd_runtime.models.engines import Engine, EngineKey, hardware
from fd_runtime.models.model import F32, Features, Inputs, ModelError, OptimizerState
from fd_runtime.models.onnx_parameters import with_parameters
from fd_runtime.models.onnx_references import check_self_contained
from fd_runtime.models.providers import (
    MAX_ROWS,
    NAMES,
    ON_CPU,
    NoProviderError,
    Options,
    Placement,
    Provider,
    compiled,
    ladder,
)
from fd_runtime.models.train_graph import Arrays, PrivateTrainGraph, StepGraph, TrainGraph

# Official wheels since 1.29 report usage to their maker unless told before the import; the switch inside is too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
from onnxruntime import (  # type: ignore[attr-defined]
    GraphOptimizationLevel,
    InferenceSession,
    SessionOptions,
    get_available_providers,
)
from onnxruntime import __version__ as onnxruntime_version
from onnxruntime.capi import onnxruntime_pybind11_state as _errors

_REFUSALS = (
    _errors.Fail,
    _errors.InvalidArgument,
    _errors.InvalidGraph,
    _errors.InvalidProtobuf,
    _errors.NotImplemented,
    _errors.RuntimeException,
)
_DISABLED_OPTIMIZERS = ["QDQPropagationTransformer"]
"""It would pull a QuantizeLinear before the MaxPool of a float layer, whose uint8 kernel is ten times slower there."""
_ROWS_AT_ONCE = MAX_ROWS
"""Bounds the memory of a thousand probes in a convolution to that of a batch; more rows at once are no faster."""
_ON_CPU: list[tuple[str, Options]] = [(NAMES["cpu"], {})]

log = logging.getLogger("fedistill.onnxruntime")


class OnnxBackbone:
    """A frozen graph `input` -> `features`.

    Attributes:
        provider: on which it runs.
    """

    def __init__(
        self, model: bytes, *, threads: int = 1, placement: Placement = ON_CPU, sample_shape: tuple[int, ...] = ()
    ) -> None:
        """Load the graph on the first provider of `placement` that works here.

        Args:
            model: serialized.
            threads: of one run.
            placement: where it may run.
            sample_shape: of its input without the rows; a GPU's compiler wants to know.

        Raises:
            ModelError: onnxruntime refuses it.
            NoProviderError: no provider of `placement` is offered, or works.
        """
        self._session, self.provider = _open_placed(model, threads, placement, sample_shape)

    def extract(self, samples: Inputs) -> Features:
        """Return the features of preprocessed samples [n, *sample_shape]: uint8 [n, F] from an int8 backbone."""
        return _by_rows(self._session, "input", samples, "features")  # type: ignore[no-any-return]


class OnnxTail:
    """A graph `features` -> `logits` whose parameters are initializers."""

    def __init__(self, model: bytes, layout: ThetaLayout, *, threads: int = 1) -> None:
        """Load the graph with the parameters that it carries.

        Raises:
            ModelError: onnxruntime refuses it.
        """
        self._model, self._layout, self._threads = model, layout, threads
        self._session = _open(model, threads)

    def logits(self, features: Features) -> F32:
        """Return logits [n, classes]."""
        return _by_rows(self._session, "features", features, "logits")  # type: ignore[no-any-return]

    def load(self, theta: F32) -> None:
        """Replace the parameters by opening the graph anew (2 ms): as constants they answer faster than as inputs.

        Raises:
            ThetaError: wrong length or type, or not finite; the old parameters stay.
            ModelError: the graph has other parameters than the layout.
        """
        self._session = _open(with_parameters(self._model, self._layout, theta), self._threads)


class _OnnxStep(StepGraph):
    """A train-step graph on onnxruntime."""

    def __init__(self, model: bytes, state: OptimizerState, *, threads: int = 1) -> None:
        """Load the graph and go on from `state`.

        Args:
            model: a train-step graph.
            state: parameters and optimizer slots, fresh or of an earlier session.
            threads: of one step; small tails gain nothing from more than one.

        Raises:
            ModelError: onnxruntime refuses the graph.
            ThetaError: the state does not fit the graph.
        """
        self._session = _open(model, threads, quantised=False, fused=False)
        self._outputs = [info.name for info in self._session.get_outputs()]
        size = next(info.shape[0] for info in self._session.get_inputs() if info.name == "theta")
        super().__init__(size, self._outputs, state)

    def compute(self, feed: Arrays) -> Arrays:
        """See `StepGraph`."""
        return dict(zip(self._outputs, _run(self._session, self._outputs, feed), strict=True))


class OnnxTrainSession(_OnnxStep, TrainGraph):
    """A train-step graph and the state that it changes."""


class OnnxPrivateTrainSession(_OnnxStep, PrivateTrainGraph):
    """A graph of `model_export.trainstep.private` and the state that it changes."""


class OnnxGraph:
    """Any graph: arrays in by name, all outputs by name. For checks and measurements; models have the faces above."""

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        """Load the graph.

        Raises:
            ModelError: onnxruntime refuses it.
        """
        self._session = _open(model, threads, quantised=False)
        self._outputs = [info.name for info in self._session.get_outputs()]

    def run(self, feed: Arrays) -> Arrays:
        """Return every output.

        Raises:
            ModelError: onnxruntime refuses an input.
        """
        return dict(zip(self._outputs, _run(self._session, self._outputs, feed), strict=True))


def awaits_engine(model: bytes, placement: Placement, sample_shape: tuple[int, ...]) -> bool:
    """Whether opening this frozen graph would begin with a compilation by TensorRT: minutes."""
    offered = get_available_providers()
    first = next((one for one in placement.providers if NAMES[one] in offered), None)
    if first != "tensorrt":
        return False
    engine = _engine(model, placement, sample_shape)
    return engine is None or not engine.is_compiled


def _engine(model: bytes, placement: Placement, sample_shape: tuple[int, ...]) -> Engine | None:
    """Return where TensorRT's engine of a graph is kept; None: TensorRT has no part in it, or nothing is kept."""
    options = compiled(placement, get_available_providers(), {"input": sample_shape})
    found = hardware(placement.gpu.device) if options and placement.gpu.engines is not None else None
    if found is None or placement.gpu.engines is None:
        return None
    return Engine(placement.gpu.engines, EngineKey(sha256(model).hex(), found, onnxruntime_version, options))


def _open_placed(
    model: bytes, threads: int, placement: Placement, sample_shape: tuple[int, ...]
) -> tuple[InferenceSession, Provider]:
    """Open a frozen graph on the first provider that works, with a compiled engine where one is kept."""
    engine = _engine(model, placement, sample_shape)
    without = replace(placement, gpu=replace(placement.gpu, engines=None))
    if engine is None:
        return _open_first(model, threads, without, sample_shape)
    try:
        with engine.prepared() as folder:
            kept = replace(placement, gpu=replace(placement.gpu, engines=folder))
            session, provider = _open_first(model, threads, kept, sample_shape)
            if provider == "tensorrt":
                engine.keep()
            else:  # one that TensorRT does not take any more would be in its way for ever
                engine.discard()
            return session, provider
    except OSError as error:
        log.warning("the engine cannot be kept, and is compiled again each time: %s", error)
        return _open_first(model, threads, without, sample_shape)


def _open_first(
    model: bytes, threads: int, placement: Placement, sample_shape: tuple[int, ...]
) -> tuple[InferenceSession, Provider]:
    """Open a frozen graph on the first provider that works. See `OnnxBackbone`."""
    for provider, listed in ladder(placement, get_available_providers(), {"input": sample_shape}):
        try:
            session = _open(model, threads, listed)
        except ModelError as error:
            if provider == "cpu":  # then it is the graph
                raise
            log.warning("%s does not work here: %s", provider, error)
            continue
        # A wheel with CUDA in it offers CUDA; where its libraries are missing the session falls back without an error.
        if session.get_providers()[0] == NAMES[provider]:
            return session, provider
        log.warning("%s is offered, but its libraries do not load here", provider)
    raise NoProviderError(f"none of {', '.join(placement.providers)} works here")


def _open(
    model: bytes,
    threads: int,
    providers: Sequence[tuple[str, Options]] = _ON_CPU,
    *,
    quantised: bool = True,
    fused: bool = True,
) -> InferenceSession:
    """Open a graph.

    Args:
        model: serialized.
        threads: of one run.
        providers: names and options, the one that is meant first.
        quantised: integer kernels may take over from DequantizeLinear and float ops.
        fused: onnxruntime may rewrite the graph.
    """
    check_self_contained(model)
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not quantised:  # else onnxruntime repeats a DequantizeLinear for each of its readers: 12 % of a head's step
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not fused:  # rewritten nodes run in another order: up to twice the memory that was planned, and no less time
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return InferenceSession(model, options, providers=providers, disabled_optimizers=_DISABLED_OPTIMIZERS)
    except _REFUSALS as error:
        raise ModelError(f"onnxruntime refuses the graph: {error}") from error


def _by_rows(session: InferenceSession, name: str, rows: Features, output: str) -> Any:
    """Return `output` for all rows of the input `name`, a batch at a time."""
    if len(rows) <= _ROWS_AT_ONCE:
        return _run(session, [output], {name: rows})[0]
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    return np.concatenate([_run(session, [output], {name: rows[start : start + _ROWS_AT_ONCE]})[0] for start in starts])


def _run(session: InferenceSession, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
    try:
        return list(session.run(outputs, feed))
    except (*_REFUSALS, ValueError) as error:  # ValueError: an input is missing or unknown
        raise ModelError(f"onnxruntime refuses the inputs: {error}") from error
