"""How the supervisor deals with its worker."""

from __future__ import annotations

from dataclasses import dataclass

from fd_protocol.identity import require


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """Patience with the worker, in seconds.

    Attributes:
        start_s: for loading model, probes and private rows.
        hang_s: for one step of work: a training step, a batch of samples; nothing heard for longer is a hang.
        restart_min_s: wait after its first death; doubles with each further one.
        restart_max_s: longest such wait; a worker that lives for that long counts as well again.
    """

    start_s: float = 600.0
    hang_s: float = 300.0
    restart_min_s: float = 0.5
    restart_max_s: float = 60.0

    def __post_init__(self) -> None:
        require(self.start_s > 0 and self.hang_s > 0, "start_s and hang_s are above 0")
        require(0 < self.restart_min_s <= self.restart_max_s, "restart_min_s is above 0, at most restart_max_s")
