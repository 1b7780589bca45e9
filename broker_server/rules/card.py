"""What a rule says of itself, as data: `broker-server methods` prints it, and tests pick their laws by it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name


class Need(str, Enum):
    """What a rule reads beside soft labels."""

    PUBLIC_SET = "public set"
    """Without it, and without features, the labels of the task are the probes."""
    FEATURES = "one int8 backbone"
    """Its features are the probes: class prototypes (`fd_protocol.prototypes`)."""
    COMPETENCE = "competence"
    """Devices send their competence maps."""
    CANARIES = "canaries"
    """The server knows the labels of some probes."""
    SIZES = "stated sizes"
    """The operator says how many rows each device has."""
    MEMORY = "memory"
    """What the rule learned of a device in earlier rounds."""


class Promise(str, Enum):
    """What holds for any voices. Every rule promises the same bits for any order of them, and rows that sum to 1."""

    HEARS_ONCE = "hears once"
    """Voices are heard once, one at a time; memory does not grow with their number."""
    HULL = "hull"
    """Each cell lies between the least and the greatest that was said of it."""
    UNANIMITY = "unanimity"
    """What all say is the consensus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A rule's description.

    Attributes:
        name: in settings.
        formula: the consensus on a probe, in one line.
        source: where it is from.
        fails: where it fails.
        needs: what it cannot do without.
        uses: what makes it better, where it is given.
        promises: what holds for any voices.
        breakdown: share of voices that may say anything while those who agree on a row keep it; 0 = one may move it.
    """

    name: str
    formula: str
    source: str
    fails: str
    needs: frozenset[Need] = frozenset({Need.PUBLIC_SET})
    uses: frozenset[Need] = frozenset()
    promises: frozenset[Promise] = frozenset()
    breakdown: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.name, "method")
        if not 0.0 <= self.breakdown <= 0.5:
            raise InvalidValueError("no rule keeps what a minority says: a breakdown point lies in 0..0.5")
