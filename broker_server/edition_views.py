"""What an operator sees of the editions of the public set before a switch: who has them, how rounds on them went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broker_server.core.events import Edition
from broker_server.core.federation import Federation
from broker_server.records.chronicle import Chronicle, RoundRecord
from fd_protocol import codec
from fd_protocol.messages import RoundOffer

CURRENT, STAGED, RETIRED = "current", "staged", "retired"
_LOOKED_BACK = 100
"""Rounds among which the last one on an edition is looked for."""


@dataclass(frozen=True, slots=True)
class EditionView:
    """An edition.

    Attributes:
        edition: which.
        place: CURRENT, STAGED or RETIRED.
        have: devices online that have its public set.
        lacking: the others, by name.
        round: number of the last round about its public set that made a consensus, of a staged one its trial; 0 = none.
        metrics: of that round, see `events.ConsensusMade`.
    """

    edition: Edition
    place: str
    have: int
    lacking: tuple[str, ...]
    round: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


def views(state: Federation, chronicle: Chronicle) -> tuple[EditionView, ...]:
    """Return every edition that is known, the current one first."""
    made = _last_made(chronicle.rounds(_LOOKED_BACK))
    return tuple(_view(edition, state, made) for edition in state.editions.known)


def _view(edition: Edition, state: Federation, made: Mapping[bytes, RoundRecord]) -> EditionView:
    editions = state.editions
    place = CURRENT if edition == editions.current else STAGED if edition == editions.staged else RETIRED
    is_current = editions.current is not None and edition.public_set == editions.current.public_set
    online = sorted(state.online.items())
    lacking = tuple(name for name, one in online if not one.has(edition.public_set, is_current=is_current))
    have = len(online) - len(lacking)
    if place == STAGED and editions.trial is not None:
        return EditionView(edition, place, have, lacking, editions.trial.round.number, editions.trial.metrics)
    if place != STAGED and edition.public_set in made:
        record = made[edition.public_set]
        return EditionView(edition, place, have, lacking, record.number, record.metrics)
    return EditionView(edition, place, have, lacking)


def _last_made(records: Sequence[RoundRecord]) -> dict[bytes, RoundRecord]:
    """Return the last round about each public set that made a consensus."""
    made: dict[bytes, RoundRecord] = {}
    for record in records:
        if record.own_sha256:
            made.setdefault(codec.decode(record.offer, RoundOffer).slice.public_set, record)
    return made
