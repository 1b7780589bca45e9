"""What time it is at least: a board without a clock wakes up in 1970, where no signature is past its time.

    floor = the latest of: when this program was built | when the last believed timestamp was signed | what the clock
            said when something was last believed

Earlier than the floor, but for `SLACK_S`, nothing is believed but who may sign, and what was signed last: versions say
what is newer there, no clock does. The device goes on with what it has.

When the timestamp was signed is the word of one key, the server's, which may be stolen, or at work on a server whose
clock is wrong. So it counts for no later than the root ends, and stands only

    until the root names another key         whoever has the old one has no say any more
    until a newer timestamp by the same key  whoever has the network alone has none to show

Then the floor is what the clock said when something was last believed, or what is signed now, if that is later.

What is deliberately absent: a clock that is ahead. It finds everything past its time, and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_runtime.files import write_atomically
from fd_runtime.tuf.client import Word

SLACK_S = 3600.0
"""Two good clocks may differ, the server's and ours."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Floor:
    """In UTC seconds.

    Attributes:
        at_least_s: it is not earlier than that.
        asked_s: when the server's documents were last brought up to date, as the clock said.
        key: of the server, whose word is in `at_least_s`; None = nobody knows.
        version: of the timestamp that was its word.
    """

    at_least_s: float = 0.0
    asked_s: float = 0.0
    key: str | None = None
    version: int | None = None

    def is_before(self, now_s: float) -> bool:
        """Whether a clock may be right that says `now_s`."""
        return now_s >= self.at_least_s - SLACK_S


def load(path: Path) -> Floor:
    """Return the floor; of a file that is damaged or missing, when this program was built."""
    built_s = Path(__file__).stat().st_mtime
    try:
        kept = from_json(Floor, path.read_bytes(), Place(path, InvalidDocumentError))
    except FileNotFoundError:
        kept = Floor()
    except (InvalidDocumentError, OSError) as error:
        log.warning("the time floor is that of this program: %s", error)
        kept = Floor()
    return replace(kept, at_least_s=max(kept.at_least_s, built_s))


def rise(path: Path, now_s: float, word: Word) -> Floor:
    """Write down that a word of the server was believed while the clock said `now_s`.

    Raises:
        OSError: the folder cannot be written.
    """
    return _write(path, Floor(max(load(path).at_least_s, now_s, word.at_s), now_s, word.key, word.version))


def correct(path: Path, word: Word, keys: Collection[str]) -> Floor:
    """Write down what the server said last, where what it said before does not stand any more; return the floor.

    Args:
        path: of the floor.
        word: of the server; it need not be later than the one before.
        keys: of the server, that the root names now.

    Raises:
        OSError: the folder cannot be written.
    """
    known = load(path)
    is_replaced = known.key not in keys and known.key != word.key
    is_newer = known.key == word.key and word.version > (known.version or 0)
    if not (is_replaced or is_newer):
        return known
    return _write(path, Floor(max(known.asked_s, word.at_s), known.asked_s, word.key, word.version))


def _write(path: Path, floor: Floor) -> Floor:
    write_atomically(path, to_json(floor), mode=0o600)
    return load(path)
