"""What the long-running programs share around their loop: broker settings, blame, one process a folder, signals."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_runtime.config import EX_TEMPFAIL, exit_code_for
from fd_runtime.links.link import Link, Proxy, TlsFiles
from fd_runtime.links.proxies import parse_proxy

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FAREWELL_S = 1.0
_LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The way out of a closed network: `http://user:word@proxy:3128` or `socks5://proxy:1080`.

    `bypass` lists hosts that are reached without it, with commas between them.
    """

    url: str = field(repr=False)
    bypass: str = ""

    def __post_init__(self) -> None:
        parse_proxy(self.url)

    @property
    def parsed(self) -> Proxy:
        return parse_proxy(self.url, self.bypass)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is. Without `tls` it must be on this machine."""

    host: str = "localhost"
    port: int = 8883
    tls: TlsFiles | None = None
    username: str | None = None
    proxy: ProxySettings | None = None

    @property
    def way(self) -> Proxy | None:
        """The proxy on the way there that these settings name."""
        return None if self.proxy is None else self.proxy.parsed

    def __post_init__(self) -> None:
        if self.tls is None and self.host not in LOOPBACK:
            raise InvalidValueError(f"a broker on {self.host} needs [broker.tls]: without it anyone can read along")


class StartError(FedistillError):
    """A program cannot start; one line says which key of which file is to blame."""

    def __init__(self, path: Path, key: str, error: Exception) -> None:
        self.exit_code = exit_code_for(error)
        super().__init__(f"{path}: {key}: {error}")


class FolderInUseError(FedistillError):
    """Another process holds the folder."""

    exit_code = EX_TEMPFAIL


@contextmanager
def blame(path: Path, key: str) -> Iterator[None]:
    """Turn an error inside into a `StartError` about `key` of the settings file at `path`."""
    try:
        yield
    except (FedistillError, OSError, ImportError) as error:
        raise StartError(path, key, error) from error


@contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file at `path`; the kernel lets go of it with the process, however that ends.

    Raises:
        FolderInUseError: another process holds it, and `wait` is false.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path, wait=wait)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool | None:
    """Return whether another process holds the lock file at `path`, without touching it: to try would disturb a start.

    None: this system does not tell (no /proc/locks).
    """
    try:
        number = path.stat().st_ino
    except FileNotFoundError:
        return False
    try:
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    # "1: FLOCK  ADVISORY  WRITE 3021 fd:01:1312 0 EOF"; some file systems number devices otherwise there than in stat.
    return any("FLOCK" in line and line.split()[5].endswith(f":{number}") for line in lines)


def _lock(descriptor: int, path: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise FolderInUseError(f"{path.parent} is in use by another process") from error


class Stop:
    """From now on SIGINT and SIGTERM end the process's loop: the one that runs, or the next one before it begins."""

    def __init__(self) -> None:
        self._is_due = False
        self._wake: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def loop(self, pump: Callable[[], object], wake: Callable[[], None]) -> None:
        """Call `pump` again and again until a signal, which ends its wait by `wake`."""
        self._wake = wake
        while not self._is_due:
            pump()

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._is_due = True
        self._wake()


def until_signalled(pump: Callable[[], object], wake: Callable[[], None]) -> None:
    """Call `pump` again and again until SIGINT or SIGTERM, which ends its wait by `wake`."""
    Stop().loop(pump, wake)


def close_soon(link: Link) -> None:
    """Close the link; one that is waiting for an unreachable broker ends with the process."""
    closing = threading.Thread(target=link.close, daemon=True)
    closing.start()
    closing.join(_FAREWELL_S)
