"""The worker's sign of life: a beat says that every thread with work has got on with it since the last one.

    job thread ------- pulse.beat() after each step, pulse.rest() when it waits --+
    inference thread - likewise -------------------------------------------------+--> heart --Beat--> supervisor

A thread of its own that only beat would go on while the others hang in a library. So the heart looks at what the others
have done, and says nothing while one of them stands still; the supervisor's patience is the only judge. Before that is
over the heart names the thread. It also ends the worker when the supervisor is gone, whatever the other threads are in.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from edge_agent.process.notices import Alarm, Beat, Notice
from edge_agent.process.postmortem import Cause

_BEATS_IN_PATIENCE = 10
_LONGEST_PAUSE_S = 5.0


class Pulse:
    """One thread's: `beat` wherever it has got on, `rest` where it waits for work and may take for ever."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._has_moved, self._is_resting = False, True

    def beat(self) -> None:
        self._has_moved, self._is_resting = True, False

    def rest(self) -> None:
        self._has_moved, self._is_resting = True, True

    @property
    def is_still(self) -> bool:
        return not (self._has_moved or self._is_resting)

    def listen_again(self) -> None:
        self._has_moved = False


class Heart:
    """Begins to beat with `start`, and ends with its process.

    Args:
        tell: says a notice to the supervisor.
        hang_s: the supervisor's patience.
        is_orphaned: whether the supervisor is gone.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tell: Callable[[Notice], None],
        hang_s: float,
        is_orphaned: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._hang_s, self._is_orphaned, self._clock = tell, hang_s, is_orphaned, clock
        self._pulses: list[Pulse] = []
        self._beat_at_s, self._has_warned = clock(), False

    def watch(self, name: str) -> Pulse:
        """Return the pulse of a thread; it rests until it beats."""
        pulse = Pulse(name)
        self._pulses.append(pulse)
        return pulse

    def start(self) -> None:
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    def look(self) -> None:
        """Beat, if all have moved; else say in time who has not."""
        still = [pulse.name for pulse in self._pulses if pulse.is_still]
        now_s = self._clock()
        if not still:
            for pulse in self._pulses:
                pulse.listen_again()
            self._beat_at_s, self._has_warned = now_s, False
            self._tell(Beat())
            return
        still_s = now_s - self._beat_at_s
        if still_s > self._hang_s / 2 and not self._has_warned:
            self._has_warned = True
            self._tell(Alarm(Cause.HANG.value, f"{' and '.join(still)} stood still for {still_s:.1f} s"))

    def _run(self) -> None:
        pause_s = min(_LONGEST_PAUSE_S, self._hang_s / _BEATS_IN_PATIENCE)
        while True:
            time.sleep(pause_s)
            if self._is_orphaned():
                os._exit(0)
            self.look()
