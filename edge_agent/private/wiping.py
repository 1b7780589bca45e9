"""The end of all private rows: the key first, then the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.private.keys import destroy_key, key_path
from edge_agent.private.settings import StoreSettings
from fd_runtime.files import destroy, sync_folder


@dataclass(frozen=True, slots=True)
class Wiped:
    """What was destroyed; both may have been absent. `key` is the path of a key that only others can destroy."""

    had_key: bool
    had_rows: bool
    key: Path | None = None


def wipe(path: Path, settings: StoreSettings) -> Wiped:
    """Destroy the key of the store at `path`, then its files. The worker must not run: hold its lock.

    A credential of systemd is not ours to destroy; `Wiped.key` names it. Of a store without a key the files are
    written over and removed, which on flash is no promise about what the chip still holds.

    Raises:
        OSError: something cannot be destroyed; whatever came before it is.
        KeyFileError: a credential is configured, and systemd has given none: nothing has happened.
    """
    key = key_path(settings)
    had_key = key is not None and settings.credential is None and destroy_key(key)
    files = sorted(path.parent.glob(f"{path.name}*"))
    for file in files:
        if file.is_symlink():
            file.unlink()
        else:
            destroy(file)
    if files:
        sync_folder(path.parent)
    return Wiped(had_key, bool(files), key if settings.credential is not None else None)
