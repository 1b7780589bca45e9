"""Tokens: one lets one device enrol once, until a time. Values and rules; `Tokens` keeps them in files.

    open --a key claims it--> claimed by that key --the same key, its answer was lost--> claimed by that key
      |                                 |                      +--too late, or revoked (`desk`)--> refused
      |                                 +--another key--> refused
      +--too late, another device--> refused

A token has 256 random bits, so its SHA-256 is all that is kept: who reads the folder cannot enrol. A device has one
token at a time; a new one takes the place of the old.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path

from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_runtime.files import write_atomically

TOKEN_BYTES = 32
DEFAULT_LIFE = timedelta(hours=24)
LONGEST_LIFE = timedelta(days=90)


class Verdict(str, Enum):
    """What becomes of a claim."""

    GRANTED = "granted"
    AGAIN = "again"
    """Its answer was lost: the same key claims it once more. For how long that is good is the desk's to say."""
    UNKNOWN = "unknown_token"
    """Never made, made for another device, replaced by a newer one, or taken back."""
    EXPIRED = "token_expired"
    USED = "token_used"
    """By another key; or by this one, long ago, or what it gave was revoked."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token.

    Attributes:
        device: the only one that it is good for.
        sha256: of the token, in hex.
        made_utc_s, ends_utc_s: UTC seconds.
        made_by: the operator.
        key: fingerprint of the key that has claimed it; empty: none has.
    """

    device: str
    sha256: str
    made_utc_s: int
    ends_utc_s: int
    made_by: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        check_name(self.device, "device")

    @property
    def made(self) -> datetime:
        return datetime.fromtimestamp(self.made_utc_s, timezone.utc)

    @property
    def end(self) -> datetime:
        return datetime.fromtimestamp(self.ends_utc_s, timezone.utc)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(device: str, life: timedelta, *, now: datetime, who: str) -> tuple[str, Token]:
    """Return a token, to be told once, and what is kept of it.

    Raises:
        InvalidValueError: no name of a device, or no time.
    """
    if not timedelta(0) < life <= LONGEST_LIFE:
        raise InvalidValueError(f"a token lives for {LONGEST_LIFE.days} days at most")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    made_s = int(now.timestamp())
    return token, Token(device, digest(token), made_s, made_s + int(life.total_seconds()), made_by=who)


def judge(kept: Token | None, token: str, key: str, *, now: datetime) -> Verdict:
    """Return what becomes of the claim of a device by a token and the fingerprint of a key; `kept` is the device's."""
    if kept is None or not hmac.compare_digest(kept.sha256, digest(token)):
        return Verdict.UNKNOWN
    if kept.key:
        return Verdict.AGAIN if kept.key == key else Verdict.USED
    if now.timestamp() >= kept.ends_utc_s:
        return Verdict.EXPIRED
    return Verdict.GRANTED


class InvalidTokenError(InvalidDocumentError):
    """A file of the folder is none of ours."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A file for each device in `folder`. Whoever changes something holds the authority's lock."""

    folder: Path

    def of(self, device: str) -> Token | None:
        """Return the token of a device; None: it has none.

        Raises:
            InvalidTokenError: its file is damaged.
        """
        path = self._path(device)
        try:
            return from_json(Token, path.read_bytes(), Place(path, InvalidTokenError))
        except FileNotFoundError:
            return None

    def put(self, token: Token) -> None:
        """Keep a token in the place of the one before."""
        self.folder.mkdir(exist_ok=True)
        write_atomically(self._path(token.device), to_json(token), mode=0o600)

    def claim(self, token: Token, key: str) -> None:
        """Keep which key has claimed it: from now on no other can."""
        self.put(replace(token, key=key))

    def take_back(self, device: str) -> bool:
        """Let nobody enrol as this device any more; return whether anybody could."""
        had = self.of(device) is not None
        self._path(device).unlink(missing_ok=True)
        return had

    def _path(self, device: str) -> Path:
        return self.folder / f"{check_name(device, 'device')}.json"
