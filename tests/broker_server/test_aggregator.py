"""The server's loop, told as stories: real store, real rules, hand-made devices."""

import json
from dataclasses import replace

import numpy as np
import pytest

from broker_server.aggregator import GROUP_MESSAGES
from broker_server.core.round import Phase
from broker_server.core.trust import TrustTable
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import remake
from broker_server.settings import MethodSettings, RecordSettings, RoundSettings
from broker_server.student import Lesson
from broker_server.voices import Absence
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.competence import FAR
from fd_protocol.identity import sha256
from fd_protocol.messages import Codec, DeviceState, Status
from tests.broker_server.builders import FED
from tests.broker_server.world import PROBES, TOPICS, World, fleet, mean_of


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "server.db")


# A round from end to end.


def test_a_round_is_offered_once_enough_devices_are_online(world):
    world.device("a")
    world.device("b")
    assert world.state.round is None
    world.device("c")
    assert world.state.round.phase is Phase.OFFERED
    assert (world.offer.remaining_s, world.offer.deadline_utc_s, world.offer.quorum) == (60, 1_060, 2)
    assert world.presence.epoch == world.offer.round.epoch == world.state.epoch


def test_all_in_makes_a_consensus_that_every_device_can_read(world):
    codes = [device.contribute()[1] for device in fleet(world)]
    assert world.state.round.phase is Phase.CLOSED
    blocks, probabilities = world.consensus()
    np.testing.assert_allclose(probabilities, mean_of(*codes), atol=0.01)
    assert blocks[0].round == world.state.round.id
    assert blocks[0].consensus_sha256 == sha256(b"".join(block.body for block in blocks))


def test_quorum_at_the_deadline_makes_a_consensus_and_the_next_round_follows_the_pause(world):
    a, b, _ = fleet(world)
    a.contribute()
    b.contribute()
    world.wait(60)
    assert world.state.round.phase is Phase.CLOSED
    world.wait(9)
    assert world.state.number == 1
    world.wait(1)
    assert world.offer.round.number == 2


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_clock_of_1970_in_the_middle_of_a_round_ends_neither_server_nor_round(tmp_path, is_killed):
    """A board without a clock starts in 1970, and gets the time later. Devices count on what the offer says."""
    world = World(tmp_path / "server.db")
    world.now_ms = now_ms = 1_700_000_000_000
    a, b, _ = fleet(world)
    a.contribute()
    b.contribute()
    assert world.state.round.deadline_ms == now_ms + 60_000
    world.now_ms = 12_000
    if is_killed:
        world.restart()
    world.settle()
    assert world.state.round.deadline_ms == 72_000
    assert world.offer.remaining_s == 60
    world.wait(59)
    assert world.state.round.phase is Phase.OFFERED
    world.wait(1)
    assert world.state.round.phase is Phase.CLOSED
    world.wait(10)
    assert world.state.number == 2
    world.now_ms = now_ms + 100_000
    world.settle()
    assert (world.state.round.phase, world.state.round.reason) == (Phase.ABORTED, "quorum")
    world.wait(10)
    assert world.state.number == 3


def test_without_quorum_the_round_is_aborted_and_another_is_offered(world):
    fleet(world)[0].contribute()
    world.wait(60)
    assert (world.state.round.phase, world.state.round.reason, world.state.consensus) == (
        Phase.ABORTED,
        "quorum",
        None,
    )
    world.wait(10)
    assert world.offer.round.number == 2


def test_after_the_last_scheduled_round_the_server_is_complete(tmp_path):
    rounds = RoundSettings(quorum=2, minimum_online=3, count=1)
    world = World(tmp_path / "s.db", rounds=rounds)
    for device in fleet(world):
        assert not world.server.is_complete
        device.contribute()
    world.wait(3_600)
    assert world.server.is_complete
    assert world.state.number == 1


def test_a_contribution_is_durable_before_the_broker_is_told_and_the_broker_before_the_device(world):
    a = fleet(world)[0]
    payload, _ = a.contribution()
    committed = []
    ack = world.link.ack

    def acknowledge(arrived):
        with world.store.reader() as reader:
            committed.extend(reader.payloads(FED, "contribution", "a"))
        ack(arrived)

    world.link.ack = acknowledge
    a.send(payload)
    assert [row.sha256 for row in committed] == [sha256(payload)]
    verbs = [verb for verb, topic, _ in world.link.history if topic in (TOPICS.upload("a"), TOPICS.receipt("a"))]
    assert verbs == ["ack", "publish"]


