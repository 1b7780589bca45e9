"""Predictions to a function of the program that embeds the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_agent.inference.seams import LivePrediction

log = logging.getLogger("edge-agent")


class Callback:
    """Calls a function with each prediction, in the thread that made it; an `Output`.

    What the function raises is logged, the first time with its trace, and counted; inference goes on.
    """

    def __init__(self, function: Callable[[LivePrediction], None], name: str = "callback") -> None:
        self.name = name
        self._function = function
        self._called, self._failed = 0, 0

    def say(self, prediction: LivePrediction) -> None:
        self._called += 1
        try:
            self._function(prediction)
        except Exception as error:
            self._failed += 1
            log.warning("output %s: %s", self.name, error, exc_info=self._failed == 1)

    def facts(self) -> dict[str, object]:
        return {"written": self._called - self._failed, "failed": self._failed}

    def close(self) -> None:
        """Nothing is left behind."""
