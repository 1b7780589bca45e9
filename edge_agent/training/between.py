"""What happens between two steps of any training: is anybody still asking, may the machine train, is it time to save?

step -> Between.after_step(save) -> step -> ...
            |- the supervisor is gone: BrokenOffError
            |- the budgets hold it up for long: saved, then DeferredError with the word for why
            +- a checkpoint is due: saved
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.training.pace import Pace
from edge_agent.training.savings import Savings
from fd_protocol.errors import FedistillError


class BrokenOffError(Exception):
    """Whoever asked for the learning is gone; the weights have not changed."""


class DeferredError(FedistillError):
    """The training waits for the machine, and has given its place to other work; its progress is kept.

    Attributes:
        reason: a word of `conditions`.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"training waits: {reason}")


class Between:
    """Of one worker.

    Args:
        should_stop: whether nobody asks any more.
        pace: how fast and when; None: at once.
        savings: when progress is saved; None: never.
    """

    def __init__(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        pace: Pace | None = None,
        savings: Savings | None = None,
    ) -> None:
        self._should_stop, self._pace, self._savings = should_stop, pace, savings

    def begin(self) -> None:
        """A training begins, or goes on after a break."""
        if self._pace is not None:
            self._pace.begin()
        if self._savings is not None:
            self._savings.begin()

    def after_step(self, size_bytes: int, save: Callable[[], None]) -> None:
        """See the picture above.

        Args:
            size_bytes: of what `save` writes.
            save: writes the progress down.

        Raises:
            BrokenOffError, DeferredError: so.
            OSError: the progress cannot be written.
        """
        reason = self._pace.after_step(self._should_stop) if self._pace is not None else ""
        if self._should_stop():
            raise BrokenOffError
        if reason:
            save()
            raise DeferredError(reason)
        if self._savings is not None and self._savings.is_due(size_bytes):
            save()
            self._savings.saved()
