"""A server that is killed again and again tells in its records what happened, once; and its commands when killed."""

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from broker_server.cli import main
from broker_server.core.events import EpochBegun
from broker_server.journal import Journal
from broker_server.records.chronicle import Chronicle
from broker_server.transfer import export_federation
from fd_protocol.messages import ConsensusBlock, Receipt, RoundOffer
from fd_runtime.links.link import LinkSettings
from fd_runtime.storage.store import Store
from tests.broker_server.builders import FED
from tests.broker_server.world import World, fleet
from tests.faults.warm import Warm
from tests.support.brokers import links, needs_mosquitto
from tests.system import test_server_process
from tests.system.test_server_process import START_S, TOPICS, Device

pytestmark = [pytest.mark.system, needs_mosquitto]

broker, config, processes = (getattr(test_server_process, name) for name in ("broker", "config", "processes"))
NAMES = ("kettle", "lamp", "toaster")
KILLS = 4


def told(capsys, *arguments):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_after_many_kills_every_payload_is_told_once_and_the_consensus_can_be_proved(
    config, broker, processes, capsys, tmp_path
):
    rng = random.Random(5)
    settings = [LinkSettings(name, subscriptions=TOPICS.device_filters(name)) for name in NAMES]
    with links(broker.port, *settings) as opened:
        server = processes(config)
        devices = [Device(one.client_id, link) for one, link in zip(settings, opened, strict=True)]
        offer = devices[0].hear(RoundOffer)
        for device in devices[:2]:
            device.contribute(offer)
            time.sleep(rng.uniform(0.0, 0.05))
            server.kill()
            server.wait()
            server = processes(config)
            device.contribute(offer)
            device.hear(Receipt)
        assert [one["status"] for one in round_1(config, capsys)["hearings"]] == ["stored", "stored"]
        copy = told(capsys, "backup", str(tmp_path / "copy.db"), "--config", str(config))
        doctor = told(capsys, "doctor", "--config", str(config))
        devices[2].contribute(offer)
        devices[2].hear(ConsensusBlock)
        server.send_signal(signal.SIGINT)
        assert server.wait(START_S) == 0
    assert {one["check"]: one["found"] for one in doctor}["server"] == "running"
    with closing(Store.open(Path(copy["file"]))) as store:
        assert (store.faults(), Chronicle(store, FED).rounds()[0].heard) == ([], 2)
    shown = round_1(config, capsys)
    assert (shown["phase"], shown["heard"]) == ("closed", 3)
    assert [(one["device"], one["status"]) for one in shown["hearings"]] == [(name, "stored") for name in NAMES]
    assert [(one["device"], one["rounds"]) for one in told(capsys, "devices", "--config", str(config))] == [
        (name, 1) for name in NAMES
    ]
    assert [one["verdict"] for one in told(capsys, "verify", "--config", str(config), "--round", "1")] == ["same"]


def round_1(config, capsys):
    return told(capsys, "rounds", "show", "1", "--config", str(config))


# Commands that are killed.


@pytest.fixture
def stopped(tmp_path):
    """The settings of a server that is stopped; its database has a few hundred payloads of `a` to erase."""
    main(["init", str(tmp_path), "--federation", FED])
    (tmp_path / "state").mkdir()
    world = World(tmp_path / "state" / "server.db")
    for device in fleet(world):
        device.contribute()
    with world.store.transaction():
        for number in range(10_000):
            world.store.put_blob(b"%d" % number * 40)
            world.store.merge("hearings", key_of(number), {"status": "refused"})
    world.store.close()
    return tmp_path / "federation.toml"


def key_of(number):
    return {"fed": FED, "round": 0, "device": "a", "kind": "contribution", "sha256": b"%032d" % number}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`broker-server`, which has imported everything: a kill hits what a command does, and no import."""
    warm = Warm("broker_server.cli", tmp_path_factory.mktemp("warm"))
    yield warm
    warm.close()


def killed(program, delay_s, *arguments):
    """Start a command, and kill it after a while, unless it has ended by then."""
    end_s = time.monotonic() + delay_s
    with program.started("main", list(map(str, arguments))) as fork:
        while fork.is_alive() and time.monotonic() < end_s:
            time.sleep(0.001)
        fork.kill()


def done(program, *arguments, code=0):
    """Let a command end, with an exit code; return how long it took."""
    begun = time.monotonic()
    ended = program.run("main", list(map(str, arguments)))
    assert ended.returncode == code, ended.out + ended.errors
    return time.monotonic() - begun


def moments():
    """Shares of a command's time at which it is killed."""
    rng = random.Random(7)
    return [rng.uniform(0.1, 1.0) for _ in range(KILLS)]


def test_a_killed_import_leaves_nothing_or_all(program, stopped, tmp_path):
    with closing(Store.open(stopped.parent / "state" / "server.db")) as store:
        rows = export_federation(store, FED, tmp_path / "f.fed")
    there = tmp_path / "there"
    main(["init", str(there), "--federation", FED])
    arguments = ("import", tmp_path / "f.fed", "--config", there / "federation.toml")
    database = there / "state" / "server.db"
    whole_s = done(program, *arguments)
    for share in moments():
        database.unlink(missing_ok=True)
        killed(program, share * whole_s, *arguments)
        if database.exists():
            with closing(Store.open(database)) as store:
                assert store.faults() == []
                assert sum(1 for _ in store.dump(FED)) == rows + 1, "the rows, and the new epoch"
    database.unlink(missing_ok=True)
    done(program, *arguments)
    assert database.exists()


def test_a_killed_forget_has_erased_nothing_or_all_and_can_be_said_again(program, stopped):
    database = stopped.parent / "state" / "server.db"
    whole = database.read_bytes()
    arguments = ("forget", "a", "--config", stopped)
    whole_s = done(program, *arguments)
    for share in moments():
        for path in database.parent.glob("server.db*"):
            path.unlink()
        database.write_bytes(whole)
        killed(program, share * whole_s, *arguments)
        with closing(Store.open(database)) as store:
            left = (
                len(store.rows("hearings", {"fed": FED, "device": "a"})),
                len(store.payloads(FED, "contribution", "a")),
            )
            assert left in {(10_001, 1), (0, 0)}
            assert store.faults() == []
            assert Journal(store, FED).replay().number == 1
        done(program, *arguments, code=0 if all(left) else 1)  # 1: nothing is known of it
        assert b"%032d" % 7 not in b"".join(path.read_bytes() for path in database.parent.glob("server.db*"))


def test_a_killed_upgrade_is_done_at_the_next_start(tmp_path):
    """The upgrade is one transaction: a crash before its end is as if it had not begun."""
    path = tmp_path / "server.db"
    with closing(Store.open(path)) as store:
        Journal(store, FED).write([EpochBegun(7, 1)], 1)
    program = (
        "import os, sys; from pathlib import Path; from fd_runtime.storage import store as s\n"
        "run = s.Store._execute\n"
        "def dying(self, statement, values=()):\n"
        "    if 'CREATE TABLE commands' in statement: os.kill(os.getpid(), 9)\n"
        "    return run(self, statement, values)\n"
        "store = s.Store.open(Path(sys.argv[1])); s.Store._execute = dying; store.upgrade(s.RECORDS)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    with closing(Store.open(path)) as store:
        assert (store.version, Journal(store, FED).replay().epoch) == (1, 7)
        store.upgrade(2)
        assert Chronicle(store, FED).rounds() == ()