def test_a_group_takes_at_most_so_many_messages(world):
    for k in range(GROUP_MESSAGES + 5):
        world.arrive(TOPICS.state(f"dev-{k}"), codec.encode(DeviceState(1, online=True, task=PROBES.task)))
    world.server.pump(0)
    assert len(world.state.online) == GROUP_MESSAGES
    world.settle()
    assert len(world.state.online) == GROUP_MESSAGES + 5


def test_a_warm_up_round_earns_trust_and_maps_and_publishes_nothing(tmp_path):
    rounds = RoundSettings(quorum=2, minimum_online=3, duration_s=60, warm_up_s=600)
    world = World(tmp_path / "s.db", rounds=rounds, canaries=LabelledProbes((0, 1), (0, 0)))
    devices = fleet(world)
    assert world.offer.remaining_s == 600
    for device in devices:
        device.send_map([0] * 20)
        device.contribute()
    assert not any("consensus" in topic for topic in world.link.retained)
    assert world.state.consensus.metrics["voices"] == 3
    assert len(world.store.blob(world.state.trust)) > 3
    assert (world.offer.round.number, world.offer.remaining_s) == (2, 60)
    for device in devices:
        device.contribute(seed=1)
    assert world.consensus()[0][0].round.number == 2


def test_the_probes_of_a_slice_are_asked_for_again_so_that_differences_can_be_sent(tmp_path):
    world = World(tmp_path / "s.db", rounds=RoundSettings(minimum_online=3, probes=10, slice_rounds=2))
    a, b, c = fleet(world)
    first = a.contribute()
    for device in (b, c):
        device.contribute()
    payload, _ = a.contribution(base=first)
    assert [receipt.status for receipt in a.send(payload)] == [Status.STORED]
    for device in (b, c):
        device.contribute(seed=1)
    assert world.offer.slice.start == 10


def test_a_round_for_tagged_devices_is_for_them_alone(tmp_path):
    rounds = RoundSettings(quorum=2, minimum_online=3, pause_s=10, tags=("press", "kiln"))
    world = World(tmp_path / "s.db", rounds=rounds)
    for device, tags in (("a", ["press"]), ("b", ["kiln", "old"]), ("c", ["old"])):
        world.store.merge("devices", {"fed": FED, "device": device}, {"tags": json.dumps(tags)})
    a, b, c = fleet(world)
    assert (world.offer.devices, world.state.round.invited) == (("a", "b"), 2)
    assert [receipt.reason for receipt in c.send(c.contribution()[0])] == ["not_a_member"]
    a.contribute()
    b.contribute()
    assert world.state.round.phase is Phase.CLOSED


# The roster.


def test_a_device_that_comes_in_the_middle_of_a_round_counts_and_is_not_waited_for(world):
    a, b, c = fleet(world)
    late = world.device("d")
    late.contribute()
    assert (world.state.round.heard, world.state.round.awaited) == (1, 3)
    for device in (a, b, c):
        device.contribute()
    assert (world.state.round.phase, world.state.round.heard) == (Phase.CLOSED, 4)


def test_a_device_that_goes_in_the_middle_of_a_round_keeps_its_say(world):
    a, b, _ = fleet(world)
    a.contribute()
    a.die()
    b.contribute()
    world.wait(60)
    assert world.state.consensus.metrics["voices"] == 2


def test_devices_that_cannot_take_part_are_not_waited_for(world):
    a, b, _ = fleet(world)
    world.device("elsewhere", task=sha256(b"other task"))
    world.device("broken", problem="no bundle")
    assert set(world.state.online) == set("abc")
    b.die()
    a.die(boot=0)
    assert set(world.state.online) == set("ac")


def test_a_device_with_a_foreign_bundle_is_not_waited_for(tmp_path):
    world = World(tmp_path / "s.db")
    bundle = sha256(b"bundle")

    world.settings = replace(world.settings, bundles=(bundle.hex(),))
    world.restart()
    world.device("a", bundle=bundle)
    world.device("b", bundle=sha256(b"other"))
    assert set(world.state.online) == {"a"}


def test_a_codec_that_not_every_device_understands_is_not_asked_for(tmp_path):
    world = World(tmp_path / "s.db", method=MethodSettings(codec=Codec.U4_SQRT))
    fleet(world)
    assert world.offer.codec is Codec.U4_SQRT
    world.wait(60)
    world.device("old", capabilities=("u8-sqrt",))
    world.wait(10)
    assert world.offer.codec is Codec.U8_SQRT


