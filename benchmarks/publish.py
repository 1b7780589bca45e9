"""Puts a table into a page of docs/, between the marks of its section, under the command that printed it.

python benchmarks/publish.py "train step" train_step.py [OPTION ...]     runs a benchmark and keeps what it prints
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fleet_sim.tables.page import publish as publish_on

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def publish(section: str, command: str, body: str, page: Path = PAGE) -> None:
    """Replace the section of a page, or add it at the end."""
    publish_on(section, command, body, page)


def main(section: str, script: str, *options: str) -> None:
    command = ["python", f"benchmarks/{script}", *options]
    run = subprocess.run([sys.executable, *command[1:]], cwd=PAGE.parents[1], stdout=subprocess.PIPE, check=True)
    body = run.stdout.decode()
    print(body)
    publish(section, " ".join(command), body)


if __name__ == "__main__":
    main(*sys.argv[1:])
