"""`python -m tests.faults`: let every fault at every call happen, count them, and print the table.

    [AREA ...]        some parts only: slots, outbox, ledger, enrolment, "authority's desk", "whole device"
    --results FILE    a line of JSON a case, added to what is there; the table is of all of them
    --minutes M       begin no case later than that; cases come by lot, so what was played is a fair sample
    --write           put the table into docs/security.md

Ends with 1 where a case was bad.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.grounds import AREAS
from tests.faults.injection import NAMES
from tests.faults.table import DOCS, Played, lines, replaced


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("areas", nargs="*", default=[area.name for area in AREAS], metavar="AREA")
    parser.add_argument("--results", type=Path, default=Path(tempfile.mkdtemp()) / "results.jsonl")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    end_s = time.monotonic() + 60.0 * arguments.minutes
    with arguments.results.open("a") as file:
        for area in AREAS:
            if area.name in arguments.areas:
                for played in _play(area, end_s):
                    file.write(json.dumps(played) + "\n")
                    file.flush()
    results = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    table = list(lines(results))
    sys.stdout.write("\n".join([*table, ""]))
    bad = [played for played in results if played["wrong"]]
    if arguments.write and not bad:
        DOCS.write_text(replaced(DOCS.read_text(), table))
    return 1 if bad else 0


def _play(kind: type, end_s: float) -> Iterator[Played]:
    with tempfile.TemporaryDirectory() as folder, kind.open(Path(folder)) as area:
        found = area.cases()
        for case in random.Random(area.name).sample(found, len(found)):
            if time.monotonic() > end_s:
                return
            wrong = area.play(case)
            shutil.rmtree(area.last, ignore_errors=True)
            sys.stderr.write(f"{'BAD ' if wrong else 'ok  '} {area.name}: {case}\n{wrong}")
            yield Played(area=area.name, all=len(found), fault=NAMES[case.fault], case=str(case), wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