# Absence, competence, trust.


def test_an_absent_devices_last_words_count_faded(world):
    a, b, c = fleet(world)
    for device in (a, b, c):
        device.contribute()
    world.wait(10)
    a.contribute(seed=1)
    b.contribute(seed=1)
    world.wait(60)
    metrics = world.state.consensus.metrics
    assert (metrics["voices"], metrics["absent_voices"]) == (3, 1)


def test_an_absent_device_is_forgotten_in_the_end_and_its_blobs_with_it(tmp_path):
    world = World(tmp_path / "s.db")
    a, b, c = fleet(world)
    c.send_map([0] * 20)
    for device in (a, b, c):
        device.contribute()
    c.die()
    world.device("d")
    for seed in range(1, 14):
        world.wait(10)
        a.contribute(seed=seed)
        b.contribute(seed=seed)
        world.wait(60)
    assert world.state.consensus.metrics["voices"] == 2
    assert {row.device for row in world.store.payloads(FED, "contribution")} == {"a", "b"}
    assert [row.device for row in world.store.payloads(FED, "competence")] == ["c"], "a map is sent once"


def test_the_store_does_not_grow_with_rounds(tmp_path):
    world = World(tmp_path / "s.db", records=RecordSettings(replayable_rounds=0))
    a, b, c = fleet(world)
    sizes = []
    for seed in range(4):
        for device in (a, b, c):
            device.contribute(seed=seed)
        sizes.append(len(world.store._execute("SELECT * FROM blobs").fetchall()))
        assert world.store.replay(FED)[1] == []
        world.wait(10)
    assert len(set(sizes)) == 1


def test_parts_of_a_payload_that_never_was_complete_go_with_the_round(world):
    a, b, c = fleet(world)
    payload, _ = c.contribution()
    c.send(payload, part_bytes=20, parts={0})
    a.contribute()
    b.contribute()
    assert world.store.part_numbers(FED, "contribution", "c", sha256(payload)) == {0}
    world.wait(60)
    assert world.store.part_numbers(FED, "contribution", "c", sha256(payload)) == set()


def test_a_competence_map_is_stored_once_and_weighs_its_device(world):
    a, b, c = fleet(world)
    near, far = [0] * 20, [FAR] * 20
    for device, distances in ((a, near), (b, near), (c, far)):
        assert [r.status for r in device.send_map(distances)] == [Status.STORED]
        assert [r.status for r in device.send_map(distances)] == [Status.DUPLICATE]
    codes = [device.contribute()[1] for device in (a, b, c)]
    np.testing.assert_allclose(world.consensus()[1], mean_of(*codes[:2]), atol=0.01)


def test_a_new_map_of_a_device_takes_the_place_of_the_old_one(world):
    a = fleet(world)[0]
    a.send_map([FAR] * 20)
    a.send_map([0] * 20)
    assert len(world.store.payloads(FED, "competence", "a")) == 1


def test_a_liar_is_known_by_its_canaries_before_it_is_heard(tmp_path):
    canaries = LabelledProbes(tuple(range(0, 20, 2)), (0,) * 10)
    world = World(tmp_path / "s.db", canaries=canaries)
    devices = fleet(world)
    truth, lie = np.tile(np.float32([0.9, 0.05, 0.05]), (20, 1)), np.tile(np.float32([0.02, 0.02, 0.96]), (20, 1))
    for device, labels in zip(devices, (truth, truth, lie), strict=True):
        device.send_map([0] * 20)
        device.contribute(probabilities=labels)
    assert world.consensus()[1][:, 0].mean() > 0.88  # 0.61 if the liar were heard in full


def test_what_a_rule_remembers_is_kept_over_a_crash_and_means_nothing_to_another_rule(tmp_path):
    world = World(tmp_path / "s.db", method=MethodSettings("expguard"))
    devices = fleet(world)
    truth, lie = np.tile(np.float32([0.9, 0.05, 0.05]), (20, 1)), np.tile(np.float32([0.02, 0.02, 0.96]), (20, 1))
    told = []
    for name in ("expguard", "expguard", "competence"):
        world.settings = replace(world.settings, method=MethodSettings(name))
        world.restart()
        for device, labels in zip(devices, (truth, truth, lie), strict=True):
            device.contribute(probabilities=labels)
        told.append(world.consensus()[1][:, 2].mean() - 0.05)  # what the liar adds to the truth
        world.wait(10)
    assert told[1] < 0.5 * told[0] < 0.5 * told[2]


