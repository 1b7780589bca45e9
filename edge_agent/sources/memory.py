"""Which files a source has read already, over restarts: a small database in the state folder.

A file is known by a digest of its name, size and time of change: nothing in here tells what was in a folder. What is in
the folder no more is forgotten, so the memory is as large as the folder.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from pathlib import Path

from fd_protocol.identity import sha256
from fd_runtime.storage.store import Store, Tables

_TABLES = Tables(
    ("CREATE TABLE seen (source TEXT, file BLOB, PRIMARY KEY (source, file)) WITHOUT ROWID",),
    is_shared=True,
    log_bytes=1 << 20,
)
_KEY_BYTES = 16


class Memory:
    """The database at `path`; None keeps it in memory. Any thread may use it.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._database, self._lock = Store.open(path, _TABLES), threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def of(self, source: str) -> SeenFiles:
        return SeenFiles(self._database, self._lock, source)


class SeenFiles:
    """What one source has read. One thread uses it."""

    def __init__(self, database: Store, lock: threading.Lock, source: str) -> None:
        self._database, self._lock, self._source = database, lock, source
        with lock:
            self._keys = {row["file"] for row in database.rows("seen", {"source": source}, columns="file")}

    @staticmethod
    def key(name: str, changed_ns: int, size: int) -> bytes:
        """Return what a file is known by; one that was written anew is another."""
        return sha256(f"{changed_ns}/{size}/{name}".encode("utf-8", "surrogateescape"))[:_KEY_BYTES]

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Iterable[bytes]) -> None:
        """Raises: StoreError: they are not remembered."""
        fresh = set(keys) - self._keys
        if fresh:
            with self._lock, self._database.transaction():
                for key in fresh:
                    self._database.merge("seen", {"source": self._source, "file": key}, {})
            self._keys |= fresh

    def keep_only(self, keys: Collection[bytes]) -> None:
        """Forget all others. Raises: StoreError: they are not forgotten."""
        gone = self._keys.difference(keys)
        if gone:
            with self._lock, self._database.transaction():
                for key in gone:
                    self._database.delete_rows("seen", {"source": self._source, "file": key})
            self._keys -= gone
