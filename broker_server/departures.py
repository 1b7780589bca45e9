"""A device that goes for good: what it sent is erased, or another takes its place.

    forget    payloads, maps, parts, what could not be read, trust, its place in the open round, every record of it
    replace   its last words, map, trust and counts become the new device's; its hearings stay under its own name

What was published stays: a consensus is a sum, and a student has learnt from it. Rounds in which a forgotten device
had a part cannot be made again. What it sent in the open round does not count, either way: its place is free.

Deleted bytes stay in a database's free pages until something is written over them, so that the file is written anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from broker_server import deliveries, errands
from broker_server.core.federation import Federation, named_blobs, without
from broker_server.core.trust import reassigned
from broker_server.records.chronicle import Chronicle, DeviceRecord, lower
from broker_server.records.scribe import Scribe
from broker_server.settings import Settings
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.messages import Kind
from fd_protocol.topics import Topics
from fd_runtime.artifacts import EX_NOINPUT
from fd_runtime.storage.store import PayloadRow, Row, Store


class UnknownDeviceError(FedistillError):
    """Nothing is known of the device."""

    exit_code = EX_NOINPUT

    def __init__(self, device: str) -> None:
        self.device = device
        super().__init__(f"nothing is known of device {device!r}")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased, in rows; `rounds` are those that cannot be made again for it."""

    device: str
    payloads: int
    parts: int
    unreadable: int
    hearings: int
    rounds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Registrar:
    """Strikes devices off a federation, in the caller's transaction; no consensus may be under way.

    Attributes:
        store: of the federation.
        settings: its settings.
    """

    store: Store
    settings: Settings

    def strike(self, state: Federation, device: str) -> tuple[Federation, Forgotten]:
        """Erase all that a device sent and all that was written down of it; return the state without it.

        The journal must be folded to that state, for its events name the device; and the file written anew afterwards,
        for its free pages hold what was deleted.

        Raises:
            UnknownDeviceError: there is nothing.
        """
        if not self._knows(device, state):
            raise UnknownDeviceError(device)
        forgotten = self._erase(device)
        self._forget_trust_of_rounds(device)
        state = self._entrust(without(state, device), device)
        self._drop_blobs(state)
        return state, forgotten

    def hand_over(self, state: Federation, old: str, new: str) -> Federation:
        """Put a new device in the place of an old one; return the state after it, to which the journal must be folded.

        Raises:
            UnknownDeviceError: nothing is known of the old one.
            InvalidValueError: they are one, or one of them was replaced itself.
        """
        before, after = self._chronicle.device(old), self._chronicle.device(new) or DeviceRecord(new)
        if before is None:
            raise UnknownDeviceError(old)
        if old == new or before.replaced_by or after.replaced_by:
            raise InvalidValueError(f"{old} and {new} must be two devices, neither of them replaced already")
        self._inherit(before, after)
        self._hand_over_payloads(old, new, state)
        state = self._entrust(without(state, old), old, new)
        self._drop_blobs(state)
        return state

    @property
    def _federation(self) -> str:
        return self.settings.federation

    @property
    def _chronicle(self) -> Chronicle:
        return Chronicle(self.store, self._federation)

    def _key(self, **names: int | str | bytes) -> Row:
        return {"fed": self._federation, **names}

    def _payloads(self, device: str) -> Iterator[PayloadRow]:
        for kind in Kind:
            yield from self.store.payloads(self._federation, kind.value, device)

    def _knows(self, device: str, state: Federation) -> bool:
        if self._chronicle.device(device) is not None or device in state.online:
            return True
        return any(self._payloads(device)) or bool(self._chronicle.hearings_of(device, 1))

    def _drop_blobs(self, state: Federation) -> None:
        """Drop the blobs that nothing names any more."""
        scribe = Scribe(self.store, self._federation, self.settings.method)
        payloads = [row for kind in Kind for row in self.store.payloads(self._federation, kind.value)]
        named = {row.content for row in payloads} | named_blobs(state)
        self.store.delete_blobs_except(named | scribe.named_blobs(self.settings.records, state.number))

    # Forgetting.

    def _erase(self, device: str) -> Forgotten:
        rows = tuple(self._payloads(device))
        for row in rows:
            self.store.delete_payload(self._federation, row)
        parts = self.store.delete_parts(self._federation, device=device)
        topics = Topics(self._federation).state(device).removesuffix("state")
        unreadable = self.store.delete_metas(f"{self._federation}/", topics.encode())
        rounds = self._lose_rounds(device)
        hearings = self.store.delete_rows("hearings", self._key(device=device))
        self.store.delete_rows("devices", self._key(device=device))
        errands.forget(self.store, self._federation, device)
        deliveries.forget(self.store, self._federation, device)
        return Forgotten(device, len(rows), parts, unreadable, hearings, rounds)

    def _lose_rounds(self, device: str) -> tuple[int, ...]:
        """Give up the rounds in which the device had a part; return their numbers."""
        heard = self.store.rows("hearings", self._key(device=device, **{"weight >": 0}), "round", columns="round")
        numbers = tuple(row["round"] for row in heard)
        for number in numbers:
            for row in self.store.rows("hearings", self._key(round=number)):
                key = self._key(**{name: row[name] for name in ("round", "device", "kind", "sha256")})
                self.store.merge("hearings", key, {"weight": 0, "labels": b"", "map": b""})
            self.store.merge("rounds", self._key(number=number), {"trust": b""})
        return numbers

    def _forget_trust_of_rounds(self, device: str) -> None:
        """Take the device out of the trust of rounds that it had no part in: their voices are what they were."""
        for row in self.store.rows("rounds", self._key(), columns="number, trust"):
            if row["trust"]:
                digest = self._reassigned(row["trust"], device)
                self.store.merge("rounds", self._key(number=row["number"]), {"trust": digest})

    def _entrust(self, state: Federation, device: str, heir: str = "") -> Federation:
        """Return the state in whose tables of trust the heir stands in the place of the device, or nobody does."""
        trial = state.editions.trial
        if trial is not None:
            trial = replace(trial, trust=self._reassigned(trial.trust, device, heir))
            state = replace(state, editions=replace(state.editions, trial=trial))
        return replace(state, trust=self._reassigned(state.trust, device, heir))

    def _reassigned(self, digest: bytes, device: str, heir: str = "") -> bytes:
        """Return the digest of a table of trust that was changed; one that is not kept stays a digest of nothing."""
        if not digest or not self.store.has_blob(digest):
            return digest
        return self.store.put_blob(reassigned(self.store.blob(digest), device, heir))

    # Replacing.

    def _inherit(self, old: DeviceRecord, new: DeviceRecord) -> None:
        firsts = [first for first in (old.first_seen_ms, new.first_seen_ms) if first]
        values = {
            "first_seen_ms": min(firsts, default=0),
            "rounds": old.rounds + new.rounds,
            "refused": old.refused + new.refused,
            "up_bytes": old.up_bytes + new.up_bytes,
            "trust": old.trust if old.trust is not None else new.trust,
            "tags": tuple(dict.fromkeys((*old.tags, *new.tags))),
        }
        self.store.merge("devices", self._key(device=new.device), lower(values))
        self.store.merge("devices", self._key(device=old.device), {"replaced_by": new.device, "online": 0})

    def _hand_over_payloads(self, old: str, new: str, state: Federation) -> None:
        """The old one's words become the new one's, but for those of the open round, and unless it has words itself."""
        spoken = {row.kind for row in self._payloads(new)}
        for row in tuple(self._payloads(old)):
            self.store.delete_payload(self._federation, row)
            is_of_open_round = state.has_open_round and (row.kind, row.round) == (Kind.CONTRIBUTION.value, state.number)
            if row.kind not in spoken and not is_of_open_round:
                self.store.put_payload(self._federation, replace(row, device=new))
        self.store.delete_parts(self._federation, device=old)