TRUTH = np.tile(np.float32([0.9, 0.05, 0.05]), (20, 1))
LIE = np.tile(np.float32([0.02, 0.02, 0.96]), (20, 1))


def trust(world):
    table = TrustTable.from_bytes(world.store.blob(world.state.trust), 3)
    return {device: row.tolist() for device, row in table.by_device.items()}


def play(world, devices):
    """A round in which these devices say the truth, but for `c`."""
    for device in devices:
        device.contribute(probabilities=LIE if device.name == "c" else TRUTH)
    world.wait(60)
    world.wait(10)


@pytest.mark.parametrize("name", ["expguard", "competence"])
@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_who_is_away_keeps_what_it_has_earned_a_liar_too(tmp_path, name, decay):
    method = MethodSettings(name, absence=Absence(decay))
    world = World(tmp_path / "s.db", method=method, canaries=LabelledProbes(tuple(range(0, 20, 2)), (0,) * 10))
    *devices, _ = fleet(world, "abcd")
    for device in devices:
        device.send_map([0] * 20)
    for _ in range(3):
        play(world, devices)
    devices[2].die()
    for _ in range(1 if decay == 0.0 else method.absence.rounds + 1):  # its last words are heard, and judged, as well
        before = trust(world)
        play(world, devices[:2])
    assert trust(world)["c"] == before["c"]
    assert max(trust(world)["c"]) < 0.5 * min(trust(world)["a"])
    chronicle = Chronicle(world.store, FED)
    assert "c" not in {one.device for one in chronicle.hearings(world.state.epoch, world.state.number - 1)}
    for record in chronicle.rounds(3):
        assert not record.consensus_sha256 or remake(chronicle, record).sha256 == record.consensus_sha256


def test_what_another_rule_gave_is_not_carried_along(tmp_path):
    world = World(tmp_path / "s.db", method=MethodSettings("expguard", absence=Absence(0.0)))
    *devices, _ = fleet(world, "abcd")
    play(world, devices)
    assert set(trust(world)) == {"a", "b", "c"}
    world.settings = replace(world.settings, method=MethodSettings("competence", absence=Absence(0.0)))
    world.restart()
    for _ in range(2):  # the first of them was offered under the rule before
        play(world, devices[:2])
    assert set(trust(world)) == {"a", "b"}


def test_a_round_whose_probes_nobody_knows_makes_no_consensus_where_the_operator_says_so(tmp_path):
    rounds = RoundSettings(minimum_online=3, pause_s=10, most_uncovered=0.3)
    world = World(tmp_path / "s.db", rounds=rounds)
    devices = fleet(world)
    for device in devices:
        device.send_map([FAR] * 7 + [0] * 13)
        device.contribute()
    assert (world.state.round.phase, world.state.round.reason.split(":")[0]) == (Phase.ABORTED, "uncovered")
    assert "35 %" in world.state.round.reason.replace("%", " %")
    world.wait(10)
    devices[0].send_map([FAR] * 6 + [0] * 14)
    for device in devices:
        device.contribute(seed=1)
    assert world.state.round.phase is Phase.CLOSED
    assert world.state.consensus.metrics["uncovered_probes"] == pytest.approx(0.3)


# The student.


class Pupil:
    """Learns by heart how many lessons it had."""

    def __init__(self):
        self.broken = False

    def learn(self, blocks, weights):
        if self.broken:
            raise ArithmeticError
        return Lesson((weights or b"") + b"|", {"accuracy": float(len(blocks))})


def test_the_student_learns_every_consensus_after_it_went_out(tmp_path):
    pupil = Pupil()
    world = World(tmp_path / "s.db", student=pupil)
    for seed in range(2):
        for device in fleet(world):
            device.contribute(seed=seed)
        world.wait(10)
    assert world.store.blob(world.state.student.weights) == b"||"
    assert world.state.student.metrics == {"accuracy": 1.0}


def test_a_student_that_fails_does_not_stop_the_federation(tmp_path):
    pupil = Pupil()
    world = World(tmp_path / "s.db", student=pupil)
    for seed, broken in ((0, False), (1, True), (2, False)):
        pupil.broken = broken
        for device in fleet(world):
            device.contribute(seed=seed)
        world.wait(10)
    assert world.store.blob(world.state.student.weights) == b"||"
