"""The first page: what the federation is doing at this moment, and what needs somebody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from broker_server.chronicle import DeviceRecord, HearingRecord, RoundRecord
from broker_server.coverage import WARN_UNCOVERED
from broker_server.dashboard import words
from broker_server.dashboard.expiry import Expiry
from broker_server.dashboard.reading import Look
from broker_server.federation import Federation
from broker_server.round import NO_QUORUM, Phase, Round
from fd_protocol.messages import Kind, Status

DOMINANT_SHARE = 0.5
_MOST_NAMES = 400
PHASES = {
    Phase.OFFERED: "taking contributions",
    Phase.AGGREGATING: "making the consensus",
    Phase.CLOSED: "closed",
    Phase.ABORTED: "aborted",
}


class Level(str, Enum):
    """How much a notice matters."""

    BAD = "bad"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that needs somebody, in a sentence; `runbook` names the alert of docs/dashboard.md that helps."""

    level: Level
    text: str
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A device in the open round; `state` is arrived, awaited or refused."""

    device: str
    state: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The last round: the open one, or the one that has ended."""

    number: int
    phase: str
    is_open: bool
    is_warm_up: bool
    reason: str
    heard: int
    invited: int
    quorum: int
    opened_ms: int
    deadline_ms: int
    ended_ms: int
    arrivals: tuple[Arrival, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many devices are in each state."""
        states = [arrival.state for arrival in self.arrivals]
        return {state: states.count(state) for state in ("arrived", "awaited", "refused")}


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that matters, its name, and what it is in words."""

    name: str
    value: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class NowPage:
    """Everything on the page."""

    is_running: bool | None
    progress: Progress | None
    waiting: str
    """What the next round waits for; empty while one is open."""
    next_round_ms: int
    is_paused: bool
    facts: tuple[Fact, ...]
    notices: tuple[Notice, ...]


def now_page(look: Look, expiries: tuple[Expiry, ...]) -> NowPage:
    """Return what the page shows."""
    state, devices = look.state, look.chronicle.devices()
    rounds = look.chronicle.rounds(limit=2)
    last = rounds[0] if rounds else None
    hearings = look.chronicle.hearings(last.epoch, last.number) if last else ()
    closed = next((one for one in look.chronicle.rounds(limit=20) if one.consensus_sha256), None)
    return NowPage(
        is_running=look.is_running,
        progress=_progress(state, last, hearings),
        waiting=_waiting(state),
        next_round_ms=_next_round_ms(state),
        is_paused=state.is_paused,
        facts=tuple(_facts(look, devices, closed)),
        notices=(
            *_of_server(look),
            *_of_rounds(last, closed),
            *_of_devices(devices, hearings),
            *(notice for one in expiries for notice in _of_expiry(one, look.now_ms)),
        ),
    )


def _progress(state: Federation, last: RoundRecord | None, hearings: tuple[HearingRecord, ...]) -> Progress | None:
    current = state.round
    if current is None:
        return None
    known = last if last is not None and last.number == current.id.number else None
    return Progress(
        number=current.id.number,
        phase=PHASES[current.phase],
        is_open=current.is_open,
        is_warm_up=current.is_warm_up,
        reason=_reason(current),
        heard=current.heard,
        invited=current.invited,
        quorum=current.offer.quorum,
        opened_ms=known.opened_ms if known else 0,
        deadline_ms=current.deadline_ms,
        ended_ms=known.ended_ms if known else 0,
        arrivals=tuple(_arrivals(current, hearings if known else ())),
    )


def _reason(current: Round) -> str:
    if current.reason == NO_QUORUM:
        return f"too few devices answered: {current.heard} of the {current.offer.quorum} that are needed"
    return current.reason


def _arrivals(current: Round, hearings: tuple[HearingRecord, ...]) -> Iterator[Arrival]:
    """The invited devices while the round is open; those that were heard of once it has ended."""
    said = [one for one in hearings if one.kind == Kind.CONTRIBUTION.value and one.arrived_ms]
    stored = {one.device for one in said if one.status == Status.STORED.value}
    refused = {one.device for one in said} - stored
    for device in sorted({*current.devices, *stored, *refused})[:_MOST_NAMES]:
        is_in = bool(current.devices.get(device)) or device in stored
        yield Arrival(device, "arrived" if is_in else "refused" if device in refused else "awaited")


def _waiting(state: Federation) -> str:
    """Say what the next round waits for, where none is open."""
    if state.has_open_round:
        return ""
    if state.is_paused:
        return "Paused by an operator."
    if state.is_complete:
        return f"All {state.schedule.rounds} scheduled rounds have ended."
    if state.schedule.on_demand:
        return "Rounds open by order alone."
    lacking = state.schedule.minimum_online - len(state.online)
    if lacking > 0:
        more = "more " if state.online else ""
        return f"Waiting for {lacking} {more}device{'s' if lacking > 1 else ''} to come online."
    return "The next round is about to open." if state.is_due else ""


def _next_round_ms(state: Federation) -> int:
    """Return when the next round is due; 0 = that is not a question of time."""
    schedule = state.schedule
    is_timed = not schedule.on_demand and (schedule.timetable is None or state.is_timed)
    stands_still = state.has_open_round or state.is_due or state.is_paused or state.is_complete
    return state.next_round_ms if is_timed and not stands_still else 0


def _facts(look: Look, devices: tuple[DeviceRecord, ...], closed: RoundRecord | None) -> Iterator[Fact]:
    online = sum(device.online for device in devices)
    yield Fact("Devices online", f"{online} of {len(devices)}", "by their last birth or will")
    metrics = closed.metrics if closed else {}
    where = f"round {closed.number}" if closed else "no consensus yet"
    if "canary_accuracy" in metrics:
        yield Fact("Right on canaries", words.percent(metrics["canary_accuracy"]), f"the consensus, {where}")
    else:
        told = "no canaries: nobody can say how right" if not look.around.has_trust_canaries else where
        yield Fact("Right on canaries", words.UNKNOWN, told)
    yield Fact("Agreement", words.percent(metrics.get("agreement")), f"devices with the consensus, {where}")
    yield Fact("Uncovered probes", words.percent(metrics.get("uncovered_probes")), "far from every device's data")
    if closed and closed.heard:
        each = closed.up_bytes / closed.heard
        yield Fact("Sent by a device", words.size(each), f"payload, {where}")
    else:
        yield Fact("Sent by a device", words.UNKNOWN, where)


def _of_server(look: Look) -> Iterator[Notice]:
    if look.is_running is False:
        text = "The server does not run: no round opens, and devices keep what they have to say."
        yield Notice(Level.BAD, text, "ServerDown")
    if look.state.is_paused:
        yield Notice(Level.NOTE, "Rounds are paused. Resume when you are ready.")
    if not look.around.has_trust_canaries:
        text = "No canaries: nothing is known against any device, and nobody can say how right the consensus is."
        yield Notice(Level.NOTE, text)


def _of_rounds(last: RoundRecord | None, closed: RoundRecord | None) -> Iterator[Notice]:
    if last is not None and last.phase == Phase.ABORTED.value:
        why = "quorum missed" if last.reason == NO_QUORUM else last.reason
        yield Notice(Level.BAD, f"Round {last.number} came to nothing: {why}.", "QuorumMissed")
    if closed is not None and closed.metrics.get("uncovered_probes", 0.0) > WARN_UNCOVERED:
        text = "Many probes lie far from every device's data: learning from them may do harm."
        yield Notice(Level.WARNING, text, "UncoveredProbes")


def _of_devices(devices: tuple[DeviceRecord, ...], hearings: tuple[HearingRecord, ...]) -> Iterator[Notice]:
    refused = sorted({one.device for one in hearings if one.status == Status.REFUSED.value})
    if refused:
        yield Notice(Level.WARNING, f"Refused in this round: {_listed(refused)}.", "ContributionsRefused")
    ill = sorted(device.device for device in devices if device.online and device.problem)
    if ill:
        yield Notice(Level.WARNING, f"Online, but with a problem: {_listed(ill)}.", "DevicesWithProblems")
    for one in hearings:
        if one.share is not None and one.share > DOMINANT_SHARE and len(hearings) > 2:
            yield Notice(Level.WARNING, f"{one.device} alone makes {words.percent(one.share, 0)} of the consensus.")


def _of_expiry(expiry: Expiry, now_ms: int) -> Iterator[Notice]:
    days = (expiry.until_ms - now_ms) / 86_400_000
    if days < 0:
        yield Notice(Level.BAD, f"The {expiry.what} has expired.", expiry.runbook)
    elif days < expiry.warn_days:
        yield Notice(Level.WARNING, f"The {expiry.what} expires in {words.span(86_400 * days)}.", expiry.runbook)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
