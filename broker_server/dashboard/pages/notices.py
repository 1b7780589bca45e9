"""What needs somebody: the sentences at the head of the first page, each with the runbook line that helps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from broker_server.aggregation import UNCOVERED
from broker_server.core.coverage import WARN_UNCOVERED
from broker_server.core.round import NO_QUORUM, Phase
from broker_server.dashboard import words
from broker_server.dashboard.expiry import Expiry
from broker_server.dashboard.reading import Look
from broker_server.records.chronicle import RoundRecord

DOMINANT_SHARE = 0.5
_NAMED = 5


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


def of_server(look: Look) -> Iterator[Notice]:
    """Yield what is to be said of the server and of the fleet as a whole."""
    if look.is_running is False:
        text = "The server does not run: no round opens, and devices keep what they have to say."
        yield Notice(Level.BAD, text, "ServerDown")
    if look.state.is_paused:
        yield Notice(Level.NOTE, "Rounds are paused. Resume when you are ready.")
    if not look.has_trust_canaries:
        text = "No canaries: nothing is known against any device, and nobody can say how right the consensus is."
        yield Notice(Level.NOTE, text)
    for one in look.state.releases.rollouts:
        if one.halted:
            text = f"The rollout of {one.bundle.hex()[:12]} to family {one.family} is halted: {one.halted}."
            yield Notice(Level.BAD, text, "RolloutHalted")
        elif one.lost:
            text = f"On their way to {one.bundle.hex()[:12]}, {one.lost} devices of family {one.family} fell silent."
            yield Notice(Level.WARNING, text, "DevicesLostInRollout")
    ill = [device.device for device in look.chronicle.ill_devices()]
    if ill:
        yield Notice(Level.WARNING, f"Online, but with a problem: {_listed(ill)}.", "DevicesWithProblems")


def of_rounds(last: RoundRecord | None, made: RoundRecord | None, refused: Iterable[str]) -> Iterator[Notice]:
    """Yield what is to be said of the `last` round, in which some were `refused`, and of the last consensus `made`."""
    if last is not None and last.phase == Phase.ABORTED.value:
        yield Notice(Level.BAD, f"Round {last.number} came to nothing: {_why(last.reason)}.", _runbook(last.reason))
    if names := sorted(refused):
        yield Notice(Level.WARNING, f"Refused in this round: {_listed(names)}.", "ContributionsRefused")
    metrics = made.metrics if made is not None else {}
    if metrics.get("uncovered_probes", 0.0) > WARN_UNCOVERED:
        text = "Many probes lie far from every device's data: learning from them may do harm."
        yield Notice(Level.WARNING, text, "UncoveredProbes")
    share = metrics.get("largest_share", 0.0)
    if share > DOMINANT_SHARE and metrics.get("voices", 0.0) > 2:
        text = f"One device makes {words.percent(share, 0)} of the consensus."
        yield Notice(Level.WARNING, text, "OneDeviceDominates")


def _why(reason: str) -> str:
    if reason.startswith(UNCOVERED):
        return f"{reason.partition(': ')[2]}, and learning from them would do harm"
    return "quorum missed" if reason == NO_QUORUM else reason


def _runbook(reason: str) -> str:
    """Return the alert that helps against a round that came to nothing for this."""
    if reason.startswith(UNCOVERED):
        return "RoundsUncovered"
    return "QuorumMissed" if reason == NO_QUORUM else ""


def of_expiries(expiries: Iterable[Expiry], now_ms: int) -> Iterator[Notice]:
    """Yield what has expired, and what soon will."""
    for one in expiries:
        left_s = (one.until_ms - now_ms) / 1000
        if left_s < 0:
            yield Notice(Level.BAD, f"The {one.what} has expired.", one.runbook)
        elif left_s < 86_400 * one.warn_days:
            yield Notice(Level.WARNING, f"The {one.what} expires in {words.span(left_s)}.", one.runbook)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
