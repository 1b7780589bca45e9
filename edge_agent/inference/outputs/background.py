"""A queue and a thread between whoever must not wait and whatever may: a full disk, a slow pipe, a server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from edge_agent.inference.sample_queue import SampleQueue
from edge_agent.inference.seams import LivePrediction

_WAITING = 1000
_AT_ONCE = 100
_TURN_S = 0.5
_FAREWELL_S = 1.0
_LONGEST_PAUSE_S = 60.0

log = logging.getLogger("edge-agent")


class Background:
    """Writes predictions in a thread of its own; an `Output`.

    What cannot be written is dropped and counted: predictions are news. After a failure it pauses, longer each time.

    Args:
        name: of the output.
        write: writes some of them, and may block; what it raises of OSError is a failure.
        close: called once, by the thread, at the end.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[LivePrediction]], None],
        close: Callable[[], None] = lambda: None,
        *,
        pause_s: float = 1.0,
    ) -> None:
        self.name = name
        self._write, self._close, self._pause_s = write, close, pause_s
        self._queue: SampleQueue[LivePrediction] = SampleQueue(_WAITING)
        self._closing = threading.Event()
        self._written, self._failed, self._problem = 0, 0, ""
        self._thread = threading.Thread(target=self._run, name=f"output {name}", daemon=True)
        self._thread.start()

    def say(self, prediction: LivePrediction) -> None:
        self._queue.put(prediction)

    def facts(self) -> dict[str, object]:
        counts = {"written": self._written, "failed": self._failed, "dropped": self._queue.dropped}
        return {**counts, **({"problem": self._problem} if self._problem else {})}

    def close(self) -> None:
        self._closing.set()
        self._queue.wake()
        self._thread.join(_FAREWELL_S)

    def _run(self) -> None:
        pause_s = self._pause_s
        while True:
            is_last = self._closing.is_set()  # asked first: what came before `close` is still written
            predictions = self._queue.take(_AT_ONCE, 0.0 if is_last else _TURN_S)
            if predictions and self._try(predictions):
                pause_s = self._pause_s
            elif predictions:
                self._closing.wait(pause_s)
                pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
            if is_last and not len(self._queue):
                break
        self._close()

    def _try(self, predictions: Sequence[LivePrediction]) -> bool:
        try:
            self._write(predictions)
        except OSError as error:
            self._failed += len(predictions)
            self._note(str(error))
            return False
        self._written += len(predictions)
        self._note("")
        return True

    def _note(self, problem: str) -> None:
        """Log what changes, and not every failure."""
        if problem and problem != self._problem:
            log.warning("output %s: %s", self.name, problem)
        elif self._problem and not problem:
            log.info("output %s: works again", self.name)
        self._problem = problem
