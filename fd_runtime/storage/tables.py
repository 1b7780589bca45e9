"""The tables of a store, version by version.

What a table is for says `store`; what the columns of records mean says the program whose records they are. A program
may bring tables of its own in the place of these.
"""

from __future__ import annotations

from dataclasses import dataclass

JOURNAL, RECORDS, GAINS = 1, 2, 3
"""Versions of a database: journal, blobs and payloads alone; tables of records beside them; in these, what each device
gained and gave."""

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
RECORD_TABLES = ("rounds", "hearings", "devices", "commands")


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


FEDERATED = Tables((_JOURNAL, _RECORDS, _GAINS))
"""Of an agent, which stays at the first version, and of a server."""
