"""What breaks a decoder is kept for the operator, comes once, and stops nobody."""

import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.core.round import Phase
from broker_server.ingest import Ingest
from broker_server.records.quarantine import MAX_BYTES, PLACES, Quarantine, outline
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import Kind, Status
from fd_protocol.parts import split
from fd_runtime.storage.store import MissingBlobError
from tests.broker_server.builders import FED
from tests.broker_server.world import TOPICS, World, fleet


@pytest.fixture
def world(tmp_path):
    (tmp_path / "state").mkdir()
    return World(tmp_path / "state" / "server.db")


def kept(world):
    return list(Quarantine(world.store, FED).kept())


def test_a_body_that_broke_a_decoder_is_kept_whole_with_its_reason(world):
    a = fleet(world)[0]
    payload, _ = a.contribution(body=b"no stream")
    a.send(payload, part_bytes=20)
    (each,) = kept(world)
    assert (each.topic, each.reason) == (TOPICS.upload("a"), "malformed_body")
    assert (each.head, each.sha256, each.at_ms) == (payload, sha256(payload), world.now_ms)


def test_what_is_well_formed_and_must_not_count_is_not_kept(world):
    a = fleet(world)[0]
    a.send(a.contribution(temperature=3.0)[0])
    a.send(a.contribution(base=(b"never sent", a.contribution(seed=9)[1]))[0])
    assert kept(world) == []


def test_only_the_last_are_kept_and_of_a_long_one_its_head(world):
    quarantine = Quarantine(world.store, FED)
    for size in range(PLACES + 10):
        quarantine.put("topic", bytes(size), "malformed", 0)
    assert [each.size for each in kept(world)] == list(range(10, PLACES + 10))
    assert [each.number for each in kept(world)][-1] == quarantine.count() == PLACES + 10
    quarantine.put("topic", bytes(MAX_BYTES + 1), "malformed", 0)
    assert (kept(world)[-1].size, len(kept(world)[-1].head)) == (MAX_BYTES + 1, MAX_BYTES)


def raising(error):
    def fail(*_arguments, **_words):
        raise error

    return fail


LAYERS = {
    "the first look at a part": ("broker_server.ingest.check_part", KeyError("poison")),
    "the rules of admission": ("broker_server.ingest.admit_contribution", RecursionError()),
    "the stored form": ("broker_server.core.labels.StoredLabels.to_bytes", MemoryError()),
    "the blobs": ("fd_runtime.storage.store.Store.put_blobs", OverflowError("int too large")),
    "a blob that is gone": ("fd_runtime.storage.store.Store.put_blobs", MissingBlobError(None, "gone")),
    "the rows": ("fd_runtime.storage.store.Store.put_payloads", UnicodeEncodeError("utf-8", "x", 0, 1, "poison")),
    "the receipt, after everything was written": ("broker_server.ingest._receipt", ValueError("poison")),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_message_that_breaks_any_layer_comes_once_and_leaves_nothing_behind(world, monkeypatch, layer):
    a, b, c = fleet(world)
    payload, _ = a.contribution()
    with monkeypatch.context() as poison:
        target, error = LAYERS[layer]
        poison.setattr(target, raising(error))
        a.send(payload)
        acks = [entry for entry in world.link.history if entry[:2] == ("ack", TOPICS.upload("a"))]
        assert len(acks) == 1
        assert not world.server.pump(0), "it does not come again"
        world.restart()
    assert world.receipts("a") == []
    assert world.store.payloads(FED, "contribution") == []
    assert [each.reason for each in kept(world)] == ["error"]
    for device in (a, b, c):
        device.contribute()
    assert (world.state.round.phase, world.state.round.heard) == (Phase.CLOSED, 3)


def test_a_message_that_broke_half_way_is_not_taken_for_a_duplicate_when_it_comes_again(world, monkeypatch):
    a = fleet(world)[0]
    payload, _ = a.contribution()
    with monkeypatch.context() as poison:
        poison.setattr("broker_server.ingest._receipt", raising(ValueError("poison")))
        a.send(payload)
    assert [receipt.status for receipt in a.send(payload)] == [Status.STORED]
    assert world.state.round.heard == 1


def test_what_others_sent_with_it_in_one_transaction_is_kept(world, monkeypatch):
    a, b, _ = fleet(world)
    take = Ingest._part

    def break_over_a(self, device, *rest):
        return 1 / 0 if device == "a" else take(self, device, *rest)

    monkeypatch.setattr(Ingest, "_part", break_over_a)
    for device in (a, b):
        (part,) = split(device.contribution()[0], world.offer.round, Kind.CONTRIBUTION)
        world.arrive(TOPICS.upload(device.name), codec.encode(part))
    world.settle()
    assert dict(world.state.round.contributions).keys() == {"b"}


def test_an_outline_tells_how_bytes_are_built_and_nothing_of_them(world):
    a = fleet(world)[0]
    secret = a.contribution()[0]
    assert "0: int" in outline(secret)
    assert "bytes" in outline(secret)
    assert outline(b"\xff\xff").startswith("not CBOR")


# The command line.


@pytest.fixture
def config(world, tmp_path):
    assert main(["init", str(tmp_path), "--federation", FED]) == 0
    a = fleet(world)[0]
    a.send(a.contribution(body=b"secret bytes")[0])
    world.arrive("not ours", b"x")
    world.settle()
    return tmp_path / CONFIG_NAME


def test_the_quarantine_is_listed_with_reason_size_and_topic(config, capsys):
    capsys.readouterr()
    assert main(["quarantine", "--config", str(config)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "malformed_body" in first
    assert TOPICS.upload("a") in first
    assert "foreign_topic" in second
    assert second.split()[0] == "2"


def test_one_is_shown_without_its_bytes_until_they_are_asked_for(config, capsys):
    hidden = b"secret bytes"[:4].hex()
    capsys.readouterr()
    assert main(["quarantine", "--config", str(config), "--show", "1"]) == 0
    assert hidden not in capsys.readouterr().out
    assert main(["quarantine", "--config", str(config), "--show", "1", "--bytes"]) == 0
    assert hidden in capsys.readouterr().out.replace(" ", "")


def test_one_that_is_not_kept_is_said_to_be_gone(config, capsys):
    assert main(["quarantine", "--config", str(config), "--show", "9"]) == 66
    assert "number 9 is not kept" in capsys.readouterr().err
