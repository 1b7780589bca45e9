"""What was not taken in, and why: refused payloads, and messages that could not be read."""

from __future__ import annotations

from dataclasses import dataclass

from broker_server.dashboard.reading import Look
from broker_server.records.chronicle import HearingRecord
from broker_server.records.quarantine import Quarantined
from fd_protocol.messages import Status

_ROUNDS, _ROWS = 20, 200
_REFUSED, _UNANSWERED = ("refused.",), ("set_aside.", "dropped.")
MEANINGS = {
    "foreign_round": "of another federation, or of a round that was never offered",
    "foreign_epoch": "of an epoch that has ended: the database was made or restored since",
    "round_closed": "late: the round no longer took contributions",
    "not_a_member": "the round did not invite this device",
    "over_budget": "more bytes than the offer allows",
    "second_payload": "the device had contributed to this round already, with other bytes, or sent map after map",
    "foreign_public_set": "speaks of other probes",
    "wrong_slice": "not of the offered probes, or a map that does not cover the set",
    "wrong_temperature": "not softened as offered",
    "wrong_codec": "not encoded as offered",
    "unknown_base": "a difference to what the server no longer has; the device sends it in full",
    "oversized": "longer than any message of its kind",
    "malformed": "no message of this topic",
    "foreign_kind": "no message of this topic",
    "foreign_topic": "came in where nobody may write",
    "unsupported": "a word of a newer version",
    "invalid": "a message outside the limits",
    "incomplete": "parts that do not make the payload",
    "wrong_digest": "parts that do not make the payload",
    "wrong_length": "codes that do not make the payload",
    "malformed_body": "not deflated as it should be",
    "invalid_rows": "codes that no distribution has",
    "rate_limited": "more than a device may send in a minute",
    "error": "the server failed at it; its log has the trace",
}
"""What each reason says; docs/wire.md lists the same words. A new one is shown as it stands."""


@dataclass(frozen=True, slots=True)
class Reason:
    """How often something was not taken in for one reason, until the last round ended."""

    word: str
    meaning: str
    count: int


@dataclass(frozen=True, slots=True)
class RefusalsPage:
    """Counts since the database was made; the refusals of the last rounds; the last messages in quarantine."""

    refused: tuple[Reason, ...]
    set_aside: tuple[Reason, ...]
    recent: tuple[HearingRecord, ...]
    quarantine: tuple[Quarantined, ...]


def refusals_page(look: Look) -> RefusalsPage:
    """Return what the page shows."""
    recent: list[HearingRecord] = []
    for one in look.chronicle.rounds(_ROUNDS):
        refused = look.chronicle.hearings(one.epoch, one.number, Status.REFUSED.value)
        recent += sorted(refused, key=lambda hearing: -hearing.arrived_ms)
        if len(recent) >= _ROWS:
            break
    return RefusalsPage(_counted(look, _REFUSED), _counted(look, _UNANSWERED), tuple(recent[:_ROWS]), look.quarantine())


def _counted(look: Look, prefixes: tuple[str, ...]) -> tuple[Reason, ...]:
    found = {name.partition(".")[2]: n for name, n in look.counters.items() if name.startswith(prefixes)}
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Reason(word, MEANINGS.get(word, ""), n) for word, n in ranked)
