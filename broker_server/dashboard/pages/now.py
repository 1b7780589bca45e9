"""The first page: what the federation is doing at this moment, and what needs somebody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker_server.core.federation import Federation
from broker_server.core.round import NO_QUORUM, Phase, Round
from broker_server.dashboard import words
from broker_server.dashboard.expiry import Expiry
from broker_server.dashboard.pages import notices
from broker_server.dashboard.pages.notices import Notice
from broker_server.dashboard.reading import Look
from broker_server.records.chronicle import RoundRecord
from fd_protocol.messages import Status

_MOST_NAMES = 300
_LOOKED_BACK = 20
"""Rounds among which the last consensus is looked for."""
PHASES = {
    Phase.OFFERED: "taking contributions",
    Phase.AGGREGATING: "making the consensus",
    Phase.CLOSED: "closed",
    Phase.ABORTED: "aborted",
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A device that was invited to the open round; `state` is arrived, awaited or refused."""

    device: str
    state: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The last round: the open one, or the one that has ended.

    Attributes:
        phase, reason: in words.
        trial_of: number of the edition that it tries; 0 = it is no trial.
        awaited: invited devices that have not answered.
        arrivals: device by device while it is open, not more than fit a page: who has not arrived comes first.
    """

    number: int
    phase: str
    reason: str
    is_open: bool
    is_warm_up: bool
    trial_of: int
    heard: int
    awaited: int
    refused: int
    invited: int
    quorum: int
    deadline_ms: int
    ended_ms: int
    arrivals: tuple[Arrival, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that matters, its name, and what it is in words."""

    name: str
    value: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class NowPage:
    """Everything on the page.

    Attributes:
        waiting: what the next round waits for; empty while one is open, or where time alone is awaited.
        next_round_ms: when it is due; 0 = that is no question of time.
    """

    is_running: bool | None
    is_paused: bool
    progress: Progress | None
    waiting: str
    next_round_ms: int
    facts: tuple[Fact, ...]
    notices: tuple[Notice, ...]


def now_page(look: Look, expiries: tuple[Expiry, ...]) -> NowPage:
    """Return what the page shows."""
    state, rounds = look.state, look.chronicle.rounds(_LOOKED_BACK)
    last = rounds[0] if rounds else None
    made = next((one for one in rounds if one.consensus_sha256), None)
    refused = _refused(look, last)
    return NowPage(
        is_running=look.is_running,
        is_paused=state.is_paused,
        progress=_progress(state.round, last, refused) if state.round else None,
        waiting=_waiting(state),
        next_round_ms=_next_round_ms(state),
        facts=tuple(_facts(look, made)),
        notices=(
            *notices.of_server(look),
            *notices.of_rounds(last, made, refused),
            *notices.of_expiries(expiries, look.now_ms),
        ),
    )


def _refused(look: Look, last: RoundRecord | None) -> frozenset[str]:
    """Return the devices that were refused in the last round, those that were stored afterwards among them."""
    if last is None:
        return frozenset()
    return frozenset(one.device for one in look.chronicle.hearings(last.epoch, last.number, Status.REFUSED.value))


def _progress(current: Round, last: RoundRecord | None, refused: frozenset[str]) -> Progress:
    arrivals = sorted(_arrivals(current, refused), key=lambda one: one.state == "arrived")[:_MOST_NAMES]
    return Progress(
        number=current.id.number,
        phase=PHASES[current.phase],
        reason=_reason(current),
        is_open=current.is_open,
        is_warm_up=current.is_warm_up,
        trial_of=current.trial_of,
        heard=current.heard,
        awaited=current.awaited,
        refused=len(refused),
        invited=current.invited,
        quorum=current.offer.quorum,
        deadline_ms=current.deadline_ms,
        ended_ms=last.ended_ms if last is not None and last.number == current.id.number else 0,
        arrivals=tuple(sorted(arrivals, key=lambda one: words.natural(one.device))),
    )


def _reason(current: Round) -> str:
    if current.reason == NO_QUORUM:
        return f"too few devices answered: {current.heard} of the {current.offer.quorum} that are needed"
    return current.reason


def _arrivals(current: Round, refused: frozenset[str]) -> Iterator[Arrival]:
    for device, digest in current.devices.items():
        yield Arrival(device, "arrived" if digest else "refused" if device in refused else "awaited")


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


def _facts(look: Look, made: RoundRecord | None) -> Iterator[Fact]:
    known, online = look.chronicle.count_devices(), look.chronicle.count_devices(online=True)
    yield Fact("Devices online", f"{online:,} of {known:,}", "by their last birth or will")
    metrics, where = (made.metrics, f"round {made.number}") if made else ({}, "no consensus yet")
    if look.has_trust_canaries:
        yield Fact("Right on canaries", words.percent(metrics.get("canary_accuracy")), f"the consensus, {where}")
    else:
        yield Fact("Right on canaries", words.UNKNOWN, "no canaries: nobody can say how right")
    yield Fact("Agreement", words.percent(metrics.get("agreement")), f"devices with the consensus, {where}")
    yield Fact("Uncovered probes", words.percent(metrics.get("uncovered_probes")), "far from every device's data")
    each = made.up_bytes / made.heard if made and made.heard else None
    yield Fact("Sent by a device", words.size(each), f"payload, {where}")
