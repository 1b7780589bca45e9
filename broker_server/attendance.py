"""Who was asked to change to a bundle that is under way, who is there, and whom patience with is over.

    rollout begins, widens; a tag; a birth --> asked        birth, will, word --> rows (`deliveries`)
    connection stands, and all is heard   --> roll call: whom the broker does not know to be there is gone
    time                                  --> lost

Silence is judged by what the broker says of a device, and only while this server hears the broker: after an absence of
its own it hears first what was kept for it (`catching_up`), and a device that went meanwhile is gone from then on.

What is deliberately absent: the rules (`delivery`, `rollouts`), what a rollout does about it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from broker_server.core import delivery
from broker_server.core.delivery import Delivery, Standing
from broker_server.core.events import RolloutHeard
from broker_server.core.federation import Federation
from broker_server.core.releases import Releases
from broker_server.core.rollouts import Rollout
from broker_server.deliveries import Deliveries, Patience
from broker_server.ingest import Taken
from broker_server.records.chronicle import Chronicle
from fd_protocol.messages import DeviceState

FirstDevices = Callable[[Sequence[str]], Collection[str]]
"""The devices with one of these tags that are told that they are among the first."""
_TOLD = ("device", "online", "boot", "bundle", "family", "replaced_by")


class Attendance:
    """One federation's; every write belongs to the caller's transaction.

    Args:
        deliveries: rows of devices on their way.
        chronicle: records of the devices.
        first_devices: looks tags up.
    """

    def __init__(self, deliveries: Deliveries, chronicle: Chronicle, first_devices: FirstDevices) -> None:
        self._deliveries, self._chronicle, self._first_devices = deliveries, chronicle, first_devices
        self._named: dict[tuple[str, ...], frozenset[str]] = {}
        self._is_called = False

    def forget(self) -> None:
        """Count and look up anew: a transaction was rolled back, rows are gone, or a tag is on other devices."""
        self._named.clear()
        self._deliveries.count_anew()

    def expect_call(self) -> None:
        """The connection was lost or is new: nobody knows who is there until all is heard."""
        self._is_called = False

    def take(self, taken: Taken, releases: Releases, at_ms: int) -> bool:
        """Write down what a message says of a device; return whether that is news of a delivery."""
        device, is_news = taken.device, False
        if taken.command is not None:
            is_news = self._deliveries.hear(device, taken.command, at_ms, is_kept=taken.retained)
        if taken.presence is not None and taken.presence.online:
            is_news = self._deliveries.be_born(device, taken.presence.boot, at_ms)
            self._ask_newcomer(device, taken.presence, releases, at_ms)
        elif taken.presence is not None:
            is_news = self._deliveries.be_gone(device, taken.presence.boot, at_ms)
        return is_news

    def ask(self, state: Federation, at_ms: int) -> None:
        """Write down who is there and is to change by now."""
        open_ones = {one.family: one for one in state.releases.rollouts if not one.halted}
        for known in self._chronicle.devices(columns=_TOLD) if open_ones else ():
            rollout, there = open_ones.get(known.family), state.online.get(known.device)
            if rollout is None or there is None or known.bundle == rollout.bundle:
                continue
            if delivery.FOLLOWS in there.capabilities and self._is_for(rollout, known.device):
                self._deliveries.ask(known.device, rollout.bundle, there.boot, at_ms)

    def is_due(self, releases: Releases, at_ms: int) -> bool:
        """Whether there is something for `watch` to do."""
        patience = _patience(releases)
        if not patience:
            return False
        next_ms = self._deliveries.next_loss_ms(patience)
        return not self._is_called or (next_ms is not None and next_ms <= at_ms)

    def watch(self, releases: Releases, at_ms: int) -> list[Delivery]:
        """Write down who is gone, and who is lost by now; return these. All that the broker kept must be heard."""
        patience = _patience(releases)
        if not self._is_called and patience:
            self._call(patience, at_ms)
        self._is_called = True
        return self._deliveries.lose(patience, at_ms)

    def news(self, releases: Releases) -> Iterator[RolloutHeard]:
        """Yield what the state does not know yet of the devices that are on their way."""
        for rollout in releases.rollouts:
            found = self._deliveries.outcomes(rollout.bundle)
            succeeded, failed = found.get(Standing.SUCCEEDED, 0), found.get(Standing.FAILED, 0)
            lost, silent = found.get(Standing.LOST, 0), found.get(Standing.SILENT, 0)
            known = rollout.succeeded, rollout.failed, rollout.lost, rollout.silent
            if (succeeded, failed, lost, silent) != known:
                yield RolloutHeard(rollout.family, rollout.bundle, succeeded, failed, lost, silent)

    def _call(self, patience: Patience, at_ms: int) -> None:
        there = {one.device: one for one in self._chronicle.devices(columns=_TOLD)}
        for device in self._deliveries.under_way(patience):
            known = there.get(device)
            if known is not None and not known.online:
                self._deliveries.be_gone(device, known.boot, at_ms)

    def _ask_newcomer(self, device: str, born: DeviceState, releases: Releases, at_ms: int) -> None:
        rollout = releases.rollout_of(born.family) if born.family else None
        if (
            rollout is None
            or rollout.halted
            or born.bundle == rollout.bundle
            or delivery.FOLLOWS not in born.capabilities
        ):
            return
        if self._is_for(rollout, device):
            self._deliveries.ask(device, rollout.bundle, born.boot, at_ms)

    def _is_for(self, rollout: Rollout, device: str) -> bool:
        if rollout.tags not in self._named:
            self._named[rollout.tags] = frozenset(self._first_devices(rollout.tags))
        return rollout.is_for(device, is_named=device in self._named[rollout.tags])


def _patience(releases: Releases) -> Patience:
    return {delivery.id_of(one.bundle): one.patience_ms for one in releases.rollouts}
