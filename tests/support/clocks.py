"""A machine whose clock is wrong, for one process tree: libfaketime, where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

_PLACES = ("/usr/lib", "/usr/local/lib", "/lib")


def _find_library() -> Path | None:
    found = (path for place in _PLACES for path in Path(place).glob("**/faketime/libfaketimeMT.so.1"))
    return next(found, None)


LIBRARY = _find_library()
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (apt-get install faketime)")


class WrongClock:
    """A clock that processes with its `environment` go by; `set` steps it while they run. Time itself goes on."""

    def __init__(self, folder: Path, time: str) -> None:
        self._file = folder / "clock"
        self.set(time)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a step of the wall clock, as NTP makes, leaves that alone
        }

    def set(self, time: str) -> None:
        """`@1970-01-01 00:00:10`, or an offset as `-1d`; `+0` = right."""
        part = self._file.with_suffix(".part")
        part.write_text(time)
        part.replace(self._file)
