"""What commands print: JSON where it is asked for, else lines and tables that need no library."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_PIPE_COLUMNS = 160
_LEAST_COLUMNS = 20
_GAP = "  "


def tell(arguments: argparse.Namespace, told: Any, text: str) -> None:
    """Print `told` as JSON where it is asked for, else `text`."""
    print(json.dumps(told, indent=1, ensure_ascii=False) if arguments.json else text)


def facts(told: Mapping[str, Any]) -> str:
    """Return a line a fact; facts of facts are `name.inner`."""
    flat = [
        (f"{name}.{inner}" if inner else name, value)
        for name, fact in told.items()
        for inner, value in (fact.items() if isinstance(fact, Mapping) else [("", fact)])
    ]
    width = max((len(name) for name, _ in flat), default=0)
    return "\n".join(f"{name:<{width}}{_GAP}{_word(value)}" for name, value in flat)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """Return rows under heads, the last column wrapped to what is left of the terminal."""
    cells = [tuple(columns), *map(tuple, rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    total = width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_COLUMNS)
    indent = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    lines: list[str] = []
    for row in cells:
        head = "".join(f"{cell:<{wide}}{_GAP}" for cell, wide in zip(row[:-1], widths[:-1], strict=True))
        wrapped = textwrap.wrap(row[-1], max(_LEAST_COLUMNS, total - indent)) or [""]
        lines += [(head + wrapped[0]).rstrip(), *(" " * indent + more for more in wrapped[1:])]
    return "\n".join(lines)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
