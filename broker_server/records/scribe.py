"""Writes the chronicle: what arrived and what a round came to -> rows, in the transaction that makes them durable.

A round's row is written again whenever the federation's state says something new of it, so nothing is missed by a
crash and nothing is counted twice. Numbers that only grow (bytes, refusals) are added in the transaction of the
messages that they count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from broker_server.core.federation import Consensus, Federation, Student
from broker_server.core.round import Round
from broker_server.core.standing import Standing
from broker_server.ingest import Taken
from broker_server.records.chronicle import ABSENT, CommandRecord, lower
from broker_server.settings import MethodSettings, RecordSettings
from fd_protocol import codec
from fd_protocol.documents import to_json
from fd_protocol.messages import DeviceState, Kind, Part, RoundReport, Status
from fd_runtime.storage.store import GAINS, Columns, Row, Store, Value

MAX_REFUSALS = 16
"""Refused payloads of one device in one round that are listed; more are counted, and no more."""
HOLD_OUT = "hold_out_accuracy"
"""Among the metrics of a report."""
TRIAL_OF = "trial_of_edition"
"""Among the metrics of a round: the number of the edition that it tried."""
DAY_MS = 86_400_000
_AT_A_TIME = 10
"""Rounds that are forgotten by their age when one ends; as a rule it is one."""

_HEARD = Columns(("fed", "device"), ("last_seen_ms",), ("up_bytes", "rounds", "refused"))
_HEARING = Columns(
    ("fed", "round", "device", "kind", "sha256"), ("epoch", "arrived_ms", "payload_bytes", "status", "reason")
)
"""What a payload changes in the row of its device, and its own row."""


class Scribe:
    """Writes one federation's records; every write belongs to the caller's transaction.

    Args:
        store: upgraded where it has no tables of records yet.
        federation: whose.
        method: with which consensuses are made from now on.
    """

    def __init__(self, store: Store, federation: str, method: MethodSettings) -> None:
        store.upgrade(GAINS)
        self._store, self._federation = store, federation
        self._terms = to_json(method.terms).decode()
        self._round: Round | None = None
        self._consensus: Consensus | None = None
        self._student: Student | None = None

    def write(self, taken: Sequence[Taken], state: Federation, at_ms: int) -> None:
        """Write what messages and results have come to; `state` is the federation's after them."""
        up_bytes = self._hear(taken, state, at_ms)
        for one in taken:
            if one.presence is not None:
                self._presence(one.device, one.presence, at_ms, is_news=not one.retained)
            if one.report is not None:
                self._report(one.device, one.report, state, at_ms)
        self._follow(state, at_ms)
        for number, count in up_bytes.items():
            if self._row_of(number) is not None:
                self._store.merge("rounds", self._key(number=number), {}, {"up_bytes": count})

    def stand(self, standings: Iterable[Standing], state: Federation) -> None:
        """Write what each voice came to in the consensus of the round that has just ended."""
        for one in standings:
            assert state.round is not None  # standings come with its consensus
            self._stand(one, state.round)
        self._store.fill("devices", "first_canaries", "last_canaries", self._where({}))

    def _stand(self, one: Standing, ended: Round) -> None:
        source, current = one.source, ended.id
        kind = Kind.CONTRIBUTION.value
        key = self._key(round=current.number, device=source.device, kind=kind, sha256=source.sha256)
        values: dict[str, Value] = {"epoch": current.epoch, "share": one.share, "agreement": one.agreement}
        values |= {"weight": source.weight, "labels": source.labels, "map": source.map}
        values |= {"canaries": one.canaries, "influence": one.influence}
        values["status"] = ABSENT if source.is_absent else Status.STORED.value
        self._store.merge("hearings", key, values)
        if not ended.trial_of:
            told: dict[str, Value] = {} if one.trust is None else {"trust": one.trust}
            if not source.is_absent and one.canaries is not None:
                told |= {"last_canaries": one.canaries, "influence": one.influence}
            self._store.merge("devices", self._key(device=source.device), told)

    def prune(self, kept: RecordSettings, number: int, at_ms: int) -> int:
        """Forget rounds and commands that are older than `kept` says, and rounds of which there are too many.

        A clock that is wrong for a moment must not cost what there is. So a round goes after those before it: one that
        ended in 1970 takes none along; and by their age only `_AT_A_TIME` go at the end of a round: a clock that is
        years ahead costs a few.

        Args:
            kept: what is kept.
            number: of the last round.
            at_ms: now.

        Returns:
            The time before which nothing is remembered.
        """
        before_ms = at_ms - kept.days * DAY_MS
        young = self._store.rows("rounds", self._where({"ended_ms >=": before_ms}), "number", 1)
        oldest = self._store.rows("rounds", self._where({}), "number", 1)
        aged = min([number, *(row["number"] for row in young), *(row["number"] + _AT_A_TIME for row in oldest)])
        first = max(number - kept.rounds + 1, aged)
        self._store.delete_rows("rounds", self._where({"number <": first}))
        self._store.delete_rows("hearings", self._where({"round <": first}))
        left = self._store.rows("rounds", self._where({"ended_ms >": 0}), "number", 1)
        horizon_ms: int = min([before_ms, *(row["ended_ms"] for row in left)])
        self._store.delete_rows("commands", self._where({"at_ms <": horizon_ms}))
        return horizon_ms

    def named_blobs(self, kept: RecordSettings, number: int) -> set[bytes]:
        """Return the digests of all that is needed to make the consensuses of the replayable rounds again."""
        first = number - kept.replayable_rounds + 1
        heard = self._where({"round >=": first, "weight >": 0})
        named = self._store.rows("hearings", heard, columns="labels, map")
        named += self._store.rows("rounds", self._where({"number >=": first}), columns="trust")
        return {digest for row in named for digest in row.values()} - {b""}

    def command(self, record: CommandRecord) -> bool:
        """Write down a command; return false where one of this id stands there already."""
        key = self._key(id=record.id)
        if self._store.rows("commands", key):
            return False
        self._store.merge("commands", key, lower({**_fields(record), **key}))
        return True

    # Devices.

    def devices_of(self, device: str | None, tag: str | None) -> list[str]:
        """Return the names of the devices that are known by this name, or have this tag, and were not replaced."""
        where: Row = {"replaced_by": "", **({} if device is None else {"device": device})}
        rows = self._store.rows("devices", self._where(where), "device", columns="device, tags")
        return [row["device"] for row in rows if tag is None or tag in json.loads(row["tags"])]

    def _presence(self, device: str, presence: DeviceState, at_ms: int, *, is_news: bool) -> None:
        """A retained message tells what was true when it was sent; when that was it does not tell.

        Of two lives of a device that is there the higher number wins, as in the core. One that is not there may come
        back with a lower one: it has lost what it counted with.
        """
        rows = self._store.rows("devices", self._key(device=device))
        known: dict[str, Any] = rows[0] if rows else {"boot": 0, "online": 0, "first_seen_ms": 0}
        is_echo = not rows and not presence.online and not is_news  # the will of a device that was forgotten
        is_earlier = presence.boot < known["boot"] and (known["online"] or not presence.online)
        if is_echo or is_earlier:
            return
        values: dict[str, Any] = {"boot": presence.boot, "online": presence.online}
        if presence.online:
            values |= {name: getattr(presence, name) for name in ("agent", "bundle", "family", "runtime", "problem")}
        values["first_seen_ms"] = known["first_seen_ms"] or at_ms
        if is_news or not rows:
            values["last_seen_ms"] = at_ms
        self._store.merge("devices", self._key(device=device), lower(values))

    def _report(self, device: str, report: RoundReport, state: Federation, at_ms: int) -> None:
        """Write down what a device found, and beside what it had sent in that round."""
        metrics, key = lower({"report": report.metrics}), self._key(device=device)
        hold_out = {"last_hold_out": report.metrics[HOLD_OUT]} if HOLD_OUT in report.metrics else {}
        self._store.merge("devices", key, {**metrics, **hold_out, "last_seen_ms": at_ms})
        self._store.fill("devices", "first_hold_out", "last_hold_out", key)
        if (report.round.federation, report.round.epoch) == (self._federation, state.epoch):
            sent = self._key(round=report.round.number, device=device, kind=Kind.CONTRIBUTION.value)
            for row in self._store.rows("hearings", {**sent, "status": Status.STORED.value}):
                self._store.merge("hearings", {**sent, "sha256": row["sha256"]}, metrics)

    def _hear(self, taken: Iterable[Taken], state: Federation, at_ms: int) -> Counter[int]:
        """Write down pieces of payloads, and payloads where they are decided; return the bytes of each round."""
        up_bytes: Counter[int] = Counter()
        devices: list[tuple[Value, ...]] = []
        hearings: dict[Status, list[tuple[Value, ...]]] = {Status.STORED: [], Status.REFUSED: []}
        for one in sorted(taken, key=lambda one: one.device):
            part, receipt = one.part, one.receipt
            if part is None:
                continue
            number, status = self._number(part, state), receipt.status if receipt is not None else Status.MISSING
            kind, size = part.kind, len(part.body)
            up_bytes[number] += size
            is_counted = status is Status.STORED and kind is Kind.CONTRIBUTION
            devices.append((self._federation, one.device, at_ms, size, is_counted, status is Status.REFUSED))
            if receipt is not None and status in hearings:
                key = self._federation, number, one.device, kind.value, part.payload_sha256
                what = state.epoch, at_ms, part.total_bytes, status.value, receipt.reason
                hearings[status].append(key + what)
        self._store.merge_all("devices", _HEARD, devices)
        self._store.merge_all("hearings", _HEARING, hearings[Status.STORED])
        for row in hearings[Status.REFUSED]:
            if self._has_room(row) and not self._was_stored(row):
                self._store.merge_all("hearings", _HEARING, [row])
        return up_bytes

    def _number(self, part: Part, state: Federation) -> int:
        """Return the round under which a part is written down."""
        is_ours = part.round.federation == self._federation and part.round.epoch == state.epoch
        return part.round.number if is_ours and part.round.number <= state.number else state.number

    def _was_stored(self, row: tuple[Value, ...]) -> bool:
        """Whether it came once more after its round, by a broker that had not heard that it was there."""
        where = {**dict(zip(_HEARING.key, row, strict=False)), "status": Status.STORED.value}
        return bool(self._store.rows("hearings", where, limit=1))

    def _has_room(self, row: tuple[Value, ...]) -> bool:
        where = {**dict(zip(_HEARING.key[:3], row, strict=False)), "status": Status.REFUSED.value}
        return len(self._store.rows("hearings", where, limit=MAX_REFUSALS)) < MAX_REFUSALS

    # Rounds.

    def _follow(self, state: Federation, at_ms: int) -> None:
        """Bring the rows of rounds to what the state says of them."""
        if state.round is not None and (state.round is not self._round or state.consensus is not self._consensus):
            self._follow_round(state.round, state, at_ms)
        if state.student is not None and state.student is not self._student:
            number = state.student.round.number
            if self._row_of(number) is not None:
                self._store.merge("rounds", self._key(number=number), lower({"student": state.student.metrics}))
        self._round, self._consensus, self._student = state.round, state.consensus, state.student

    def _follow_round(self, current: Round, state: Federation, at_ms: int) -> None:
        row = self._row_of(current.id.number)
        values: dict[str, Any] = {"phase": current.phase.value, "reason": current.reason, "heard": current.heard}
        is_news = row is None or self._round is None or self._round.id != current.id
        if not current.has_ended:
            values |= {**_terms_of(current), "terms": self._terms, "trust": state.trust} if is_news else {}
        elif row is None:
            return  # it ended before there were records
        elif not row["ended_ms"]:
            values["ended_ms"] = at_ms
        trial = state.editions.trial
        if trial is not None and trial.round == current.id:
            told = {**trial.metrics, TRIAL_OF: float(trial.edition)}
            values |= {"made_sha256": trial.sha256, "metrics": told}
            values |= {} if row and row["made_sha256"] else {"trust": trial.trust}
        if state.consensus is not None and state.consensus.round == current.id:
            down_bytes = sum(len(self._store.blob(digest)) for digest in state.consensus.blocks)
            values |= {"consensus_sha256": state.consensus.sha256, "metrics": state.consensus.metrics}
            if not (row and row["consensus_sha256"]):  # later the state's may be another: a device was replaced
                values["trust"] = state.trust  # that the round itself has given: with it the voices were heard
            made = [portion.sha256 for portion in state.consensus.portions if portion.round == current.id.number]
            values |= {"down_bytes": down_bytes, "made_sha256": made[0] if made else state.consensus.made}
        self._store.merge("rounds", self._key(number=current.id.number), lower(values))

    def _row_of(self, number: int) -> dict[str, Any] | None:
        return next(iter(self._store.rows("rounds", self._key(number=number))), None)

    def _where(self, conditions: Row) -> Row:
        return {"fed": self._federation, **conditions}

    def _key(self, **names: int | str | bytes) -> Row:
        return {"fed": self._federation, **names}


def _terms_of(current: Round) -> dict[str, Any]:
    """What a round was from its offer on."""
    offer = current.offer
    return {
        "epoch": offer.round.epoch,
        "opened_ms": current.deadline_ms - 1000 * offer.remaining_s,
        "deadline_ms": current.deadline_ms,
        "method": offer.method,
        "codec": offer.codec.value,
        "temperature": offer.temperature,
        "start": offer.slice.start,
        "probes": offer.slice.count,
        "invited": current.invited,
        "quorum": offer.quorum,
        "offer": codec.encode(offer),
    }


def _fields(record: CommandRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
