"""A device that goes for good: nothing of it is left, or another stands where it stood."""

import json
from contextlib import closing, nullcontext
from dataclasses import replace

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.commands.who import who
from broker_server.core.federation import without
from broker_server.core.round import NO_QUORUM, Phase
from broker_server.core.trust import TrustTable
from broker_server.departures import Registrar, UnknownDeviceError
from broker_server.journal import Journal
from broker_server.orders import Spool, new_order
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import NotReplayableError, remake
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import DeviceState, Kind
from fd_protocol.parts import split
from fd_runtime.links.link import Arrived
from fd_runtime.starting import exclusive
from fd_runtime.storage.store import Store, StoreFullError
from tests.broker_server.builders import FED, TASK, made
from tests.broker_server.core.test_federation import ALL, BEGUN, opened, stored, told
from tests.broker_server.served import serving
from tests.broker_server.world import TOPICS, Device, Tray, World, fleet

CANARIES = LabelledProbes(tuple(range(20)), tuple((np.arange(20) % 3).tolist()))
NAME = "press-3"
WAIT = ("--wait", "30")


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path), "--federation", FED]) == 0
    (tmp_path / "state").mkdir()
    return tmp_path / CONFIG_NAME


@pytest.fixture
def world(config):
    """Two closed rounds, with `press-3` in the first alone, and an open one to which it has contributed."""
    world = World(config.parent / "state" / "server.db", canaries=CANARIES)
    a, b, c = fleet(world, ["a", "b", NAME])
    for device in (a, b, c):
        device.send_map([0, 1] * 10)
        device.contribute()
    world.wait(10)
    c.die()
    for device in (a, b):
        device.contribute(seed=1)
    world.wait(60)
    c.say_state(c.birth)
    world.wait(10)
    world.device("d")
    a.contribute(seed=2)
    c.contribute(seed=2)
    c.send(c.contribution(seed=3)[0], part_bytes=40, parts={0})
    world.arrive(TOPICS.upload(NAME), b"rubbish of press-3")
    world.settle()
    assert world.state.number == 3
    return world


class Office:
    """A registrar, and what must follow in his transaction and after it."""

    def __init__(self, world):
        self.world, self.registrar = world, Registrar(world.store, world.settings)

    def forget(self, device):
        with self.world.store.transaction():
            state, forgotten = self.registrar.strike(Journal(self.world.store, FED).replay(), device)
            Journal(self.world.store, FED).fold(state)
        self.world.store.rewrite()
        return forgotten

    def replace(self, old, new):
        with self.world.store.transaction():
            state = self.registrar.hand_over(Journal(self.world.store, FED).replay(), old, new)
            Journal(self.world.store, FED).fold(state)


def registrar(world):
    return Office(world)


def chronicle(world):
    return Chronicle(world.store, FED)


def trusted(world, digest):
    return trusted_in(world.store, digest)


def trusted_in(store, digest):
    return set(TrustTable.from_bytes(store.blob(digest), 3).by_device)


# Forgetting.


def test_nothing_of_a_forgotten_device_is_left_in_the_files(world):
    told_of = world.store.payloads(FED, Kind.CONTRIBUTION.value, NAME)
    contents = [world.store.blob(row.content) for row in told_of]
    digests = [row.sha256 for row in told_of]
    before = files_of(world)
    assert NAME.encode() in before
    assert all(one in before for one in (*contents, *digests))
    registrar(world).forget(NAME)
    after = files_of(world)
    assert NAME.encode() not in after
    assert not any(one in after for one in (*contents, *digests))


def files_of(world):
    """The bytes of the database and the files beside it."""
    return b"".join(path.read_bytes() for path in sorted(world.path.parent.glob("server.db*")))


def test_what_was_erased_is_counted(world):
    forgotten = registrar(world).forget(NAME)
    assert forgotten.payloads == 3, "two contributions and a map"
    assert (forgotten.parts, forgotten.unreadable) == (1, 1)
    assert forgotten.hearings == 4, "a map, a contribution, its last words, the open round's contribution"
    assert forgotten.rounds == (1, 2)


