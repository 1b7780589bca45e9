"""The server's TOML file: the federation's settings (`settings.Settings`), and where its parts lie.

federation, aggregator, trust, bundles
[artifacts]  public_set, bundle, canaries
[state]      folder
[broker]     host, port, username          [broker.tls]  ca, certificate, key
[student]    enabled, runtime, threads     [student.terms]
[release]    automatic, margin, level
[packages]   enabled, host, port, ca, crl       [packages.tls]
[enrolment]  enabled, authority, days, grace_days, broker_pid_file
[dashboard]  viewer_token_file, operator_token_file, ...  [dashboard.tls]  [dashboard.proxy]
[rounds]  [method]  [method.terms]  [method.absence]  [training]  [privacy]  [admission]  [records]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker_server.core.release_gate import ReleaseGate
from broker_server.core.rollouts import (
    MOST_FAILED,
    PATIENCE_S,
    SHARE,
    SOAK_S,
    STAGES,
    TAGS,
    USUAL_PATIENCE_S,
    started_by,
)
from broker_server.dashboard.settings import DashboardSettings
from broker_server.identity.settings import EnrolmentSettings
from broker_server.settings import Settings
from broker_server.sites.settings import PackageSettings
from broker_server.student import StudentTerms
from fd_protocol.errors import InvalidValueError
from fd_runtime.artifacts import Runtime
from fd_runtime.starting import BrokerSettings


@dataclass(frozen=True, slots=True)
class ArtifactSettings:
    """Folders of the public set and of a bundle of the task, which is the student's too; the file of canaries.

    Methods `per-label` and `prototypes` go without a public set, without canaries and without a student.
    """

    bundle: Path
    public_set: Path | None = None
    canaries: Path | None = None


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where the server keeps its memory. Made where it is missing."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "server.db"

    @property
    def lock(self) -> Path:
        return self.folder / "server.lock"

    @property
    def releases(self) -> Path:
        """The shelf."""
        return self.folder / "releases"

    @property
    def signing_key(self) -> Path:
        """What it signs releases with (`vouching`)."""
        return self.folder / "signing.key"

    @property
    def probes(self) -> Path:
        """Editions of the public set (`probe_shelf`)."""
        return self.folder / "probes"

    @property
    def orders(self) -> Path:
        """The spool (`orders`): whoever may write there commands this server."""
        return self.folder / "orders"


@dataclass(frozen=True, slots=True)
class StudentSettings:
    """Whether a student learns every consensus, and where it runs."""

    enabled: bool = True
    runtime: Runtime = "onnxruntime"
    threads: int = 1
    terms: StudentTerms = StudentTerms()

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 64:
            raise InvalidValueError("threads lie in 1..64")


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    """When a student becomes the bundle that the fleet should run; without canaries to ask only an operator says so.

    Attributes:
        automatic: a student that is found better is released by itself.
        margin, level: what better means, see `release_gate`.
        percent, tags, stages, soak_s, most_failed, patience_s: which devices begin with it, and what halts it, see
            `rollouts`; shares in percent.
    """

    automatic: bool = True
    margin: float = ReleaseGate().margin
    level: float = ReleaseGate().level
    percent: float = 100.0
    tags: tuple[str, ...] = ()
    stages: tuple[float, ...] = ()
    soak_s: float = 0.0
    most_failed: float = 10.0
    patience_s: float = float(USUAL_PATIENCE_S)

    def __post_init__(self) -> None:
        ReleaseGate(self.margin, self.level)  # both refuse to exist where the numbers are wrong
        started_by(self.staging, "", b"", 0)

    @property
    def staging(self) -> dict[str, str]:
        """How a release is staged, in the words of an order; what is usual goes without saying."""
        words = {
            SHARE: f"{self.percent:g}",
            TAGS: " ".join(self.tags),
            STAGES: " ".join(f"{share:g}" for share in self.stages),
            SOAK_S: f"{self.soak_s:g}",
            MOST_FAILED: f"{self.most_failed:g}",
            PATIENCE_S: f"{self.patience_s:g}",
        }
        usual = {SHARE: "100", SOAK_S: "0", MOST_FAILED: "10", PATIENCE_S: f"{USUAL_PATIENCE_S:g}"}
        return {name: text for name, text in words.items() if text != usual.get(name, "")}

    @property
    def gate(self) -> ReleaseGate:
        return ReleaseGate(self.margin, self.level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Settings):
    """A server: a federation's settings and their surroundings."""

    artifacts: ArtifactSettings
    state: StateSettings
    broker: BrokerSettings = BrokerSettings()
    student: StudentSettings = StudentSettings()
    release: ReleaseSettings = ReleaseSettings()
    packages: PackageSettings = PackageSettings()
    enrolment: EnrolmentSettings = EnrolmentSettings()
    dashboard: DashboardSettings = DashboardSettings()

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if self.method.downlink == "student" and not self.student.enabled:
            raise InvalidValueError("method.downlink is student, and student.enabled is false")
        if self.enrolment.enabled and self.packages.tls is None:
            raise InvalidValueError("enrolment is over HTTPS, on the port of [packages]: set [packages.tls]")

    @property
    def crl(self) -> Path | None:
        """The revocation list whose end is watched; None: the settings name none."""
        authority = self.enrolment.authority
        return self.dashboard.crl or self.packages.crl or (authority / "crl.pem" if authority else None)
