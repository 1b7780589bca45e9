"""The fleet: who is there, with what model, how well, and one device by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from broker_server import errands
from broker_server.dashboard import words
from broker_server.dashboard.charts import LineChart, Series, Written
from broker_server.dashboard.reading import Look
from broker_server.errands import Errand
from broker_server.records.chronicle import DeviceRecord, HearingRecord
from broker_server.records.scribe import TRIAL_OF
from fd_protocol.messages import Kind

PAGE_ROWS = 100
_ERRANDS = 20
_LOOKED_BACK = 100
"""Rounds among which trials are looked for."""
_NONE = float("nan")
_HEARD = ("epoch", "round", "device", "kind", "agreement", "share")
_SOUGHT = (
    *("device", "online", "family", "runtime", "problem", "tags"),
    *("last_seen_ms", "trust", "refused", "first_canaries", "last_canaries"),
)
"""What is read of every device, to choose those of a screen."""
ORDERS = {
    "name": "name",
    "seen": "last seen, longest ago first",
    "trust": "trust, least first",
    "agreement": "agreement, least first",
    "gain": "gain on canaries, least first",
    "refused": "refusals, most first",
}


@dataclass(frozen=True, slots=True)
class FleetRow:
    """A device, and how it did in the last round that made a consensus."""

    device: DeviceRecord
    agreement: float | None
    share: float | None
    coverage: float | None


@dataclass(frozen=True, slots=True)
class FleetPage:
    """One screen of the fleet.

    Attributes:
        rows: of this screen.
        found, known: devices that fit the search, and all.
        online: of all.
        kinds: (family, runtime, devices), the most common first.
        search, order, page, pages: what was asked for.
    """

    rows: tuple[FleetRow, ...]
    found: int
    known: int
    online: int
    kinds: tuple[tuple[str, str, int], ...]
    search: str
    order: str
    page: int
    pages: int
    minimum_online: int


@dataclass(frozen=True, slots=True)
class DevicePage:
    """One device.

    Attributes:
        coverage: share of the public set that is not far from its data.
        trust: (class, trust) of every class; empty where nothing is known.
        hearings: what it was heard to say, the last round first.
        charts: over its rounds, trials left out: they are about other probes.
        errands: commands that it was sent, the last first.
    """

    device: DeviceRecord
    coverage: float | None
    trust: tuple[tuple[str, float], ...]
    hearings: tuple[HearingRecord, ...]
    charts: tuple[LineChart, ...]
    errands: tuple[Errand, ...] = ()


def fleet_page(look: Look, search: str = "", order: str = "name", page: int = 1) -> FleetPage:
    """Return the devices whose name, family, runtime, problem or tag contains `search`, in an order of `ORDERS`."""
    devices = look.chronicle.devices(columns=_SOUGHT)
    found = [device for device in devices if _fits(device, search.lower())]
    order = order if order in ORDERS else "name"
    last = _last_hearings(look, [device.device for device in found]) if order == "agreement" else {}
    found.sort(key=lambda device: (_rank(order, device, last.get(device.device)), words.natural(device.device)))
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(max(page, 1), pages)
    shown = found[PAGE_ROWS * (page - 1) : PAGE_ROWS * page]
    names = [device.device for device in shown]
    records = [record for name in names if (record := look.chronicle.device(name)) is not None]
    coverage, last = look.coverage_of(names), last or _last_hearings(look, names)
    kinds = Counter((device.family, device.runtime) for device in devices)
    return FleetPage(
        rows=tuple(_row(record, last.get(record.device), coverage) for record in records),
        found=len(found),
        known=len(devices),
        online=sum(device.online for device in devices),
        kinds=tuple((family, runtime, number) for (family, runtime), number in kinds.most_common()),
        search=search,
        order=order,
        page=page,
        pages=pages,
        minimum_online=look.state.schedule.minimum_online,
    )


def device_page(look: Look, name: str) -> DevicePage | None:
    """Return what is known of one device; None: nothing."""
    device = look.chronicle.device(name)
    if device is None:
        return None
    hearings = look.chronicle.hearings_of(name, limit=100)
    trials = {one.number for one in look.chronicle.rounds(_LOOKED_BACK) if TRIAL_OF in one.metrics}
    classes = look.around.classes
    trust = look.trust_of(name)
    return DevicePage(
        device=device,
        coverage=look.coverage_of([name]).get(name),
        trust=tuple(zip(classes, trust, strict=True)) if len(trust) == len(classes) else (),
        hearings=hearings,
        charts=_charts(tuple(one for one in hearings if one.round not in trials)),
        errands=errands.listed(look.store, look.around.settings.federation, name, _ERRANDS),
    )


def _last_hearings(look: Look, names: Sequence[str]) -> dict[str, HearingRecord]:
    """Return what the last consensus heard of these devices; reads no further than from the first name to the last."""
    consensus = look.state.consensus
    if consensus is None or not names:
        return {}
    between = min(names), max(names)
    hearings = look.chronicle.hearings(consensus.round.epoch, consensus.round.number, between=between, columns=_HEARD)
    return {one.device: one for one in hearings if one.kind == Kind.CONTRIBUTION.value and one.share is not None}


def _fits(device: DeviceRecord, search: str) -> bool:
    told = (device.device, device.family, device.runtime, device.problem, *device.tags)
    return any(search in text.lower() for text in told)


def _rank(order: str, device: DeviceRecord, hearing: HearingRecord | None) -> float:
    """What is unknown comes last."""
    match order:
        case "seen":
            return float(device.last_seen_ms)
        case "trust":
            return device.trust if device.trust is not None else 2.0
        case "agreement":
            return hearing.agreement if hearing is not None and hearing.agreement is not None else 2.0
        case "gain":
            return device.canary_gain if device.canary_gain is not None else 2.0
        case "refused":
            return -float(device.refused)
    return 0.0


def _row(device: DeviceRecord, hearing: HearingRecord | None, coverage: dict[str, float]) -> FleetRow:
    agreement, share = (hearing.agreement, hearing.share) if hearing is not None else (None, None)
    return FleetRow(device, agreement, share, coverage.get(device.device))


def _charts(hearings: tuple[HearingRecord, ...]) -> tuple[LineChart, ...]:
    heard = [one for one in reversed(hearings) if one.kind == Kind.CONTRIBUTION.value and one.share is not None]

    def chart(title: str, note: str, values: list[float | None], written: Written) -> LineChart:
        series = Series(title.lower(), tuple(_NONE if value is None else value for value in values))
        return LineChart(title, note, tuple(one.round for one in heard), (series,), written, floor=0.0, ceiling=1.0)

    return (
        chart(
            "Agreement",
            "Share of probes where it and the consensus hold the same class likeliest. An expert may well differ.",
            [one.agreement for one in heard],
            _whole,
        ),
        chart(
            "Share",
            "How much of the consensus is this device's word. Last words of an absent device count, and fade.",
            [one.share for one in heard],
            words.percent,
        ),
        chart(
            "Right on canaries",
            "What it has right of secret labelled probes by its own word. The first is what it knew by itself.",
            [one.canaries for one in heard],
            _whole,
        ),
        chart(
            "Own hold-out",
            "What it has right of the rows that it kept back, as it reports: how it does at home.",
            [one.report.get("hold_out_accuracy") for one in heard],
            _whole,
        ),
    )


def _whole(share: float) -> str:
    return words.percent(share, 0)