def test_rounds_that_it_had_a_part_in_cannot_be_made_again_and_the_others_can(world):
    assert remake(chronicle(world), chronicle(world).rounds()[1]).sha256
    registrar(world).forget(NAME)
    world.restart()
    third, second, first = chronicle(world).rounds()
    for record in (second, first):
        with pytest.raises(NotReplayableError, match="no voice is on record"):
            remake(chronicle(world), record)
    world.device("b").contribute(seed=4)
    ended = chronicle(world).round(third.epoch, third.number)
    assert remake(chronicle(world), ended).sha256 == ended.consensus_sha256 != b""


def test_a_round_that_it_had_no_part_in_is_made_again_from_trust_without_it(config):
    """Its table of trust may know the device from before."""
    world = World(config.parent / "state" / "server.db", canaries=CANARIES)
    for device in fleet(world):
        device.contribute()
    record = chronicle(world).round(world.state.epoch, 1)
    known = TrustTable.from_bytes(world.store.blob(record.trust), 3)
    more = replace(known, by_device={**known.by_device, NAME: known.of("a")})
    digest = world.store.put_blob(more.to_bytes())
    world.store.merge("rounds", {"fed": FED, "number": 1}, {"trust": digest})
    world.device(NAME)
    registrar(world).forget(NAME)
    record = chronicle(world).round(record.epoch, 1)
    assert trusted(world, record.trust) == {"a", "b", "c"}
    assert remake(chronicle(world), record).sha256 == record.consensus_sha256
    assert not world.store.has_blob(digest)


def test_the_consensus_and_the_trust_of_others_stay(world):
    consensus, heard = world.state.consensus, world.state.round.heard
    before = trusted(world, world.state.trust)
    registrar(world).forget(NAME)
    world.restart()
    assert world.state.consensus == consensus
    assert [world.store.blob(digest) for digest in consensus.blocks]
    assert trusted(world, world.state.trust) == before - {NAME}
    assert (world.state.round.heard, set(world.state.online)) == (heard - 1, {"a", "b", "d"})


def test_the_round_goes_on_without_the_forgotten_device(world):
    registrar(world).forget(NAME)
    world.restart()
    world.device("b").contribute(seed=2)
    record = chronicle(world).round(world.state.epoch, 3)
    assert (record.phase, record.heard) == ("closed", 2)
    assert NAME not in {one.device for one in chronicle(world).hearings(record.epoch, record.number)}


def test_a_forgotten_device_does_not_come_back_by_the_brokers_memory_of_its_will(world):
    will = codec_state(online=False)
    registrar(world).forget(NAME)
    world.restart()
    world.link.events.put(Arrived(TOPICS.state(NAME), will, retained=True, token=0))
    world.settle()
    assert chronicle(world).device(NAME) is None


def codec_state(*, online):
    return codec.encode(DeviceState(9, online=online))


def test_a_device_that_nobody_knows_cannot_be_forgotten(world):
    with pytest.raises(UnknownDeviceError, match="press-9"):
        registrar(world).forget("press-9")
    assert len(chronicle(world).devices()) == 4


def test_a_name_that_begins_like_another_is_another(world):
    world.device("press-33")
    registrar(world).forget(NAME)
    assert chronicle(world).device("press-33") is not None


@pytest.mark.parametrize("phase", ["offered", "aggregating"])
def test_without_a_device_the_open_round_counts_one_less(phase):
    """Quorum is 2; all three are invited."""
    events = ALL if phase == "aggregating" else ALL[:1]
    state = told(BEGUN, opened(), *events)
    after = without(state, "a")
    assert after.round.heard == state.round.heard - 1
    assert "a" not in after.round.devices
    assert after.round.phase.value == phase


def test_without_quorum_a_round_that_was_being_aggregated_ends():
    state = told(BEGUN, opened(invited=("a", "b")), stored("a"), stored("b"))
    assert state.round.phase is Phase.AGGREGATING
    after = without(state, "a").round
    assert (after.phase, after.reason) == (Phase.ABORTED, NO_QUORUM)


def test_nobody_waits_for_a_device_that_is_gone():
    state = without(told(BEGUN, opened(), stored("a")), "b")
    assert (state.round.awaited, state.round.heard) == (1, 1)


def test_a_round_that_has_ended_stays_as_it_is_without_a_device():
    state = told(BEGUN, opened(), *ALL, made())
    assert without(state, "a").round is state.round


