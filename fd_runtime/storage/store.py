"""What a program must not forget, in one SQLite file: its journal, its blobs, the payloads it has accepted.

    events    the journal since the last snapshot: state = fold of events onto the snapshot
    blobs     bytes by their SHA-256; events and rows name them, so arrays never enter a state
    payloads  what each device sent, one row per (federation, epoch, round, device, kind): the key is the dedupe
    parts     pieces of payloads that are not complete yet
    meta      a few named values

and, where a program asks for them (`upgrade`), tables of records that people look back at (`records`): rounds,
hearings, devices, commands. An agent's database stays at version 1, so that the agent of the version before reads it
still. A program may also bring tables of its own in the place of all of these (`tables`): rows, named values and
transactions are the same.

When a write is durable, and who may read meanwhile, says `fd_runtime.storage.database`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fd_protocol.identity import sha256
from fd_runtime.storage.database import StoreError, StoreFullError, StoreReadOnlyError, StoreUnwritableError
from fd_runtime.storage.records import Columns, Records, Row, Value
from fd_runtime.storage.tables import FEDERATED, GAINS, JOURNAL, META_TABLE, RECORD_TABLES, RECORDS, Tables

__all__ = [
    "GAINS",
    "JOURNAL",
    "META_TABLE",
    "RECORDS",
    "Columns",
    "MissingBlobError",
    "PartRow",
    "PayloadRow",
    "Row",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreUnwritableError",
    "Tables",
    "Value",
]


class MissingBlobError(StoreError):
    """No blob with this digest."""


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


class Store(Records):
    """One database; see the module's table. Use `Store.open`."""

    # The journal.

    def append(self, federation: str, kind: str, at_ms: int, body: bytes) -> int:
        """Add an event to the journal and return its number."""
        statement = "INSERT INTO events (fed, kind, at_ms, body) VALUES (?, ?, ?, ?)"
        return self._execute(statement, (federation, kind, at_ms, body)).lastrowid or 0

    def replay(self, federation: str) -> tuple[bytes | None, list[tuple[str, bytes]]]:
        """Return the last snapshot, if any, and the (kind, body) of every event since, in order.

        Both are of one moment, whatever another process puts in the place of events meanwhile.
        """
        statement = """SELECT 0 AS seq, NULL, body FROM snapshots WHERE fed = ?
            UNION ALL SELECT seq, kind, body FROM events WHERE fed = ? ORDER BY seq"""
        rows = self._execute(statement, (federation, federation)).fetchall()
        snapshot = rows.pop(0)[2] if rows and rows[0][1] is None else None
        return snapshot, [(kind, body) for _, kind, body in rows]

    def snapshot(self, federation: str, body: bytes) -> None:
        """Put `body`, the folded state, in the place of all events so far."""
        with self.transaction():
            self._execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (federation, body))
            self._execute("DELETE FROM events WHERE fed = ?", (federation,))

    # Blobs.

    def put_blob(self, data: bytes) -> bytes:
        """Keep `data` and return its SHA-256."""
        digest = sha256(data)
        self.put_blobs([(digest, data)])
        return digest

    def put_blobs(self, blobs: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep pairs of a SHA-256 and the bytes that it is of."""
        self._execute_all("INSERT OR IGNORE INTO blobs VALUES (?, ?)", blobs)

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
        self.put_payloads(federation, [row])

    def put_payloads(self, federation: str, rows: Iterable[PayloadRow]) -> None:
        """Keep each of `rows`, as `put_payload` does."""
        values = [(federation, row.kind, row.device, row.round, row.epoch, row.sha256, row.content) for row in rows]
        self._execute_all("INSERT OR REPLACE INTO payloads VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def payloads(self, federation: str, kind: str, device: str | None = None) -> list[PayloadRow]:
        """Return the accepted payloads of `device`, or of every device in the order of names, newest first."""
        select = "SELECT kind, device, round, epoch, sha256, content FROM payloads WHERE fed = ? AND kind = ?"
        if device is None:
            found = self._execute(select + " ORDER BY device, round DESC, epoch DESC", (federation, kind))
        else:
            order = " AND device = ? ORDER BY round DESC, epoch DESC"
            found = self._execute(select + order, (federation, kind, device))
        return [PayloadRow(*row) for row in found]

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

    # The whole of it.

    def dump(self, federation: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every row of a federation with the name of its table, and every blob; half payloads stay behind."""
        for table, condition, values in (
            ("snapshots", "fed = ?", (federation,)),
            ("events", "fed = ? ORDER BY seq", (federation,)),
            ("payloads", "fed = ?", (federation,)),
            ("meta", "substr(key, 1, length(?1) + 1) = ?1 || '/'", (federation,)),
            *((table, "fed = ?", (federation,)) for table in RECORD_TABLES if self.version >= RECORDS),
            ("blobs", "true", ()),
        ):
            statement = f"SELECT * FROM {table} WHERE {condition}"  # noqa: S608 - see above
            yield from ((table, row) for row in self._stream(statement, values))

    @cached_property
    def _columns(self) -> dict[str, frozenset[str]]:
        """Of the tables that rows were loaded into."""
        return {}

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

    def federations(self) -> set[str]:
        """Return whose rows are in it."""
        statement = "SELECT fed FROM snapshots UNION SELECT fed FROM events UNION SELECT fed FROM payloads"
        return {name for (name,) in self._execute(statement)}

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
        """Return what is wrong: damage that SQLite finds, else payloads whose content is gone."""
        lost = "SELECT device, round FROM payloads LEFT JOIN blobs ON blobs.sha256 = content WHERE blobs.sha256 IS NULL"
        found = super().faults()
        if found or self._tables is not FEDERATED:
            return found
        try:
            rows = list(self._stream(lost))
        except StoreError as error:
            return [str(error)]
        return [f"the payload of {row['device']} in round {row['round']} has no content" for row in rows]
