"""A consensus in portions: a round asks for one slice of the public set, the consensus on the others stays.

    slices of the set   |   0   |   1   |   2   |   3   |
    consensus on them   | r. 12 | r. 17 | r. 15 | r. 16 |    round 18 asks for one, and publishes all four

Soft-label caching as in SCARLET (Azuma et al. 2026), kept by the server alone: which slice is worth asking for again is
told by how uncertain its consensus is, and how old.

    need of a portion = H(z) x age        H(z): mean entropy of its rows, in nats; age: in rounds

A portion that has reached its lease comes first whatever its need, the oldest of them; before that, slices that nobody
has been asked for, in the order of the set: what is published is always one stretch of probes from the first on.

Blocks of kept portions are published again under the new consensus' name. Their bodies are the same bytes, so a device
that has been away for a month holds the whole consensus once it has what the broker retains, and agents need not know
that there is such a thing as a portion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from broker_server.core.events import Portion
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import MAX_PARTS, ConsensusBlock
from fd_protocol.terms import Slice


def grid(whole: Slice, size: int) -> tuple[Slice, ...]:
    """Return the slices of `size` probes that `whole` is asked for in; probes that fill none are left out."""
    starts = range(whole.start, whole.start + whole.count - size + 1, size)
    return tuple(replace(whole, start=start, count=size) for start in starts)


def standing(portions: Sequence[Portion], slices: Sequence[Slice], temperature: float) -> tuple[Portion, ...]:
    """Return the portions that still hold: of these slices at this temperature, from the first without a gap."""
    known = {portion.slice: portion for portion in portions if portion.temperature == temperature}
    held: list[Portion] = []
    for each in slices:
        if each not in known:
            break
        held.append(known[each])
    return tuple(held)


def choose(slices: Sequence[Slice], held: Sequence[Portion], number: int, *, stay: int, lease: int) -> Slice:
    """Return the slice that round `number` asks for.

    Args:
        slices: to choose from.
        held: the portions that stand, see `standing`.
        number: of the round.
        stay: rounds for which a slice stays before another is chosen.
        lease: age in rounds at which a portion is asked for again.
    """
    if held and (number - 1) % stay:
        return max(held, key=lambda portion: portion.round).slice
    if len(held) < len(slices):
        return slices[len(held)]
    oldest = min(held, key=lambda portion: portion.round)
    if number - oldest.round >= lease:
        return oldest.slice
    return max(held, key=lambda portion: _need(portion, number)).slice


def _need(portion: Portion, number: int) -> tuple[float, int]:
    """Where everything is certain the age alone decides."""
    age = number - portion.round
    return portion.entropy * age, age


def renewed(held: Sequence[Portion], fresh: Portion) -> tuple[Portion, ...]:
    """Return the portions once one of them, or one more, is `fresh`."""
    kept = [portion for portion in held if portion.slice != fresh.slice]
    return tuple(sorted([*kept, fresh], key=lambda portion: portion.slice.start))


def together(fresh: Sequence[ConsensusBlock], kept: Sequence[ConsensusBlock]) -> tuple[ConsensusBlock, ...]:
    """Return one consensus of the blocks of a round, and of blocks that stay with their bodies as they are.

    Raises:
        InvalidValueError: it needs more blocks than there may be.
    """
    blocks = sorted([*fresh, *kept], key=lambda block: block.slice.start)
    if len(blocks) > MAX_PARTS:
        raise InvalidValueError(f"the consensus needs {len(blocks)} of at most {MAX_PARTS} blocks")
    digest = sha256(b"".join(block.body for block in blocks))
    return tuple(
        replace(block, round=fresh[0].round, consensus_sha256=digest, block=index, blocks=len(blocks))
        for index, block in enumerate(blocks)
    )


def lies_in(part: Slice, whole: Slice) -> bool:
    """Whether `part` is a stretch of `whole`."""
    same = (part.public_set, part.classes) == (whole.public_set, whole.classes)
    return same and whole.start <= part.start and part.start + part.count <= whole.start + whole.count
