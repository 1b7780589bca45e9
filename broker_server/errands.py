"""Commands to devices, as the server knows them: what was sent to whom, and what each device made of it.

    sent (INIT) --device--> EXECUTING [step] --device--> SUCCESSFUL | FAILED
       |
       +-- nothing heard by `expires_utc_s`: it stays INIT, and is said no more
       +-- its birth says that the device hears no commands: FAILED, at once

Rows are written in the transaction of the order, and of the message, that they tell of. What nobody has answered is
published again at every connection, the server's and the device's; an id is done once (docs/wire.md).

A row is a named value in the store (`FED/errands/DEVICE/ID`), so a backup and an export hold it and `forget` erases it;
so is that a device hears no commands (`FED/deaf/DEVICE/`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from broker_server.core.events import Order
from fd_protocol import cbor, topics
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import MAX_ARGUMENTS, Command, CommandState
from fd_protocol.schema import from_item, keyed, to_item
from fd_runtime.storage.store import Store

DEVICE, TAG, COMMAND, FOR_S, MARK = "device", "tag", "command", "for_s", "="
"""Arguments of the order: one of the first two, the command, its time, and =NAME for each argument of the command."""
COMMANDS = "commands"
"""The capability of devices that hear commands; agents from before do not."""
DEAF = "does not hear commands: its agent is older"
"""Why a command to another one has failed: the server's own words."""
USUAL_S, LONGEST_S = 86_400, 30 * 86_400


@dataclass(frozen=True, slots=True)
class Errand:
    """A command to one device.

    Attributes:
        id: of the order; the same for every device that it went to.
        device: to whom.
        command, arguments, expires_utc_s: as sent.
        sent_ms: when.
        state, step, reason, result: as the device says, or that it is `DEAF`.
        changed_ms: when it last said so, or was found to be; 0 = never.
    """

    id: str = keyed(1)
    device: str = keyed(2)
    command: str = keyed(3)
    expires_utc_s: int = keyed(4)
    sent_ms: int = keyed(5)
    arguments: Mapping[str, str] = field(default_factory=dict, metadata={"key": 6})
    state: CommandState = keyed(7, default=CommandState.INIT)
    step: str = keyed(8, default="")
    reason: str = keyed(9, default="")
    result: Mapping[str, str] = field(default_factory=dict, metadata={"key": 10})
    changed_ms: int = keyed(11, default=0)

    @property
    def message(self) -> Command:
        """What the server says of it."""
        return Command(self.id, self.command, CommandState.INIT, self.expires_utc_s, self.arguments)

    def standing(self, now_utc_s: float) -> str:
        """Return where it stands in a word; `unheard`: nobody has answered it, and it is past its time."""
        if self.state is CommandState.INIT:
            return "sent" if now_utc_s <= self.expires_utc_s else "unheard"
        return str(self.state.value)


def message_of(order: Order) -> Command:
    """Return what an order says to devices.

    Raises:
        InvalidValueError: no command can say that.
    """
    given = order.arguments
    if (DEVICE in given) == (TAG in given):
        raise InvalidValueError("a command is for a device or for a tag")
    arguments = {name.removeprefix(MARK): text for name, text in given.items() if name.startswith(MARK)}
    if given.get(COMMAND, "") not in topics.COMMANDS:
        raise InvalidValueError(f"the commands that there are: {', '.join(topics.COMMANDS)}")
    if len(arguments) > MAX_ARGUMENTS:
        raise InvalidValueError(f"a command has at most {MAX_ARGUMENTS} arguments")
    seconds = given.get(FOR_S, str(USUAL_S))
    if not (seconds.isascii() and seconds.isdigit()) or len(seconds) > 9 or not 1 <= int(seconds) <= LONGEST_S:
        raise InvalidValueError(f"{FOR_S} lies in 1..{LONGEST_S}")
    expires_utc_s = order.at_ms // 1000 + int(seconds)
    return Command(order.id, given.get(COMMAND, ""), CommandState.INIT, max(1, expires_utc_s), arguments)


