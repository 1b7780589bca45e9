"""One SQLite file: opened, written in transactions, viewed beside its writer, copied. The only home of `sqlite3`.

A write is on the disk when its transaction ends (WAL, synchronous=FULL), and only then. A `Database` belongs to one
thread, unless its tables say otherwise; `reader()` gives another thread its own view. It has a version, that of the
newest tables in it (`fd_runtime.storage.tables`); `open` takes it as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_IOERR
from fd_runtime.storage.tables import FEDERATED, JOURNAL, Tables

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

_READERS_MS = 200
"""How long those who read are waited for, before old pages are left to a later try."""
_COPY_PAGES = 2048
"""Of 4 KiB, between two words on progress."""
_PAGE_BYTES = 4096
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


_UNWRITABLE: Mapping[str, type[StoreError]] = {
    "disk is full": StoreFullError,
    "readonly database": StoreReadOnlyError,
    "disk I/O error": StoreReadOnlyError,
}
"""What SQLite says; its codes reach Python from 3.11 on."""


class Database:
    """One file, or one in memory. Use `open` or `view`."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, tables: Tables = FEDERATED) -> None:
        self.path = path
        self._connection, self._tables = connection, tables

    @classmethod
    def open(cls, path: Path | None, tables: Tables = FEDERATED) -> Self:
        """Open or create the database at `path`; None keeps it in memory.

        Raises:
            StoreError: it cannot be opened, is no database of ours, or a newer version made it.
        """
        try:
            # isolation_level=None: the module opens and ends transactions itself.
            connection = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=not tables.is_shared
            )
            database = cls(connection, path, tables)
        except sqlite3.Error as error:
            raise StoreError(path, str(error)) from error
        database._prepare()
        return database

    @contextmanager
    def reader(self) -> Iterator[Self]:
        """A read-only view for the thread that asks; one in memory, which has one thread only, gives itself."""
        if self.path is None:
            yield self
            return
        with self.view(self.path) as reader:
            yield reader

    @classmethod
    @contextmanager
    def view(cls, path: Path) -> Iterator[Self]:
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

    def _execute_all(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute `statement` once for each row of values."""
        try:
            self._connection.executemany(statement, rows)
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
    def moment(self) -> Iterator[None]:
        """Inside, everything that is read is of one moment, whatever another connection commits meanwhile."""
        self._execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")

    # The whole of it.

    def copy_to(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write all of this moment to the new file `path`, whoever writes to the database meanwhile.

        Args:
            path: of the copy; it needs no other file beside it.
            progress: is told (pages done, pages in all) now and then.

        Raises:
            StoreError: it cannot be read or written, or the copy is not sound.
        """
        try:
            copy = type(self)(sqlite3.connect(path, isolation_level=None), path)
        except sqlite3.Error as error:
            raise StoreError(path, str(error)) from error
        try:
            # In a read transaction the copy is of one snapshot; without, every commit of others would start it anew.
            with self.moment():
                self._execute("SELECT count(*) FROM sqlite_master").fetchone()
                copy._fill_from(self, progress)  # noqa: SLF001 - this module's own class
        finally:
            copy.close()

    def _fill_from(self, source: Database, progress: Callable[[int, int], None]) -> None:
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

    def seal(self) -> None:
        """Bring all into the one file, which can be moved then; the next `open` undoes it."""
        self._execute("PRAGMA journal_mode=DELETE")

    def faults(self) -> list[str]:
        """Return the damage that SQLite finds."""
        try:
            found = [row["integrity_check"] for row in self._stream("PRAGMA integrity_check")]
        except StoreError as error:
            return [str(error)]
        return [line for line in found if line != "ok"]
