"""Where a device keeps who it is: its key, its certificate, and which token it has used.

    {state.folder}/identity/  device.key  device.pem  token.used  lock        or where [broker.tls] says

Each is written whole. The key comes first and stays: an answer that was lost can be asked for again by nobody else, and
a renewal replaces one file. `token.used` comes last: without it a device asks once more, and gets the same answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_agent.enrolment.renewal import Life
from fd_protocol.errors import DecodeError
from fd_runtime.files import write_atomically
from fd_runtime.links.certificate import outlook
from fd_runtime.links.link import TlsFiles


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """The files of a device that enrols.

    Attributes:
        folder: its own, in the state folder.
        tls: key and certificate.
        token: where a new token would be.
    """

    folder: Path
    tls: TlsFiles
    token: Path | None

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def used(self) -> Path:
        """SHA-256 in hex of the last token that let this device in."""
        return self.folder / "token.used"

    def life(self) -> Life | None:
        """Return the life of the certificate that is there; None: none, or no key to it."""
        try:
            if not self.tls.key.is_file():
                return None
            seen = outlook(self.tls.certificate.read_text(encoding="ascii"))
        except (OSError, ValueError, DecodeError):
            return None
        return Life(seen.begin, seen.end)

    def early_clock(self, now: datetime) -> str:
        """Return what is wrong with this machine's clock, where it is before all that we trust; empty: nothing.

        Raises:
            OSError, ValueError: the authority's file cannot be read.
            DecodeError: there is no certificate in it.
        """
        begin = outlook(self.tls.ca.read_text(encoding="ascii")).begin
        if now >= begin:
            return ""
        return f"the clock says {now:%Y-%m-%d}, the authority begins on {begin:%Y-%m-%d}: waiting until it is set"

    def new_token(self) -> str:
        """Return the token that waits to be used; empty: none, or the one that let this device in."""
        if self.token is None:
            return ""
        try:
            token = self.token.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return "" if _digest(token) == self._used() else token

    def mark_used(self, token: str) -> None:
        """Raises: OSError: it cannot be written."""
        write_atomically(self.used, _digest(token).encode(), mode=0o600)

    def _used(self) -> str:
        try:
            return self.used.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
