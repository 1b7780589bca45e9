"""What an operator looks back at: rounds, what each device sent in them, the devices, the commands that were given.

    rounds     one row a round, the open one too
    hearings   one row for each payload that a device sent in a round, the refused ones too; and, once the consensus is
               made, one for each absent device whose last words were part of it (status `absent`)
    devices    one row a device that was ever heard of
    commands   one row a command of an operator

`Scribe` writes them, in the aggregator's own transactions; this module reads them, while the server runs or not. A
database of a server from before there were records tells nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, get_origin, get_type_hints

from fd_runtime.storage.store import GAINS, RECORDS, Row, Store, Value

R = TypeVar("R")

ABSENT = "absent"
"""Status of the last words of a device that sent none in a round."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round.

    Attributes:
        epoch, number: which. Numbers alone tell the rounds of one database apart.
        opened_ms, deadline_ms, ended_ms: UTC milliseconds; ended_ms is 0 while the round is open.
        phase: a value of `round.Phase`.
        reason: why it was aborted.
        method, codec, temperature: as offered.
        start, probes: its slice of the public set.
        invited, heard, quorum: devices that were expected, that contributed, that were needed.
        up_bytes: of payloads, as they arrived: refused and doubled ones too.
        down_bytes: of the consensus, as published.
        consensus_sha256: identity of the consensus that was published; empty = none.
        made_sha256: of what the round itself made, where that is less than what was published (`portions`), or more
            than its identity tells (`consensus.Joined`); else empty.
        metrics: of `events.ConsensusMade`.
        student: of `events.StudentTrained`.
        offer: the encoded `RoundOffer`.
        terms: constants of the rules in this round (`rules.RuleTerms`), as JSON.
        trust: digest of the trust with which the voices counted, this round's judgement included; empty = full trust.
    """

    epoch: int
    number: int
    opened_ms: int = 0
    deadline_ms: int = 0
    ended_ms: int = 0
    phase: str = ""
    reason: str = ""
    method: str = ""
    codec: str = ""
    temperature: float = 0.0
    start: int = 0
    probes: int = 0
    invited: int = 0
    heard: int = 0
    quorum: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    consensus_sha256: bytes = b""
    metrics: Mapping[str, float] = field(default_factory=dict)
    student: Mapping[str, float] = field(default_factory=dict)
    offer: bytes = b""
    terms: str = "{}"
    trust: bytes = b""
    made_sha256: bytes = b""

    @property
    def own_sha256(self) -> bytes:
        """Identity of what the voices of this round made."""
        return self.made_sha256 or self.consensus_sha256


@dataclass(frozen=True, slots=True)
class HearingRecord:
    """A payload, and what became of it.

    Attributes:
        epoch, round: in which it was heard.
        device, kind: whose, and what; see `fd_protocol.messages.Kind`.
        arrived_ms: UTC milliseconds; 0 for an absent device.
        payload_bytes: of the payload as its parts tell; 0 for an absent device.
        status: `stored`, `refused`, or `absent`: the device sent nothing, but its last words had a part.
        reason: of a refusal (`admission`).
        share: its part of the consensus, 0..1, all of a round together 1; None where it had none, or before it is made.
        agreement: share of probes where its likeliest class is the consensus'; None likewise.
        weight: of the voice, `rules.voice.WEIGHT_ONE` or less where it was absent; 0 = it was not heard.
        sha256: of the payload as it was sent.
        labels, map: digests of the blobs from which the voice was made; empty = none.
        report: metrics that the device reported after the round; empty = none.
        canaries: share of the canaries that it has right by itself; None where there are none.
        influence: what the consensus has right of them for it, and would not without it (`influence`); None likewise,
            and of too many devices.
    """

    epoch: int
    round: int
    device: str
    arrived_ms: int = 0
    payload_bytes: int = 0
    kind: str = ""
    status: str = ""
    reason: str = ""
    share: float | None = None
    agreement: float | None = None
    weight: int = 0
    sha256: bytes = b""
    labels: bytes = b""
    map: bytes = b""
    report: Mapping[str, float] = field(default_factory=dict)
    canaries: float | None = None
    influence: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device.

    Attributes:
        device: its name.
        first_seen_ms, last_seen_ms: UTC milliseconds of the first and the last message.
        online: by its last birth or will.
        boot: number of its life.
        agent, bundle, family, runtime: what it says of itself; bundle is a digest.
        problem: what keeps it from taking part, in its own words; `foreign_task` and `foreign_bundle` in ours.
        rounds: to how many it contributed.
        refused: payloads that were refused.
        up_bytes: of all its payloads, as they arrived.
        trust: mean over classes, 0..1; None = nothing is known.
        report: metrics of its last report.
        tags: of the operator.
        replaced_by: the device that took its place; empty = none.
        first_canaries, last_canaries: share of the canaries that it had right by itself with its first and its last
            contribution, trials left out. It warms up on its own rows and contributes before it learns from others, so
            the first is, as a rule, what it knows without the federation.
        first_hold_out, last_hold_out: share right of the rows that it kept back, by its first and its last report.
        influence: in the last consensus that it contributed to; see `HearingRecord`.
    """

    device: str
    first_seen_ms: int = 0
    last_seen_ms: int = 0
    online: bool = False
    boot: int = 0
    agent: str = ""
    bundle: bytes = b""
    family: str = ""
    runtime: str = ""
    problem: str = ""
    rounds: int = 0
    refused: int = 0
    up_bytes: int = 0
    trust: float | None = None
    report: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    replaced_by: str = ""
    first_canaries: float | None = None
    last_canaries: float | None = None
    first_hold_out: float | None = None
    last_hold_out: float | None = None
    influence: float | None = None

    @property
    def canary_gain(self) -> float | None:
        """What it has right of the canaries by now, less what it had at first."""
        return _difference(self.last_canaries, self.first_canaries)

    @property
    def hold_out_gain(self) -> float | None:
        """The same of its own hold-out: how it does at home."""
        return _difference(self.last_hold_out, self.first_hold_out)


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the mean and the greatest of a number that devices have; `positive` is the share of them above 0."""

    least: float
    mean: float
    most: float
    positive: float


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command, who gave it in which role, and what came of it."""

    id: str
    at_ms: int
    who: str
    role: str
    command: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Chronicle:
    """Reads the records of one federation, newest first where nothing else is said."""

    store: Store
    federation: str

    def rounds(self, limit: int = 50, before: int | None = None) -> tuple[RoundRecord, ...]:
        """Return the last `limit` rounds (-1 = all) with numbers below `before`."""
        where: Row = {} if before is None else {"number <": before}
        return self._read("rounds", RoundRecord, where, "number DESC", limit)

    def round(self, epoch: int, number: int) -> RoundRecord | None:
        return next(iter(self._read("rounds", RoundRecord, {"epoch": epoch, "number": number})), None)

    def hearings(
        self,
        epoch: int,
        number: int,
        status: str = "",
        between: tuple[str, str] | None = None,
        *,
        after: str = "",
        limit: int = -1,
        columns: Sequence[str] = (),
    ) -> tuple[HearingRecord, ...]:
        """Return what was heard in a round, in the order of devices: of one status, of devices from one to another, or
        no more than `limit` (-1 = all) of devices that come after one.

        Where `columns` are named, of each no more than these is known.
        """
        where: dict[str, Value] = {"epoch": epoch, "round": number}
        if status:
            where["status"] = status
        if between is not None:
            where["device >="], where["device <="] = between
        if after:
            where["device >"] = after
        return self._read("hearings", HearingRecord, where, "device, kind, arrived_ms", limit, columns=columns)

    def hearings_of(self, device: str, limit: int = 50) -> tuple[HearingRecord, ...]:
        """Return what a device, and those in whose place it came, were heard to say, the last round first."""
        order = "round DESC, kind, arrived_ms"
        heard = [
            one
            for name in self._line_of(device)
            for one in self._read("hearings", HearingRecord, {"device": name}, order, limit)
        ]
        heard.sort(key=lambda one: -one.round)
        return tuple(heard if limit < 0 else heard[:limit])

    def reported(self, metric: str, first: int, last: int) -> dict[int, tuple[float, float, float]]:
        """Return (least, mean, most) of what devices reported of `metric`, in each of these rounds where any did."""
        if self.store.version < RECORDS:
            return {}
        where: Row = {"fed": self.federation, "round >=": first, "round <=": last}
        return self.store.spread("hearings", f"json_extract(report, '$.{metric}')", "round", where)

    def gain(self, measured: str) -> Spread | None:
        """Return what devices gained since they began, on their "hold_out" or on "canaries"; None: nothing is known."""
        return self._spread(f"last_{measured} - first_{measured}", {})

    def influence(self, epoch: int, number: int) -> Spread | None:
        """Return the influence of the devices in a round; None: it was not asked."""
        return self._spread("influence", {"epoch": epoch, "round": number}, table="hearings")

    def _spread(self, value: str, where: Row, table: str = "devices") -> Spread | None:
        if self.store.version < GAINS:
            return None
        where = {"fed": self.federation, **where}
        if table == "devices":
            where["replaced_by"] = ""
        found, shares = (self.store.spread(table, told, "fed", where) for told in (value, f"{value} > 0"))
        if not found:
            return None
        (least, mean, most), (_, positive, _) = found[self.federation], shares[self.federation]
        return Spread(least, mean, most, positive)

    def devices(self, *, columns: Sequence[str] = ()) -> tuple[DeviceRecord, ...]:
        """Return all devices in the order of names; where `columns` are named, of each no more than these is known."""
        return self._read("devices", DeviceRecord, {}, "device", columns=columns)

    def count_devices(self, *, online: bool | None = None) -> int:
        """Return how many devices there are, or how many that are online or not."""
        if self.store.version < RECORDS:
            return 0
        return self.store.count("devices", {"fed": self.federation, **({} if online is None else {"online": online})})

    def ill_devices(self, limit: int = 100) -> tuple[DeviceRecord, ...]:
        """Return devices that are online and say that they cannot take part."""
        return self._read("devices", DeviceRecord, {"online": True, "problem >": ""}, "device", limit)

    def device(self, name: str) -> DeviceRecord | None:
        return next(iter(self._read("devices", DeviceRecord, {"device": name})), None)

    def commands(self, limit: int = 50) -> tuple[CommandRecord, ...]:
        return self._read("commands", CommandRecord, {}, "at_ms DESC, id", limit)

    def _line_of(self, device: str) -> Iterator[str]:
        """Yield a device and its predecessors."""
        yield device
        for before in self._read("devices", DeviceRecord, {"replaced_by": device}, "device"):
            yield from self._line_of(before.device)

    def _read(
        self, table: str, cls: type[R], where: Row, order: str = "", limit: int = -1, *, columns: Sequence[str] = ()
    ) -> tuple[R, ...]:
        if self.store.version < RECORDS:
            return ()
        chosen = ", ".join(columns) or "*"
        rows = self.store.rows(table, {"fed": self.federation, **where}, order, limit, columns=chosen)
        return tuple(_lift_all(cls, rows))