# Replacing.


def test_a_new_device_has_the_words_the_map_the_trust_and_the_counts_of_the_old_one(world):
    old = chronicle(world).device(NAME)
    trust = TrustTable.from_bytes(world.store.blob(world.state.trust), 3).of(NAME).tolist()
    registrar(world).replace(NAME, "press-4")
    state = Journal(world.store, FED).replay()
    assert TrustTable.from_bytes(world.store.blob(state.trust), 3).of("press-4").tolist() == trust
    assert trusted(world, state.trust) == {"a", "b", "press-4"}
    rows = [*world.store.payloads(FED, "contribution", "press-4"), *world.store.payloads(FED, "competence", "press-4")]
    assert [(row.kind, row.round) for row in rows] == [("contribution", 1), ("competence", 1)]
    new, gone = chronicle(world).device("press-4"), chronicle(world).device(NAME)
    assert (new.rounds, new.up_bytes, new.trust, new.first_seen_ms) == (
        old.rounds,
        old.up_bytes,
        old.trust,
        old.first_seen_ms,
    )
    assert (gone.replaced_by, gone.online) == ("press-4", False)
    assert NAME not in state.online


def test_the_history_of_a_new_device_goes_on_from_that_of_the_old_one_and_its_rounds_can_be_made_again(world):
    registrar(world).replace(NAME, "press-4")
    registrar(world).replace("press-4", "press-5")
    heard = chronicle(world).hearings_of("press-5")
    assert {one.device for one in heard} == {NAME}
    assert [one.round for one in heard] == [3, 2, 1, 1]
    assert len(chronicle(world).hearings_of("press-5", limit=2)) == 2
    for record in chronicle(world).rounds()[1:]:
        assert remake(chronicle(world), record).sha256 == record.consensus_sha256


def test_the_last_words_of_the_old_device_are_heard_as_the_new_ones_and_once(world):
    registrar(world).replace(NAME, "press-4")
    world.restart()
    world.device("b").contribute(seed=4)
    heard = [one for one in chronicle(world).hearings(world.state.epoch, 3) if one.weight]
    assert [(one.device, one.status) for one in heard] == [
        ("a", "stored"),
        ("b", "stored"),
        ("press-4", "absent"),
    ]


def test_a_new_device_that_has_spoken_keeps_its_own_words(world):
    own = world.store.payloads(FED, "competence", "a") + world.store.payloads(FED, "contribution", "a")
    registrar(world).replace(NAME, "a")
    assert world.store.payloads(FED, "competence", "a") + world.store.payloads(FED, "contribution", "a") == own
    assert list(world.store.payloads(FED, "contribution", NAME)) == []


@pytest.mark.parametrize(("old", "new"), [(NAME, NAME), ("b", "a"), ("a", "b")])
def test_a_device_cannot_be_replaced_by_itself_or_twice(world, old, new):
    registrar(world).replace("b", "press-9")
    with pytest.raises(InvalidValueError, match="two devices"):
        registrar(world).replace(old, new)


# At the command line.


def spoken(capsys, *arguments):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys, *arguments):
    capsys.readouterr()
    return main(list(arguments)), capsys.readouterr().err


@pytest.mark.parametrize("is_running", [False, True], ids=["stopped", "running"])
def test_tags_take_the_place_of_those_before(world, config, capsys, is_running):
    world.store.close()
    with serving(config.parent / "state") if is_running else nullcontext():
        spoken(capsys, "devices", "tag", "a", "hall-2", "spare", *WAIT, "--config", str(config))
        assert spoken(capsys, "devices", "show", "a", "--config", str(config))["tags"] == ["hall-2", "spare"]
        listed = spoken(capsys, "devices", "--tag", "spare", "--config", str(config))
        assert [one["device"] for one in listed] == ["a"]
        spoken(capsys, "devices", "tag", "a", *WAIT, "--config", str(config))
    assert spoken(capsys, "devices", "show", "a", "--config", str(config))["tags"] == []
    assert failure(capsys, "devices", "tag", "z", "spare", "--config", str(config))[0] == 66
    assert failure(capsys, "devices", "tag", "a", "Two Words", "--config", str(config))[0] == 78


