"""How long a simulated fleet took, and what it drew, as tables for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fd_runtime.pages import Section
from fleet_sim.boards.catalogue import board_named, link_named
from fleet_sim.boards.totals import BoardTotals
from fleet_sim.measuring import RoundResult


def board_sections(
    rounds: Sequence[Sequence[RoundResult]], boards: Sequence[Sequence[BoardTotals]]
) -> Iterator[Section]:
    """Yield the time of rounds and what became of boards; nothing where nothing takes time.

    Args:
        rounds: that made a consensus, of each seed.
        boards: of each seed.
    """
    kinds = list(zip(*boards, strict=True))
    if not kinds:
        return
    yield Section("Time, simulated", ("", "mean over seeds"), tuple(_times(rounds)))
    columns = ("board, link", "devices", "compute J", "radio J", "idle J", "in time, %", "battery empty", "left, %")
    note = "Joules of a device over the whole play. In time: of the rounds that made a consensus. Empty: how often."
    yield Section("Boards, means over devices and seeds", columns, tuple(map(_kind, kinds)), note)


def source_section(boards: Sequence[Sequence[BoardTotals]]) -> Section:
    """Return where the figures of boards and links come from; without rows where there are none."""
    return Section("Where the figures of boards and links come from", ("", "source"), tuple(_sources(boards[0])))


def _times(rounds: Sequence[Sequence[RoundResult]]) -> Iterator[tuple[str, str]]:
    ends = [[result.seconds for result in each] for each in rounds]
    lasted = [np.diff(each, prepend=0.0) for each in ends]
    heard = [result.heard for each in rounds for result in each]
    yield "whole play", duration(float(np.mean([each[-1] for each in ends])))
    yield "from consensus to consensus, median", duration(float(np.mean([np.median(each) for each in lasted])))
    yield "longest", duration(float(np.mean([each.max() for each in lasted])))
    yield "devices heard in time, a round", f"{np.mean(heard):.1f}"


def _kind(seeds: Sequence[BoardTotals]) -> tuple[str, ...]:
    first = seeds[0]
    joules = [f"{np.mean([getattr(one, name) for one in seeds]):,.3g}" for name in ("compute_j", "radio_j", "idle_j")]
    return (
        f"{first.board}, {first.link}",
        str(first.devices),
        *joules,
        f"{100 * np.mean([one.heard for one in seeds]):.0f}",
        f"{np.mean([one.dark for one in seeds]):.1f}",
        f"{100 * np.mean([one.left for one in seeds]):.0f}",
    )


def _sources(boards: Sequence[BoardTotals]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(one.board for one in boards):
        board = board_named(name)
        yield f"{name}: {board.idle_w:g} W idle, {board.busy_w:g} W computing", board.source
    for name in dict.fromkeys(one.link for one in boards):
        link = link_named(name)
        yield f"{name}: {link.up_kbit_s:,g} kbit/s up, {link.down_kbit_s:,g} down, {link.latency_ms:g} ms", link.source


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `42 s`, `7 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    whole = round(seconds)
    for size, name, smaller, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {small}"
    return f"{seconds:.1f} s"
