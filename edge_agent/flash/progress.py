"""A bar on a terminal, a line where nobody looks."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

_EVERY_S = 0.1
_WIDTH = 30


class Bar:
    """How far one step is: `word [#####.....]  50 %  1.4 of 2.8 GB  310 MB/s`.

    Off a terminal the line is printed once, when the step is over.
    """

    def __init__(
        self, word: str, total: int, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._word, self._total, self._out, self._clock = word, total, out or sys.stderr, clock
        self._began, self._shown_at, self._done = clock(), 0.0, 0

    def over(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield chunks as they come, and show how far that is."""
        for chunk in chunks:
            yield chunk
            self._done += len(chunk)
            now = self._clock()
            if self._out.isatty() and now - self._shown_at >= _EVERY_S:
                self._shown_at = now
                self._show("\r")
        self._show("\r" if self._out.isatty() else "")
        self._out.write("\n")
        self._out.flush()

    def text(self) -> str:
        share = min(1.0, self._done / self._total) if self._total else 1.0
        seconds = max(1e-9, self._clock() - self._began)
        filled = int(share * _WIDTH)
        bar = "#" * filled + "." * (_WIDTH - filled)
        done, total = self._done / 1e9, self._total / 1e9
        return (
            f"{self._word:<9} [{bar}] {share:4.0%}  {done:.2f} of {total:.2f} GB  {self._done / seconds / 1e6:.0f} MB/s"
        )

    def _show(self, start: str) -> None:
        width = shutil.get_terminal_size().columns if start else 0
        text = self.text()
        self._out.write(start + (text[: width - 1].ljust(width - 1) if width else text))
        self._out.flush()
