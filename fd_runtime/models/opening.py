"""Artifacts -> arrays and models, on the runtime that was asked for; no other is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.manifest import Manifest, Role
from fd_protocol.public_set import SetFile
from fd_runtime.artifacts import Bundle, PublicSet, Runtime, TfliteRuntime, UnverifiedRuntimeError
from fd_runtime.models.model import Backbone, Features, Inputs, OptimizerState, PrivateTrainSession, Tail, TrainSession
from fd_runtime.models.providers import ON_CPU, NoProviderError, Placement, Provider
from fd_runtime.npy import from_npy
from fd_runtime.space import Space


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle on a runtime. Without a backbone the tail is the whole network.

    Attributes:
        provider: on which the backbone runs; the processor on other runtimes than onnxruntime, and without backbone.
    """

    manifest: Manifest
    backbone: Backbone | None
    tail: Tail
    train_session: TrainSession
    provider: Provider = "cpu"

    def features(self, inputs: Inputs) -> Features:
        """Return what the tail reads for preprocessed samples [n, *sample_shape]."""
        return inputs if self.backbone is None else self.backbone.extract(inputs)


def open_model(bundle: Bundle, runtime: Runtime, threads: int, placement: Placement = ON_CPU) -> LoadedModel:
    """See `Bundle.open`."""
    if runtime != "onnxruntime" and placement.providers != ON_CPU.providers:
        raise NoProviderError(f"providers are onnxruntime's; {runtime} runs on the processor")
    manifest = bundle.manifest
    if runtime not in manifest.verified_on:
        proven = ", ".join(manifest.verified_on)
        raise UnverifiedRuntimeError(f"bundle {manifest.name} was proven on {proven}, not on {runtime}")
    return _OPENERS[runtime](bundle, _fresh_state(bundle), threads, placement)


def open_tail(bundle: Bundle, runtime: Runtime, threads: int) -> Tail:
    """See `Bundle.open_tail`."""
    return _TAIL_OPENERS[runtime](bundle, _fresh_state(bundle), threads)


def open_private_step(bundle: Bundle, threads: int) -> PrivateTrainSession:
    """See `Bundle.open_private_step`."""
    from fd_runtime.models.onnx_model import OnnxPrivateTrainSession  # noqa: PLC0415 - see the module

    return OnnxPrivateTrainSession(bundle.read(Role.TRAIN_STEP_PRIVATE), _fresh_state(bundle), threads=threads)


def _fresh_state(bundle: Bundle) -> OptimizerState:
    theta = np.frombuffer(bundle.read(Role.THETA), "<f4").astype(np.float32)
    return OptimizerState.fresh(theta, bundle.manifest.training.slots)


def open_probes(public: PublicSet) -> npt.NDArray[np.generic]:
    """See `PublicSet.probes`."""
    spec = public.spec
    return _array(public, SetFile.PROBES, (spec.count, *spec.sample_shape), spec.sample_dtype)


def open_space(public: PublicSet) -> Space:
    """See `PublicSet.space`."""
    spec = public.spec
    dimensions, size = spec.space.dimensions, spec.vector_size
    mean = _array(public, SetFile.SPACE_MEAN, (size,), "float32")
    components = _array(public, SetFile.SPACE_COMPONENTS, (dimensions, size), "float32")
    try:
        return Space(mean, components, spec.space.unit, spec.space.kind)
    except InvalidValueError as error:
        raise DecodeError("malformed", str(error)) from error


def _on_onnxruntime(bundle: Bundle, state: OptimizerState, threads: int, placement: Placement) -> LoadedModel:
    from fd_runtime.models.onnx_model import OnnxBackbone, OnnxTrainSession  # noqa: PLC0415 - see the module

    manifest, backbone = bundle.manifest, None
    if manifest.features:
        shape = manifest.task.sample_shape
        content = bundle.read(Role.BACKBONE)
        backbone = OnnxBackbone(content, threads=threads, placement=placement, sample_shape=shape)
    return LoadedModel(
        manifest,
        backbone,
        _onnxruntime_tail(bundle, state, threads),
        OnnxTrainSession(bundle.read(Role.TRAIN_STEP), state, threads=threads),
        backbone.provider if backbone else "cpu",
    )


def _onnxruntime_tail(bundle: Bundle, _state: OptimizerState, threads: int) -> Tail:
    from fd_runtime.models.onnx_model import OnnxTail  # noqa: PLC0415 - see the module

    return OnnxTail(bundle.read(Role.TAIL), bundle.manifest.layout, threads=threads)


def _on_tflite(
    runtime: TfliteRuntime, bundle: Bundle, state: OptimizerState, threads: int, _placement: Placement
) -> LoadedModel:
    from fd_runtime.models.litert_model import LiteRtBackbone, LiteRtTrainSession  # noqa: PLC0415 - see the module

    return LoadedModel(
        bundle.manifest,
        LiteRtBackbone(bundle.read(Role.BACKBONE_TFLITE), runtime) if bundle.manifest.features else None,
        _tflite_tail(runtime, bundle, state, threads),
        LiteRtTrainSession(bundle.read(Role.TRAIN_STEP_TFLITE), state, runtime),
    )


def _tflite_tail(runtime: TfliteRuntime, bundle: Bundle, state: OptimizerState, _threads: int) -> Tail:
    from fd_runtime.models.litert_model import LiteRtTail  # noqa: PLC0415 - see the module

    return LiteRtTail(bundle.read(Role.TAIL_TFLITE), state.theta, runtime)


def _on_numpy(bundle: Bundle, state: OptimizerState, threads: int, _placement: Placement) -> LoadedModel:
    from fd_runtime.models.numpy_model import DenseChain, NumpyTrainSession  # noqa: PLC0415 - see the module

    if bundle.manifest.features is not None:
        raise UnverifiedRuntimeError(f"bundle {bundle.manifest.name} has a backbone, which numpy cannot run")
    session = NumpyTrainSession(DenseChain(bundle.manifest.layout), state)
    return LoadedModel(bundle.manifest, None, _numpy_tail(bundle, state, threads), session)


def _numpy_tail(bundle: Bundle, state: OptimizerState, _threads: int) -> Tail:
    from fd_runtime.models.numpy_model import DenseChain, NumpyTail  # noqa: PLC0415 - see the module

    return NumpyTail(DenseChain(bundle.manifest.layout), state.theta)


_OPENERS: Mapping[Runtime, Callable[[Bundle, OptimizerState, int, Placement], LoadedModel]] = {
    "onnxruntime": _on_onnxruntime,
    "litert": partial(_on_tflite, "litert"),
    "tflite-runtime": partial(_on_tflite, "tflite-runtime"),
    "numpy": _on_numpy,
}
_TAIL_OPENERS: Mapping[Runtime, Callable[[Bundle, OptimizerState, int], Tail]] = {
    "onnxruntime": _onnxruntime_tail,
    "litert": partial(_tflite_tail, "litert"),
    "tflite-runtime": partial(_tflite_tail, "tflite-runtime"),
    "numpy": _numpy_tail,
}


def _array(public: PublicSet, part: SetFile, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    return from_npy(public.read(part), part.value, dtype, shape)
