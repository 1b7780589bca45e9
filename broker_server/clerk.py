"""Does what operators order: in a running server's own transaction, or on the database of one that is stopped.

    pause, abort, release, ...   an event of the federation
    probes-...                   likewise, after a look at the files that the order names
    publish                      likewise; whoever gave it has looked at the files (`commands.rollouts`)
    forget, replace, tag         rows of the store (`departures`); no event may keep a forgotten name, so the state that
                                 they leave takes the place of the journal

Every order is answered once, and has a row among the commands. What an order does and its answer are durable together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum

from broker_server.core import editions
from broker_server.core.events import Command, Order, Ordered
from broker_server.core.federation import Answer, Federation, answered
from broker_server.core.releases import published_by
from broker_server.core.rollouts import staged_as, started_by
from broker_server.core.round import Phase
from broker_server.departures import Forgotten, Registrar, UnknownDeviceError
from broker_server.journal import Journal
from broker_server.kits import Kits
from broker_server.records.chronicle import Chronicle, CommandRecord, lower
from broker_server.records.scribe import Scribe
from broker_server.settings import Settings
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import check_name
from fd_runtime.storage.store import Store

_MOST_ROUNDS = 100
"""Rounds that an answer names: it is part of the state for a while."""
_REWRITE, _PAGES_LEFT = b"rewrite", b"pages"


class DeviceCommand(str, Enum):
    """What is done to the record of a device; arguments `device`, and `new` or `tags`."""

    FORGET = "forget"
    REPLACE = "replace"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class Clerk:
    """Obeys orders to one federation; every write belongs to the caller's transaction.

    Attributes:
        store: of the federation.
        settings: of it.
        scribe: writes the record of commands.
        kits: tells those of its public sets, to see whether what an order names is there.
    """

    store: Store
    settings: Settings
    scribe: Scribe
    kits: Callable[[], Kits]

    def event(self, order: Order, state: Federation, at_ms: int) -> Ordered:
        """Return an order to the federation's core, with what is wrong with it at first sight."""
        return Ordered(order, at_ms, self._problem(order, state, at_ms))

    def do(self, order: Order, state: Federation) -> Federation:
        """Do what is to be done to a device and return the state after it, with its answer.

        The journal must be folded to that state in the same transaction, and then `rewrite` called.
        """
        if state.answer_to(order.id) is not None:
            return state
        try:
            state, outcome, facts = self._do(order, state)
            answer = Answer(order.id, outcome, is_obeyed=True, facts=facts)
        except (UnknownDeviceError, InvalidValueError, KeyError) as error:
            answer = Answer(order.id, str(error))
        return answered(state, answer)

    def write_down(self, order: Order, state: Federation) -> bool:
        """Write down an order that has been answered; return false where that was done before."""
        answer = state.answer_to(order.id)
        assert answer is not None
        return self.scribe.command(
            CommandRecord(order.id, order.at_ms, order.who, order.role, order.command, order.arguments, answer.outcome)
        )

    # What was deleted.

    def owe_rewrite(self) -> None:
        """Remember, over a crash too, that the file must be written anew: free pages hold what was deleted."""
        self.store.set_meta(self._owed_key, _REWRITE)

    def rewrite(self) -> bool:
        """Write the file anew where that is owed, outside any transaction; return whether nothing is owed any more.

        While others read an older moment, the old pages stay for them: call it again.
        """
        owed = self.store.meta(self._owed_key) or b""
        is_done = not owed or (self.store.rewrite() if owed == _REWRITE else self.store.drop_old_pages())
        if owed:
            self.store.set_meta(self._owed_key, b"" if is_done else _PAGES_LEFT)
        return is_done

    @property
    def _owed_key(self) -> str:
        return f"{self.settings.federation}/rewrite"

    # Public sets.

    def _problem(self, order: Order, state: Federation, at_ms: int) -> str:
        if order.command == Command.PUBLISH:
            return self._problem_of_bundle(order, at_ms)
        if order.command == Command.RELEASE:
            return _problem_of_staging(staged_as(state.schedule.staging, order.arguments), at_ms)
        if order.command not in (Command.PROBES_STAGE, Command.PROBES_ROTATE):
            return ""
        try:
            edition = editions.ordered(state.editions, order, at_ms)
            self.settings.check_against(self.kits().of(edition).probes)
        except (FedistillError, OSError, ValueError, KeyError) as error:
            return str(error)
        return ""

    # Bundles.

    def _problem_of_bundle(self, order: Order, at_ms: int) -> str:
        try:
            published = published_by(order, at_ms)
            started_by(order.arguments, published.family, published.bundle, at_ms)
        except (FedistillError, ValueError, KeyError) as error:
            return f"no bundle to publish: {error}"
        if self.settings.bundles and published.bundle.hex() not in self.settings.bundles:
            return f"`bundles` does not name {published.bundle.hex()}: devices that ran it could not take part"
        return ""

    # Devices.

    def _do(self, order: Order, state: Federation) -> tuple[Federation, str, dict[str, str]]:
        registrar, said = Registrar(self.store, self.settings), order.arguments
        device = check_name(said["device"], "device")
        match order.command:
            case DeviceCommand.FORGET:
                self.owe_rewrite()  # also where nothing is left to erase
                state, forgotten = registrar.strike(state, device)
                return state, _told(forgotten), _facts(forgotten)
            case DeviceCommand.REPLACE:
                new = check_name(said["new"], "device")
                return registrar.hand_over(state, device, new), f"{new} takes the place of {device}", {}
        tags = tuple(check_name(tag, "tag") for tag in said.get("tags", "").split())
        self._tag(device, tags)
        return state, f"{device}: {' '.join(tags) or 'no tags'}", {}

    def _tag(self, device: str, tags: tuple[str, ...]) -> None:
        if Chronicle(self.store, self.settings.federation).device(device) is None:
            raise UnknownDeviceError(device)
        self.store.merge("devices", {"fed": self.settings.federation, "device": device}, lower({"tags": tags}))


