"""`edge-agent completion`: a script that makes a shell complete commands, options, choices and files.

It is made from the parser, once, by shtab; no program runs at a press of the key.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from edge_agent.cli.parser import leaves, make_parser


def run(arguments: argparse.Namespace) -> int:
    print(script(arguments.shell))
    return 0


def script(shell: str) -> str:
    """Return the script for `bash`, `zsh` or `fish`."""
    parser = make_parser()
    for leaf in leaves(parser).values():
        for action in leaf._actions:  # noqa: SLF001 - argparse has no other way to look back
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own mark
    return shtab.complete(parser, shell=shell)
