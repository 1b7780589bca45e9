"""Every setting of a device, listed once: the keys of its TOML file.

[device]  id, federation
[broker]  host, port, username          [broker.tls]  ca, certificate, key, alpn
                                        [broker.proxy] url, bypass
[enrolment] url, ca_file, token_file, request_command
[outbox]  max_messages, max_mb
[store]   see `private.settings`        [sources.NAME.KIND]  see `sources.settings`
[model]   bundle, public_set, runtime, threads, providers       [model.gpu]  see fd_runtime.models.providers
[inference], [outputs], [home_assistant]   see edge_agent.inference.settings       [api]  see edge_agent.api.settings
[data]    private, prototypes           [state]       folder, runtime
[process] start_s, hang_s, restart_min_s, restart_max_s
[training]  memory_mb, max_c, resume_below_c, battery_min_percent, cpu_share, window, checkpoint_s, flash_mb_per_day,
            data_mb_per_month
[privacy] epsilon, delta, epsilon_max, period_days
[releases] url, ca, root, automatic, max_mb, trial_s, health_s, latency_ms, memory_mb, poll_s
[commands] allow, health_window_s       [log]         level, format
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_agent.api.settings import ApiSettings
from edge_agent.commands.settings import CommandSettings
from edge_agent.enrolment.files import IdentityFiles
from edge_agent.enrolment.settings import EnrolmentSettings
from edge_agent.inference.settings import HomeAssistantSettings, InferenceSettings, OutputSettings
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.private.settings import StoreSettings
from edge_agent.process.settings import ProcessSettings
from edge_agent.slots.settings import ReleaseSettings
from edge_agent.sources.settings import SourceSettings
from edge_agent.spool import SpoolSettings
from edge_agent.training.settings import TrainingSettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_runtime.artifacts import Runtime
from fd_runtime.links.link import TlsFiles
from fd_runtime.logs import LogSettings
from fd_runtime.models.providers import GpuSettings, Placement, Provider
from fd_runtime.remote_fields import remotely
from fd_runtime.starting import LOOPBACK, BrokerSettings


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

    Without a public set a device takes part in federations of method `per-label`, or of `prototypes` if it may.
    `providers`: where onnxruntime may run the backbone, the best first.
    """

    bundle: Path
    public_set: Path | None = None
    runtime: Runtime = remotely("onnxruntime", restart="agent")
    threads: int = remotely(1, restart="worker")
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
    """The private rows: an npz file of `x` [n, *sample_shape] and integer labels `y` [n]; None = there are none.

    `prototypes`: whether the mean features of each class, over at least eleven of these rows, may leave the device, for
    federations of method `prototypes`. Nothing else of a row ever does.
    """

    private: Path | None = None
    prototypes: bool = False


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where the device keeps its memory: journal, outbox, checkpoint and ledger. Made where it is missing.

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
    def privacy(self) -> Path:
        """Return the folder of the ledger."""
        return self.folder / "privacy"

    @property
    def wear(self) -> Path:
        """Return the file that counts what is written to the disk."""
        return self.folder / "wear.json"

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox"

    @property
    def lock(self) -> Path:
        return self.folder / "agent.lock"

    @property
    def standing(self) -> Path:
        return (self.runtime or self.folder) / "standing.json"

    @property
    def slots(self) -> Path:
        return self.folder / "slots"

    @property
    def identity(self) -> Path:
        """Return the folder of who the device is, where it enrols."""
        return self.folder / "identity"

    @property
    def trust(self) -> Path:
        """Return the folder of signed documents that are believed, and of the time floor."""
        return self.folder / "trust"

    @property
    def engines(self) -> Path:
        """Return the folder of compiled engines, where `model.gpu.engines` names no other."""
        return self.folder / "engines"

    @property
    def read_files(self) -> Path:
        return self.folder / "sources.db"

    @property
    def private_store(self) -> Path:
        return self.folder / "private.db"

    @property
    def public_sets(self) -> Path:
        """Further public sets by digest (`fd_runtime.public_sets`)."""
        return self.folder / "public_sets"


@dataclass(frozen=True, slots=True)
class DeviceBrokerSettings(BrokerSettings):
    """Where the broker is. Without `tls` it must be on this machine, or the device enrols."""

    def __post_init__(self) -> None:
        """Whether it is safe without `tls` the whole of the settings say."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """A device."""

    device: DeviceSettings
    model: ModelSettings
    state: StateSettings
    broker: DeviceBrokerSettings = DeviceBrokerSettings()
    enrolment: EnrolmentSettings | None = None
    data: DataSettings = DataSettings()
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    store: StoreSettings | None = None
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    outputs: OutputSettings = field(default_factory=OutputSettings)
    home_assistant: HomeAssistantSettings | None = None
    api: ApiSettings | None = None
    process: ProcessSettings = ProcessSettings()
    training: TrainingSettings = TrainingSettings()
    privacy: PrivacySettings = PrivacySettings()
    outbox: SpoolSettings = SpoolSettings()
    releases: ReleaseSettings = ReleaseSettings()
    commands: CommandSettings = CommandSettings()
    log: LogSettings = LogSettings()

    @property
    def placement(self) -> Placement:
        """Return where the backbone may run; engines are kept with the device's memory, where no key says otherwise."""
        gpu = self.model.gpu
        return Placement(self.model.providers, replace(gpu, engines=gpu.engines or self.state.engines))

    @property
    def tls(self) -> TlsFiles | None:
        """Who the device is to its broker: the files of `[broker.tls]`, else those that it enrols for; None: no TLS."""
        if self.broker.tls is not None or self.enrolment is None:
            return self.broker.tls
        folder = self.state.identity
        return TlsFiles(self.enrolment.ca_file, folder / "device.pem", folder / "device.key")

    @property
    def identity(self) -> IdentityFiles | None:
        """Return the files of a device that enrols; None: others see to its certificate."""
        tls, enrolment = self.tls, self.enrolment
        if tls is None or enrolment is None:
            return None
        return IdentityFiles(self.state.identity, tls, enrolment.token_file)

    def __post_init__(self) -> None:
        if self.tls is None and self.broker.host not in LOOPBACK:
            where = f"broker: a broker on {self.broker.host}"
            raise InvalidValueError(f"{where} needs [broker.tls] or [enrolment]: without it anyone can read along")
        if self.outputs.federation and self.privacy.epsilon > 0:
            raise InvalidValueError("outputs.federation tells of live samples, which no privacy.epsilon is paid for")
        for name in self.sources:
            check_name(name, "the name of a source")
        if self.data.prototypes and self.model.public_set is not None:
            raise InvalidValueError("data.prototypes is for federations without a public set: leave one of them out")
