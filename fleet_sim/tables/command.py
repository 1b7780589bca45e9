"""The command line of a table.

    COMMAND --folder FOLDER [--data mnist=PATH ...] [--seeds 5] [--jobs 2] [--write]
    COMMAND --folder FOLDER --short        seconds: shows that the command works
    COMMAND --folder FOLDER --real         its first federation by the real programs, beside its simulation

What FOLDER holds is not played again, so that a table which was cut short goes on. Nothing is printed before all of it
has been played.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from fd_protocol.errors import InvalidValueError
from fd_runtime.command_line import Parser, run_program
from fd_runtime.files import write_atomically
from fleet_sim.pool import pool
from fleet_sim.processes import end_like_ctrl_c
from fleet_sim.quiet import only_errors
from fleet_sim.tables.case import Case, Table
from fleet_sim.tables.page import publish
from fleet_sim.tables.picture import drawn
from fleet_sim.tables.playing import plan_of, play
from fleet_sim.tables.real import played_by_programs
from fleet_sim.tables.saying import report

PICTURE = "Where methods end, and what a device has sent and received until then"


def run(table: Table) -> NoReturn:
    """Play a table as the command line asks, and end; errors are one line on stderr and an exit code."""
    sys.exit(run_program(_parser(table)))


def _parser(table: Table) -> Parser:
    parser = Parser(prog=table.command)
    parser.add_argument("--folder", type=Path, required=True, help="for all that is made; an earlier one goes on")
    parser.add_argument("--data", nargs="*", default=[], type=_named, metavar="NAME=PATH", help="where data sets lie")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="play these columns, and print no table")
    parser.add_argument("--short", action="store_true", help="seconds: shows that the command works, and no more")
    parser.add_argument("--real", action="store_true", help="real programs over a real broker; nothing is compared")
    parser.add_argument("--write", action="store_true", help="put the table into its page")
    parser.set_defaults(run=partial(_run, table))
    return parser


@only_errors()
def _run(table: Table, asked: argparse.Namespace) -> int:
    if asked.write and (asked.short or asked.only or asked.real):
        raise InvalidValueError("only a whole table is written")
    cases = table.cases(dict(asked.data), "short" if asked.short else "full")
    plan = plan_of(asked.folder, asked.seeds, asked.jobs, is_short=asked.short)
    if asked.real:
        end_like_ctrl_c()
        sys.stdout.write(f"{played_by_programs(cases[0], plan)}\n")
        return 0
    with pool(asked.jobs) as mapped:
        outcomes = play(_chosen(cases, asked.only) if asked.only else cases, replace(plan, mapped=mapped))
    if asked.only:
        return 0
    text = (table.say or report)(table, outcomes, plan)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        if table.picture:
            write_atomically(table.picture, drawn(outcomes))
            text = f"{text}\n\n![{PICTURE}]({table.picture.relative_to(table.page.parent)})"
        publish(table.section, f"{table.command} --folder FOLDER --seeds {asked.seeds} --write", text, table.page)
    return 0


def _chosen(cases: Sequence[Case], names: Sequence[str]) -> list[Case]:
    by_name = {case.name: case for case in cases}
    if unknown := [name for name in names if name not in by_name]:
        raise InvalidValueError(f"no column {unknown[0]!r}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def _named(item: str) -> tuple[str, Path]:
    name, _, path = item.partition("=")
    return name, Path(path)
