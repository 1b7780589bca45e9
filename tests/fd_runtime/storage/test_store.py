"""The store keeps what was committed, whatever happens next."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fd_protocol.identity import sha256
from fd_runtime.storage.store import (
    JOURNAL,
    META_TABLE,
    RECORDS,
    Columns,
    MissingBlobError,
    PartRow,
    PayloadRow,
    Store,
    StoreError,
    StoreFullError,
    Tables,
)

FED = "demo"
AGENTS = (("dev-1", "0.1"), ("dev-2", "0.2"), ("dev-1", "0.3"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


def reopened(path):
    """A crash, as the disk sees it: nothing was closed, a new process opens the file."""
    return Store.open(path)


def row(device="dev-1", number=1, kind="contribution", epoch=7, content=b"c" * 32):
    return PayloadRow(kind, device, number, epoch, b"p" * 32, content)


def test_events_come_back_in_order_after_a_crash(path):
    store = Store.open(path)
    for number in range(5):
        store.append(FED, "birth", 1_000 + number, b"%d" % number)
    assert reopened(path).replay(FED) == (None, [("birth", b"%d" % number) for number in range(5)])


def test_a_snapshot_takes_the_place_of_its_own_federations_events(path):
    store = Store.open(path)
    store.append(FED, "birth", 0, b"a")
    store.append("other", "birth", 0, b"b")
    store.snapshot(FED, b"state")
    store.append(FED, "will", 0, b"c")
    assert reopened(path).replay(FED) == (b"state", [("will", b"c")])
    assert reopened(path).replay("other") == (None, [("birth", b"b")])


def test_a_replay_is_of_one_moment_whoever_folds_meanwhile(path):
    store = Store.open(path)
    store.append(FED, "birth", 0, b"a")
    with Store.view(path) as view:
        statements = []
        view._connection.set_trace_callback(statements.append)
        assert view.replay(FED) == (None, [("birth", b"a")])
        assert len(statements) == 1  # between two of them the server could put a snapshot in the place of the events


def write_until_it_fails(store):
    with store.transaction():
        store.append(FED, "birth", 0, b"a")
        store.put_blob(b"blob")
        store._execute("INSERT INTO colours VALUES (1)")


def test_a_transaction_that_fails_leaves_nothing(path):
    store = Store.open(path)
    with pytest.raises(StoreError):
        write_until_it_fails(store)
    assert store.replay(FED) == (None, [])
    with pytest.raises(MissingBlobError):
        store.blob(sha256(b"blob"))


def test_an_inner_transaction_falls_with_the_outer_one(path):
    store = Store.open(path)

    def write():
        with store.transaction():
            with store.transaction():
                store.append(FED, "birth", 0, b"a")
            write_until_it_fails(store)

    with pytest.raises(StoreError):
        write()
    assert store.replay(FED) == (None, [])


def test_a_crash_before_the_commit_leaves_nothing(path):
    store = Store.open(path)
    with store.transaction():
        store.append(FED, "birth", 0, b"a")
        assert reopened(path).replay(FED) == (None, [])


def test_blobs_are_found_by_their_digest_and_only_kept_ones_stay(path):
    store = Store.open(path)
    kept, gone = store.put_blob(b"kept"), store.put_blob(b"gone")
    assert store.put_blob(b"kept") == kept == sha256(b"kept")
    assert store.delete_blobs_except({kept}) == 1
    assert store.blob(kept) == b"kept"
    with pytest.raises(MissingBlobError):
        store.blob(gone)


def test_payloads_are_listed_by_device_newest_first():
    store = Store.open(None)
    for device, number in [("dev-2", 1), ("dev-1", 1), ("dev-1", 3), ("dev-1", 2)]:
        store.put_payload(FED, row(device, number))
    store.put_payload(FED, row("dev-1", 3, kind="competence"))
    listed = [(r.device, r.round) for r in store.payloads(FED, "contribution")]
    assert listed == [("dev-1", 3), ("dev-1", 2), ("dev-1", 1), ("dev-2", 1)]
    assert [r.round for r in store.payloads(FED, "contribution", "dev-1")] == [3, 2, 1]


def test_rows_that_are_put_together_are_kept_together():
    store = Store.open(None)
    store.put_payloads(FED, [row("dev-2"), row("dev-1", content=b"a" * 32), row("dev-1", content=b"b" * 32)])
    assert store.payloads(FED, "contribution") == [row("dev-1", content=b"b" * 32), row("dev-2")]
    store.put_blobs((sha256(data), data) for data in (b"one", b"two", b"one"))
    assert [store.blob(sha256(data)) for data in (b"one", b"two")] == [b"one", b"two"]


def test_a_payload_with_the_same_key_gives_way_and_a_deleted_one_is_gone():
    store = Store.open(None)
    store.put_payload(FED, row(content=b"a" * 32))
    store.put_payload(FED, row(content=b"b" * 32))
    assert store.payloads(FED, "contribution", "dev-1") == [row(content=b"b" * 32)]
    store.delete_payload(FED, row())
    assert store.payloads(FED, "contribution") == []


def test_parts_of_another_payload_give_way_to_new_ones():
    store = Store.open(None)
    first, last = (PartRow("contribution", "dev-1", b"new", index, b"body") for index in (0, 2))
    for part in (PartRow("contribution", "dev-1", b"old", 0, b"x"), last, first, first):
        store.put_part(FED, part)
    assert store.parts(FED, "contribution", "dev-1", b"new") == [first, last]
    assert store.part_numbers(FED, "contribution", "dev-1", b"new") == {0, 2}
    assert store.parts(FED, "contribution", "dev-1", b"old") == []
    store.delete_parts(FED)
    assert store.parts(FED, "contribution", "dev-1", b"new") == []


def test_named_values_survive_a_crash(path):
    Store.open(path).set_meta("epoch", b"7")
    assert reopened(path).meta("epoch") == b"7"
    assert reopened(path).meta("colour") is None


def test_a_full_disk_is_a_store_full_error_and_the_store_goes_on(path):
    store = Store.open(path)
    store.append(FED, "birth", 0, b"before")
    store._execute("PRAGMA max_page_count=20")

    def write():
        with store.transaction():
            store.append(FED, "birth", 0, b"half")
            store.put_blob(bytes(200_000))

    with pytest.raises(StoreFullError) as caught:
        write()
    assert caught.value.path == path
    assert store.replay(FED) == (None, [("birth", b"before")])
    store.append(FED, "will", 0, b"after")
    store._execute("PRAGMA max_page_count=1000000")
    store.put_blob(bytes(200_000))
    assert reopened(path).replay(FED) == (None, [("birth", b"before"), ("will", b"after")])


def test_a_reader_in_another_connection_sees_what_is_committed_and_cannot_write(path):
    store = Store.open(path)
    digest = store.put_blob(b"blob")
    with store.reader() as reader:
        assert reader.blob(digest) == b"blob"
        with pytest.raises(StoreError, match="readonly"):
            reader.put_blob(b"other")


def test_what_is_read_in_a_moment_is_of_one_moment(path):
    store = Store.open(path)
    store.set_meta("epoch", b"7")
    with store.reader() as reader:
        with reader.moment():
            assert reader.meta("epoch") == b"7"
            store.set_meta("epoch", b"8")
            assert reader.meta("epoch") == b"7"
        assert reader.meta("epoch") == b"8"


def test_an_in_memory_store_is_its_own_reader_and_survives_it():
    store = Store.open(None)
    digest = store.put_blob(b"blob")
    with store.reader() as reader:
        assert reader.blob(digest) == b"blob"
    assert store.blob(digest) == b"blob"


def test_a_file_that_is_no_database_is_refused_by_its_name(path):
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"store\.db"):
        Store.open(path)


def test_a_missing_folder_is_refused_by_its_name(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        Store.open(tmp_path / "nowhere" / "store.db")


def test_a_database_of_a_newer_version_is_refused(path):
    Store.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        Store.open(path)


def test_a_commit_is_synced_to_the_disk(path):
    store = Store.open(path)
    assert store._execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._execute("PRAGMA synchronous").fetchone() == (2,)


# Records.

VERSION_1 = """
CREATE TABLE events (seq INTEGER PRIMARY KEY, fed TEXT NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
                     body BLOB NOT NULL);
