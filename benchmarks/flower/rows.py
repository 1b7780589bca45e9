"""From what the phases of a comparison found to the rows of its table; a phase that was not measured leaves gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from flower.tables import Row

Phase: TypeAlias = Any
"""What a phase found, or None: it has not been measured."""


def of(phases: Sequence[Phase], value: Callable[[Any], float | str]) -> list[float | str | None]:
    """Return a value of each phase that was measured."""
    return [None if phase is None else value(phase) for phase in phases]


def updates(plays: Sequence[Phase], alone: Sequence[Phase]) -> list[Row]:
    """`plays`: Flower's, ours, ours of every layer; `alone`: Flower's, Flower's without PyTorch, ours."""
    theirs, light, ours = alone
    pairs = [*zip(plays, (theirs, ours, ours), strict=True)]
    costs = [play and one and play.net(one.idle) for play, one in pairs]
    costs.insert(1, light and light.played.net(light.idle))
    server = costs[0], None, *costs[2:]
    whole = plays[0], None, *plays[1:]  # without PyTorch they were played one at a time
    return [
        Row("accuracy at the end, all digits, %", of(whole, lambda play: 100 * play.curve[-1]), "more", ".1f"),
        Row("own digits, corrected by label counts, %", of(whole, lambda play: 100 * play.own), "more", ".1f"),
        Row("bytes up", of(costs, lambda cost: cost.up)),
        Row("bytes down", of(costs, lambda cost: cost.down)),
        Row("client, processor s", of(costs, lambda cost: cost.client_s), form=".2f"),
        Row("server, processor s", of(server, lambda cost: cost.server_s), form=".3f"),
        Row("a round, s of the wall", of(whole, lambda play: play.round_s), form=".1f"),
    ]


def firsts(plays: Sequence[Phase], alone: Sequence[Phase]) -> list[Row]:
    costs = [play and play.first for play in plays]
    costs.insert(1, alone[1] and alone[1].played.first)
    return [
        Row("bytes up", of(costs, lambda cost: cost.up)),
        Row("bytes down", of(costs, lambda cost: cost.down)),
        Row("client, processor s", of(costs, lambda cost: cost.client_s), form=".2f"),
    ]


def floor(floors: Sequence[Phase], alone: Sequence[Phase]) -> list[Row]:
    pairs = zip(floors, (alone[0], alone[-1]), strict=True)
    theirs, ours = (play and one and play.net(one.idle) for play, one in pairs)
    costs, plays = (theirs, None, ours, None), (floors[0], None, floors[1], None)
    return [
        Row("bytes up", of(costs, lambda cost: cost.up)),
        Row("bytes down", of(costs, lambda cost: cost.down)),
        Row("client, processor s", of(costs, lambda cost: cost.client_s), form=".3f"),
        Row("server, processor s", of(costs, lambda cost: cost.server_s), form=".3f"),
        Row("a round, s of the wall", of(plays, lambda play: play.round_s), form=".1f"),
    ]


def alone_rows(alone: Sequence[Phase]) -> list[Row]:
    all_four = *alone, None
    idle = [one and one.idle for one in all_four]
    return [
        Row("idle, RSS of the client, MB", of(idle, lambda one: one.rss_mb)),
        Row("idle, PSS, MB", of(idle, lambda one: one.pss_mb)),
        Row("in rounds of the CNN, most PSS, MB", of(all_four, lambda one: one.peak_pss_mb)),
        Row("idle, MB up a day", of(idle, lambda one: one.up_mb_a_day), form=".3f"),
        Row("idle, MB down a day", of(idle, lambda one: one.down_mb_a_day), form=".3f"),
        Row("idle, client's processor s a day", of(idle, lambda one: one.client_s_a_day)),
        Row("idle, server's processor s a day", of(idle, lambda one: one.server_s_a_day)),
        Row("idle, RSS of the server, MB", of(idle, lambda one: one.server_rss_mb)),
    ]


def recovery_rows(recoveries: Sequence[Phase]) -> list[Row]:
    four = recoveries[0], None, recoveries[1], None
    return [
        Row("what was under way", of(four, lambda one: one.fate), ""),
        Row("what is lost", of(four, lambda one: one.lost), ""),
        Row("what a person does", of(four, lambda one: one.actions), ""),
        Row("next finished round, s", of(four, lambda one: one.next_round_s)),
    ]
