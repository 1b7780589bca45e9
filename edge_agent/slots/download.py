"""A package over HTTPS, into a file that grows: what a lost link or a power cut leaves is where the next try goes on.

The address of a package is its digest, so what lies in the file can never belong to another version of it; whether it
is what was promised is asked of the whole.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, Request, build_opener

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_TEMPFAIL
from fd_runtime.files import sync_file

_CHUNK = 1 << 16
_DURABLE_BYTES = 1 << 22
"""How much a power cut may cost."""
_TIMEOUT_S = 30.0
_PACE_BYTES, _PACE_S = 4096, 60.0
"""What must come in a minute: a server that gives a byte a second would hold the device for years."""
_PARTIAL, _NOT_SATISFIABLE = 206, 416
_FOR_NOW = frozenset({404, 408, 425, 429, 500, 502, 503, 504})
"""Not found is one of them: a release may be announced before the web server's copy is there."""


class PostponedError(FedistillError):
    """Not now: the link, the server or the disk; what has come stays."""

    exit_code = EX_TEMPFAIL


class WrongPackageError(FedistillError):
    """What came is not what was promised, and never will be; the file is gone."""


class CalledOffError(Exception):
    """Whoever asked does not want it any more; what has come stays."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What to fetch: where from, its SHA-256 in hex, and its length."""

    url: str
    """Empty = from nowhere: it is here, or it never will be."""
    sha256: str
    size_bytes: int


def fetch(
    parcel: Parcel,
    path: Path,
    *,
    tls: ssl.SSLContext | None = None,
    is_over: Callable[[], bool] = lambda: False,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Bring the parcel to `path`, going on from what lies there; then it is on the disk.

    Args:
        parcel: what to fetch.
        path: of the file; its folder exists.
        tls: how to trust the server; None = by the system's certificates. Proxies come from the environment.
        is_over: asked after every 64 KiB; True ends it with `CalledOffError`.
        on_bytes: told how many have come, for the count of data use.

    Raises:
        PostponedError: the server, the link or the disk fails for now.
        WrongPackageError: other bytes than promised.
        CalledOffError: it is over.
    """
    try:
        with path.open("ab") as file:
            if file.tell() > parcel.size_bytes:
                file.truncate(0)
            if file.tell() < parcel.size_bytes:
                _append(parcel, file, tls, is_over, on_bytes)
    except HTTPError as error:
        _judge(error, parcel, path)
    except (OSError, HTTPException) as error:  # URLError is an OSError: so are timeouts, lost links and full disks
        raise PostponedError(f"{parcel.url}: {error}") from error
    _check(parcel, path)
    try:
        sync_file(path)  # whoever wrote the last of it may have been killed, or was no download
    except OSError as error:
        raise PostponedError(str(error)) from error


def _append(
    parcel: Parcel,
    file: BinaryIO,
    tls: ssl.SSLContext | None,
    is_over: Callable[[], bool],
    on_bytes: Callable[[int], None],
) -> None:
    if not parcel.url:
        raise PostponedError("the package is not here, and releases.url does not say where it is")
    start = file.tell()
    headers = {"User-Agent": "edge-agent", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = Request(parcel.url, headers=headers)  # noqa: S310 - settings allow https, and http on this machine
    opener = build_opener(HTTPSHandler(context=tls or ssl.create_default_context()))
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        if start and not _goes_on(response, start):
            file.truncate(0)
        unsafe, pace = 0, _Pace()
        while file.tell() < parcel.size_bytes:
            # One byte more than is due would be another package: it is not read.
            chunk = response.read1(min(_CHUNK, parcel.size_bytes - file.tell()))  # what is there: it may be all
            if not pace.keeps_up(len(chunk)):
                raise PostponedError(f"{parcel.url}: less than {_PACE_BYTES} bytes in {_PACE_S:.0f} s")
            if not chunk:
                raise PostponedError(f"{parcel.url}: {file.tell()} of {parcel.size_bytes} bytes came")
            file.write(chunk)
            on_bytes(len(chunk))
            unsafe += len(chunk)
            if unsafe >= _DURABLE_BYTES:
                file.flush()
                os.fsync(file.fileno())
                unsafe = 0
            if is_over():
                raise CalledOffError


class _Pace:
    """Whether enough comes, window after window."""

    def __init__(self) -> None:
        self._since_s, self._came = time.monotonic(), 0

    def keeps_up(self, new_bytes: int) -> bool:
        """Take note of bytes; false: the window that has ended was too thin."""
        self._came += new_bytes
        if time.monotonic() - self._since_s < _PACE_S:
            return True
        is_enough = self._came >= _PACE_BYTES
        self._since_s, self._came = time.monotonic(), 0
        return is_enough


def _goes_on(response: HTTPResponse, start: int) -> bool:
    """Whether a server that was asked for a range gave that one; some send everything from the beginning."""
    given = response.headers.get("Content-Range", "")
    return response.status == _PARTIAL and given.startswith(f"bytes {start}-")


def _judge(error: HTTPError, parcel: Parcel, path: Path) -> None:
    if error.code == _NOT_SATISFIABLE:  # it is shorter there than what lies here
        path.unlink(missing_ok=True)
        raise WrongPackageError(f"{parcel.url}: not as long as promised") from error
    if error.code in _FOR_NOW:
        raise PostponedError(f"{parcel.url}: {error.code} {error.reason}") from error
    raise PostponedError(f"{parcel.url}: {error.code} {error.reason}; is releases.url right?") from error


def _check(parcel: Parcel, path: Path) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise PostponedError(str(error)) from error
    if digest.hexdigest() != parcel.sha256:
        path.unlink(missing_ok=True)
        raise WrongPackageError(f"{parcel.url}: digest {digest.hexdigest()[:12]}, not {parcel.sha256[:12]}")
