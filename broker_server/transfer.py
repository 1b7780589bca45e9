"""A federation's memory as one file: to another machine, or into a drawer.

    gzip of   frame*        frame = length (4 bytes, big-endian), then strict CBOR
    first     {"format": "fedistill federation", "version": 1, "schema": 3, "federation": name}
    then      [table, {column: value}] for every row, every blob
    last      {"rows": count, "sha256": of all bytes before}

Numbers, text and bytes, and nothing that runs. A reader checks the last frame before anything of the file counts: the
database is made under another name and gets its own in one step. What comes to life from a file has been overtaken by
nobody or by somebody, and cannot know: it begins a new epoch.

A `backup` is something else: a copy of the database, for this machine, made while the server runs.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker_server.core.events import EpochBegun
from broker_server.journal import Journal
from fd_protocol import cbor
from fd_protocol.errors import DecodeError, FedistillError
from fd_runtime.config import EX_DATAERR
from fd_runtime.files import new_file
from fd_runtime.storage.store import GAINS, JOURNAL, Store, StoreError

FORMAT, VERSION = "fedistill federation", 1
MAX_FRAME_BYTES = 256 << 20
_LENGTH_BYTES = 4

log = logging.getLogger("broker-server")

Told = Callable[[int], None]
"""Is told how many rows were written or read, now and then."""


class TransferError(FedistillError):
    """The file cannot be taken in; nothing of it was."""

    exit_code = EX_DATAERR

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        super().__init__(f"{path}: {detail}")


def export_federation(store: Store, federation: str, path: Path, told: Told = lambda _: None) -> int:
    """Write all of a federation, as it is at this moment, to the new file `path`; return the number of rows.

    Raises:
        FileExistsError: there is such a file.
    """
    with new_file(path) as part, part.open("wb") as raw, store.moment():
        # No name and no time in the head: the same federation is the same file.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            frames = _Writer(packed)
            frames.write({"format": FORMAT, "version": VERSION, "schema": store.version, "federation": federation})
            for table, row in store.dump(federation):
                frames.write([table, row])
                told(frames.count - 1)
            rows = frames.count - 1
            frames.write({"rows": rows, "sha256": frames.digest.digest()})
        raw.flush()
        os.fsync(raw.fileno())
    return rows


def import_federation(
    path: Path, federation: str, database: Path, epoch: EpochBegun, told: Told = lambda _: None
) -> int:
    """Make the new `database` of what the file at `path` holds, in a new epoch; return the number of rows.

    Raises:
        FileExistsError: there is a database.
        TransferError: the file is damaged, cut short, of a newer version, or of another federation.
    """
    with new_file(database) as part, closing(Store.open(part)) as store:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as packed, store.transaction():
            rows = _fill(store, path, federation, _frames(path, packed), told)
            Journal(store, federation).write([epoch], epoch.at_ms)
            if faults := store.faults():
                raise TransferError(path, faults[0])
        store.seal()
    return rows


def backup(store: Store, path: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
    """Copy the database, as it is at this moment, to the new file `path`; the server may go on writing.

    Raises:
        FileExistsError: there is such a file.
        StoreError: it cannot be copied.
    """
    with new_file(path) as part:
        store.copy_to(part, progress)


def restore(path: Path, federation: str, database: Path, epoch: EpochBegun) -> Path | None:
    """Put the backup at `path` in the place of `database`, in a new epoch; return where the one before lies now.

    Raises:
        StoreError: it is no database, or not a sound one; nothing has changed.
        TransferError: it knows nothing of the federation; nothing has changed.
    """
    fresh = database.with_name(f"{database.name}.restored")
    fresh.unlink(missing_ok=True)
    with Store.view(path) as kept:
        if federation not in kept.federations():
            raise TransferError(path, f"knows nothing of federation {federation!r}")
        backup(kept, fresh)
    with closing(Store.open(fresh)) as store:
        Journal(store, federation).write([epoch], epoch.at_ms)
        store.seal()
    aside = _put_aside(database, epoch.at_ms)
    fresh.rename(database)
    return aside if aside.exists() else None


def _put_aside(database: Path, at_ms: int) -> Path:
    """Move a database to another name, which is returned: in one step, so that a kill never parts it from its log.

    One that is too damaged to be opened goes before its log: what stays then is played into nothing, for there is
    no database under its name. A log that stayed for good would be played into the backup.
    """
    aside = database.with_name(f"{database.name}.{at_ms}")
    if database.exists():
        try:
            with closing(Store.open(database)) as store:
                store.seal()
        except StoreError as error:
            log.warning("what was there is moved as it is: %s", error)
    for end in ("", "-journal", "-wal", "-shm"):
        left = database.with_name(database.name + end)
        if left.exists():
            left.rename(aside.with_name(aside.name + end))
    return aside


def _fill(store: Store, path: Path, federation: str, frames: Iterator[cbor.Item], told: Told) -> int:
    """Load what stands between the first frame and the last."""
    store.upgrade(_schema(path, federation, next(frames)))
    rows = 0
    for frame in frames:
        match frame:
            case [str(table), dict(row)]:
                _load(store, path, table, row)
                rows += 1
                told(rows)
            case {"rows": int(count)} if count == rows:
                break
            case _:
                raise TransferError(path, "damaged")
    return rows


def _schema(path: Path, federation: str, head: cbor.Item) -> int:
    """Return the version of the tables, from the first frame."""
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise TransferError(path, "not an exported federation")
    if head.get("version") != VERSION:
        raise TransferError(path, f"version {head.get('version')!r} of the format, this program knows {VERSION}")
    if head.get("federation") != federation:
        raise TransferError(path, f"holds federation {head.get('federation')!r}, the settings say {federation!r}")
    schema = head.get("schema")
    if not isinstance(schema, int) or not JOURNAL <= schema <= GAINS:
        raise TransferError(path, f"made by a newer version (schema {schema!r}, this one knows {GAINS})")
    return schema


def _load(store: Store, path: Path, table: str, row: dict[Any, Any]) -> None:
    try:
        store.load(table, row)
    except StoreError as error:
        raise TransferError(path, f"a row does not fit: {error}") from error


@dataclass(slots=True)
class _Writer:
    """Writes frames, and knows the digest of all so far."""

    file: gzip.GzipFile
    count: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def write(self, item: object) -> None:
        body = cbor.encode(item)
        frame = len(body).to_bytes(_LENGTH_BYTES, "big") + body
        self.file.write(frame)
        self.digest.update(frame)
        self.count += 1


def _frames(path: Path, file: gzip.GzipFile) -> Iterator[cbor.Item]:
    """Yield the items of a file; that with the digest only where it is right and the last.

    Raises:
        TransferError: the file is damaged or cut short.
    """
    digest = hashlib.sha256()
    while True:
        head = _read(path, file, _LENGTH_BYTES)
        length = int.from_bytes(head, "big")
        if len(head) < _LENGTH_BYTES or length > MAX_FRAME_BYTES:
            raise TransferError(path, "cut short, or damaged")
        body = _read(path, file, length)
        try:
            item = cbor.decode(body, max_items=length + 1)
        except DecodeError as error:
            raise TransferError(path, f"damaged: {error}") from error
        if isinstance(item, dict) and "sha256" in item:
            if item["sha256"] != digest.digest() or _read(path, file, 1):
                raise TransferError(path, "damaged: its digest is another")
            yield item
            return
        digest.update(head + body)
        yield item


def _read(path: Path, file: gzip.GzipFile, count: int) -> bytes:
    try:
        return file.read(count)
    except (OSError, EOFError, zlib.error) as error:  # what gzip raises for damage, and for an end too soon
        raise TransferError(path, f"damaged: {error}") from error
