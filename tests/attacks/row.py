"""A row of the table: one attack, what the attacker sees, and how the row is known to be able to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.attacks.ground import Seen, Weakening


@dataclass(frozen=True, slots=True)
class Attack:
    """One row.

    Attributes:
        name: of the row, unique.
        attempted: what is done, in a sentence.
        sees: what the attacker sees of it, word for word; the test compares.
        run: does it on a `Ground`, `Victims` or a web stage, and says what was seen.
        control: what is taken from the product, or given to the attacker, so that the same attack succeeds.
    """

    name: str
    attempted: str
    sees: str
    run: Callable[[Any], Seen]
    control: Weakening
