"""Puts what a command printed into a page, between the marks of its section, under the command."""

from __future__ import annotations

from pathlib import Path

from fd_runtime.files import write_atomically


def publish(section: str, command: str, body: str, page: Path) -> None:
    """Replace the section, or add it at the end of the page.

    Raises:
        ValueError: the page has the section's first mark and not its last.
    """
    begin, end = f"<!-- begin {section} -->", f"<!-- end {section} -->"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    fresh = f"{begin}\n    {command}\n\n{body.strip()}\n{end}"
    if begin in text:
        before, _, rest = text.partition(begin)
        _, mark, after = rest.partition(end)
        if not mark:
            raise ValueError(f"{page} lacks {end}")
        text = before + fresh + after
    else:
        text = f"{text.rstrip()}\n\n{fresh}\n".lstrip()
    write_atomically(page, text.encode())
