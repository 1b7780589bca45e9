"""The editions of the public set: who has them, how the last round on each went, and what an operator may do."""

from __future__ import annotations

from dataclasses import dataclass

from broker_server.dashboard.reading import Look
from broker_server.edition_views import CURRENT, STAGED, EditionView, views

_MOST_NAMES = 100


@dataclass(frozen=True, slots=True)
class ProbesPage:
    """What the page shows.

    Attributes:
        editions: the current one first.
        staged: the one that may take its place; None = there is none.
        is_tried: a trial of it has made a consensus.
        is_trial_wanted: the next round is one.
        lacking: devices online that lack the staged set, not more than fit a page; `lacking_count` of them all.
    """

    editions: tuple[EditionView, ...]
    staged: EditionView | None
    is_tried: bool
    is_trial_wanted: bool
    lacking: tuple[str, ...]
    lacking_count: int

    @property
    def compared(self) -> tuple[EditionView, ...]:
        """The current and the staged edition, side by side."""
        return tuple(one for one in self.editions if one.place in (CURRENT, STAGED))


def probes_page(look: Look) -> ProbesPage:
    """Return what the page shows."""
    editions = views(look.state, look.chronicle)
    staged = next((one for one in editions if one.place == STAGED), None)
    lacking = staged.lacking if staged is not None else ()
    return ProbesPage(
        editions=editions,
        staged=staged,
        is_tried=look.state.editions.trial is not None,
        is_trial_wanted=look.state.editions.is_trial_wanted,
        lacking=lacking[:_MOST_NAMES],
        lacking_count=len(lacking),
    )