def _difference(last: float | None, first: float | None) -> float | None:
    return None if last is None or first is None else last - first


def lower(values: Mapping[str, Any]) -> dict[str, Value]:
    """Return the columns of fields: tables and lists as JSON, the rest as it stands."""
    return {name: _lowered(value) for name, value in values.items()}


def _lowered(value: Any) -> Value:
    if isinstance(value, (Mapping, tuple)):
        return json.dumps(dict(value) if isinstance(value, Mapping) else list(value), sort_keys=True)
    return int(value) if isinstance(value, bool) else value


def _lift_all(cls: Any, rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """A database that a server of the version before writes lacks some columns."""
    readers = [(name, read) for name, read in _columns_of(cls) if rows and name in rows[0]]
    for row in rows:
        yield cls(**{name: row[name] if read is None else read(row[name]) for name, read in readers})


@cache
def _columns_of(cls: Any) -> tuple[tuple[str, Any], ...]:
    """The columns of a record, and how each is read; None: as it stands."""
    hints = get_type_hints(cls)
    return tuple((one.name, _reader(hints[one.name])) for one in fields(cls))


def _reader(hint: Any) -> Any:
    origin = get_origin(hint)
    if origin is tuple:
        return lambda text: () if text == "[]" else tuple(json.loads(text))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return json.loads
    return bool if hint is bool else None