def _problem_of_staging(staging: Mapping[str, str], at_ms: int) -> str:
    """Return what is wrong with the words of a rollout, whose bundle is yet to be made; empty: nothing."""
    try:
        started_by(staging, "", b"", at_ms)
    except (FedistillError, ValueError) as error:
        return f"no rollout can be so: {error}"
    return ""


def is_about_a_device(order: Order) -> bool:
    """Whether `Clerk.do` obeys it."""
    return order.command in [command.value for command in DeviceCommand]


def must_wait(order: Order, state: Federation) -> bool:
    """Whether an order cannot be obeyed yet: a consensus is being made.

    Who speaks in it, and with which trust, must not change meanwhile; trust that is forgotten would come back with it.
    """
    if state.round is None or state.round.phase is not Phase.AGGREGATING:
        return False
    return is_about_a_device(order) or bool(order.arguments.get(editions.FORGET_TRUST))


def obey_here(clerk: Clerk, order: Order, at_ms: int) -> Answer:
    """Obey an order with the server stopped, and return the answer."""
    store, journal = clerk.store, Journal(clerk.store, clerk.settings.federation)
    with store.transaction():
        state = journal.replay()
        if is_about_a_device(order):
            state = clerk.do(order, state)
            journal.fold(state)
        else:
            state = journal.take(clerk.event(order, state, at_ms), state, at_ms)
        clerk.write_down(order, state)
    clerk.rewrite()
    answer = state.answer_to(order.id)
    assert answer is not None
    return answer


def _told(forgotten: Forgotten) -> str:
    numbers = [str(number) for number in forgotten.rounds]
    named = " ".join(numbers[:_MOST_ROUNDS]) + (" ..." if len(numbers) > _MOST_ROUNDS else "")
    names = ("payloads", "parts", "unreadable", "hearings")
    erased = ", ".join(f"{getattr(forgotten, name)} {name}" for name in names)
    return f"erased: {erased}; rounds that cannot be made again for it: {named or 'none'}"


def _facts(forgotten: Forgotten) -> dict[str, str]:
    facts = {name: str(value) for name, value in asdict(forgotten).items() if name not in ("device", "rounds")}
    return {**facts, "rounds": " ".join(map(str, forgotten.rounds[:_MOST_ROUNDS]))}