class Errands:
    """One federation's; every write belongs to the caller's transaction."""

    def __init__(self, store: Store, federation: str) -> None:
        self._store, self._federation = store, federation
        self._unheard: dict[str, dict[str, Errand]] = {}
        """By device and id: what is said again until it is answered."""
        for errand in stored(store, federation):
            self._note(errand)

    def send(self, message: Command, devices: Collection[str], at_ms: int) -> list[Errand]:
        """Write down that `message` goes to these devices; return what is to be said: deaf ones are told nothing."""
        errands = [
            Errand(message.id, device, message.command, message.expires_utc_s, at_ms, message.arguments)
            for device in devices
        ]
        for errand in errands:
            self._keep(_in_vain(errand, at_ms) if self.is_deaf(errand.device) else errand)
        return [errand for errand in errands if not self.is_deaf(errand.device)]

    def is_deaf(self, device: str) -> bool:
        """Whether its last birth said that it hears no commands; one that nobody has seen is given the chance."""
        return self._store.meta(_deaf_key(self._federation, device)) is not None

    def meet(self, device: str, capabilities: Collection[str], at_ms: int) -> list[Errand]:
        """Write down whether a device that is born hears commands; return those that it was sent in vain."""
        key = _deaf_key(self._federation, device)
        if COMMANDS in capabilities:
            if self.is_deaf(device):
                self._store.delete_metas(key, b"")
            return []
        self._store.set_meta(key, b"")
        in_vain = [*self._unheard.get(device, {}).values()]
        for errand in in_vain:
            self._keep(_in_vain(errand, at_ms))
        return in_vain

    def hear(self, device: str, said: Command, at_ms: int) -> bool:
        """Write down what a device says; return whether that is news about a command of ours."""
        errand = find(self._store, self._federation, device, said.id)
        if errand is None or errand.command != said.command or said.state is CommandState.INIT:
            return False
        if errand.state.has_ended or (errand.state, errand.step) == (said.state, said.step):
            return False
        heard = replace(errand, state=said.state, step=said.step, reason=said.reason, result=said.result)
        self._keep(replace(heard, changed_ms=at_ms))
        return True

    def unheard(self, now_utc_s: float, device: str | None = None) -> list[Errand]:
        """Return what is to be said again, to one device or to all; what is past its time is let go."""
        found = []
        for name in [*self._unheard] if device is None else [device]:
            for errand in [*self._unheard.get(name, {}).values()]:
                if errand.expires_utc_s > now_utc_s:
                    found.append(errand)
                else:
                    self._let_go(errand)
        return found

    def forget(self, device: str) -> None:
        """Say nothing any more to a device whose rows were erased."""
        self._unheard.pop(device, None)

    def prune(self, before_ms: int) -> None:
        """Forget commands that were sent before, and have ended or are past their time."""
        for errand in stored(self._store, self._federation):
            if errand.sent_ms < before_ms and (errand.state.has_ended or errand.expires_utc_s * 1000 < before_ms):
                self._store.delete_metas(_key(self._federation, errand.device, errand.id), b"")
                self._let_go(errand)

    def _keep(self, errand: Errand) -> None:
        key = _key(self._federation, errand.device, errand.id)
        self._store.set_meta(key, cbor.encode(to_item(errand)))
        self._note(errand)

    def _note(self, errand: Errand) -> None:
        if errand.state is CommandState.INIT:
            self._unheard.setdefault(errand.device, {})[errand.id] = errand
        else:
            self._let_go(errand)

    def _let_go(self, errand: Errand) -> None:
        of_device = self._unheard.get(errand.device, {})
        of_device.pop(errand.id, None)
        if not of_device:
            self._unheard.pop(errand.device, None)


def _in_vain(errand: Errand, at_ms: int) -> Errand:
    return replace(errand, state=CommandState.FAILED, reason=DEAF, changed_ms=at_ms)


def stored(store: Store, federation: str, device: str | None = None) -> Iterator[Errand]:
    """Yield the commands of a device, or of all."""
    prefix = f"{_prefix(federation)}{device}/" if device is not None else _prefix(federation)
    for _, value in store.metas(prefix):
        yield from_item(Errand, cbor.decode(value))


def listed(store: Store, federation: str, device: str | None = None, limit: int = -1) -> tuple[Errand, ...]:
    """Return the commands of a device, or of all, the last first."""
    found = sorted(stored(store, federation, device), key=lambda one: (-one.sent_ms, one.id, one.device))
    return tuple(found if limit < 0 else found[:limit])


def of_order(store: Store, federation: str, order: str) -> tuple[Errand, ...]:
    """Return what became of one order, in the order of devices."""
    return tuple(one for one in stored(store, federation) if one.id == order)


def find(store: Store, federation: str, device: str, command_id: str) -> Errand | None:
    value = store.meta(_key(federation, device, command_id))
    return None if value is None else from_item(Errand, cbor.decode(value))


def forget(store: Store, federation: str, device: str) -> int:
    """Erase the commands of a device; return how many there were."""
    store.delete_metas(_deaf_key(federation, device), b"")
    return store.delete_metas(f"{_prefix(federation)}{device}/", b"")


def _deaf_key(federation: str, device: str) -> str:
    """It ends in a stroke: keys are deleted by prefix, and another device's name may begin alike."""
    return f"{federation}/deaf/{device}/"


def _prefix(federation: str) -> str:
    return f"{federation}/errands/"


def _key(federation: str, device: str, command_id: str) -> str:
    return f"{_prefix(federation)}{device}/{command_id}"
