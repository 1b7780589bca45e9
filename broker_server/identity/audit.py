"""The record of identities: a line of JSON for each thing that was done or refused, on the disk before it is answered.

`audit.log` in the authority's folder is only ever appended to, and opened for each line: logrotate may move it away.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Audit:
    """The record at `path`."""

    path: Path

    def write(self, at: datetime, done: str, device: str, **facts: str) -> None:
        """Add a line.

        Args:
            at: UTC.
            done: one word: token, enrolled, claimed_again, renewed, refused, revoked, session_ended.
            device: whom it is about; of a refusal, whom the stranger said to be.
            facts: more, each one line of text; empty ones are left out.

        Raises:
            OSError: it could not be written: then it was not done.
        """
        line = {"at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "done": done, "device": device}
        line |= {name: text for name, text in facts.items() if text}
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lines(self) -> list[dict[str, str]]:
        """Return the record, the oldest line first; a line that a power cut broke is passed over."""
        if not self.path.is_file():
            return []
        found = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
        return found
