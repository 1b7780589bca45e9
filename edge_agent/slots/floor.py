"""What time it is at least: a board without a clock wakes up in 1970, where no signature is past its time.

    floor = the latest of: when this program was built | when the last believed timestamp was signed | what the clock
            said when something was last believed

Earlier than the floor, but for `SLACK_S`, nothing is asked and nothing believed; the device goes on with what it has.

What is deliberately absent: a clock that is ahead. It finds everything past its time, and says so.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_runtime.files import write_atomically

SLACK_S = 3600.0
"""Two good clocks may differ, the server's and ours."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Floor:
    """In UTC seconds.

    Attributes:
        at_least_s: it is not earlier than that.
        asked_s: when the server's documents were last brought up to date.
    """

    at_least_s: float = 0.0
    asked_s: float = 0.0

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
    return Floor(max(kept.at_least_s, built_s), kept.asked_s)


def rise(path: Path, now_s: float, signed_at_s: float) -> Floor:
    """Write down that something was believed that was signed at `signed_at_s`, while the clock said `now_s`.

    Raises:
        OSError: the folder cannot be written.
    """
    floor = Floor(max(load(path).at_least_s, now_s, signed_at_s), now_s)
    write_atomically(path, to_json(floor), mode=0o600)
    return floor
