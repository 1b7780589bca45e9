"""Sockets of this machine, and the token of the one that every user can reach."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_runtime.files import write_atomically

LOOPBACK = "127.0.0.1"
_LONGEST_PATH = 100
"""Of a Unix socket's address, 108 bytes are all there is."""
_MIN_TOKEN = 16


class TokenError(FedistillError):
    """The token cannot be used: others may read it, or it is none."""

    exit_code = 77  # EX_NOPERM


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Yield an address for the Unix socket at `path`, however long its folder's name is.

    Raises:
        OSError: there is no such folder.
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen_unix(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, which only this user can connect to. One that is there is replaced.

    Raises:
        OSError: no such folder, or something else than a socket is in the way.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InvalidValueError(f"{path} is there and is no socket")
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listening.fileno(), 0o600)  # before it has a name: at no moment is it open to others
        with reachable(fresh) as address:
            listening.bind(address)
        listening.listen(16)
        # One of a life that ended without a word is replaced in one step: whoever starts holds the state folder's lock.
        fresh.replace(path)
    except BaseException:
        listening.close()
        raise
    return listening


def listen_tcp(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1, and never on another address.

    Raises:
        OSError: the port is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(16)
    except BaseException:
        listening.close()
        raise
    return listening


def connect_unix(path: Path, timeout_s: float | None) -> socket.socket:
    """Return a connection to the Unix socket at `path`.

    Raises:
        OSError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with reachable(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def read_token(path: Path) -> str:
    """Return the token in the file at `path`; make it where there is none.

    Raises:
        TokenError: others may read it, or it has under 16 characters.
        OSError: it cannot be read or written.
    """
    if not path.exists():
        write_atomically(path, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TokenError(f"{path} may be read by others: chmod 600 {path}")
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise TokenError(f"{path}: a token has at least {_MIN_TOKEN} printable characters")
    return token