CREATE TABLE snapshots (fed TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blobs (sha256 BLOB PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE payloads (fed TEXT, kind TEXT, device TEXT, round INTEGER, epoch INTEGER, sha256 BLOB NOT NULL,
                       content BLOB NOT NULL, PRIMARY KEY (fed, kind, device, round, epoch)) WITHOUT ROWID;
CREATE TABLE parts (fed TEXT, kind TEXT, device TEXT, part INTEGER, sha256 BLOB NOT NULL, body BLOB NOT NULL,
                    PRIMARY KEY (fed, kind, device, part));
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version=1;
INSERT INTO events VALUES (1, 'demo', 'birth', 5, x'61');
INSERT INTO snapshots VALUES ('demo', x'73');
INSERT INTO blobs VALUES (x'00', x'626c6f62');
INSERT INTO payloads VALUES ('demo', 'contribution', 'dev-1', 1, 7, x'70', x'00');
INSERT INTO parts VALUES ('demo', 'contribution', 'dev-1', 0, x'70', x'62');
INSERT INTO meta VALUES ('epoch', x'37');
"""
"""What the first version of the program made, and rows as it wrote them."""


@pytest.fixture
def first_version(path):
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
    connection.close()
    return path


def tables(path):
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    connection.close()
    return {name: " ".join(sql.split()) for name, sql in rows}


def test_a_database_of_the_first_version_is_upgraded_and_keeps_what_was_in_it(first_version):
    store = Store.open(first_version)
    assert store.version == JOURNAL
    store.upgrade(RECORDS)
    store.close()
    again = Store.open(first_version)
    assert again.version == RECORDS
    assert again.replay(FED) == (b"s", [("birth", b"a")])
    assert again.blob(b"\0") == b"blob"
    assert again.payloads(FED, "contribution") == [PayloadRow("contribution", "dev-1", 1, 7, b"p", b"\0")]
    assert again.part_numbers(FED, "contribution", "dev-1", b"p") == {0}
    assert again.meta("epoch") == b"7"
    assert again.rows("rounds", {"fed": FED}) == []


def test_an_upgraded_database_is_that_of_one_made_new(first_version, tmp_path):
    Store.open(first_version).upgrade(RECORDS)
    Store.open(tmp_path / "new.db").upgrade(RECORDS)
    assert tables(first_version) == tables(tmp_path / "new.db")


def test_an_upgrade_that_fails_leaves_the_version_before(first_version):
    with sqlite3.connect(first_version) as connection:
        connection.execute("CREATE TABLE devices (mine TEXT)")
    connection.close()
    store = Store.open(first_version)
    with pytest.raises(StoreError, match="devices"):
        store.upgrade(RECORDS)
    assert store.version == JOURNAL
    assert "rounds" not in tables(first_version)
    assert reopened(first_version).replay(FED) == (b"s", [("birth", b"a")])


def test_a_database_that_nobody_upgrades_stays_what_the_version_before_reads(path):
    """An agent never asks for records, so its database can go back to the agent of the version before."""
    Store.open(path).append(FED, "birth", 0, b"a")
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(VERSION_1)
        first = connection.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    connection.close()
    assert [name for (name,) in first] == list(tables(path))


@pytest.fixture
def records():
    store = Store.open(None)
    store.upgrade(RECORDS)
    return store


def test_a_row_is_made_once_then_changed_and_added_to(records):
    key = {"fed": FED, "device": "dev-1"}
    records.merge("devices", key, {"agent": "0.1"}, {"up_bytes": 5})
    records.merge("devices", key, {"agent": "0.2"}, {"up_bytes": 7})
    records.merge("devices", key, {})
    (only,) = records.rows("devices", key)
    assert (only["agent"], only["up_bytes"], only["rounds"]) == ("0.2", 12, 0)


def test_rows_come_in_the_order_and_number_that_was_asked_for(records):
    for number in (1, 2, 3):
        records.merge("rounds", {"fed": FED, "number": number}, {})
    numbers = [row["number"] for row in records.rows("rounds", {"fed": FED, "number <": 3}, "number DESC", limit=1)]
    assert numbers == [2]
    assert records.delete_rows("rounds", {"fed": FED, "number <": 3}) == 2
    assert [row["number"] for row in records.rows("rounds", {"fed": FED})] == [3]


def test_a_view_notices_what_another_writes_and_nothing_else(path):
    store = Store.open(path)
    with Store.view(path) as view:
        before = view.changes
        assert view.changes == before
        store.set_meta("name", b"value")
        assert view.changes != before


def test_changes_that_are_made_together_are_made_in_order(records):
    columns = Columns(("fed", "device"), ("agent",), ("up_bytes",))
    for rows in ([], [(FED, name, agent, 5) for name, agent in AGENTS]):
        records.merge_all("devices", columns, rows)
    told = [(one["device"], one["agent"], one["up_bytes"]) for one in records.rows("devices", {"fed": FED}, "device")]
    assert told == [("dev-1", "0.3", 10), ("dev-2", "0.2", 5)]


# Tables of a program's own.

NOTES = Tables(
    (f"CREATE TABLE notes (id INTEGER PRIMARY KEY, text BLOB);{META_TABLE}",), is_shared=True, is_forgetful=True
)
SECRET = b"a secret that nobody may find in a file" * 40


def found_in(path):
    return [file.name for file in sorted(path.parent.iterdir()) if SECRET[:16] in file.read_bytes()]


def test_a_program_may_bring_its_own_tables(path):
    store = Store.open(path, NOTES)
    store.merge("notes", {"id": 1}, {"text": b"x"})
    store.set_meta("key", b"value")
    again = Store.open(path, NOTES)
    assert (again.rows("notes", {}), again.meta("key"), again.version) == ([{"id": 1, "text": b"x"}], b"value", 1)
    with pytest.raises(StoreError, match="no such table"):
        again.append(FED, "birth", 0, b"")


def test_what_a_forgetful_store_deletes_is_in_no_file_after_a_flush(path):
    store = Store.open(path, NOTES)
    store.merge("notes", {"id": 1}, {"text": SECRET})
    assert found_in(path)
    store.delete_rows("notes", {"id": 1})
    store.flush()
    assert found_in(path) == []


def test_a_store_may_be_shared_by_threads_that_take_turns(path):
    store = Store.open(path, NOTES)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(store.merge, "notes", {"id": 1}, {"text": b"x"}).result()
    assert store.count("notes", {}) == 1


def test_the_log_of_small_tables_stays_small(path):
    store = Store.open(path, replace(NOTES, log_bytes=64 << 10))
    for number in range(200):
        store.merge("notes", {"id": number % 3}, {"text": bytes(20_000)})
    assert path.with_name("store.db-wal").stat().st_size < 3 * (64 << 10)
