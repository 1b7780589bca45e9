"""Every setting of a device, listed once: the keys of its TOML file.

[device]  id, federation
[broker]  host, port, username          [broker.tls]  ca, certificate, key
[model]   bundle, public_set, runtime, threads
[data]    private                       [state]       folder
[process] start_s, hang_s, restart_min_s, restart_max_s
[training]  memory_mb, max_c, resume_below_c, battery_min_percent, cpu_share, window, checkpoint_s, flash_mb_per_day,
            data_mb_per_month
[privacy] epsilon, delta, epsilon_max, period_days
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.privacy.settings import PrivacySettings
from edge_agent.process.settings import ProcessSettings
from edge_agent.training.settings import TrainingSettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_runtime.artifacts import Runtime
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
    """

    bundle: Path
    public_set: Path | None = None
    runtime: Runtime = "onnxruntime"
    threads: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 64:
            raise InvalidValueError("threads lie in 1..64")


@dataclass(frozen=True, slots=True)
class DataSettings:
    """The private rows: an npz file of `x` [n, *sample_shape] and integer labels `y` [n]; None = there are none."""

    private: Path | None = None


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where the device keeps its memory: journal, outbox, checkpoint and ledger. Made where it is missing."""

    folder: Path

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


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """A device."""

    device: DeviceSettings
    model: ModelSettings
    state: StateSettings
    broker: BrokerSettings = BrokerSettings()
    data: DataSettings = DataSettings()
    process: ProcessSettings = ProcessSettings()
    training: TrainingSettings = TrainingSettings()
    privacy: PrivacySettings = PrivacySettings()
