"""`edge-agent`: the device owner's program. A module a family of commands; exit codes are those of sysexits.h.

What a command needs is imported when it is given: `edge-agent status` reads no model, and answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.cli.parser import make_parser
from edge_agent.cli.place import CONFIG_NAME
from fd_runtime.command_line import run_program

__all__ = ["CONFIG_NAME", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run_program(make_parser(), argv)
