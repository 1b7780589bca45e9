"""The command line of a table.

    COMMAND --folder FOLDER [--data mnist=PATH ...] [--seeds 5] [--jobs 2] [--write]
    COMMAND --folder FOLDER --short        seconds: shows that the command works

What FOLDER holds is not played again, so that a table which was cut short goes on. Nothing is printed before all of it
has been played.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fleet_sim.quiet import only_errors
from fleet_sim.tables.case import Table
from fleet_sim.tables.page import publish
from fleet_sim.tables.playing import plan_of, play
from fleet_sim.tables.saying import report


@only_errors()
def run(table: Table) -> None:
    """Play a table as the command line asks."""
    parser = argparse.ArgumentParser(prog=table.command)
    parser.add_argument("--folder", type=Path, required=True, help="for all that is made; an earlier one goes on")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=PATH", help="where data sets lie")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="play these columns, and print no table")
    parser.add_argument("--short", action="store_true", help="seconds: shows that the command works, and no more")
    parser.add_argument("--write", action="store_true", help="put the table into its page")
    asked = parser.parse_args()
    if asked.write and (asked.short or asked.only):
        parser.error("only a whole table is written")
    cases = table.cases(dict(_named(item) for item in asked.data), "short" if asked.short else "full")
    if asked.only:
        for case in cases:
            if case.name in asked.only:
                play(case, plan_of(asked.folder, asked.seeds, asked.jobs, is_short=asked.short))
        return
    plan = plan_of(asked.folder, asked.seeds, asked.jobs, is_short=asked.short)
    text = (table.say or report)(table, [play(case, plan) for case in cases], plan)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        publish(table.section, f"{table.command} --folder FOLDER --seeds {asked.seeds} --write", text, table.page)


def _named(item: str) -> tuple[str, Path]:
    name, _, path = item.partition("=")
    return name, Path(path)
