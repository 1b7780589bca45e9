"""A model on other hardware than it was proven on: taken only if it gives the bundle's golden vectors there.

A bundle's `verified_on` names runtimes, and all of them ran on a processor. A GPU computes the same int8 graph with
other kernels; whether they agree shows here, at the start, and where they do not the next provider is tried.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle, Runtime
from fd_runtime.models import golden
from fd_runtime.models.golden import Golden, GoldenMismatchError
from fd_runtime.models.opening import LoadedModel
from fd_runtime.models.providers import NoProviderError, Placement

log = logging.getLogger("fedistill.placing")


def open_placed(bundle: Bundle, runtime: Runtime, *, threads: int, placement: Placement) -> LoadedModel:
    """Return the model on the first provider of `placement` that works here and answers as the bundle says.

    Raises:
        NoProviderError: there is none.
        UnverifiedRuntimeError, MissingArtifactError, DigestError, ModelError: as `Bundle.open`.
    """
    left = placement
    while True:
        model = bundle.open(runtime, threads=threads, placement=left)
        if model.provider == "cpu":
            return model
        try:
            _check(bundle, model)
        except GoldenMismatchError as error:
            log.warning("%s does not answer as it should: %s", model.provider, error)
        else:
            return model
        rest = left.providers[left.providers.index(model.provider) + 1 :]
        if not rest:
            asked, name = ", ".join(placement.providers), bundle.manifest.name
            raise NoProviderError(f"none of {asked} answers as bundle {name} should")
        left = replace(left, providers=rest)


def awaits_engine(bundle: Bundle, runtime: Runtime, placement: Placement) -> bool:
    """Whether `open_placed` would begin with a compilation by TensorRT: minutes; raises as `Bundle.read`."""
    if runtime != "onnxruntime" or "tensorrt" not in placement.providers or bundle.manifest.features is None:
        return False
    from fd_runtime.models import onnx_model  # noqa: PLC0415 - no runtime is imported unless it is asked for

    return onnx_model.awaits_engine(bundle.read(Role.BACKBONE), placement, bundle.manifest.task.sample_shape)


def _check(bundle: Bundle, model: LoadedModel) -> None:
    if Role.GOLDEN in bundle.manifest.files:
        golden.check(model, Golden.from_bytes(bundle.read(Role.GOLDEN), bundle.manifest.task))
