"""A federation as one file: all of it or nothing, and never twice the same life."""

import gzip
import hashlib
import json
import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.core.events import EpochBegun
from broker_server.journal import Journal
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import remake
from broker_server.transfer import TransferError, backup, export_federation, import_federation, restore
from fd_protocol import cbor
from fd_protocol.messages import Status
from fd_runtime.starting import exclusive
from fd_runtime.storage.store import Store
from tests.broker_server.builders import FED
from tests.broker_server.world import World, fleet

BEGUN = EpochBegun(99, 5)


@pytest.fixture
def world(tmp_path):
    """A round that has closed, with a map, and one that is open, with a contribution and half of another."""
    world = World(tmp_path / "server.db")
    a, b, c = fleet(world)
    a.send_map([0] * 20)
    for device in (a, b, c):
        device.contribute()
    world.arrive("rubbish", b"rubbish")
    world.wait(10)
    a.contribute(seed=1)
    b.send(b.contribution()[0], part_bytes=40, parts={0})
    return world


@pytest.fixture
def exported(world, tmp_path):
    export_federation(world.store, FED, tmp_path / "demo.fed")
    return tmp_path / "demo.fed"


def rows(store):
    """All of a database but its journal, in a fixed order."""
    told = [(table, sorted(row.items(), key=str)) for table, row in store.dump(FED) if table != "events"]
    return sorted(told, key=str)


# Export and import.


def test_what_is_imported_is_what_was_exported_in_a_new_epoch(world, exported, tmp_path):
    import_federation(exported, FED, tmp_path / "new.db", BEGUN)
    with closing(Store.open(tmp_path / "new.db")) as store:
        assert rows(store) == rows(world.store)
        state = Journal(store, FED).replay()
    assert (state.epoch, state.number) == (99, world.state.number)
    assert state.round.reason == "epoch", "a round does not go on elsewhere"
    assert (state.trust, state.online) == (world.state.trust, world.state.online)


def test_a_federation_goes_on_from_an_import(world, exported, tmp_path):
    import_federation(exported, FED, tmp_path / "new.db", BEGUN)
    world.restart(tmp_path / "new.db")
    assert world.presence.epoch == 99
    world.wait(10)
    assert (world.offer.round.epoch, world.offer.round.number) == (99, 3)
    for name in "abc":
        device = world.device(name)
        (receipt,) = device.send(device.contribution(seed=2)[0])
        assert receipt.status is Status.STORED
    told = Chronicle(world.store, FED).rounds()
    assert [(one.number, one.phase) for one in told] == [(3, "closed"), (2, "aborted"), (1, "closed")]
    assert remake(Chronicle(world.store, FED), told[2]).sha256 == told[2].consensus_sha256


def test_the_same_federation_is_the_same_file(world, exported, tmp_path):
    export_federation(world.store, FED, tmp_path / "again.fed")
    assert (tmp_path / "again.fed").read_bytes() == exported.read_bytes()


def test_a_federation_from_before_the_records_can_be_moved(tmp_path):
    with closing(Store.open(tmp_path / "old.db")) as store:
        Journal(store, FED).write([EpochBegun(7, 1)], 1)
        export_federation(store, FED, tmp_path / "demo.fed")
    import_federation(tmp_path / "demo.fed", FED, tmp_path / "new.db", BEGUN)
    with closing(Store.open(tmp_path / "new.db")) as store:
        assert Journal(store, FED).replay().epoch == 99


def frames(exported):
    """The items of an exported file."""
    data, items = gzip.decompress(exported.read_bytes()), []
    while data:
        length = int.from_bytes(data[:4], "big")
        items.append(cbor.decode(data[4 : 4 + length], max_items=length + 1))
        data = data[4 + length :]
    return items


def rewritten(exported, change):
    """The file with other frames and, so that nothing else is at fault, the digest of them."""
    items = change(frames(exported)[:-1])
    data = b"".join(len(body).to_bytes(4, "big") + body for body in map(cbor.encode, items))
    last = cbor.encode({"rows": len(items) - 1, "sha256": hashlib.sha256(data).digest()})
    exported.write_bytes(gzip.compress(data + len(last).to_bytes(4, "big") + last))
    return exported


