"""How a device follows releases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fd_protocol.errors import InvalidValueError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    """Where packages come from and how long a new bundle is on trial.

    Attributes:
        url: packages lie at URL/v1/blobs/SHA256, by HTTPS; None = the device stays with what it has.
        ca: certificates that vouch for the server; None = the broker's, or the system's.
        root: document that trust in releases begins with (`model-export trust`); required where there is a url.
        automatic: follow the federation's nudges; false = only the owner's `model install`.
        max_mb: largest package that is fetched.
        trial_s: longest that a package may take to prove itself; a TensorRT engine takes minutes to build.
        health_s: how long a new bundle must do its work before it counts as good.
        latency_ms: most that 19 of 20 samples may take with a new bundle; None = it is measured, and told.
        memory_mb: most that a new bundle may take to be open; None = likewise.
        poll_s: how often the server is asked whether what is believed is still the latest, without a nudge.
    """

    url: str | None = None
    ca: Path | None = None
    root: Path | None = None
    automatic: bool = True
    max_mb: float = 256.0
    trial_s: float = 900.0
    health_s: float = 120.0
    latency_ms: float | None = None
    memory_mb: float | None = None
    poll_s: float = 86_400.0

    @property
    def are_followed(self) -> bool:
        """Whether the device goes to the bundles that the federation names."""
        return self.automatic and self.url is not None

    def __post_init__(self) -> None:
        if min(self.max_mb, self.trial_s, self.health_s, self.poll_s) <= 0:
            raise InvalidValueError("max_mb, trial_s, health_s and poll_s are positive")
        if not all(budget is None or budget > 0 for budget in (self.latency_ms, self.memory_mb)):
            raise InvalidValueError("latency_ms and memory_mb are positive")
        if self.url is None:
            return
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidValueError("url is https://HOST[:PORT][/PATH]")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise InvalidValueError("packages come by https, but for those of this machine")
        if self.root is None:
            raise InvalidValueError("with url goes root: the root.json of whoever signs the releases")
