"""What a program must not forget, in one SQLite file: its journal, its blobs, the payloads it has accepted.

    events    the journal since the last snapshot: state = fold of events onto the snapshot
    blobs     bytes by their SHA-256; events and rows name them, so arrays never enter a state
    payloads  what each device sent, one row per (federation, epoch, round, device, kind): the key is the dedupe
    parts     pieces of payloads that are not complete yet
    meta      a few named values

and, where a program asks for them (`upgrade`), tables of records that people look back at: rounds, hearings, devices,
commands. Their rows are maps of column names to values; what a column means is for the program to say. A program may
also bring tables of its own in the place of all of these (`Tables`): rows, named values and transactions are the same.

A database has a version, that of the newest tables in it. `open` takes it as it is: an agent's stays at version 1, so
that the agent of the version before reads it still.

A write is on the disk when its transaction ends (WAL, synchronous=FULL), and only then. A `Store` belongs to one
thread, unless its tables say otherwise; `reader()` gives another thread its own view. The only home of `sqlite3`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fd_protocol.errors import FedistillError
from fd_protocol.identity import sha256
from fd_runtime.config import EX_IOERR

JOURNAL, RECORDS, GAINS = 1, 2, 3
"""Versions of a database: journal, blobs and payloads alone; tables of records beside them; in these, what each device
gained and gave."""

Value: TypeAlias = "int | float | str | bytes | None"
Row: TypeAlias = "Mapping[str, Value]"

META_TABLE = "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
_JOURNAL = f"""
CREATE TABLE events (seq INTEGER PRIMARY KEY, fed TEXT NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
                     body BLOB NOT NULL);
