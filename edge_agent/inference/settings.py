"""[inference], [outputs] and [home_assistant]: the settings of live samples. Read by the supervisor too: no numpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.local_broker import LocalBrokerSettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import require
from fd_runtime.starting import LOOPBACK

MIN_WINDOW = 100
STDOUT_VARIABLE = "EDGE_AGENT_STDOUT"
"""Of the worker's environment: the descriptor of the service's standard output, which it has inherited."""


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """[inference.drift]: how samples are watched.

    Attributes:
        is_watched: whether at all.
        window: rows that are compared at once.
        every_s: of samples that come faster only one in so many seconds counts; a window then covers `window` times it.
    """

    is_watched: bool = True
    window: int = 300
    every_s: float = 10.0

    def __post_init__(self) -> None:
        require(MIN_WINDOW <= self.window <= 10_000, f"window lies in {MIN_WINDOW}..10000")
        require(0.0 <= self.every_s <= 86_400.0, "every_s lies in 0..86400")


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """[inference]: how the model answers live samples.

    Attributes:
        batch: most samples that the model sees at once.
        queue: most samples that wait for it; of more the oldest are dropped.
        local_prior: correct predictions by how often this device meets each class.
        calibrate: find a temperature on the labelled hold-out, so that a confidence means what it says.
        drift: whether samples are still what they were.
    """

    batch: int = 8
    queue: int = 64
    local_prior: bool = True
    calibrate: bool = True
    drift: DriftSettings = field(default_factory=DriftSettings)

    def __post_init__(self) -> None:
        require(1 <= self.batch <= 64, "batch lies in 1..64")
        require(self.batch <= self.queue <= 65_536, "queue holds at least a batch, at most 65536")


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """[outputs]: where predictions go, besides the local API.

    Attributes:
        file: JSON lines; moved aside when it is full.
        file_mb: most of each file.
        files: how many full ones are kept.
        stdout: JSON lines on the standard output of the service.
        webhook: address that they are posted to.
        federation: say them on the federation's topic.
        federation_every_s: shortest time between two of these.
    """

    file: Path | None = None
    file_mb: float = 10.0
    files: int = 3
    stdout: bool = False
    webhook: str | None = None
    federation: bool = False
    federation_every_s: float = 10.0

    def __post_init__(self) -> None:
        require(0.001 <= self.file_mb <= 10_000.0, "file_mb lies in 0.001..10000")
        require(0 <= self.files <= 1000, "files lie in 0..1000")
        require(0.1 <= self.federation_every_s <= 86_400.0, "federation_every_s lies in 0.1..86400")
        if self.webhook is not None:
            _check_url(self.webhook)


@dataclass(frozen=True, slots=True)
class AskingTerms:
    """When to ask.

    Attributes:
        below: confidence under which a sample is worth a question; 0 = only when asked to.
        open_s: how long a question waits for its answer.
        quiet_s: how long nothing is asked after one was answered.
    """

    below: float = 0.6
    open_s: float = 600.0
    quiet_s: float = 300.0

    def __post_init__(self) -> None:
        require(0.0 <= self.below <= 1.0, "ask_below lies in [0, 1]")
        require(self.open_s > 0.0 and self.quiet_s >= 0.0, "question_s is positive, quiet_s not negative")


@dataclass(frozen=True, slots=True)
class HomeAssistantSettings:
    """[home_assistant]: where predictions are shown in a home, and people are asked.

    Attributes:
        broker: that Home Assistant listens to.
        name: of the device there; None: its id.
        discovery_prefix: as Home Assistant has it.
        every_s: shortest time between two states.
        ask_below: confidence under which a person is asked by itself; 0 = only when they press the button.
        question_s: how long a question stays open.
        quiet_s: how long nothing is asked after a question.
    """

    broker: LocalBrokerSettings = field(default_factory=LocalBrokerSettings)
    name: str | None = None
    discovery_prefix: str = "homeassistant"
    every_s: float = 1.0
    ask_below: float = 0.6
    question_s: float = 600.0
    quiet_s: float = 300.0

    def __post_init__(self) -> None:
        require(0.1 <= self.every_s <= 3600.0, "every_s lies in 0.1..3600")
        is_prefix = bool(self.discovery_prefix) and not set("+#\0") & set(self.discovery_prefix)
        require(is_prefix, "discovery_prefix begins a topic: not empty, no '+' or '#'")
        self.terms  # noqa: B018 - which refuses to exist outside its limits

    @property
    def terms(self) -> AskingTerms:
        return AskingTerms(self.ask_below, self.question_s, self.quiet_s)


def _check_url(url: str) -> None:
    """Refuse an address that predictions must not go to.

    Raises:
        InvalidValueError: it is no address by HTTP, has a name and password in it, or leads off this machine in plain.
    """
    parts = urlsplit(url)
    try:
        is_usable = parts.hostname is not None and parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError:
        is_usable = False
    if not is_usable:
        raise InvalidValueError(f"webhook: {url!r} is no address such as https://host:1880/path")
    if parts.username is not None:
        raise InvalidValueError("webhook: an address has no name and password in it: settings are read by many")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise InvalidValueError(
            f"webhook: predictions go to {parts.hostname} by https: anyone on the way can read http"
        )
