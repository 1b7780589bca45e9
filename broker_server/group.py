"""What one transaction makes durable: the messages of a group, and what they come to together.

    message --> Taken --> payload accepted, event folded --+
    message --> Taken --> payload accepted, event folded --+--> written at once --> acknowledged, receipted

Contributions that follow one another are one event, so that a group of a hundred is one step of the core and one entry
of the journal. Whatever else happens between them is folded where it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from broker_server.accepted import Accepted
from broker_server.core.events import ContributionsStored, Event, Order
from broker_server.core.federation import Federation, step
from broker_server.core.rate import RATE_LIMITED
from broker_server.core.standing import Standing
from broker_server.errands import Errand
from broker_server.ingest import Taken


@dataclass(slots=True)
class Group:
    """Grows with each message.

    Attributes:
        state: what the federation will be then, but for contributions that wait to be folded.
        at_ms: when.
        accepted: payloads.
        events: that changed the state.
        answers: what each message has come to.
        standings: of the voices in a consensus that was made.
        orders: about devices: to be done when all else that it makes durable is written.
        errands: commands to devices, that go out once they are durable.
        counted: what happened, as counters count it.
    """

    state: Federation
    at_ms: int
    accepted: Accepted
    events: list[Event] = field(default_factory=list)
    answers: list[Taken] = field(default_factory=list)
    standings: tuple[Standing, ...] = ()
    orders: list[Order] = field(default_factory=list)
    errands: list[Errand] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    _waiting: list[ContributionsStored] = field(default_factory=list)

    def take(self, taken: Taken) -> None:
        """Take in what a message has come to."""
        if taken.payload is not None:
            self.accepted.add(taken.payload)
        self.fold(*taken.events)
        self.answers.append(taken)
        for name in _counted(taken):
            self.counted[name] += 1

    def fold(self, *events: Event) -> None:
        """Take events in, but for those that change nothing."""
        for event in events:
            if isinstance(event, ContributionsStored):
                self._waiting.append(event)
            else:
                self.settle()
                self._fold(event)

    def settle(self) -> None:
        """Fold the contributions that wait. They are of one round: a round ends by an event, and that settles them."""
        if self._waiting:
            round_id = self._waiting[0].round
            self._fold(
                ContributionsStored(round_id, tuple(one for each in self._waiting for one in each.contributions))
            )
            self._waiting.clear()

    def _fold(self, event: Event) -> None:
        after = step(self.state, event)
        if after is not self.state:
            self.state = after
            self.events.append(event)


def _counted(taken: Taken) -> Iterator[str]:
    """Yield the names of the counters that a message counts in."""
    if taken.receipt is not None:
        yield f"{taken.receipt.kind.value}.{taken.receipt.status.value}"
        if taken.receipt.reason:
            yield f"refused.{taken.receipt.reason}"
        if taken.is_late:
            yield "contribution.late"
    if taken.is_dropped:
        yield f"dropped.{RATE_LIMITED}"
    if taken.report is not None:
        yield "report.accepted" if taken.report.accepted else "report.rolled_back"
