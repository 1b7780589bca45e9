"""What devices send -> events, payloads and receipts: everything is checked here, and next to nothing written.

    state    birth or will           -> DeviceSeen, DeviceGone
    up/+     part of a payload       -> joined; checked; a payload to keep; ContributionsStored; a receipt
    report   numbers after a round   -> counted
    cmd/+    how far a command is    -> kept (`errands`); our own word comes back, and is passed over
    round    our own offer, retained -> proof that the fleet has seen more than this database: EpochBegun

A device that sends more than its allowance is refused until it has rested (`rate`). Births and wills have an allowance
of their own, far beyond what any device needs: one that spends it counts as gone until it has rested and is born again.
Nothing is decoded, journaled or kept of what is over an allowance. Of maps, which may be sent again and again, each
device has a number from one offer to the next, and no more is kept of one than it says. A contribution that comes after
its round is stored without an event: it counts from the next round on (`admission`).

The key (kind, device, round, epoch) of a stored payload is the dedupe: the same bytes again are answered `duplicate`,
also after their round has closed, for the receipt may have been lost.

What a message comes to is a value (`Taken`): one that breaks half way has done nothing. Only a part of a payload that
is not complete yet goes to the store at once; it says no more than that it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from broker_server.accepted import Accepted, Payload
from broker_server.core.admission import (
    MAX_MAPS,
    RefusedError,
    admit_competence,
    admit_contribution,
    check_part,
    distances_in,
)
from broker_server.core.events import ContributionsStored, DeviceGone, DeviceSeen, EpochBegun, Event, Stored
from broker_server.core.federation import Federation
from broker_server.core.labels import StoredLabels
from broker_server.core.rate import RATE_LIMITED, Allowances, RateTerms
from broker_server.settings import ProbeSet, Settings
from fd_protocol import codec
from fd_protocol.competence import encode_map
from fd_protocol.errors import DecodeError, shown
from fd_protocol.messages import (
    Command,
    CommandState,
    DeviceState,
    Kind,
    Part,
    Receipt,
    RoundOffer,
    RoundReport,
    Status,
)
from fd_protocol.parts import join
from fd_protocol.payload import Codes
from fd_protocol.topics import Address, parse
from fd_runtime.links.link import Arrived
from fd_runtime.storage.store import PartRow, PayloadRow, Store

PRESENCES = RateTerms(messages_per_minute=120, bytes_per_minute=0)
"""Births and wills of one device."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a message came to: events to journal, a payload to keep, and a receipt for the device that sent it.

    Attributes:
        events: in order.
        payload: accepted with it.
        device: that sent it.
        receipt: for it.
        report: that it sent.
        is_late: a contribution was stored after its round.
        broken: bytes that broke a decoder, for the quarantine.
        is_dropped: more came than the device may send, and there is nobody to tell.
        part, presence, command: what it was, for the records.
        retained: the broker told it from memory.
    """

    events: tuple[Event, ...] = ()
    device: str = ""
    receipt: Receipt | None = None
    report: RoundReport | None = None
    is_late: bool = False
    broken: bytes = b""
    is_dropped: bool = False
    part: Part | None = None
    presence: DeviceState | None = None
    retained: bool = False
    payload: Payload | None = None
    command: Command | None = None


@dataclass(slots=True)
class MapsTaken:
    """How many maps each device has sent since the last offer. In memory alone: a restart counts from none."""

    number: int = 0
    """Of the round that was offered last."""
    by_device: Counter[str] = field(default_factory=Counter)

    def take(self, device: str, number: int) -> None:
        """Count a map that came while round `number` was the last.

        Raises:
            RefusedError: second_payload; the device has sent as many as it may.
        """
        if number != self.number:
            self.number, self.by_device = number, Counter()
        if self.by_device[device] >= MAX_MAPS:
            raise RefusedError("second_payload", f"more than {MAX_MAPS} maps in a round")
        self.by_device[device] += 1


@dataclass(frozen=True, slots=True)
class Ingest:
    """Says what messages mean, one at a time.

    Attributes:
        settings: of the federation.
        probes: the public set of the settings, where the federation knows of no other (`editions`).
        store: where parts wait for the others.
        new_epoch: draws the next epoch.
        allowances: what each device may still send; `presences` of births and wills.
        maps: how many maps each has sent.
    """

    settings: Settings
    probes: ProbeSet
    store: Store
    new_epoch: Callable[[], int]
    allowances: Allowances
    presences: Allowances = field(default_factory=lambda: Allowances(PRESENCES))
    maps: MapsTaken = field(default_factory=MapsTaken)

    def take(self, arrived: Arrived, state: Federation, accepted: Accepted, at_ms: int) -> Taken:
        """Return what the message means in `state`, to a server that has `accepted` these payloads.

        Raises:
            DecodeError: it is not a message of the protocol; nobody can be told.
        """
        address = parse(arrived.topic)
        if address.federation != self.settings.federation:
            raise DecodeError("foreign_topic", shown(arrived.topic))
        match address:
            case Address(device=str(device), leaf="state") if device:
                if not self._may_say(self.presences, device, arrived, at_ms):
                    return _restless(device, state)
                return self._presence(device, arrived)
            case Address(device=str(device), leaf="up" | "report" as leaf) if device:
                if not self.allowances.spend(device, len(arrived.payload), at_ms):
                    return _limited(device, leaf, arrived.payload)
                if leaf == "up":
                    part = codec.decode(arrived.payload, Part)
                    return self._part(device, part, state, accepted)
                return Taken(device=device, report=codec.decode(arrived.payload, RoundReport))
            case Address(device=str(device), leaf="cmd") if device:
                if not self._may_say(self.allowances, device, arrived, at_ms):
                    return Taken(device=device, is_dropped=True)
                return self._command(device, address.argument, arrived)
            case Address(device="", leaf="round"):
                return self._own_offer(codec.decode(arrived.payload, RoundOffer), state, at_ms)
        raise DecodeError("foreign_topic", shown(arrived.topic))

    def _may_say(self, allowances: Allowances, device: str, arrived: Arrived, at_ms: int) -> bool:
        """What a broker tells from memory comes once a connection of ours, and costs the device nothing."""
        return arrived.retained or allowances.spend(device, len(arrived.payload), at_ms)

    def _presence(self, device: str, arrived: Arrived) -> Taken:
        """A device of another task or bundle, or with a problem, is as good as gone: no round may wait for it."""
        presence = codec.decode(arrived.payload, DeviceState)
        if presence.online:
            presence = replace(presence, problem=presence.problem or self._foreign(presence))
        is_there = presence.online and not presence.problem
        seen = DeviceSeen(device, presence.boot, presence.capabilities, presence.public_sets)
        event = seen if is_there else DeviceGone(device, presence.boot)
        return Taken((event,), device, presence=presence, retained=arrived.retained)

    def _command(self, device: str, name: str, arrived: Arrived) -> Taken:
        if not arrived.payload:  # somebody has cleared the topic
            return Taken()
        command = codec.decode(arrived.payload, Command)
        if command.state is CommandState.INIT:
            return Taken()
        if command.command != name:
            raise DecodeError("invalid", f"a command {command.command} on another's topic")
        return Taken(device=device, command=command, retained=arrived.retained)

    def _foreign(self, presence: DeviceState) -> str:
        if presence.task != self.probes.task:
            return "foreign_task"
        return "foreign_bundle" if self.settings.bundles and presence.bundle.hex() not in self.settings.bundles else ""

    def _own_offer(self, offer: RoundOffer, state: Federation, at_ms: int) -> Taken:
        """An offer of this epoch with a number still to come: this database is a backup, and has been overtaken."""
        if offer.round.epoch != state.epoch or offer.round.number <= state.number:
            return Taken()
        return Taken((EpochBegun(self.new_epoch(), at_ms),))

    def _part(self, device: str, part: Part, state: Federation, accepted: Accepted) -> Taken:
        rows = accepted.rows(part.kind, device)
        is_ours = part.round.federation == self.settings.federation
        if is_ours and any(row.sha256 == part.payload_sha256 and _is_of(row, part) for row in rows):
            return Taken(device=device, part=part, receipt=_receipt(part, Status.DUPLICATE))
        broken = part.body
        try:
            offer = check_part(part, device, self.settings.federation, state, hears_late=self._hears_late)
            payload = self._payload(device, part)
            if isinstance(payload, tuple):
                receipt = _receipt(part, Status.MISSING, missing=payload) if payload else None
                return Taken(device=device, part=part, receipt=receipt)
            broken = payload
            if part.kind is Kind.COMPETENCE:
                self.maps.take(device, state.number)
                content = self._map(payload, offer, state)
            else:
                content = _labels(part, payload, rows, offer, accepted)
        except (RefusedError, DecodeError) as refusal:
            self._forget_parts(device, part)
            receipt = _receipt(part, Status.REFUSED, refusal.reason)
            broken = broken if isinstance(refusal, DecodeError) else b""
            return Taken(device=device, part=part, receipt=receipt, broken=broken)
        taken = _stored(device, part, content, is_late=_is_late(part, state))
        if part.count > 1:
            self._forget_parts(device, part)
        return taken

    def _forget_parts(self, device: str, part: Part) -> None:
        self.store.delete_parts(self.settings.federation, part.kind.value, device)

    @property
    def _hears_late(self) -> bool:
        return self.settings.method.absence.weight(1) > 0

    def _payload(self, device: str, part: Part) -> bytes | tuple[int, ...]:
        """Return the payload once its last part is there; until then the missing parts, if it is time to name them.

        They are named when the part with the highest index comes: the device has sent what it had.
        """
        if part.count == 1:
            return join([part])
        federation, kind, digest = self.settings.federation, part.kind.value, part.payload_sha256
        self.store.put_part(federation, PartRow(kind, device, digest, part.index, codec.encode(part)))
        known = self.store.part_numbers(federation, kind, device, digest)
        absent = tuple(index for index in range(part.count) if index not in known)
        if absent:
            return absent if part.index == part.count - 1 else ()
        return join(codec.decode(row.body, Part) for row in self.store.parts(federation, kind, device, digest))

    def _map(self, payload: bytes, offer: RoundOffer, state: Federation) -> bytes:
        """Return what the store keeps of a competence map: what it says, however it was packed."""
        asked = offer.slice.public_set
        edition = state.editions.about(asked)
        said = admit_competence(payload, asked, self.probes.count if edition is None else edition.count)
        return codec.encode(replace(said, body=encode_map(distances_in(said))))


def _restless(device: str, state: Federation) -> Taken:
    """No round waits for a device that is born more often than anybody listens."""
    known = state.online.get(device)
    if known is None:
        return Taken(device=device, is_dropped=True)
    gone = DeviceState(known.boot, online=False)
    return Taken((DeviceGone(device, known.boot),), device, presence=gone, is_dropped=True)


def _limited(device: str, leaf: str, payload: bytes) -> Taken:
    """A payload is refused, a report or what cannot be read is passed over."""
    try:
        part = codec.decode(payload, Part) if leaf == "up" else None
    except DecodeError:
        part = None
    if part is None:
        return Taken(device=device, is_dropped=True)
    return Taken(device=device, receipt=_receipt(part, Status.REFUSED, RATE_LIMITED))


def _is_late(part: Part, state: Federation) -> bool:
    return state.round is None or not state.round.is_open or part.round != state.round.id


def _is_of(row: PayloadRow, part: Part) -> bool:
    return (row.round, row.epoch) == (part.round.number, part.round.epoch)


def _labels(part: Part, payload: bytes, rows: list[PayloadRow], offer: RoundOffer, accepted: Accepted) -> bytes:
    """Return what the store keeps of a contribution."""
    if any(_is_of(row, part) for row in rows):
        raise RefusedError("second_payload")
    return admit_contribution(payload, offer, lambda digest: _base(digest, rows, accepted)).to_bytes()


def _base(digest: bytes, rows: list[PayloadRow], accepted: Accepted) -> Codes | None:
    for row in rows:
        if row.sha256 == digest:
            return StoredLabels.from_bytes(accepted.content(row)).codes
    return None


def _stored(device: str, part: Part, content: bytes, *, is_late: bool) -> Taken:
    """A contribution counts in its round, unless it is late."""
    is_contribution = part.kind is Kind.CONTRIBUTION
    stored = Stored(device, part.payload_sha256, part.total_bytes)
    events = (ContributionsStored(part.round, (stored,)),) if is_contribution and not is_late else ()
    return Taken(
        events,
        device,
        _receipt(part, Status.STORED),
        is_late=is_contribution and is_late,
        part=part,
        payload=Payload.of(device, part, content),
    )


def _receipt(part: Part, status: Status, reason: str = "", missing: tuple[int, ...] = ()) -> Receipt:
    return Receipt(part.round, part.kind, part.payload_sha256, status, reason, missing)
