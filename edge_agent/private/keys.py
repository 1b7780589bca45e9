"""The key of what a device keeps: a file that its owner alone reads, or a credential of systemd.

Whoever destroys the key has destroyed what it encrypts, on flash too, where nobody knows what overwriting a file does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from edge_agent.private.settings import StoreSettings
from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_CONFIG
from fd_runtime.files import destroy, write_atomically

KEY_BYTES = 32
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what `LoadCredential=` names."""


class KeyFileError(FedistillError):
    """The key is missing, no key, or open to others; names the file."""

    exit_code = EX_CONFIG

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


def key_path(settings: StoreSettings, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return where the key is, or is to be; None: none is configured.

    Raises:
        KeyFileError: a credential is asked for, and systemd has given none.
    """
    if settings.credential is None:
        return settings.key_file
    folder = environ.get(_CREDENTIALS)
    if folder is None:
        raise KeyFileError(Path(settings.credential), f"no credential: {_CREDENTIALS} is not set (LoadCredential=)")
    return Path(folder) / settings.credential


def read_key(path: Path) -> bytes | None:
    """Return the 32 bytes of the key; None: there is no such file.

    Raises:
        KeyFileError: it is no key, or others may read it.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read(4 * KEY_BYTES)
    except FileNotFoundError:
        return None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(path, f"others may read it (mode {stat.S_IMODE(mode):o}): chmod 600")
    if len(content) == KEY_BYTES:
        return content
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(content.decode("ascii", "replace").strip())
        if len(key) == KEY_BYTES:
            return key
    raise KeyFileError(path, f"a key has {KEY_BYTES} bytes, or {2 * KEY_BYTES} hexadecimal digits")


def make_key(path: Path) -> bytes:
    """Write a new key to `path`, mode 600, and return it.

    Raises:
        OSError: it cannot be written.
    """
    key = secrets.token_bytes(KEY_BYTES)
    write_atomically(path, key, mode=0o600)
    return key


def destroy_key(path: Path) -> bool:
    """Overwrite the key and delete it; return whether there was one.

    Raises:
        OSError: it can be neither written nor deleted, as a credential of systemd.
    """
    try:
        destroy(path)
    except FileNotFoundError:
        return False
    return True
