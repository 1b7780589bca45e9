"""How fast training goes: after each step it sleeps in proportion, and waits while the machine is no place to train.

A wait of up to `PATIENCE_S` is spent here, in the thread that trains; inference and the API have threads of their own.
A longer one is given up: the training keeps its progress on the disk and its place in the queue, so that rounds can be
answered meanwhile, and the participant asks for it again once nothing stands in its way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_agent.process.notices import Measured, Notice
from edge_agent.training.conditions import REASONS, Reading
from edge_agent.training.settings import TrainingSettings

PATIENCE_S = 30.0
_LOOK_S = 1.0
"""How often the machine is looked at."""
_SHORTEST_NAP_S = 0.02
"""Debts of sleep below this are carried on: the scheduler does not keep such times."""

log = logging.getLogger("edge-agent")


class Pace:
    """Between the steps of all trainings of a worker.

    Args:
        settings: of training.
        read: the machine now.
        tell: takes what is measured: temperature, charge, and which word (`waits_for_heat` and so on) holds it up.
        went_on: told of each step and each look, so that nobody takes a wait for a hang.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        read: Callable[[], Reading],
        *,
        tell: Callable[[Notice], None] = lambda _: None,
        went_on: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits, self._share, self._read = settings.limits(), settings.cpu_share, read
        self._tell, self._went_on, self._clock, self._sleep = tell, went_on, clock, sleep
        self._obstacle, self._debt_s = "", 0.0
        self._stepped_at_s = self._looked_at_s = clock() - _LOOK_S

    def begin(self) -> None:
        """A training begins: what came before it took no time of training."""
        self._stepped_at_s, self._debt_s = self._clock(), 0.0

    def after_step(self, is_over: Callable[[], bool] = lambda: False) -> str:
        """Sleep off the step, and wait while something is in the way; return what still is after `PATIENCE_S`.

        Args:
            is_over: ends a wait at once.
        """
        self._went_on()
        self._nap()
        end_s = self._clock() + PATIENCE_S
        while self._look() and self._clock() < end_s and not is_over():
            self._sleep(_LOOK_S)
            self._went_on()
        self._stepped_at_s = self._clock()
        return self._obstacle

    def _nap(self) -> None:
        if self._share >= 1:
            return
        self._debt_s += (self._clock() - self._stepped_at_s) * (1 / self._share - 1)
        while self._debt_s >= _SHORTEST_NAP_S:
            nap_s = min(self._debt_s, _LOOK_S)
            self._sleep(nap_s)
            self._went_on()
            self._debt_s -= nap_s

    def _look(self) -> str:
        now_s = self._clock()
        if now_s - self._looked_at_s < _LOOK_S:
            return self._obstacle
        self._looked_at_s = now_s
        reading = self._read()
        before, self._obstacle = self._obstacle, self._limits.obstacle(reading, self._obstacle)
        if self._obstacle != before:
            log.info("training waits: %s" if self._obstacle else "training goes on: %s", self._obstacle or before)
            self._tell(Measured(_numbers(reading, self._obstacle)))
        return self._obstacle


def _numbers(reading: Reading, obstacle: str) -> dict[str, float]:
    waits = {f"training_waits_for_{reason}": float(reason == obstacle) for reason in REASONS}
    measured = {"hottest_c": reading.hottest_c, "battery_percent": reading.battery_percent}
    return waits | {name: value for name, value in measured.items() if value is not None}
