"""The books of a bad hour: what devices were told, what the server wrote down, and whether it agrees."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker_server.records.chronicle import HearingRecord, RoundRecord

_RECEIPT = re.compile(r"round (\d+): submitting -> awaiting")


@dataclass(frozen=True, slots=True)
class Books:
    """What must be zero, and what may be anything.

    Attributes:
        lost: receipts that a device has, and the server no record of what they are for.
        doubled: contributions that counted more than once.
        miscounted: rounds that ended with more contributions than stand in their records. With fewer they may: what
            comes after a round has begun to aggregate is stored, and its word counts in the next.
        unmade: kept consensuses that `broker-server verify` did not make again.
        hanging: rounds that were never ended.
        unasked: programs that ended by themselves.
        facts: how much there was of everything.
        suspects: devices and rounds to look at, of what is not zero.
    """

    lost: int
    doubled: int
    miscounted: int
    unmade: int
    hanging: int
    unasked: int
    facts: Mapping[str, int]
    suspects: tuple[str, ...] = ()

    @property
    def are_balanced(self) -> bool:
        return not (self.lost or self.doubled or self.miscounted or self.unmade or self.hanging or self.unasked)


def balance(
    rounds: Sequence[RoundRecord],
    hearings: Sequence[HearingRecord],
    receipts: Mapping[str, set[int]],
    *,
    counted: int,
    unmade: int,
    unasked: int,
) -> Books:
    """Return the books.

    Args:
        rounds: all that there were.
        hearings: of all of them.
        receipts: by device, the rounds that it has a receipt for.
        counted: contributions stored, by the server's own counter.
        unmade: consensuses that `verify` did not make again.
        unasked: programs that ended by themselves.
    """
    heard = [one for one in hearings if one.kind == "contribution"]
    stored = Counter((one.device, one.round) for one in heard if one.status == "stored")
    of_round = Counter(number for _, number in stored)
    told = {(device, number) for device, numbers in receipts.items() for number in numbers}
    lost = told - stored.keys()
    miscounted = [one.number for one in rounds if one.ended_ms and one.heard > of_round[one.number]]
    return Books(
        lost=len(lost),
        doubled=max(counted, sum(stored.values())) - len(stored),
        miscounted=len(miscounted),
        unmade=unmade,
        hanging=sum(not one.ended_ms for one in rounds),
        unasked=unasked,
        facts={
            "rounds": len(rounds),
            "of them closed": sum(one.phase == "closed" for one in rounds),
            "of them aborted": sum(one.phase == "aborted" for one in rounds),
            "invitations": sum(one.invited for one in rounds),
            "contributions stored": len(stored),
            "contributions refused": sum(one.status == "refused" for one in heard),
            "receipts that devices have seen": len(told),
        },
        suspects=(
            *(f"lost: round {number} of {device}" for device, number in sorted(lost)),
            *(f"miscounted: round {number}" for number in miscounted),
        ),
    )


def receipts_in(log: str) -> set[int]:
    """Return the rounds for which a device says in its log that it has a receipt."""
    return {int(number) for number in _RECEIPT.findall(log)}


def lines_of(books: Books) -> list[str]:
    """Return the books as a table in Markdown; what must be zero in bold."""
    zeros = ("lost", "doubled", "miscounted", "unmade", "hanging", "unasked")
    must = [(f"**{name}**", getattr(books, name)) for name in zeros]
    return ["| | |", "|---|---|", *(f"| {name} | {count:,} |" for name, count in (*books.facts.items(), *must))]