def test_forget_says_what_it_did_and_what_it_cannot_do(world, config, capsys):
    world.store.close()
    capsys.readouterr()
    assert main(["forget", NAME, "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "3 payloads" in said
    assert "consensuses that it had a part in stay" in said
    assert "revoke its certificate" in said
    capsys.readouterr()
    assert main(["forget", NAME, "--config", str(config)]) == 1
    assert capsys.readouterr().out == f"nothing is known of device '{NAME}'\n"
    assert failure(capsys, "forget", "Press 3", "--config", str(config))[0] == 78


def test_verify_passes_over_the_rounds_that_a_forgotten_device_had_a_part_in(world, config, capsys):
    world.device("b").contribute(seed=2)
    world.wait(10)
    for name in "abd":
        device = world.device(name)
        device.send(device.contribution(seed=4)[0])
    world.wait(60)
    world.store.close()
    main(["forget", "d", "--config", str(config)])
    assert [one["round"] for one in spoken(capsys, "verify", "--config", str(config))] == [3, 2, 1]


@pytest.mark.parametrize("is_running", [False, True], ids=["stopped", "running"])
def test_replace_and_forget_do_the_same_whether_the_server_runs_or_not(world, config, capsys, is_running):
    world.store.close()
    with serving(config.parent / "state") if is_running else nullcontext():
        spoken(capsys, "devices", "replace", "a", "press-4", *WAIT, "--config", str(config))
        told = spoken(capsys, "forget", NAME, *WAIT, "--config", str(config))
    assert (told["payloads"], told["hearings"], told["rounds"]) == (3, 4, [1, 2])
    with closing(Store.open(world.path)) as store:
        commands, state = Chronicle(store, FED).commands(), Journal(store, FED).replay()
        assert {(one.command, one.who) for one in commands} == {("replace", who()), ("forget", who())}
        assert [one.outcome[:8] for one in commands if one.command == "forget"] == ["erased: "]
        assert sorted(one.device for one in Chronicle(store, FED).devices()) == ["a", "b", "d", "press-4"]
        assert trusted_in(store, state.trust) == {"b", "press-4"}
        store.delete_rows("commands", {"fed": FED})
        Journal(store, FED).fold(replace(state, answers=()))
        store.rewrite()
    assert NAME.encode() not in files_of(world)


def test_a_server_that_is_down_but_cannot_be_told_to_be_leaves_the_order_in_the_spool(world, config, capsys):
    """Whatever holds the lock: nobody strikes a device off beside it."""
    world.store.close()
    with exclusive(world.path.with_name("server.lock")):
        code, line = failure(capsys, "forget", NAME, "--wait", "0.1", "--config", str(config))
    assert (code, "the order waits" in line) == (75, True)
    with closing(Store.open(world.path)) as store:
        assert Chronicle(store, FED).device(NAME) is not None


# Beside what a server does.


@pytest.fixture
def running(world):
    """The world's server goes on in a world that has a spool."""
    world.arguments["spool"] = Spool(world.path.parent / "orders")
    world.restart()
    return world


def test_a_running_server_forgets_and_nothing_is_left_in_the_files_but_the_order(running):
    contents = [running.store.blob(row.content) for row in running.store.payloads(FED, Kind.CONTRIBUTION.value, NAME)]
    answer = running.give("forget", device=NAME)
    assert answer.is_obeyed, answer.outcome
    assert answer.facts["payloads"] == "3"
    files = files_of(running)
    assert not any(content in files for content in contents)
    assert (NAME in running.state.online, running.state.round.heard) == (False, 1)
    running.device("b").contribute(seed=4)
    assert running.state.round.phase is Phase.CLOSED
    assert NAME not in {one.device for one in chronicle(running).hearings(running.state.epoch, 3)}


def test_what_comes_in_the_same_transaction_as_the_order_is_forgotten_with_the_rest(running):
    order = new_order("forget", who="ada", at_ms=running.now_ms, arguments={"device": NAME})
    device = Device.__new__(Device)
    device.world, device.name = running, NAME
    running.arrive(TOPICS.state(NAME), codec.encode(DeviceState(5, online=True, task=TASK)))
    (part,) = split(device.map([0, 0] * 10), running.offer.round, Kind.COMPETENCE)
    running.arrive(TOPICS.upload(NAME), codec.encode(part))
    running.place(order)
    running.server.pump(0)
    assert running.state.answer_to(order.id).is_obeyed
    assert chronicle(running).device(NAME) is None
    assert not running.store.payloads(FED, Kind.COMPETENCE.value, NAME)


def test_while_a_consensus_is_being_made_the_order_waits(running):
    running.server._worker = Tray()
    running.device("b").contribute(seed=4)
    assert running.state.round.phase is Phase.AGGREGATING
    assert running.give("forget", device=NAME) is None
    running.server._worker.work()
    running.wait(2)
    assert running.state.round.phase is not Phase.AGGREGATING
    assert chronicle(running).device(NAME) is None
    assert NAME not in trusted(running, running.state.trust)


def test_the_round_ends_where_the_forgotten_device_was_the_last_that_was_awaited(running):
    assert (running.state.round.phase, running.state.round.awaited) == (Phase.OFFERED, 1)
    running.give("forget", device="b")
    assert running.state.round.phase is Phase.CLOSED


def test_an_order_that_is_found_again_after_a_crash_erases_nothing_again(running, monkeypatch):
    with monkeypatch.context() as crash:
        crash.setattr(Spool, "remove", lambda *_: None)
        running.give("forget", device="b")
    running.device("b")
    running.restart()
    assert chronicle(running).device("b") is not None


def test_the_file_is_written_anew_after_a_crash_between_order_and_that(running, monkeypatch):
    (row,) = running.store.payloads(FED, Kind.CONTRIBUTION.value, "b")[:1]
    content = running.store.blob(row.content)
    with monkeypatch.context() as crash:
        crash.setattr(Store, "rewrite", lambda _store: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            running.give("forget", device="b")
    running.restart()
    assert content not in files_of(running)


def test_while_somebody_reads_an_older_moment_the_old_pages_wait(running):
    (row,) = running.store.payloads(FED, Kind.CONTRIBUTION.value, "b")[:1]
    content = running.store.blob(row.content)
    with Store.view(running.path) as reader, reader.moment():
        reader.blob(row.content)
        running.give("forget", device="b")
        assert content in files_of(running)
    running.wait(59)
    assert content in files_of(running)
    running.wait(1)
    assert content not in files_of(running)


def test_where_there_is_no_room_to_write_the_file_anew_that_is_tried_again_and_the_rounds_go_on(running, monkeypatch):
    (row,) = running.store.payloads(FED, Kind.CONTRIBUTION.value, "b")[:1]
    content = running.store.blob(row.content)

    def full(store):
        raise StoreFullError(store.path, "database or disk is full")

    with monkeypatch.context() as crash:
        crash.setattr(Store, "rewrite", full)
        assert running.give("forget", device="b").is_obeyed
        running.device("d").send_map([0] * 20)
    assert content in files_of(running)
    running.wait(60)
    assert content not in files_of(running)


def test_a_running_server_puts_a_device_in_the_place_of_another(running):
    answer = running.give("replace", device=NAME, new="press-4")
    assert answer.outcome == f"press-4 takes the place of {NAME}"
    assert trusted(running, running.state.trust) == {"a", "b", "press-4"}
    running.restart()
    assert chronicle(running).device(NAME).replaced_by == "press-4"
    refused = running.give("replace", device=NAME, new="press-5")
    assert (refused.is_obeyed, "two devices" in refused.outcome) == (False, True)


@pytest.mark.parametrize(
    ("command", "arguments", "why"),
    [
        ("forget", {"device": "press-9"}, "nothing is known of device 'press-9'"),
        ("tag", {"device": "press-9", "tags": "x"}, "nothing is known of device 'press-9'"),
        ("forget", {"device": "Press 3"}, "device"),
        ("replace", {"device": NAME}, "new"),
    ],
)
def test_an_order_that_cannot_be_done_is_refused_and_changes_nothing(running, command, arguments, why):
    before = replace(running.state, answers=())
    answer = running.give(command, **arguments)
    assert not answer.is_obeyed
    assert why in answer.outcome
    assert replace(running.state, answers=()) == before
