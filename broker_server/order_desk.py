"""Where the orders of operators come in, in the transactions of a running server.

    spool --waiting--> obey --> the federation's event, or commands to devices --+
                         |                                                      +--> written down --> removed
                         +--> about devices: `depart`, at the end of the group --+

What an order does to a device is done when all else of the group is durable, and then the file may have to be written
anew (`Clerk`): where that cannot be at once, the desk tries it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from broker_server.clerk import Clerk, DeviceCommand, is_about_a_device, must_wait
from broker_server.core.events import DEVICE_COMMAND, Order, Ordered
from broker_server.core.federation import Federation
from broker_server.errands import DEAF, DEVICE, TAG, Errands, message_of
from broker_server.group import Group
from broker_server.orders import Placed, Spool
from broker_server.records.scribe import Scribe
from fd_protocol.errors import InvalidValueError
from fd_runtime.storage.store import StoreFullError

_REWRITE_MS = 60_000
"""How often it is tried to rid the file of a forgotten device while others read, or there is no room."""

log = logging.getLogger("broker-server")


class OrderDesk:
    """One federation's.

    Args:
        spool: where orders come from; None = there are none.
        clerk: does what they say.
        errands: takes commands to devices.
        scribe: knows the devices.
    """

    def __init__(self, spool: Spool | None, clerk: Clerk, errands: Errands, scribe: Scribe) -> None:
        self._spool, self._clerk, self._errands, self._scribe = spool, clerk, errands, scribe
        self._rewrite_at_ms = 0

    @property
    def is_open(self) -> bool:
        """Whether orders may come."""
        return self._spool is not None

    def waiting(self, state: Federation) -> list[Placed]:
        """Return what is wanted and can be done now; no folder that cannot be read stops the federation."""
        try:
            waiting = self._spool.waiting() if self._spool is not None else []
        except OSError as error:
            log.error("orders cannot be read: %s", error)  # noqa: TRY400 - the trace says no more
            return []
        return [placed for placed in waiting if not must_wait(placed.order, state)]

    def obey(self, order: Order, group: Group) -> None:
        """Do what is wanted, and write it down; what was done before is not done again."""
        if is_about_a_device(order):
            group.orders.append(order)
            return
        if group.state.answer_to(order.id) is None:
            group.fold(self._ordered(order, group))
        self._write_down(order, group.state)

    def depart(self, group: Group) -> None:
        """Do what is to be done to devices: after what they have sent was written, and before it is folded."""
        for order in group.orders:
            group.state = self._clerk.do(order, group.state)
            self._write_down(order, group.state)
            answer = group.state.answer_to(order.id)
            if order.command == DeviceCommand.FORGET and answer is not None and answer.is_obeyed:
                self._say_no_more(order.arguments["device"], group)

    def _say_no_more(self, device: str, group: Group) -> None:
        """What was to be said to a device that is forgotten is not said, be it of this very group."""
        self._errands.forget(device)
        group.errands = [errand for errand in group.errands if errand.device != device]

    def remove(self, placed: Iterable[Placed]) -> None:
        """Take from the spool what is durable."""
        for one in placed:
            assert self._spool is not None
            self._spool.remove(one)

    def rewrite(self, at_ms: int) -> None:
        """Leave nothing in the file of a device that was forgotten; where that cannot be now, it is due again."""
        self._rewrite_at_ms = at_ms + _REWRITE_MS
        try:
            if self._clerk.rewrite():
                self._rewrite_at_ms = 0
        except StoreFullError as error:  # it needs as much room again; nothing else waits for it
            log.warning("what was erased is still in free pages of the file: %s", error)

    def is_rewrite_due(self, at_ms: int) -> bool:
        return 0 < self._rewrite_at_ms <= at_ms

    def _ordered(self, order: Order, group: Group) -> Ordered:
        """Return what an order comes to; a command to devices is written down for each of them."""
        if order.command != DEVICE_COMMAND:
            return self._clerk.event(order, group.state, group.at_ms)
        try:
            message = message_of(order)
        except InvalidValueError as error:
            return Ordered(order, group.at_ms, problem=str(error))
        devices = self._scribe.devices_of(order.arguments.get(DEVICE), order.arguments.get(TAG))
        if not devices:
            return Ordered(order, group.at_ms, problem="there is no such device")
        deaf = [device for device in devices if self._errands.is_deaf(device)]
        if deaf == devices:
            return Ordered(order, group.at_ms, problem=f"{deaf[0] if len(deaf) == 1 else 'each of them'} {DEAF}")
        group.errands += self._errands.send(message, devices, group.at_ms)
        return Ordered(order, group.at_ms, devices=len(devices) - len(deaf), deaf=len(deaf))

    def _write_down(self, order: Order, state: Federation) -> None:
        if self._clerk.write_down(order, state):
            answer = state.answer_to(order.id)
            assert answer is not None
            log.info("%s, ordered by %s (%s): %s", order.command, order.who, order.role, answer.outcome)
