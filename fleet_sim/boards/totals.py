"""What the devices of one kind of board came to: energy, and how often the server heard them in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fleet_sim.boards.fleet import Place


@dataclass(frozen=True, slots=True)
class BoardTotals:
    """Means over the devices of one board on one link, over the whole play.

    Attributes:
        board, link: as in the scenario.
        devices: how many.
        compute_j, radio_j, idle_j: energy of a device: of a core that computes, of the radio, of being there.
        heard: share of the rounds that made a consensus in which a device was heard in time.
        dark: how often the battery of a device was empty.
        left: share of devices that were gone at the end.
    """

    board: str
    link: str
    devices: int
    compute_j: float
    radio_j: float
    idle_j: float
    heard: float
    dark: float
    left: float

    @property
    def total_j(self) -> float:
        return self.compute_j + self.radio_j + self.idle_j


def totals(places: Sequence[Place], heard: Sequence[int], rounds: int) -> tuple[BoardTotals, ...]:
    """Return a row for each kind, in the order of the devices.

    Args:
        places: of the devices; what they have spent is up to date.
        heard: in how many rounds each device was heard.
        rounds: that made a consensus.
    """
    kinds = dict.fromkeys((place.terms.name, place.terms.link) for place in places)
    return tuple(_of(kind, places, heard, rounds) for kind in kinds)


def _of(kind: tuple[str, str], places: Sequence[Place], heard: Sequence[int], rounds: int) -> BoardTotals:
    own = [index for index, place in enumerate(places) if (place.terms.name, place.terms.link) == kind]
    spent = [places[index].meter.spent for index in own]
    return BoardTotals(
        *kind,
        devices=len(own),
        compute_j=_mean(each.compute_j for each in spent),
        radio_j=_mean(each.radio_j for each in spent),
        idle_j=_mean(each.idle_j for each in spent),
        heard=_mean(heard[index] / max(1, rounds) for index in own),
        dark=_mean(places[index].dark for index in own),
        left=_mean(places[index].has_left for index in own),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
