"""Where a device gets its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fd_protocol.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """The `[enrolment]` of a device; with it the device makes its own key, and `[broker.tls]` may be left out.

    Attributes:
        url: of the server's HTTPS port.
        ca_file: the fleet's root: vouches for that server, for the broker, and for the device's certificate.
        token_file: what lets the device in, once; None, or not there = its certificate came in another way.
        request_command: makes the request in the place of this program, for a key that no file holds: DEVICE and
            KEYFILE are appended, the request in PEM goes to standard output, and KEYFILE must then be something that
            OpenSSL can load as a key. Empty = the key is made here, in a file.
    """

    url: str
    ca_file: Path
    token_file: Path | None = None
    request_command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise InvalidValueError("url is https://HOST[:PORT]")
