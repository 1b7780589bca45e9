"""What the server answers to a payload, and what it does with what is none."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.core.admission import MAX_MAPS
from broker_server.core.labels import StoredLabels
from broker_server.core.round import Phase
from broker_server.records.quarantine import Quarantine
from broker_server.settings import RoundSettings
from fd_protocol import cbor, codec
from fd_protocol.bodies import write_body
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import Codec, DeviceState, Kind, Status
from fd_protocol.parts import split
from tests.broker_server.builders import FED
from tests.broker_server.world import PROBES, TOPICS, World, fleet


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "server.db")


# Receipts.


def test_the_same_payload_again_is_a_duplicate_and_counts_once(world):
    a, b, _ = fleet(world)
    payload, _ = a.contribute()
    assert [r.status for r in a.send(payload)] == [Status.DUPLICATE]
    assert world.state.round.heard == 1
    b.contribute()
    world.wait(60)
    late = a.send(payload, round_id=world.state.round.id)
    assert [r.status for r in late] == [Status.DUPLICATE], "its receipt may have been lost"


def test_a_stored_payload_under_another_federations_name_is_no_duplicate(world):
    a = fleet(world)[0]
    payload, _ = a.contribute()
    current = world.offer.round
    (receipt,) = a.send(payload, round_id=RoundId("other", current.epoch, current.number))
    assert receipt.reason == "foreign_round"


def test_a_second_payload_in_a_round_is_refused_and_the_first_counts(world):
    a = fleet(world)[0]
    payload, _ = a.contribute()
    (receipt,) = a.send(a.contribution(seed=1)[0])
    assert (receipt.status, receipt.reason) == (Status.REFUSED, "second_payload")
    assert dict(world.state.round.contributions) == {"a": sha256(payload)}


def test_a_payload_in_parts_is_stored_once_and_receipted_once(world):
    a = fleet(world)[0]
    payload, _ = a.contribution()
    (receipt,) = a.send(payload, part_bytes=20)
    assert (receipt.status, receipt.payload_sha256) == (Status.STORED, sha256(payload))
    assert world.store.parts(FED, "contribution", "a", sha256(payload)) == []


def test_missing_parts_are_named_and_filled_in_over_a_crash(world):
    a = fleet(world)[0]
    payload, _ = a.contribution()
    last = -(-len(payload) // 20) - 1
    (receipt,) = a.send(payload, part_bytes=20, parts={0, last})
    assert (receipt.status, receipt.missing) == (Status.MISSING, tuple(range(1, last)))
    world.restart()
    (receipt,) = a.send(payload, part_bytes=20, parts=set(receipt.missing))
    assert receipt.status is Status.STORED


def test_parts_that_do_not_make_the_promised_payload_are_refused_and_forgotten(world):
    fleet(world)
    first, second = split(bytes(40), world.offer.round, Kind.CONTRIBUTION, part_bytes=20)
    for part in (first, replace(second, body=b"x" * 20)):
        world.arrive(TOPICS.upload("a"), codec.encode(part))
    world.settle()
    assert world.receipts("a")[-1].reason == "wrong_digest"
    assert world.store.part_numbers(FED, "contribution", "a", first.payload_sha256) == set()


def test_a_difference_to_the_last_payload_is_understood(world):
    a, b, c = fleet(world)
    base = a.contribute()
    b.contribute()
    c.contribute()
    world.wait(10)
    payload, codes = a.contribution(seed=1, base=base)
    assert [r.status for r in a.send(payload)] == [Status.STORED]
    b.contribute()
    c.contribute()
    assert world.state.round.phase is Phase.CLOSED
    stored = world.store.payloads(FED, "contribution", "a")[0]

    assert np.array_equal(StoredLabels.from_bytes(world.store.blob(stored.content)).codes.array, codes.array)


def test_a_difference_to_an_unknown_payload_is_refused_and_may_be_sent_in_full(world):
    a = fleet(world)[0]
    payload, _ = a.contribution(base=(b"never sent", a.contribution(seed=9)[1]))
    (receipt,) = a.send(payload)
    assert receipt.reason == "unknown_base"
    a.contribute()
    assert world.state.round.heard == 1


# What must not count; each refusal leaves the round as it was.


def refusal(world, device, payload, **how):
    before = world.state
    (receipt,) = device.send(payload, **how)
    assert receipt.status is Status.REFUSED
    assert world.state is before
    assert world.server.counters[f"refused.{receipt.reason}"] == 1
    return receipt.reason


def test_foreign_rounds_and_epochs_are_refused(world):
    a = fleet(world)[0]
    payload, current = a.contribution()[0], world.offer.round
    assert refusal(world, a, payload, round_id=RoundId(FED, current.epoch, 7)) == "foreign_round"
    assert refusal(world, a, payload, round_id=RoundId(FED, current.epoch ^ 2, 1)) == "foreign_epoch"
    world.server.counters.clear()
    assert refusal(world, a, payload, round_id=RoundId("other", current.epoch, 1)) == "foreign_round"


def test_more_bytes_than_the_budget_are_refused_before_they_are_read(tmp_path):
    world = World(tmp_path / "s.db", rounds=RoundSettings(minimum_online=3, byte_budget=100))
    a = fleet(world)[0]
    assert refusal(world, a, bytes(101)) == "over_budget"
    assert refusal_of_first_part(world, a, bytes(101)) == "over_budget"


def refusal_of_first_part(world, device, payload):
    (receipt,) = device.send(payload, part_bytes=60, parts={0})
    return receipt.reason


def test_a_device_that_was_not_invited_is_refused(tmp_path):
    world = World(tmp_path / "s.db", rounds=RoundSettings(minimum_online=3, fraction=0.01))
    a = fleet(world)[0]
    assert refusal(world, a, a.contribution()[0]) == "not_a_member"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"temperature": 3.0}, "wrong_temperature"),
        ({"codec": Codec.U4_SQRT}, "wrong_codec"),
        ({"body": b"no stream"}, "malformed_body"),
    ],
)
def test_labels_that_are_not_what_was_offered_are_refused(world, changes, reason):
    a = fleet(world)[0]
    assert refusal(world, a, a.contribution(**changes)[0]) == reason


def test_labels_of_other_probes_are_refused(world):

    a = fleet(world)[0]
    part = world.offer.slice
    assert refusal(world, a, a.contribution(slice=replace(part, start=1))[0]) == "wrong_slice"
    other = replace(part, public_set=sha256(b"other"))
    assert refusal(world, a, a.contribution(slice=other)[0]) == "foreign_public_set"


def test_labels_of_the_wrong_number_or_with_impossible_rows_are_refused(world):

    a = fleet(world)[0]
    cells = world.offer.slice.count * world.offer.slice.classes
    zeros = np.zeros(cells, np.uint8)
    assert refusal(world, a, a.contribution(body=write_body(zeros[:-1], 8))[0]) == "wrong_length"
    assert refusal(world, a, a.contribution(body=write_body(zeros, 8))[0]) == "invalid_rows"


def test_maps_of_other_probes_are_refused(world):
    a = fleet(world)[0]
    assert refusal(world, a, a.map([0] * 19), kind=Kind.COMPETENCE) == "wrong_slice"
    assert refusal(world, a, a.map([0] * 20, sha256(b"other")), kind=Kind.COMPETENCE) == "foreign_public_set"


def padded(device, number):
    """A map, and beside it what no version knows."""
    distances = [number >> k & 1 for k in range(20)]
    return cbor.encode({**cbor.decode(device.map(distances)), 99: b"%d" % number * 5000})


def test_of_a_map_no_more_is_kept_than_it_says(world):
    a, *_ = fleet(world)
    (receipt,) = a.send(padded(a, 5), kind=Kind.COMPETENCE)
    assert receipt.status is Status.STORED
    (row,) = world.store.payloads(FED, "competence", "a")
    assert world.store.blob(row.content) == a.map([1, 0, 1] + [0] * 17)
    (again,) = a.send(padded(a, 5), kind=Kind.COMPETENCE)
    assert again.status is Status.DUPLICATE


def test_a_device_whose_private_rows_change_in_a_round_sends_another_map_and_no_flood_of_them(world):
    a, b, _ = fleet(world)
    for number in range(MAX_MAPS):
        (receipt,) = a.send(padded(a, number), kind=Kind.COMPETENCE)
        assert receipt.status is Status.STORED
        (again,) = a.send(padded(a, number), kind=Kind.COMPETENCE)
        assert again.status is Status.DUPLICATE
    assert refusal(world, a, padded(a, MAX_MAPS), kind=Kind.COMPETENCE) == "second_payload"
    earlier = RoundId(FED, world.state.epoch, 0)
    (of_an_earlier_round,) = a.send(padded(a, MAX_MAPS), kind=Kind.COMPETENCE, round_id=earlier)
    assert of_an_earlier_round.reason == "second_payload", "it makes no difference which round a map names"
    assert len(world.store.payloads(FED, "competence", "a")) == 1
    assert [one.status for one in b.send_map([0] * 20)] == [Status.STORED], "others are none the worse"
    for device in (a, b):
        device.contribute()
    world.wait(60)
    world.wait(10)
    assert [one.status for one in a.send_map([1] * 20)] == [Status.STORED]


def test_garbage_in_a_part_is_refused_with_a_receipt(world):
    a = fleet(world)[0]
    assert refusal(world, a, b"not CBOR at all") == "malformed"
    assert refusal(world, a, a.map([0] * 20)) == "foreign_kind"


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (TOPICS.upload("a"), b""),
        (TOPICS.upload("a"), b"\xff" * 100),
        (TOPICS.upload("a"), bytes(70_000)),
        (TOPICS.state("a"), b"garbage"),
        (TOPICS.round, b"garbage"),
        ("fd/v1/demo/dev/a/unknown", b"x"),
        ("fd/v1/other/dev/a/state", codec.encode(DeviceState(1, online=True, task=PROBES.task))),
        ("not ours", b"x"),
    ],
)
def test_poison_is_set_aside_counted_and_acknowledged(world, topic, payload):
    fleet(world)
    before = world.state
    world.arrive(topic, payload)
    world.settle()
    assert world.state is before
    assert sum(n for key, n in world.server.counters.items() if key.startswith("set_aside.")) == 1
    assert ("ack", topic, payload) in world.link.history
    (kept,) = Quarantine(world.store, FED).kept()
    assert (kept.topic, kept.size, kept.sha256) == (topic, len(payload), sha256(payload))
    assert payload.startswith(kept.head)


def test_a_message_that_breaks_our_own_code_does_not_stop_the_server(world, monkeypatch):
    a, b, c = fleet(world)
    monkeypatch.setattr("broker_server.ingest.admit_contribution", lambda *_: 1 / 0)
    a.send(a.contribution()[0])
    assert world.server.counters["set_aside.error"] == 1
    monkeypatch.undo()
    for device in (a, b, c):
        device.contribute()
    assert world.state.round.phase is Phase.CLOSED
