"""What a program tells a person at length: tables in the terminal, and one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fd_runtime.files import write_atomically


@dataclass(frozen=True, slots=True)
class Section:
    """A table: `rows` of text, as many cells as `columns`; `note` says how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    highlighted: frozenset[str] = frozenset()
    """First cells of the rows to draw bold."""


@dataclass(frozen=True, slots=True)
class Page:
    """A title, what a reader must know first, pictures (SVG), tables, and the command that made it."""

    title: str
    summary: tuple[str, ...]
    pictures: tuple[str, ...]
    sections: tuple[Section, ...]
    command: str


def print_sections(title: str, summary: Sequence[str], sections: Sequence[Section], console: Console) -> None:
    """Print all but the pictures to the terminal. Text is text: what a device says of itself is no markup."""
    console.print(Text(f"\n{title}", style="bold"))
    for line in summary:
        console.print(Text(f"  {line}"), highlight=False)
    for section in sections:
        table = Table(title=section.title, title_justify="left", caption=section.note, caption_justify="left")
        for index, column in enumerate(section.columns):
            table.add_column(column, justify="left" if index == 0 else "right")
        for row in section.rows:
            table.add_row(*map(Text, row), style="bold" if row[0] in section.highlighted else None)
        console.print(table)


def write_page(page: Page, path: Path) -> None:
    """Write one file: no script, no font, no address outside it."""
    body = "\n".join(
        [
            f"<h1>{html.escape(page.title)}</h1>",
            "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in page.summary) + "</ul>",
            *(f"<figure>{picture[picture.index('<svg') :]}</figure>" for picture in page.pictures),
            *map(_section_html, page.sections),
            f"<p>Made by <code>{html.escape(page.command)}</code>.</p>",
        ]
    )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(page.title)}</title>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    write_atomically(path, f"{head}<style>{_STYLE}</style><main>{body}</main></html>\n".encode())


def _section_html(section: Section) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in section.columns)
    rows = "".join(
        f"<tr{' class=ours' if row[0] in section.highlighted else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in section.rows
    )
    note = f"<p>{html.escape(section.note)}</p>" if section.note else ""
    return f"<h2>{html.escape(section.title)}</h2><div><table><tr>{head}</tr>{rows}</table></div>{note}"


_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
figure { margin: 1.5rem 0; } svg { width: 100%; height: auto; }
svg text { fill: currentColor !important; } svg .patch path, svg line { stroke: currentColor; }
div { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } .ours td { font-weight: 700; }
p { color: color-mix(in srgb, currentColor 70%, transparent); } code { font-size: .95em; }
"""
