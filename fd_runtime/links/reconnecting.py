"""How long a client waits before it tries again.

    lost, or nobody there    0 to 1, 2, 4 ... s, drawn evenly, at most `reconnect_max_s`: "full jitter", so that a fleet
                             that lost its broker in one moment comes back spread, and thinner with each attempt
    no clock yet             up to 15 s: the clock is set any moment, and asking costs nothing
    no certificate yet       up to 15 s: it may come any moment
    another of our name      minutes, doubling to an hour, for a day: two that fight over a name keep each other off

A connection that breaks before it was up for `stable_s` counts as none: a broker that takes everybody in and falls over
is not helped by a thousand clients that begin from 0 each time.

MQTT 5 tells a client that another has taken its name (reason code 142). Mosquitto up to 2.0.11 hangs up without a word
instead: a few short connections in a row that ended so, with the broker there each time, are taken for the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fd_runtime.links.link import Hindrance, LinkSettings

CLOCK_S = 15.0
RIVAL_MIN_S, RIVAL_MAX_S = 300.0, 3600.0
RIVAL_MEMORY_S = 86_400.0
"""A connection of that length says that the other one is gone for good."""
RIVAL_SIGNS = 5
"""Short connections in a row that the broker ended without a word."""


class Retries:
    """The waits of one client, one after each connection.

    Args:
        settings: of the link.
        draw: a number between two others, evenly.
    """

    def __init__(self, settings: LinkSettings, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._settings, self._draw = settings, draw
        self._failures = self._rivals = self._signs = 0

    def after(self, kind: Hindrance, up_s: float) -> tuple[Hindrance, float]:
        """Return what a connection was ended by that was up for `up_s` (0: never), and the seconds to wait now."""
        is_sign = kind is Hindrance.HUNG_UP and up_s < self._settings.stable_s
        self._signs = self._signs + 1 if is_sign else 0
        if self._signs >= RIVAL_SIGNS:
            kind = Hindrance.TAKEN_OVER
        return kind, self._wait_s(kind, up_s)

    def _wait_s(self, kind: Hindrance, up_s: float) -> float:
        if up_s >= RIVAL_MEMORY_S:
            self._rivals = 0
        if kind is Hindrance.TAKEN_OVER:
            longest_s = min(RIVAL_MAX_S, RIVAL_MIN_S * 2.0 ** min(self._rivals, 16))
            self._rivals += 1
            return self._draw(longest_s / 2, longest_s)
        if kind in (Hindrance.CLOCK, Hindrance.IDENTITY):
            return self._draw(0.0, min(CLOCK_S, self._settings.reconnect_max_s))
        if up_s >= self._settings.stable_s:
            self._failures = 0
        longest_s = self._settings.reconnect_min_s * 2.0 ** min(self._failures, 32)
        self._failures += 1
        return self._draw(0.0, min(self._settings.reconnect_max_s, longest_s))
