"""`python -m tests.attacks`: run every attack, and every control, and print the table; `--write` puts it into the docs.

FEDISTILL_FUZZ=10000 for all the noise. Ends with 1 where an attack or a control did not go as the table says.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.attacks import web
from tests.attacks.ground import Seen, ground
from tests.attacks.payloads import KILLED
from tests.attacks.row import Attack
from tests.attacks.table import BOARD, DOCS, GROUND, NOTHING, SITE, VICTIMS, lines, replaced, rows
from tests.attacks.victims import Victims, victims


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks")
    parser.add_argument("--write", action="store_true", help="put the table into docs/security.md")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    begun_s, lost, wrong = time.monotonic(), dict[str, str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for row, seen, harm in _attacks(Path(folder)):
            is_as_told = (seen.says, seen.got_through, harm) == (row.sees, False, [])
            _say(f"{'ok  ' if is_as_told else 'NOT '} {row.name}: {seen.says}; lost: {', '.join(harm) or NOTHING}")
            if not is_as_told:
                wrong.append(row.name)
                lost[row.name] = ", ".join(harm) or seen.says
        for row, succeeds in _controls(Path(folder)):
            _say(f"{'ok  ' if succeeds else 'NOT '} control of {row.name}")
            if not succeeds:
                wrong.append(f"control of {row.name}")
    table = list(lines(lost))
    sys.stdout.write("\n".join(table))
    count = sum(len(rows(kind)) for kind in (GROUND, VICTIMS, SITE, BOARD))
    _say(f"{count} attacks and their controls in {time.monotonic() - begun_s:.0f} s; not as told: {wrong or 'none'}")
    if arguments.write and not wrong:
        DOCS.write_text(replaced(DOCS.read_text(), table))
    return 1 if wrong else 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _attacks(folder: Path) -> Iterator[tuple[Attack, Seen, list[str]]]:
    with ground(folder / "shipped") as stage, victims(stage) as ready:
        for row in rows(GROUND):
            stage.listen()
            yield row, row.run(stage), ready.harm()
        for row in rows(VICTIMS):
            yield row, row.run(ready), ready.harm()
        _say(f"thrown: {', '.join(ready.counted.values())}")
    for number, row in enumerate(rows(SITE)):
        with web.site(_new(folder, f"site-{number}")) as site:
            yield row, row.run(site), [] if site.is_open_to() else ["the site"]
    for number, row in enumerate(rows(BOARD)):
        yield row, row.run(web.Board(_new(folder, f"board-{number}"))), []


def _controls(folder: Path) -> Iterator[tuple[Attack, bool]]:
    for number, row in enumerate(rows(GROUND)):
        with ground(folder / f"weak-{number}", row.control) as weak:
            weak.listen()
            yield row, row.run(weak).got_through
    with ground(folder / "given") as stage, victims(stage) as ready:
        ready.is_weak = True
        for row in rows(VICTIMS):  # those that kill a victim come last
            yield row, row.run(ready).got_through
            _rest(row, ready)
    for number, row in enumerate(rows(SITE)):
        with web.site(_new(folder, f"weak-site-{number}"), row.control, row.name) as site:
            yield row, row.run(site).got_through
    for number, row in enumerate(rows(BOARD)):
        yield row, row.run(web.Board(_new(folder, f"weak-board-{number}"), is_weak=True)).got_through


def _rest(row: Attack, ready: Victims) -> None:
    if row.control is not KILLED:
        ready.play()


def _new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


if __name__ == "__main__":
    sys.exit(main())
