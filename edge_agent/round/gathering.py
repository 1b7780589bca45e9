"""How a consensus comes together from its blocks, in whatever order and however often they arrive.

Blocks belong together by the digest of their consensus, never by the round alone: while a server overwrites the
retained blocks of one round with those of the next, a device sees a mixture. Nor by the digest alone: two rounds may
come to the same consensus, and each is told and reported as that round's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_agent.round.events import ConsensusBlockReceived
from fd_protocol.identity import RoundId
from fd_protocol.schema import keyed


@dataclass(frozen=True, slots=True)
class Consensus:
    """A consensus as far as it has come: the digest of each block's message, empty where it is missing."""

    round: RoundId = keyed(1)
    sha256: bytes = keyed(2)
    messages: tuple[bytes, ...] = keyed(3)

    @property
    def is_complete(self) -> bool:
        return all(self.messages)


def gather(known: Consensus | None, event: ConsensusBlockReceived) -> Consensus | None:
    """Return the newest consensus after a block of it, or of another one, has come."""
    if known is not None and precedes(event.round, known.round):
        return known
    is_other = known is None or (known.round, known.sha256) != (event.round, event.consensus_sha256)
    if known is None or is_other or len(known.messages) != event.blocks:
        known = Consensus(event.round, event.consensus_sha256, (b"",) * event.blocks)
    messages = (*known.messages[: event.block], event.message, *known.messages[event.block + 1 :])
    return replace(known, messages=messages)


def precedes(earlier: RoundId, later: RoundId) -> bool:
    """Whether one round came before another of the same epoch; epochs have no order."""
    return earlier.epoch == later.epoch and earlier.number < later.number
