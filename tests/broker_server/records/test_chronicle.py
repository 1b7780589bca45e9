"""The chronicle tells what happened, and a crash neither loses nor doubles a word of it."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.aggregator import Aggregator
from broker_server.consensus import join
from broker_server.core.federation import to_snapshot
from broker_server.core.standing import Source, Standing
from broker_server.records.chronicle import Chronicle, CommandRecord
from broker_server.records.scribe import MAX_REFUSALS, Scribe
from broker_server.replaying import remake
from broker_server.rules.voice import WEIGHT_ONE, to_weight
from broker_server.settings import MethodSettings
from broker_server.student import Lesson
from broker_server.work import Finished
from fd_protocol import cbor, codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import DeviceState, Kind, RoundReport
from fd_runtime.links.link import Arrived
from fd_runtime.storage.store import GAINS, Store, StoreFullError
from tests.broker_server.builders import FED, TASK, made
from tests.broker_server.world import TOPICS, World, fleet


class Pupil:
    """Learns something of every consensus."""

    def learn(self, blocks, _weights):
        return Lesson(b"weights", {"blocks": float(len(blocks))})


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "server.db")


def chronicle(world):
    return Chronicle(world.store, FED)


def hearings(world, number=1):
    return chronicle(world).hearings(world.state.epoch, number)


def test_an_open_round_is_told_as_it_stands(world):
    a, _, _ = fleet(world)
    payload, _ = a.contribute()
    (told,) = chronicle(world).rounds()
    assert (told.epoch, told.number, told.phase, told.ended_ms) == (world.state.epoch, 1, "offered", 0)
    assert (told.invited, told.heard, told.quorum, told.up_bytes) == (3, 1, 2, len(payload))
    assert (told.opened_ms, told.deadline_ms) == (1_000_000, 1_060_000)
    assert (told.method, told.codec, told.temperature) == ("competence", "u8-sqrt", 2.0)
    assert (told.start, told.probes) == (0, 20)
    assert told.consensus_sha256 == b""


def test_a_closed_round_tells_its_consensus_and_when_it_ended(world):
    devices = fleet(world)
    world.wait(7)
    for device in devices:
        device.contribute()
    blocks, _ = world.consensus()
    told = chronicle(world).round(world.state.epoch, 1)
    assert (told.phase, told.heard, told.ended_ms) == ("closed", 3, 1_007_000)
    assert told.consensus_sha256 == blocks[0].consensus_sha256
    assert told.down_bytes == sum(len(codec.encode(block)) for block in blocks)
    assert told.metrics == world.state.consensus.metrics
    world.wait(10)
    assert chronicle(world).round(world.state.epoch, 1) == told
    assert [one.number for one in chronicle(world).rounds()] == [2, 1]
    assert [one.number for one in chronicle(world).rounds(before=2)] == [1]
    assert [one.number for one in chronicle(world).rounds(limit=1)] == [2]


def test_an_aborted_round_tells_why(world):
    fleet(world)
    world.wait(60)
    told = chronicle(world).round(world.state.epoch, 1)
    assert (told.phase, told.reason, told.ended_ms) == ("aborted", "quorum", 1_060_000)


def test_what_the_student_learnt_stands_with_the_round_that_it_learnt_from(tmp_path):
    world = World(tmp_path / "server.db", student=Pupil())
    for device in fleet(world):
        device.contribute()
    world.wait(10)
    second, first = chronicle(world).rounds()
    assert first.student == world.state.student.metrics != {}
    assert second.student == {}


def test_every_payload_of_a_round_is_told_the_refused_ones_too(world):
    a, b, _ = fleet(world)
    world.wait(3)
    stored, _ = a.contribute()
    refused, _ = b.contribution(temperature=4.0)
    b.send(refused)
    a.send(stored)
    of_a, of_b = hearings(world)
    assert (of_a.device, of_a.kind, of_a.status, of_a.reason) == ("a", "contribution", "stored", "")
    assert (of_a.arrived_ms, of_a.payload_bytes, of_a.sha256) == (1_003_000, len(stored), sha256(stored))
    assert (of_b.device, of_b.status, of_b.reason) == ("b", "refused", "wrong_temperature")
    told = chronicle(world).round(world.state.epoch, 1)
    assert told.up_bytes == 2 * len(stored) + len(refused), "the doubled one came over the line as well"


def test_what_was_stored_stays_so_when_it_comes_again_long_after_its_round(world):
    """A broker that was killed sends again what had been acknowledged; what it is refused for now was no fault."""
    devices, payloads = fleet(world), []
    for seed in range(4):
        payloads += [device.contribute(seed=seed)[0] for device in devices]
        world.wait(10)
    devices[0].send(payloads[0], round_id=RoundId(FED, world.state.epoch, 1))
    assert world.receipts("a")[-1].reason == "round_closed"
    (only,) = (one for one in hearings(world) if one.device == "a")
    assert (only.status, only.reason) == ("stored", "")


def test_a_payload_in_parts_is_one_hearing_and_every_part_counts_its_bytes(world):
    a, _, _ = fleet(world)
    payload, _ = a.contribution()
    a.send(payload, part_bytes=40)
    (only,) = hearings(world)
    assert only.payload_bytes == len(payload)
    assert chronicle(world).device("a").up_bytes == len(payload)


def test_a_payload_of_a_foreign_round_is_told_under_the_round_that_was_open(world):
    a, _, _ = fleet(world)
    a.send(a.contribution()[0], round_id=RoundId(FED, world.state.epoch ^ 1, 99))
    (only,) = hearings(world)
    assert (only.round, only.reason) == (1, "foreign_epoch")


def test_refusals_without_end_are_counted_but_not_all_listed(world):
    a, _, _ = fleet(world)
    for seed in range(MAX_REFUSALS + 5):
        a.send(a.contribution(seed=seed, temperature=4.0)[0])
    assert len(hearings(world)) == MAX_REFUSALS
    assert chronicle(world).device("a").refused == MAX_REFUSALS + 5


def test_a_device_is_told_as_it_says_of_itself(world):
    device = world.device("a", agent="0.1", bundle=sha256(b"b"), family="cnn-s", runtime="litert")
    world.wait(5)
    told = chronicle(world).device("a")
    assert (told.first_seen_ms, told.last_seen_ms, told.online, told.boot) == (1_000_000, 1_000_000, True, 1)
    assert (told.agent, told.bundle, told.family, told.runtime) == ("0.1", sha256(b"b"), "cnn-s", "litert")
    assert (told.rounds, told.refused, told.trust, told.tags) == (0, 0, None, ())
    device.die()
    told = chronicle(world).device("a")
    assert (told.online, told.agent, told.last_seen_ms) == (False, "0.1", 1_005_000)
    assert (told.first_seen_ms, chronicle(world).devices()) == (1_000_000, (told,))


def test_a_late_will_of_an_earlier_life_changes_nothing(world):
    device = world.device("a")
    device.say_state(DeviceState(2, online=True, task=TASK))
    device.die(boot=1)
    assert chronicle(world).device("a").online


def test_a_device_that_counts_its_lives_anew_is_told_as_it_is(world):
    """Its card died, and it comes back under its name with nothing on it."""
    device = world.device("a", agent="0.1")
    device.say_state(DeviceState(57, online=True, task=TASK, agent="0.1"))
    device.die(boot=57)
    device.die(boot=56)
    assert chronicle(world).device("a").boot == 57, "a late will says nothing"
    device.say_state(DeviceState(1, online=True, task=TASK, agent="0.2", problem="disk_full"))
    told = chronicle(world).device("a")
    assert (told.online, told.boot, told.agent, told.problem) == (True, 1, "0.2", "disk_full")
    assert [one.device for one in chronicle(world).ill_devices()] == ["a"]
    device.die(boot=1)
    assert not chronicle(world).device("a").online


def test_an_earlier_life_of_a_device_that_is_there_changes_nothing(world):
    device = world.device("a", agent="0.1")
    device.say_state(DeviceState(57, online=True, task=TASK, agent="0.1"))
    device.say_state(DeviceState(1, online=True, task=TASK, agent="0.2"))
    told = chronicle(world).device("a")
    assert (told.boot, told.agent, world.state.online["a"].boot) == (57, "0.1", 57)


def test_a_birth_told_from_memory_is_no_sign_of_life(world):
    device = world.device("a")
    world.wait(5)
    world.link.events.put(Arrived(TOPICS.state("a"), codec.encode(device.birth), retained=True, token=0))
    world.settle()
    assert chronicle(world).device("a").last_seen_ms == 1_000_000


@pytest.mark.parametrize(
    ("birth", "problem"),
    [({"task": sha256(b"other")}, "foreign_task"), ({"problem": "disk_full"}, "disk_full"), ({}, "")],
)
def test_a_device_that_cannot_take_part_is_told_with_its_problem(world, birth, problem):
    world.device("a", **birth)
    told = chronicle(world).device("a")
    assert (told.online, told.problem) == (True, problem)


def test_the_last_report_of_a_device_is_told(world):
    fleet(world)
    report = RoundReport(world.offer.round, sha256(b"z"), accepted=True, metrics={"accuracy": 0.9})
    world.arrive(TOPICS.report("a"), codec.encode(report))
    world.settle()
    assert chronicle(world).device("a").report == {"accuracy": 0.9}


def test_what_devices_report_of_a_round_is_told_with_what_they_sent_in_it(world):
    devices = fleet(world)
    for device in devices:
        device.contribute()
    first = world.state.round.id
    world.wait(10)
    for device, share in zip(devices, (0.5, 0.9, 1.0), strict=True):
        report = RoundReport(first, sha256(b"z"), accepted=True, metrics={"accuracy": share})
        for _ in range(2):  # the broker may deliver it twice
            world.arrive(TOPICS.report(device.name), codec.encode(report))
    world.settle()
    assert chronicle(world).reported("accuracy", 1, 9) == {1: (0.5, pytest.approx(0.8), 1.0)}
    assert chronicle(world).reported("loss", 1, 9) == {}
    assert {one.device: dict(one.report) for one in chronicle(world).hearings(first.epoch, 1)}["b"] == {"accuracy": 0.9}
    assert chronicle(world).hearings(first.epoch, 2) == ()


def test_a_report_of_another_epoch_or_of_a_round_without_a_contribution_is_not_set_beside_one(world):
    a, _, _ = fleet(world)
    a.contribute()
    here = world.state.round.id
    for round_id in (replace(here, epoch=here.epoch + 1), replace(here, federation="other"), replace(here, number=7)):
        report = RoundReport(round_id, sha256(b"z"), accepted=True, metrics={"accuracy": 0.9})
        world.arrive(TOPICS.report("a"), codec.encode(report))
    world.settle()
    assert chronicle(world).reported("accuracy", 0, 9) == {}


def told(world):
    one = chronicle(world)
    return one.rounds(), one.devices(), hearings(world)


def test_a_crash_in_a_round_changes_no_word(world):
    a, b, _ = fleet(world)
    a.contribute()
    b.send(b.contribution(temperature=4.0)[0])
    before = told(world)
    world.wait(20)
    world.restart()
    assert told(world) == before


def test_a_crash_while_aggregating_leaves_the_round_to_be_ended_by_the_next_life(world, monkeypatch):
    devices = fleet(world)
    with monkeypatch.context() as crash:
        crash.setattr(Aggregator, "_start", lambda *_: None)
        for device in devices:
            device.contribute()
    assert chronicle(world).rounds()[0].phase == "aggregating"
    world.restart()
    ended = chronicle(world).rounds()[0]
    assert (ended.phase, ended.consensus_sha256) == ("closed", world.state.consensus.sha256)


def test_a_transaction_that_found_no_room_is_not_counted(world, monkeypatch):
    a, _, _ = fleet(world)
    payload, _ = a.contribution()
    follow = Scribe._follow

    def no_room(scribe, *arguments):
        follow(scribe, *arguments)
        raise StoreFullError(world.path, "database or disk is full")

    monkeypatch.setattr(Scribe, "_follow", no_room)
    with pytest.raises(StoreFullError):
        a.send(payload)
    monkeypatch.undo()
    world.settle()
    (record,) = chronicle(world).rounds()
    assert (record.heard, record.up_bytes) == (1, len(payload))
    assert chronicle(world).device("a").rounds == 1


def test_a_round_that_ended_before_there_were_records_has_none(tmp_path):
    world = World(tmp_path / "server.db")
    for device in fleet(world):
        device.contribute()
    for table in ("rounds", "hearings", "devices"):
        world.store.delete_rows(table, {"fed": FED})
    world.restart()
    assert chronicle(world).rounds() == ()
    world.wait(10)
    assert [one.number for one in chronicle(world).rounds()] == [2]


def test_a_command_is_written_down_once(tmp_path):
    store = Store.open(tmp_path / "server.db")
    scribe = Scribe(store, FED, MethodSettings())
    record = CommandRecord("id-1", 5, "ann", "operator", "pause", {"round": "7"}, "done")
    assert scribe.command(record)
    assert not scribe.command(CommandRecord("id-1", 6, "bob", "operator", "abort"))
    assert Chronicle(store, FED).commands() == (record,)


def test_a_database_from_before_the_records_tells_nothing(tmp_path):
    store = Store.open(tmp_path / "server.db")
    one = Chronicle(store, FED)
    assert (one.rounds(), one.devices(), one.commands()) == ((), (), ())
    assert (one.round(7, 1), one.device("a"), one.hearings(7, 1)) == (None, None, ())


def test_the_shares_of_a_consensus_sum_to_1_and_those_of_the_absent_are_among_them(world):
    a, b, c = fleet(world)
    for device in (a, b, c):
        device.contribute()
    assert all(one.share == pytest.approx(1 / 3) and one.weight == WEIGHT_ONE for one in hearings(world))
    world.wait(10)
    a.contribute(seed=1)
    assert [one.share for one in hearings(world, 2)] == [None], "nothing is made yet"
    b.contribute(seed=1)
    world.wait(60)
    first, second, last = hearings(world, 2)
    assert [one.status for one in (first, second, last)] == ["stored", "stored", "absent"]
    assert (last.device, last.payload_bytes, last.arrived_ms, last.weight) == ("c", 0, 0, to_weight(0.8))
    assert last.share < first.share == second.share
    assert first.share + second.share + last.share == pytest.approx(1.0)
    assert all(0.0 <= one.agreement <= 1.0 for one in (first, second, last))


def test_what_devices_earned_on_canaries_is_told(tmp_path):
    right = np.arange(20) % 3
    world = World(tmp_path / "server.db", canaries=LabelledProbes(tuple(range(20)), tuple(right.tolist())))
    honest, liar, _ = fleet(world)
    world.device("d")
    p = np.full((20, 3), 0.05, np.float32)
    p[np.arange(20), right] = 0.9
    for device in (honest, liar):
        device.send_map([0] * 20)
        device.contribute(probabilities=p if device is honest else np.roll(p, 1, axis=1))
    world.wait(60)
    assert chronicle(world).device("a").trust > 0.5 > chronicle(world).device("b").trust
    assert chronicle(world).device("d").trust is None


def test_an_old_result_of_the_worker_is_not_told(world):
    fleet(world)
    stale = Standing(Source("a", b"p" * 32, b"l" * 32, b"", WEIGHT_ONE), 1.0, 1.0)
    world.link.events.put(Finished((made(),), standings=(stale,)))
    world.settle()
    assert hearings(world) == ()


def test_a_restart_after_a_round_does_not_move_its_end(world):
    for device in fleet(world):
        device.contribute()
    before = told(world)
    world.wait(5)
    world.restart()
    assert told(world) == before


def test_what_arrives_before_the_first_round_makes_no_round(tmp_path):
    world = World(tmp_path / "server.db", student=Pupil())
    a = world.device("a")
    a.send(a.map([0] * 20), round_id=RoundId(FED, world.state.epoch, 0), kind=Kind.COMPETENCE)
    assert chronicle(world).rounds() == ()
    assert chronicle(world).device("a").refused == 1


def test_a_student_of_a_round_without_a_record_makes_none(tmp_path):
    world = World(tmp_path / "server.db", student=Pupil())
    for device in fleet(world):
        device.contribute()
    world.store.delete_rows("rounds", {"fed": FED})
    world.restart()
    assert chronicle(world).rounds() == ()


def test_a_map_that_comes_while_a_consensus_is_made_is_not_told_as_part_of_it(world, monkeypatch):
    """The voices are heard again for their shares: they are those of the same moment."""
    a, b, c = fleet(world)
    for device in (a, b, c):
        device.send_map([1] * 20)
    (old,) = world.store.payloads(FED, "competence", "a")

    def join_and_hear_of_another_map(*arguments, **settings):
        joined = join(*arguments, **settings)
        world.store.put_payload(FED, replace(old, content=world.store.put_blob(a.map([0] * 20))))
        return joined

    monkeypatch.setattr("broker_server.forming.join", join_and_hear_of_another_map)
    for device in (a, b, c):
        device.contribute()
    monkeypatch.undo()
    assert world.store.payloads(FED, "competence", "a")[0].content != old.content
    (told_of_a,) = [one for one in hearings(world) if one.device == "a" and one.weight]
    assert told_of_a.map == old.content
    record = chronicle(world).round(world.state.epoch, 1)
    assert sum(one.share for one in hearings(world) if one.weight) == pytest.approx(1.0)
    assert record.consensus_sha256 == world.state.consensus.sha256


def test_a_server_goes_on_in_the_open_round_with_a_database_of_the_version_before(tmp_path):
    """No tables of records, and a table of trust that does not name its rule."""
    canaries = LabelledProbes(tuple(range(20)), tuple((np.arange(20) % 3).tolist()))
    world = World(tmp_path / "server.db", canaries=canaries)
    devices = fleet(world)
    for device in devices:
        device.contribute()
    world.wait(10)
    payload, _ = devices[0].contribute(seed=1)
    state = world.state
    rows = cbor.decode(world.store.blob(state.trust))[1]
    before = replace(state, trust=world.store.put_blob(cbor.encode(rows)))
    world.store.snapshot(FED, to_snapshot(before))
    for table in ("rounds", "hearings", "devices", "commands"):
        world.store._execute(f"DROP TABLE {table}")
    world.store._execute("PRAGMA user_version=1")
    world.restart()
    assert (world.store.version, world.state) == (GAINS, before)
    assert [(one.number, one.phase, one.heard) for one in chronicle(world).rounds()] == [(2, "offered", 1)]
    for device in devices[1:]:
        device.contribute(seed=1)
    (ended,) = chronicle(world).rounds()
    assert (ended.phase, ended.heard) == ("closed", 3)
    heard = hearings(world, 2)
    assert [one.device for one in heard if one.weight] == ["a", "b", "c"]
    assert (heard[0].sha256, heard[0].status) == (sha256(payload), "stored"), "though nobody wrote it down then"
    assert remake(chronicle(world), ended).sha256 == ended.consensus_sha256
