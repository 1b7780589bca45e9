"""On which hardware onnxruntime runs a frozen graph: execution providers by short names, and the choice among them.

A wheel names the providers that it was built with; whether one works shows when a session is opened with it. So the
choice is a list to try, in the order of the settings: `ladder` says with what, `onnx_model` tries.

What is deliberately absent: train steps and trainable tails, which run on the processor. They are small, and a tail is
opened anew after every training, which TensorRT would compile for minutes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import require

Provider = Literal["cpu", "cuda", "tensorrt"]
Options: TypeAlias = dict[str, str]

NAMES: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""As onnxruntime spells them."""
MAX_ROWS = 64
"""Rows that an engine is compiled for, from one up: more are cut by whoever runs it, or it would be compiled again."""


class NoProviderError(FedistillError):
    """None of the providers asked for is offered here, or none works."""

    exit_code = 78  # EX_CONFIG: the list is a setting


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """How CUDA and TensorRT are used.

    Attributes:
        device: number of the GPU.
        memory_mb: most that CUDA's arena may take; 0 = what it asks for. On a Jetson it is the system's memory.
        workspace_mb: most that TensorRT may use while it compiles and runs an engine.
        is_half_precision: TensorRT may compute float layers in 16 bits.
        engines: folder of compiled engines (`fd_runtime.models.engines`); None = compile at every start.
    """

    device: int = 0
    memory_mb: int = 0
    workspace_mb: int = 256
    is_half_precision: bool = False
    engines: Path | None = None

    def __post_init__(self) -> None:
        require(0 <= self.device < 64, "device lies in 0..63")
        require(0 <= self.memory_mb < 1 << 20, "memory_mb lies in 0..1048575")
        require(0 < self.workspace_mb < 1 << 20, "workspace_mb lies in 1..1048575")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frozen graph may run, the best place first."""

    providers: tuple[Provider, ...] = ("cpu",)
    gpu: GpuSettings = field(default_factory=GpuSettings)

    def __post_init__(self) -> None:
        if not self.providers or len(set(self.providers)) < len(self.providers):
            raise InvalidValueError("providers name at least one, each once")


ON_CPU = Placement()
_CPU: Provider = "cpu"


def ladder(
    placement: Placement, offered: Collection[str], inputs: Mapping[str, tuple[int, ...]]
) -> list[tuple[Provider, list[tuple[str, Options]]]]:
    """Return what to try, the best first: a provider, and the whole list that a session is opened with for it.

    Behind the one that is meant stand those after it in the settings, and always the processor: a provider runs the
    nodes that it knows and leaves the others to the next.

    Args:
        placement: what the settings say.
        offered: names that onnxruntime gives as available.
        inputs: of the graph, by name, without the rows.

    Raises:
        NoProviderError: nothing of it is offered.
    """
    here = [provider for provider in placement.providers if NAMES[provider] in offered]
    if not here:
        known = ", ".join(provider for provider, name in NAMES.items() if name in offered) or "none of them"
        raise NoProviderError(f"onnxruntime offers {known} here, the settings ask for {', '.join(placement.providers)}")
    rungs = []
    for place, provider in enumerate(here):
        behind = here[place:] if "cpu" in here[place:] else [*here[place:], _CPU]
        rungs.append((provider, [(NAMES[one], _options(one, placement.gpu, inputs)) for one in behind]))
    return rungs


def _options(provider: Provider, gpu: GpuSettings, inputs: Mapping[str, tuple[int, ...]]) -> Options:
    match provider:
        case "cpu":
            return {}
        case "cuda":
            return _cuda(gpu)
        case "tensorrt":
            return _tensorrt(gpu, inputs)


def compiled(placement: Placement, offered: Collection[str], inputs: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Return the options of TensorRT's compilation, none where it has no part; paths are none of them."""
    if "tensorrt" not in placement.providers or NAMES["tensorrt"] not in offered:
        return ()
    options = _tensorrt(replace(placement.gpu, engines=None), inputs)
    return tuple(sorted(f"{name}={value}" for name, value in options.items() if name != "device_id"))


def _cuda(gpu: GpuSettings) -> Options:
    # The default strategy doubles the arena with every growth: on a shared board that is somebody else's memory.
    options = {"device_id": str(gpu.device), "arena_extend_strategy": "kSameAsRequested"}
    return options | ({"gpu_mem_limit": str(gpu.memory_mb << 20)} if gpu.memory_mb else {})


def _tensorrt(gpu: GpuSettings, inputs: Mapping[str, tuple[int, ...]]) -> Options:
    options = {
        "device_id": str(gpu.device),
        "trt_max_workspace_size": str(gpu.workspace_mb << 20),
        "trt_int8_enable": "1",  # the scales stand in the graph: without this TensorRT runs an int8 backbone in float
        "trt_fp16_enable": str(int(gpu.is_half_precision)),
    }
    for name, rows in (("min", 1), ("opt", 1), ("max", MAX_ROWS)):  # else every new number of rows compiles anew
        shapes = [f"{key}:{'x'.join(map(str, (rows, *shape)))}" for key, shape in inputs.items()]
        options[f"trt_profile_{name}_shapes"] = ",".join(shapes)
    if gpu.engines is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(gpu.engines)}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(gpu.engines)}
    return options
