"""What a device asks of signed documents: is this package vouched for, and what is said about it? python-tuf answers.

    root of the settings --> newer roots, one after another --> timestamp --> snapshot --> targets [--> students]

Refused are documents that are older than those seen before, past their time, mixed of two states, signed by too few or
by others, or too long. What is believed is kept in a folder, so that the next question costs one small file.

Clocks: a device without one wakes up in 1970, where nothing is past its time. Whoever asks says what time it is at
least (`edge_agent.slots.floor`); earlier than that only root and timestamp are asked for (`hear`), in which versions
say what is newer.

What is deliberately absent: packages (`edge_agent.slots.download` brings them, and goes on where it was cut).
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError, SlowRetrievalError
from tuf.api.metadata import Root, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from fd_protocol.errors import FedistillError
from fd_protocol.targets import TargetFacts
from fd_runtime.config import EX_TEMPFAIL
from fd_runtime.files import sync_folder
from fd_runtime.tuf.documents import ROOT, TIMESTAMP, TrustError, read

_LIMITS = UpdaterConfig(
    root_max_length=1 << 16,
    timestamp_max_length=1 << 12,
    snapshot_max_length=1 << 16,
    targets_max_length=1 << 20,
    max_root_rotations=64,
    max_delegations=4,
)
_GAP_S = 30.0
PATIENCE_S = 120.0
"""For all documents together: a server that gives a byte a second is none."""
_CHUNK = 1 << 14
logging.getLogger("tuf").setLevel(logging.WARNING)  # of three keys of root one does not sign: no news


class UnreachableError(FedistillError):
    """Not now: the link, the server, or the disk."""

    exit_code = EX_TEMPFAIL


class UntrustedError(FedistillError):
    """What the server gives is not signed as it must be, or is not the latest any more: nothing of it is believed."""

    exit_code = EX_TEMPFAIL


@dataclass(frozen=True, slots=True)
class Vouched:
    """A package that is vouched for; `package` is its SHA-256 in hex."""

    name: str
    package: str
    package_bytes: int
    facts: TargetFacts


@dataclass(frozen=True, slots=True)
class Word:
    """What the believed timestamp says of itself; as it is here, there is none.

    Attributes:
        key: of the server, that signed it; None where there is none.
        version: of the timestamp.
        at_s: when it was signed, in UTC seconds; no later than the root ends, 0 = it does not say.
    """

    key: str | None = None
    version: int = 0
    at_s: float = 0.0


class _UnaskedError(DownloadError):
    """Nobody wants that document now."""


@dataclass(slots=True)
class Traffic:
    """What the documents cost: requests, and bytes of bodies, without heads and TLS."""

    requests: int = 0
    body_bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)


class TufClient:
    """Trusted documents of one device.

    Args:
        folder: where they are kept; made where it is missing.
        root: the document that trust begins with.
        url: of the server: documents lie at URL/v1/tuf.
        tls: how to trust it; None = by the system's certificates.
        patience_s: for all documents together.

    Attributes:
        traffic: what was asked, and came.

    Raises:
        UntrustedError: the root is none.
        UnreachableError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, root: bytes, url: str, tls: ssl.SSLContext | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        self.traffic = Traffic()
        self._folder = folder
        self._fetcher = _Fetcher(url, tls, time.monotonic() + patience_s, self.traffic)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _forget_litter(folder)
            self._updater = Updater(str(folder), f"{url}/v1/tuf", fetcher=self._fetcher, config=_LIMITS, bootstrap=root)
        except RepositoryError as error:
            raise UntrustedError(f"root: {error}") from error
        except OSError as error:
            raise UnreachableError(str(error)) from error

    def refresh(self) -> None:
        """Bring the documents up to date.

        Raises:
            UnreachableError: the link, the server or the disk fails for now.
            UntrustedError: what comes cannot be believed; what was believed before stands.
        """
        try:
            self._updater.refresh()
            self._make_durable()
        except DownloadError as error:
            raise UnreachableError(_in_a_line(error)) from error
        except (RepositoryError, ValueError) as error:
            raise UntrustedError(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            raise UnreachableError(str(error)) from error

    def hear(self) -> None:
        """Bring root and timestamp up to date, and no more; this client finds nothing afterwards.

        Raises:
            UnreachableError, UntrustedError: as `refresh`.
        """
        self._fetcher.roles = (ROOT, TIMESTAMP)
        try:
            self.refresh()
        except UnreachableError as error:
            if not isinstance(error.__cause__, _UnaskedError):
                raise

    def find(self, names: Sequence[str]) -> Vouched | None:
        """Return what is vouched for under the first of these names that anything is; None: nothing is.

        Raises:
            InvalidTargetError: what is said about it cannot be used.
            UnreachableError, UntrustedError: as `refresh`.
        """
        try:
            for name in names:
                found = self._updater.get_targetinfo(name)
                if found is not None:
                    facts = TargetFacts.from_plain(found.custom, name)
                    return Vouched(name, found.hashes.get("sha256", ""), found.length, facts)
            self._make_durable()
        except DownloadError as error:
            raise UnreachableError(_in_a_line(error)) from error
        except RepositoryError as error:
            raise UntrustedError(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            raise UnreachableError(str(error)) from error
        return None

    @property
    def word(self) -> Word:
        """What the server said last.

        Raises:
            TrustError: the root cannot be read.
        """
        root = self._root()
        try:
            stamp = read(Timestamp, self._folder / f"{TIMESTAMP}.json")
        except TrustError:  # none came yet, or the card has lost it
            return Word()
        by = root.get_verification_result(TIMESTAMP, stamp.signed_bytes, stamp.signatures)
        if not by.verified:
            return Word()
        said = stamp.signed.unrecognized_fields.get("at")
        at_s = min(said, int(root.expires.timestamp())) if isinstance(said, int) else 0
        return Word(min(by.signed), stamp.signed.version, float(max(at_s, 0)))

    @property
    def server_keys(self) -> Collection[str]:
        """Those that may sign the timestamp, by the believed root.

        Raises:
            TrustError: the root cannot be read.
        """
        return frozenset(self._root().roles[TIMESTAMP].keyids)

    def _root(self) -> Root:
        return read(Root, self._folder / f"{ROOT}.json").signed

    def _make_durable(self) -> None:
        """python-tuf replaces files whole; that they outlast a power cut is ours to see to."""
        for path in self._folder.rglob("*.json"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(self._folder)


class _Fetcher(FetcherInterface):
    """One connection for all documents, and an end to patience; proxies come from the environment.

    Attributes:
        roles: whose documents are fetched; empty = of all.
    """

    roles: Collection[str] = ()

    def __init__(self, url: str, tls: ssl.SSLContext | None, end_s: float, traffic: Traffic) -> None:
        self._end_s, self._traffic = end_s, traffic
        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme) if not proxy_bypass(parts.hostname or "") else None
        terms: dict[str, Any] = {"retries": False, "maxsize": 1, "headers": {"User-Agent": "edge-agent"}}
        if parts.scheme == "https":
            terms["ssl_context"] = tls or ssl.create_default_context()
        self._pool = urllib3.ProxyManager(proxy, **terms) if proxy else urllib3.PoolManager(**terms)

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if self.roles and name.removesuffix(".json").rpartition(".")[2] not in self.roles:
            raise _UnaskedError(name)
        self._traffic.requests += 1
        response = self._pool.request(
            "GET", url, preload_content=False, redirect=False, timeout=urllib3.Timeout(self._left_s())
        )
        if response.status != 200:
            self._traffic.body_bytes += len(response.read(_CHUNK))
            response.release_conn()
            raise DownloadHTTPError(f"{url}: {response.status}", response.status)
        return self._chunks(response, name)

    def _chunks(self, response: urllib3.BaseHTTPResponse, name: str) -> Iterator[bytes]:
        try:
            while data := response.read1(_CHUNK):  # what is there, for a whole chunk may never be
                self._traffic.body_bytes += len(data)
                self._traffic.sizes[name] = self._traffic.sizes.get(name, 0) + len(data)
                self._left_s()
                yield data
        finally:
            response.release_conn()

    def _left_s(self) -> float:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise SlowRetrievalError
        return min(left_s, _GAP_S)


def _forget_litter(folder: Path) -> None:
    """Remove what a power cut left of python-tuf's temporary files."""
    for path in folder.glob("tmp*"):
        path.unlink(missing_ok=True)


def _in_a_line(error: Exception) -> str:
    cause = error.__cause__
    return f"{error or type(error).__name__}" if cause is None else f"{error}: {cause}"
