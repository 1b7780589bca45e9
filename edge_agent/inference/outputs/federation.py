"""Predictions to the supervisor, which says them on the federation's topic (`edge_agent.speaking`).

Opt-in, and never more often than the settings say. A sample's name may be a file's; what is said is its digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_agent.inference.seams import LivePrediction
from edge_agent.process.notices import Notice, Spoke
from fd_protocol.identity import sha256


class ToFederation:
    """An `Output` that tells the supervisor.

    Args:
        tell: takes notices.
        every_s: shortest time between two.
        clock: monotonic seconds.
    """

    name = "federation"

    def __init__(
        self, tell: Callable[[Notice], None], every_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._every_s, self._clock = tell, every_s, clock
        self._next_s, self._written = float("-inf"), 0

    def say(self, prediction: LivePrediction) -> None:
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        self._written += 1
        self._tell(Spoke(opaque(prediction.sample_id), _printable(prediction.label), prediction.confidence))

    def facts(self) -> dict[str, object]:
        return {"written": self._written}

    def close(self) -> None:
        """Nothing is left behind."""


def opaque(sample_id: str) -> str:
    """Return a name that is the same for the same sample and says nothing of it: 16 hexadecimal digits."""
    return sha256(sample_id.encode())[:8].hex()


def _printable(label: str) -> str:
    """A class may be called anything; the wire carries one printable line."""
    return "".join(sign if sign.isprintable() else "?" for sign in label)