def flipped(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.99])
def test_one_wrong_bit_anywhere_and_nothing_is_taken_in(exported, tmp_path, share):
    flipped(exported, round(share * exported.stat().st_size))
    with pytest.raises(TransferError, match=r"demo\.fed"):
        import_federation(exported, FED, tmp_path / "new.db", BEGUN)
    assert [path.name for path in tmp_path.iterdir() if "new" in path.name] == []


def test_the_digest_is_checked_and_not_only_that_of_the_packing(exported, tmp_path):
    data = gzip.decompress(exported.read_bytes())
    exported.write_bytes(gzip.compress(data.replace(b"rubbish", b"rabbits")))
    with pytest.raises(TransferError, match="digest"):
        import_federation(exported, FED, tmp_path / "new.db", BEGUN)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_a_file_that_was_cut_short_is_not_taken_in(exported, tmp_path, share):
    exported.write_bytes(exported.read_bytes()[: round(share * exported.stat().st_size)])
    with pytest.raises(TransferError, match=r"damaged|cut short"):
        import_federation(exported, FED, tmp_path / "new.db", BEGUN)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda items: [{**items[0], "version": 2}, *items[1:]], "version 2 of the format"),
        (lambda items: [{**items[0], "schema": 99}, *items[1:]], "newer version"),
        (lambda items: [{**items[0], "federation": "other"}, *items[1:]], "holds federation 'other'"),
        (lambda items: [["rounds", {}], *items[1:]], "not an exported federation"),
        (lambda items: [*items, ["sqlite_master", {"name": "x"}]], "does not fit"),
        (lambda items: [*items, ["meta", {"key, value": 1}]], "does not fit"),
        (lambda items: [*items, items[-1]], "does not fit"),
        (
            lambda items: [items[0], *(one for one in items[1:] if one[0] != "blobs")],
            "no content",
        ),
        (lambda items: [*items, "what"], "damaged"),
    ],
)
def test_a_file_that_says_something_else_is_not_taken_in(exported, tmp_path, change, text):
    with pytest.raises(TransferError, match=text):
        import_federation(rewritten(exported, change), FED, tmp_path / "new.db", BEGUN)
    assert not (tmp_path / "new.db").exists()


def test_neither_file_is_written_over(world, exported, tmp_path):
    with pytest.raises(FileExistsError):
        export_federation(world.store, FED, exported)
    with pytest.raises(FileExistsError):
        import_federation(exported, FED, world.path, BEGUN)
    with pytest.raises(FileExistsError):
        backup(world.store, exported)


# Backup.


def test_a_backup_is_one_file_with_all_that_was_there(world, tmp_path):
    backup(world.store, tmp_path / "copy.db")
    assert [path.name for path in tmp_path.glob("*copy*")] == ["copy.db"]
    with closing(Store.open(tmp_path / "copy.db")) as copy:
        assert rows(copy) == rows(world.store)
        assert Journal(copy, FED).replay() == world.state


def test_a_backup_is_of_one_moment_while_the_server_writes(world, tmp_path, monkeypatch):
    """A live aggregator commits between the pages of the copy; each round's rows still fit together."""
    monkeypatch.setattr("fd_runtime.storage.database._COPY_PAGES", 1)
    before = Journal(world.store, FED).replay()
    devices = [world.device(name) for name in "bc"]
    wrote, copied = threading.Event(), []

    def copy():
        with Store.view(world.path) as reader:
            backup(reader, tmp_path / "copy.db", pause)

    def pause(done, total):
        if not copied:
            copied.append((done, total))
            begun.set()
            wrote.wait(60)

    begun = threading.Event()
    thread = threading.Thread(target=copy)
    thread.start()
    assert begun.wait(60)
    for device in devices:
        device.contribute(seed=3)
    world.wait(10)
    wrote.set()
    thread.join(60)
    done, total = copied[0]
    assert 0 < done < total, "it was in the middle"
    assert world.state.number == 3
    with closing(Store.open(tmp_path / "copy.db")) as store:
        assert Journal(store, FED).replay() == before
        assert store.faults() == []


def test_a_copy_that_is_not_sound_gets_no_name(world, tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "faults", lambda _store: ["page 7 is torn"])
    with pytest.raises(Exception, match="page 7 is torn"):
        backup(world.store, tmp_path / "copy.db")
    assert list(tmp_path.glob("*copy*")) == []