CREATE TABLE snapshots (fed TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blobs (sha256 BLOB PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE payloads (fed TEXT, kind TEXT, device TEXT, round INTEGER, epoch INTEGER, sha256 BLOB NOT NULL,
                       content BLOB NOT NULL, PRIMARY KEY (fed, kind, device, round, epoch)) WITHOUT ROWID;
CREATE TABLE parts (fed TEXT, kind TEXT, device TEXT, part INTEGER, sha256 BLOB NOT NULL, body BLOB NOT NULL,
                    PRIMARY KEY (fed, kind, device, part));
{META_TABLE}
"""
_RECORDS = """
CREATE TABLE rounds (fed TEXT, number INTEGER, epoch INTEGER NOT NULL DEFAULT 0, opened_ms INTEGER NOT NULL DEFAULT 0,
                     deadline_ms INTEGER NOT NULL DEFAULT 0, ended_ms INTEGER NOT NULL DEFAULT 0,
                     phase TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', method TEXT NOT NULL DEFAULT '',
                     codec TEXT NOT NULL DEFAULT '', temperature REAL NOT NULL DEFAULT 0,
                     start INTEGER NOT NULL DEFAULT 0, probes INTEGER NOT NULL DEFAULT 0,
                     invited INTEGER NOT NULL DEFAULT 0, heard INTEGER NOT NULL DEFAULT 0,
                     quorum INTEGER NOT NULL DEFAULT 0, up_bytes INTEGER NOT NULL DEFAULT 0,
                     down_bytes INTEGER NOT NULL DEFAULT 0, consensus_sha256 BLOB NOT NULL DEFAULT x'',
                     metrics TEXT NOT NULL DEFAULT '{}', student TEXT NOT NULL DEFAULT '{}',
                     offer BLOB NOT NULL DEFAULT x'', terms TEXT NOT NULL DEFAULT '{}',
                     trust BLOB NOT NULL DEFAULT x'', made_sha256 BLOB NOT NULL DEFAULT x'',
                     PRIMARY KEY (fed, number)) WITHOUT ROWID;
CREATE TABLE hearings (fed TEXT, round INTEGER, device TEXT, kind TEXT, sha256 BLOB, epoch INTEGER NOT NULL DEFAULT 0,
                       arrived_ms INTEGER NOT NULL DEFAULT 0, payload_bytes INTEGER NOT NULL DEFAULT 0,
                       status TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', share REAL, agreement REAL,
                       weight INTEGER NOT NULL DEFAULT 0, labels BLOB NOT NULL DEFAULT x'',
                       map BLOB NOT NULL DEFAULT x'', report TEXT NOT NULL DEFAULT '{}',
                       PRIMARY KEY (fed, round, device, kind, sha256)) WITHOUT ROWID;
CREATE INDEX hearings_of_a_device ON hearings (fed, device, round);
CREATE TABLE devices (fed TEXT, device TEXT, first_seen_ms INTEGER NOT NULL DEFAULT 0,
                      last_seen_ms INTEGER NOT NULL DEFAULT 0, online INTEGER NOT NULL DEFAULT 0,
                      boot INTEGER NOT NULL DEFAULT 0, agent TEXT NOT NULL DEFAULT '', bundle BLOB NOT NULL DEFAULT x'',
                      family TEXT NOT NULL DEFAULT '', runtime TEXT NOT NULL DEFAULT '',
                      problem TEXT NOT NULL DEFAULT '', rounds INTEGER NOT NULL DEFAULT 0,
                      refused INTEGER NOT NULL DEFAULT 0, up_bytes INTEGER NOT NULL DEFAULT 0, trust REAL,
                      report TEXT NOT NULL DEFAULT '{}', tags TEXT NOT NULL DEFAULT '[]',
                      replaced_by TEXT NOT NULL DEFAULT '', PRIMARY KEY (fed, device)) WITHOUT ROWID;
CREATE TABLE commands (fed TEXT, id TEXT, at_ms INTEGER NOT NULL DEFAULT 0, who TEXT NOT NULL DEFAULT '',
                       role TEXT NOT NULL DEFAULT '', command TEXT NOT NULL DEFAULT '',
                       arguments TEXT NOT NULL DEFAULT '{}', outcome TEXT NOT NULL DEFAULT '',
                       PRIMARY KEY (fed, id)) WITHOUT ROWID;
"""
_GAINS = """
ALTER TABLE hearings ADD COLUMN canaries REAL;
ALTER TABLE hearings ADD COLUMN influence REAL;
ALTER TABLE devices ADD COLUMN first_canaries REAL;
ALTER TABLE devices ADD COLUMN last_canaries REAL;
ALTER TABLE devices ADD COLUMN first_hold_out REAL;
ALTER TABLE devices ADD COLUMN last_hold_out REAL;
ALTER TABLE devices ADD COLUMN influence REAL;
"""
_RECORD_TABLES = ("rounds", "hearings", "devices", "commands")
_READERS_MS = 200
"""How long those who read are waited for, before old pages are left to a later try."""
_COPY_PAGES = 2048
"""Of 4 KiB, between two words on progress."""
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Tables:
    """What a database holds, and how it keeps it.

    Attributes:
        schemas: statements, parted by `;`, that each version adds to the one before; `META_TABLE` is one of them where
            named values are asked for.
        is_shared: several threads use it, one at a time: whoever opens it has a lock.
        is_forgetful: what is deleted is overwritten in the file (`secure_delete`), and gone from the log after `flush`.
        log_bytes: the write-ahead log beside the file is written back, and cut, at about this size.
    """

    schemas: tuple[str, ...]
    is_shared: bool = False
    is_forgetful: bool = False
    log_bytes: int = 64 << 20


_FEDERATED = Tables((_JOURNAL, _RECORDS, _GAINS))
_CHECKPOINT_PAGES = 1000  # as SQLite has it


class StoreError(FedistillError):
    """The database cannot be opened, read or written; carries its path."""

    def __init__(self, path: Path | None, detail: str) -> None:
        self.path = path
        super().__init__(f"store {path or 'in memory'}: {detail}")


class StoreUnwritableError(StoreError):
    """The disk takes nothing. The transaction was rolled back; the store goes on working once it takes something."""

    exit_code = EX_IOERR


class StoreFullError(StoreUnwritableError):
    """No room on the device."""


class StoreReadOnlyError(StoreUnwritableError):
    """The disk is failing, or was mounted read-only, as Linux does with one that fails."""


class MissingBlobError(StoreError):
    """No blob with this digest."""


_UNWRITABLE: Mapping[str, type[StoreError]] = {
    "disk is full": StoreFullError,
    "readonly database": StoreReadOnlyError,
    "disk I/O error": StoreReadOnlyError,
}
"""What SQLite says; its codes reach Python from 3.11 on."""


@dataclass(frozen=True, slots=True)
class PayloadRow:
    """An accepted payload.

    Attributes:
        kind: as in `fd_protocol.messages.Kind`.
        device: who sent it.
        round: number of its round.
        epoch: epoch of its round.
        sha256: of the payload as it was sent.
        content: digest of the blob that holds what it decoded to.
    """

    kind: str
    device: str
    round: int
    epoch: int
    sha256: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class PartRow:
    """One part of the payload `sha256`; `part` is its index."""

    kind: str
    device: str
    sha256: bytes
    part: int
    body: bytes


class Store:
    """One database; see the module's table. Use `Store.open`."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, tables: Tables = _FEDERATED) -> None:
        self.path = path
        self._connection, self._tables = connection, tables
        self._columns: dict[str, frozenset[str]] = {}

    @classmethod
    def open(cls, path: Path | None, tables: Tables = _FEDERATED) -> Store:
        """Open or create the database at `path`; None keeps it in memory.

        Raises:
            StoreError: it cannot be opened, is no database of ours, or a newer version made it.
        """
        try:
            # isolation_level=None: the module opens and ends transactions itself.
            connection = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=not tables.is_shared
            )
            store = cls(connection, path, tables)
        except sqlite3.Error as error:
            raise StoreError(path, str(error)) from error
        store._prepare()
        return store

    @contextmanager
    def reader(self) -> Iterator[Store]:
        """A read-only view for the thread that asks; an in-memory store, which has one thread only, gives itself."""
        if self.path is None:
            yield self
            return
        with self.view(self.path) as reader:
            yield reader

    @classmethod
    @contextmanager
    def view(cls, path: Path) -> Iterator[Store]:
        """A read-only view of a database that another process may be writing.

        Raises:
            StoreError: there is none yet.
        """
        try:
            reader = cls(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None), path)
        except sqlite3.Error as error:
            raise StoreError(path, str(error)) from error
        try:
            yield reader
        finally:
            reader.close()

    def _prepare(self) -> None:
        self._execute("PRAGMA journal_mode=WAL")
        self._execute("PRAGMA synchronous=FULL")
        tables, known = self._tables, len(self._tables.schemas)
        self._execute(f"PRAGMA journal_size_limit={tables.log_bytes}")
        pages = min(_CHECKPOINT_PAGES, max(1, tables.log_bytes // _PAGE_BYTES))
        self._execute(f"PRAGMA wal_autocheckpoint={pages}")
        if tables.is_forgetful:
            self._execute("PRAGMA secure_delete=ON")
        if self.version > known:
            raise StoreError(self.path, f"made by a newer version (schema {self.version}, this one knows {known})")
        self.upgrade(JOURNAL)

    @property
    def version(self) -> int:
        """JOURNAL, RECORDS or GAINS; 0 before there is anything."""
        (version,) = self._execute("PRAGMA user_version").fetchone()
        return int(version)

    def upgrade(self, version: int) -> None:
        """Add what a database of `version` has and this one lacks: all of it, or nothing where that fails."""
        if self.version >= version:
            return
        with self.transaction():
            for schema in self._tables.schemas[self.version : version]:
                for statement in schema.split(";"):
                    self._execute(statement)
            self._execute(f"PRAGMA user_version={max(version, self.version)}")

    @property
    def changes(self) -> int:
        """A number that is another one once another program has written; of use while this store stays open."""
        (number,) = self._execute("PRAGMA data_version").fetchone()
        return int(number)

    def close(self) -> None:
        self._connection.close()

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _stream(self, statement: str, values: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
        """Yield rows as maps; a database may turn out torn at any of them."""
        try:
            cursor = self._connection.execute(statement, values)
            names = [column[0] for column in cursor.description]
            for row in cursor:
                yield dict(zip(names, row, strict=True))
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> StoreError:
        kinds = (kind for text, kind in _UNWRITABLE.items() if text in str(error))
        return next(kinds, StoreError)(self.path, str(error))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, durably, or nothing does. An inner transaction is part of the outer one."""
        if self._connection.in_transaction:
            yield
            return
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        finally:
            # SQLite itself has rolled back after some errors, a full disk among them.
            if self._connection.in_transaction:
                self._execute("ROLLBACK")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is written inside is taken back where it raises; the transaction around it goes on."""
        self._execute("SAVEPOINT here")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # else SQLite itself has rolled all of it back
                self._execute("ROLLBACK TO here")
                self._execute("RELEASE here")
            raise
        self._execute("RELEASE here")

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Inside, everything that is read is of one moment, whatever another connection commits meanwhile."""
        self._execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")

    # The journal.

    def append(self, federation: str, kind: str, at_ms: int, body: bytes) -> int:
        """Add an event to the journal and return its number."""
        statement = "INSERT INTO events (fed, kind, at_ms, body) VALUES (?, ?, ?, ?)"
        return self._execute(statement, (federation, kind, at_ms, body)).lastrowid or 0

    def replay(self, federation: str) -> tuple[bytes | None, list[tuple[str, bytes]]]:
        """Return the last snapshot, if any, and the (kind, body) of every event since, in order."""
        row = self._execute("SELECT body FROM snapshots WHERE fed = ?", (federation,)).fetchone()
        events = self._execute("SELECT kind, body FROM events WHERE fed = ? ORDER BY seq", (federation,)).fetchall()
        return (row[0] if row else None), events

    def snapshot(self, federation: str, body: bytes) -> None:
        """Put `body`, the folded state, in the place of all events so far."""
        with self.transaction():
            self._execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (federation, body))
            self._execute("DELETE FROM events WHERE fed = ?", (federation,))

    # Blobs.

    def put_blob(self, data: bytes) -> bytes:
        """Keep `data` and return its SHA-256."""
        digest = sha256(data)
        self._execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest, data))
        return digest

    def blob(self, digest: bytes) -> bytes:
        """Return the bytes whose SHA-256 is `digest`.

        Raises:
            MissingBlobError: there are none.
        """
        row = self._execute("SELECT bytes FROM blobs WHERE sha256 = ?", (digest,)).fetchone()
        if row is None:
            raise MissingBlobError(self.path, f"no blob {digest.hex()[:16]}...")
        return bytes(row[0])

    def has_blob(self, digest: bytes) -> bool:
        return bool(self._execute("SELECT 1 FROM blobs WHERE sha256 = ?", (digest,)).fetchone())

    def delete_blobs_except(self, keep: Collection[bytes]) -> int:
        """Delete every blob whose digest is not in `keep`; return how many went."""
        kept = set(keep)
        digests = self._execute("SELECT sha256 FROM blobs").fetchall()
        stale = [row for row in digests if row[0] not in kept]
        with self.transaction():
            for row in stale:
                self._execute("DELETE FROM blobs WHERE sha256 = ?", row)
        return len(stale)

    # Accepted payloads.

    def put_payload(self, federation: str, row: PayloadRow) -> None:
        """Keep `row`; one with the same key gives way."""
        values = (federation, row.kind, row.device, row.round, row.epoch, row.sha256, row.content)
        self._execute("INSERT OR REPLACE INTO payloads VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def payloads(self, federation: str, kind: str, device: str | None = None) -> list[PayloadRow]:
        """Return the accepted payloads of `device`, or of every device in the order of names, newest first."""
        one = "" if device is None else "AND device = ?"
        statement = f"""SELECT kind, device, round, epoch, sha256, content FROM payloads
            WHERE fed = ? AND kind = ? {one} ORDER BY device, round DESC, epoch DESC"""  # noqa: S608 - no input in it
        values = (federation, kind) if device is None else (federation, kind, device)
        return [PayloadRow(*row) for row in self._execute(statement, values)]

    def delete_payload(self, federation: str, row: PayloadRow) -> None:
        statement = "DELETE FROM payloads WHERE fed = ? AND kind = ? AND device = ? AND round = ? AND epoch = ?"
        self._execute(statement, (federation, row.kind, row.device, row.round, row.epoch))

    # Parts of payloads.

    def put_part(self, federation: str, row: PartRow) -> None:
        """Keep a part; parts of another payload of this device and kind go."""
        scope = (federation, row.kind, row.device)
        self._execute(
            "DELETE FROM parts WHERE fed = ? AND kind = ? AND device = ? AND sha256 <> ?", (*scope, row.sha256)
        )
        self._execute(
            "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", (*scope, row.part, row.sha256, row.body)
        )

    def part_numbers(self, federation: str, kind: str, device: str, digest: bytes) -> set[int]:
        """Return which parts were put of the payload `digest`."""
        statement = "SELECT part FROM parts WHERE fed = ? AND kind = ? AND device = ? AND sha256 = ?"
        return {part for (part,) in self._execute(statement, (federation, kind, device, digest))}

    def parts(self, federation: str, kind: str, device: str, digest: bytes) -> list[PartRow]:
        """Return what was put of the payload `digest`, in the order of the parts."""
        statement = """SELECT kind, device, sha256, part, body FROM parts
            WHERE fed = ? AND kind = ? AND device = ? AND sha256 = ? ORDER BY part"""
        return [PartRow(*row) for row in self._execute(statement, (federation, kind, device, digest))]

    def delete_parts(self, federation: str, kind: str | None = None, device: str | None = None) -> int:
        """Forget the parts of one device's payload, or of every payload of the federation; return how many went."""
        statement = "DELETE FROM parts WHERE fed = ? AND kind = ifnull(?, kind) AND device = ifnull(?, device)"
        return self._execute(statement, (federation, kind, device)).rowcount

    # Named values.

    def delete_metas(self, prefix: str, holding: bytes) -> int:
        """Delete the values under keys with this prefix that hold these bytes; return how many went."""
        statement = "DELETE FROM meta WHERE substr(key, 1, length(?1)) = ?1 AND instr(value, ?2)"
        return self._execute(statement, (prefix, holding)).rowcount

    def metas(self, prefix: str) -> list[tuple[str, bytes]]:
        """Return (key, value) of all keys that begin with `prefix`, in their order."""
        statement = "SELECT key, value FROM meta WHERE key >= ?1 AND key < ?1 || char(1114111) ORDER BY key"
        return [(key, bytes(value)) for key, value in self._execute(statement, (prefix,))]

    def meta(self, key: str) -> bytes | None:
        row = self._execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else None

    def set_meta(self, key: str, value: bytes) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # Rows of records. Names of tables and columns are the caller's own words, never what a peer sent.

    def merge(self, table: str, key: Row, values: Row, add: Row | None = None) -> None:
        """Set `values` in the row of `key` and add `add` to its numbers; the row is made where there is none."""
        names, add = [*key, *values, *(add or {})], add or {}
        changes = [f"{name} = excluded.{name}" for name in values]
        changes += [f"{name} = {table}.{name} + excluded.{name}" for name in add]
        action = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
        self._execute(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - see above
            f"ON CONFLICT ({', '.join(key)}) DO {action}",
            (*key.values(), *values.values(), *add.values()),
        )

    def fill(self, table: str, column: str, source: str, where: Row) -> None:
        """Set `column` to `source` in the rows that `rows` would return, where it is not known yet."""
        statement = f"UPDATE {table} SET {column} = {source} WHERE {_all_of(where)} AND {column} IS NULL"  # noqa: S608
        self._execute(statement, tuple(where.values()))

    def rows(
        self, table: str, where: Row, order: str = "", limit: int = -1, *, columns: str = "*"
    ) -> list[dict[str, Any]]:
        """Return the rows where each name has its value: {"fed": "plant", "number <": 7}; `limit` -1 = all of them."""
        order = f"ORDER BY {order}" if order else ""
        statement = f"SELECT {columns} FROM {table} WHERE {_all_of(where)} {order} LIMIT ?"  # noqa: S608 - see above
        return list(self._stream(statement, (*where.values(), limit)))

    def count(self, table: str, where: Row) -> int:
        """Return how many rows `rows` would return."""
        statement = f"SELECT count(*) FROM {table} WHERE {_all_of(where)}"  # noqa: S608 - see above
        (number,) = self._execute(statement, tuple(where.values())).fetchone()
        return int(number)

    def spread(self, table: str, value: str, by: str, where: Row) -> dict[Any, tuple[float, float, float]]:
        """Return (least, mean, most) of what is known of `value` in the rows of each value of column `by`.

        `value` is an expression of columns.
        """
        statement = f"""SELECT {by}, min({value}), avg({value}), max({value}) FROM {table}
            WHERE {_all_of(where)} AND {value} IS NOT NULL GROUP BY {by}"""  # noqa: S608 - see above
        found = self._execute(statement, tuple(where.values())).fetchall()
        return {key: (least, mean, most) for key, least, mean, most in found}

    def delete_rows(self, table: str, where: Row) -> int:
        """Delete the rows that `rows` would return; return how many went."""
        statement = f"DELETE FROM {table} WHERE {_all_of(where)}"  # noqa: S608 - see above
        return self._execute(statement, tuple(where.values())).rowcount

    # The whole of it.

    def dump(self, federation: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every row of a federation with the name of its table, and every blob; half payloads stay behind."""
        for table, condition, values in (
            ("snapshots", "fed = ?", (federation,)),
            ("events", "fed = ? ORDER BY seq", (federation,)),
            ("payloads", "fed = ?", (federation,)),
            ("meta", "substr(key, 1, length(?1) + 1) = ?1 || '/'", (federation,)),
            *((table, "fed = ?", (federation,)) for table in _RECORD_TABLES if self.version >= RECORDS),
            ("blobs", "true", ()),
        ):
            statement = f"SELECT * FROM {table} WHERE {condition}"  # noqa: S608 - see above
            yield from ((table, row) for row in self._stream(statement, values))

    def load(self, table: str, row: Row) -> None:
        """Add a row that `dump` yielded.

        Raises:
            StoreError: there is no such table or column, or there is such a row already.
        """
        if table not in self._columns:
            names = self._execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
            self._columns[table] = frozenset(name for (name,) in names)
        unknown = row.keys() - self._columns[table]
        if unknown:
            raise StoreError(self.path, f"no table {table[:64]!r} with columns {sorted(unknown)[:4]}")
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        self._execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))  # noqa: S608 - checked

    def copy_to(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write all of this moment to the new file `path`, whoever writes to the database meanwhile.

        Args:
            path: of the copy; it needs no other file beside it.
            progress: is told (pages done, pages in all) now and then.

        Raises:
            StoreError: it cannot be read or written, or the copy is not sound.
        """
        try:
            copy = Store(sqlite3.connect(path, isolation_level=None), path)
        except sqlite3.Error as error:
            raise StoreError(path, str(error)) from error
        try:
            # In a read transaction the copy is of one snapshot; without, every commit of others would start it anew.
            with self.moment():
                self._execute("SELECT count(*) FROM sqlite_master").fetchone()
                copy._fill_from(self, progress)
        finally:
            copy.close()

    def _fill_from(self, source: Store, progress: Callable[[int, int], None]) -> None:
        def tell(_status: int, left: int, total: int) -> None:
            progress(total - left, total)

        try:
            source._connection.backup(self._connection, pages=_COPY_PAGES, progress=tell)
        except sqlite3.Error as error:
            raise StoreError(self.path, str(error)) from error
        self.seal()
        if faults := self.faults():
            raise StoreError(self.path, f"the copy is not sound: {faults[0]}")

    def rewrite(self) -> bool:
        """Write the file anew, so that nothing is left in it of what was deleted; needs as much room again.

        Returns whether that is so by now. False: somebody still reads an older moment; then `drop_old_pages` is due.
        """
        self._execute("VACUUM")
        return self.drop_old_pages()

    def flush(self) -> None:
        """Write the log back to the file, and leave the log empty: what was deleted stood in it too."""
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def drop_old_pages(self) -> bool:
        """Bring all into the file and empty the journal beside it, unless somebody still reads an older moment."""
        (patience_ms,) = self._execute("PRAGMA busy_timeout").fetchone()
        self._execute(f"PRAGMA busy_timeout={_READERS_MS}")
        try:
            (is_busy, *_) = self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._execute(f"PRAGMA busy_timeout={patience_ms}")
        return not is_busy

    def federations(self) -> set[str]:
        """Return whose rows are in it."""
        statement = "SELECT fed FROM snapshots UNION SELECT fed FROM events UNION SELECT fed FROM payloads"
        return {name for (name,) in self._execute(statement)}

    def seal(self) -> None:
        """Bring all into the one file, which can be moved then; the next `open` undoes it."""
        self._execute("PRAGMA journal_mode=DELETE")

    def census(self) -> dict[str, Any]:
        """Return how much there is of what, and no content: events by kind, blobs and their bytes, names of values."""
        kinds = self._execute("SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind").fetchall()
        count, size = self._execute("SELECT count(*), coalesce(sum(length(bytes)), 0) FROM blobs").fetchone()
        names = self._execute("SELECT key FROM meta ORDER BY key").fetchall()
        return {
            "version": self.version,
            "events": dict(kinds),
            "blobs": count,
            "blob_bytes": size,
            "values": [name for (name,) in names],
        }

    def faults(self) -> list[str]:
        """Return what is wrong with the database: damage that SQLite finds, and payloads whose content is gone."""
        lost = "SELECT device, round FROM payloads LEFT JOIN blobs ON blobs.sha256 = content WHERE blobs.sha256 IS NULL"
        try:
            found = [row["integrity_check"] for row in self._stream("PRAGMA integrity_check")]
            if self._tables is _FEDERATED:
                found += [
                    f"the payload of {row['device']} in round {row['round']} has no content"
                    for row in self._stream(lost)
                ]
        except StoreError as error:
            return [str(error)]
        return [line for line in found if line != "ok"]


def _all_of(where: Row) -> str:
    """`fed` is an equality, `number <` a comparison; of nothing all is true."""
    return " AND ".join(f"{name} ?" if " " in name else f"{name} = ?" for name in where) or "true"
