"""Every setting of a device, listed once: the keys of its TOML file.

[device]  id, federation
[broker]  host, port, username          [broker.tls]  ca, certificate, key, alpn
                                        [broker.proxy] url, bypass
[outbox]  max_messages, max_mb
[model]   bundle, public_set, runtime, threads, providers       [model.gpu]  see fd_runtime.providers
[data]    private                       [state]       folder, runtime
[inference], [outputs], [home_assistant]   see edge_agent.inference.settings       [api]  see edge_agent.api.settings
[process] start_s, hang_s, restart_min_s, restart_max_s
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.api.settings import ApiSettings
from edge_agent.inference.settings import HomeAssistantSettings, InferenceSettings, OutputSettings
from edge_agent.process.settings import ProcessSettings
from edge_agent.spool import SpoolSettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_runtime.artifacts import Runtime
from fd_runtime.providers import GpuSettings, Placement, Provider
from fd_runtime.starting import BrokerSettings


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Who the device is: its id, which is the common name of its certificate, and the federation it is in."""

    id: str
    federation: str

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_name(self.federation, "federation")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What runs: the folders of bundle and public set, the runtime, and the threads of one inference or train step.

    Without a public set the labels of the task are the probes: for federations of method `per-label` alone.
    `providers`: where onnxruntime may run the backbone, the best first.
    """

    bundle: Path
    public_set: Path | None = None
    runtime: Runtime = "onnxruntime"
    threads: int = 1
    providers: tuple[Provider, ...] = ("cpu",)
    gpu: GpuSettings = field(default_factory=GpuSettings)

    @property
    def placement(self) -> Placement:
        return Placement(self.providers, self.gpu)

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 64:
            raise InvalidValueError("threads lie in 1..64")
        if self.runtime != "onnxruntime" and self.providers != ("cpu",):
            raise InvalidValueError(f"providers are onnxruntime's; {self.runtime} runs on the processor")
        self.placement  # noqa: B018 - which refuses to exist with a list that is none


@dataclass(frozen=True, slots=True)
class DataSettings:
    """The private rows: an npz file of `x` [n, *sample_shape] and integer labels `y` [n]; None = there are none."""

    private: Path | None = None


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where the device keeps its memory: journal, outbox and checkpoint. Made where it is missing.

    In `runtime` it says how it is at the moment; None = in the folder too. On a tmpfs that costs no flash.
    """

    folder: Path
    runtime: Path | None = None

    @property
    def store(self) -> Path:
        return self.folder / "agent.db"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox"

    @property
    def lock(self) -> Path:
        return self.folder / "agent.lock"

    @property
    def standing(self) -> Path:
        return (self.runtime or self.folder) / "standing.json"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """A device."""

    device: DeviceSettings
    model: ModelSettings
    state: StateSettings
    broker: BrokerSettings = BrokerSettings()
    data: DataSettings = DataSettings()
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    outputs: OutputSettings = field(default_factory=OutputSettings)
    home_assistant: HomeAssistantSettings | None = None
    api: ApiSettings | None = None
    process: ProcessSettings = ProcessSettings()
    outbox: SpoolSettings = SpoolSettings()