# At the command line.


@pytest.fixture
def config(tmp_path):
    def write(name):
        assert main(["init", str(tmp_path / name), "--federation", FED]) == 0
        return tmp_path / name / CONFIG_NAME

    return write


def told(capsys, *arguments):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys, *arguments):
    capsys.readouterr()
    return main(list(arguments)), capsys.readouterr().err


def test_a_federation_moves_from_one_machine_to_another(config, capsys, tmp_path):
    here, there = config("here"), config("there")
    (here.parent / "state").mkdir()
    world = World(here.parent / "state" / "server.db")
    for device in fleet(world):
        device.contribute()
    exported = told(capsys, "export", str(tmp_path / "f.fed"), "--config", str(here))
    imported = told(capsys, "import", str(tmp_path / "f.fed"), "--config", str(there))
    assert imported["rows"] == exported["rows"]
    status = told(capsys, "status", "--config", str(there))
    assert (status["round"], status["epoch"]) == (1, imported["epoch"])
    assert status["epoch"] != f"{world.state.epoch:016x}"
    assert told(capsys, "rounds", "--config", str(there)) == told(capsys, "rounds", "--config", str(here))
    code, line = failure(capsys, "import", str(tmp_path / "f.fed"), "--config", str(there))
    assert (code, "is not empty" in line) == (73, True)


def test_an_import_needs_the_folder_for_itself(config, exported, capsys):
    there = config("there")
    (there.parent / "state").mkdir()
    with exclusive(there.parent / "state" / "server.lock"):
        code, line = failure(capsys, "import", str(exported), "--config", str(there))
    assert (code, "in use" in line) == (75, True)
    flipped(exported, exported.stat().st_size // 2)
    code, line = failure(capsys, "import", str(exported), "--config", str(there))
    assert (code, "damaged" in line) == (65, True)


def test_a_backup_of_the_command_line_can_be_restored(config, capsys, tmp_path):
    here = config("here")
    (here.parent / "state").mkdir()
    world = World(here.parent / "state" / "server.db")
    fleet(world)
    copy = told(capsys, "backup", str(tmp_path / "copy.db"), "--config", str(here))
    assert copy["bytes"] == (tmp_path / "copy.db").stat().st_size
    code, line = failure(capsys, "backup", str(tmp_path / "copy.db"), "--config", str(here))
    assert (code, "exists already" in line) == (73, True)
    for name in "abc":
        world.device(name).contribute()
    assert world.state.round.phase.value == "closed"
    world.store.close()
    assert main(["restore", "--from", str(tmp_path / "copy.db"), "--config", str(here)]) == 0
    aside = Path(capsys.readouterr().out.splitlines()[0].split(": ")[1])
    with closing(Store.open(world.path)) as store:
        state = Journal(store, FED).replay()
    assert (state.number, state.round.reason) == (1, "epoch")
    assert state.epoch != world.state.epoch
    with closing(Store.open(aside)) as store:
        assert Journal(store, FED).replay() == world.state, "nothing of what was there is lost"
    world.restart()
    assert world.presence.epoch == state.epoch


def test_a_backup_that_is_not_sound_or_of_others_is_not_restored(config, world, capsys, tmp_path):
    here = config("here")
    (here.parent / "state").mkdir()
    (tmp_path / "rubbish.db").write_bytes(b"rubbish" * 1000)
    with closing(Store.open(tmp_path / "other.db")) as store:
        Journal(store, "other").write([BEGUN], 5)
    backup(world.store, here.parent / "state" / "server.db")
    before = (here.parent / "state" / "server.db").read_bytes()
    for name, text in (("rubbish.db", "not a database"), ("other.db", "knows nothing"), ("none.db", "unable to open")):
        code, line = failure(capsys, "restore", "--from", str(tmp_path / name), "--config", str(here))
        assert code != 0
        assert text in line
    assert (here.parent / "state" / "server.db").read_bytes() == before
    assert {path.name for path in (here.parent / "state").iterdir()} == {"server.db", "server.lock"}


def test_the_log_of_a_server_that_crashed_is_not_played_into_a_backup(config, world, capsys, tmp_path):
    """What a crash leaves: the database as it was, and all since in a write-ahead log beside it."""
    here = config("here")
    state = here.parent / "state"
    state.mkdir()
    backup(world.store, tmp_path / "copy.db")
    world.device("b").contribute(seed=7)
    for end in ("", "-wal"):
        shutil.copy(f"{world.path}{end}", state / f"server.db{end}")
    assert main(["restore", "--from", str(tmp_path / "copy.db"), "--config", str(here)]) == 0
    aside = Path(capsys.readouterr().out.splitlines()[-2].split(": ")[1])
    with closing(Store.open(state / "server.db")) as store:
        assert store.faults() == []
        assert rows(store)
        assert Journal(store, FED).replay().round.heard == 1
    with closing(Store.open(aside)) as store:
        assert Journal(store, FED).replay() == world.state


class KilledError(BaseException):
    """Stands for `kill -9`."""


def crashed(world, folder):
    """What a crash leaves: the database as it was, and all since in a write-ahead log beside it."""
    folder.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{world.path}{end}", folder / f"server.db{end}")
    return folder / "server.db"


def killed_after(monkeypatch, moves):
    """Let the process die after so many renames of the database and what is beside it; the copy is made by then."""
    done, rename = [], Path.rename

    def rename_and_die(path, target):
        moved = rename(path, target)
        if not path.name.startswith("."):
            done.append(path.name)
            if len(done) == moves:
                raise KilledError
        return moved

    monkeypatch.setattr(Path, "rename", rename_and_die)
    return done


@pytest.mark.parametrize("moves", [1, 2, 3, 4])
def test_a_restore_that_is_killed_between_its_moves_leaves_no_half_of_a_database(world, tmp_path, monkeypatch, moves):
    """Half is: the file as it was long ago, and what it knows since under another name."""
    backup(world.store, tmp_path / "copy.db")
    world.device("b").contribute(seed=7)
    database = crashed(world, tmp_path / "live")
    with monkeypatch.context() as patch:
        done = killed_after(patch, moves)
        try:
            restore(tmp_path / "copy.db", FED, database, BEGUN)
        except KilledError:
            assert len(done) == moves
    if database.exists():
        with closing(Store.open(database)) as store:
            assert Journal(store, FED).replay().epoch == BEGUN.epoch
    with closing(Store.open(database.with_name("server.db.5"))) as aside:
        assert Journal(aside, FED).replay() == world.state, "nothing of what was there is lost"
    restore(tmp_path / "copy.db", FED, database, EpochBegun(100, 6))
    with closing(Store.open(database)) as store:
        assert (store.faults(), Journal(store, FED).replay().epoch) == ([], 100)


@pytest.mark.parametrize("moves", [1, 2, 3])
def test_a_database_that_cannot_be_opened_goes_before_its_log(world, tmp_path, monkeypatch, moves):
    """What stays of a log alone is played into nothing."""
    backup(world.store, tmp_path / "copy.db")
    database = crashed(world, tmp_path / "live")
    database.write_bytes(b"rubbish" * 1000)
    log = b"more rubbish" * 1000
    database.with_name("server.db-wal").write_bytes(log)
    with monkeypatch.context() as patch:
        done = killed_after(patch, moves)
        with pytest.raises(KilledError):
            restore(tmp_path / "copy.db", FED, database, BEGUN)
    assert done[:2] == ["server.db", "server.db-wal"][:moves]
    assert database.with_name("server.db.5").read_bytes() == b"rubbish" * 1000
    restore(tmp_path / "copy.db", FED, database, EpochBegun(100, 6))
    kept = [path.read_bytes() for path in database.parent.glob("server.db.[56]-wal")]
    assert kept == [log]
    with closing(Store.open(database)) as store:
        assert (store.faults(), Journal(store, FED).replay().epoch) == ([], 100)


def test_what_a_killed_import_left_behind_does_not_stop_the_next(config, exported, capsys):
    there = config("there")
    (there.parent / "state").mkdir()
    (there.parent / "state" / ".server.db.abcd1234").write_bytes(b"half")
    (there.parent / "state" / ".server.db.abcd1234-wal").write_bytes(b"half")
    told(capsys, "import", str(exported), "--config", str(there))
    assert {path.name for path in (there.parent / "state").iterdir()} == {"server.db", "server.lock"}
