"""A consensus for each cluster of devices: what is published, kept, made again, and refused by the settings."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.consensus import bodies_of, join, rows_in_block, to_blocks
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import Rerun, remake
from broker_server.rules import RULES, RuleTerms
from broker_server.rules.comet import Comet
from broker_server.settings import MethodSettings, ProbeSet, RoundSettings, Settings
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.codec import MAX_MESSAGE_BYTES
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import MAX_PART_BYTES, Codec, ConsensusBlock, Slice
from fd_protocol.payload import Codes, decode_body
from tests.broker_server import builders
from tests.broker_server.builders import FED, PUBLIC_SET
from tests.broker_server.world import PROBES, World, fleet
from tests.laws.rule_laws import camps_of

COMET = MethodSettings("comet")
NAMES = "abcdef"
"""The first three are of one mind, the others of another."""


def offer_of(probes, classes):
    return builders.offer(slice=Slice(PUBLIC_SET, 0, probes, classes))


def noise(probes, classes, seed):
    """Codes that deflate cannot shrink."""
    codes = np.random.default_rng(seed).integers(0, 256, (probes, classes)).astype(np.uint8)
    return Codes(Codec.U8_SQRT, classes, codes)


def rows_of(block, body):
    return decode_body(body, block.codec, block.slice.count, block.slice.classes).probabilities()


def contribute(devices, rng):
    """Let each device say what its camp says, and a little of its own; return what the camps mean."""
    said = []
    for place, device in enumerate(devices):
        shared = np.random.default_rng([place // 3, 7]).dirichlet(np.full(3, 0.3), device.world.offer.slice.count)
        p = 0.8 * shared + 0.2 * rng.dirichlet(np.ones(3), len(shared))
        device.contribute(probabilities=p.astype(np.float32))
        said.append(p)
    return [np.mean(said[:3], axis=0), np.mean(said[3:], axis=0)]


def world_of(tmp_path, **rounds):
    terms = {"quorum": 2, "duration_s": 60, "minimum_online": len(NAMES), "pause_s": 10}
    (tmp_path / "state").mkdir(exist_ok=True)
    return World(tmp_path / "state" / "server.db", method=COMET, rounds=RoundSettings(**{**terms, **rounds}))


# Blocks.


def test_blocks_carry_each_clusters_consensus_beside_that_of_all():
    voices = camps_of(0, (5, 4, 3), apart=0.8)
    rule = Comet(3, 3)
    joined = join(voices, rule, offer_of(17, 5), Codec.F16, LabelledProbes())
    (block,) = joined.blocks
    np.testing.assert_allclose(rows_of(block, block.body), rule.consensus(voices), atol=1e-3)
    for body, rows in zip(block.clusters, rule.clusters(voices), strict=True):
        np.testing.assert_allclose(rows_of(block, body), rows, atol=1e-3)
    assert block.clusters_sha256 == sha256(b"".join(block.clusters))
    assert joined.metrics["clusters"] == 3
    assert joined.sha256 == sha256(block.consensus_sha256 + block.clusters_sha256)


def test_where_all_are_of_one_mind_the_blocks_are_those_of_any_rule():
    voices = camps_of(0, (8,), apart=1.0)
    joined = join(voices, Comet(3, 3), offer_of(17, 5), Codec.F16, LabelledProbes())
    assert joined.metrics["clusters"] == 1
    assert joined.blocks[0].clusters == ()
    assert joined.sha256 == joined.blocks[0].consensus_sha256


def test_blocks_with_as_many_clusters_as_there_may_be_are_packets():
    codes, clusters = noise(3_000, 10, 0), [noise(3_000, 10, 1 + k) for k in range(16)]
    blocks = to_blocks(codes, offer_of(3_000, 10), None, clusters, bodies_of(Comet(16, 3)))
    assert all(len(block.body) + sum(map(len, block.clusters)) <= MAX_PART_BYTES for block in blocks)
    assert all(len(codec.encode(block)) <= MAX_MESSAGE_BYTES for block in blocks)
    assert {block.clusters_sha256 for block in blocks} == {
        sha256(b"".join(body for block in blocks for body in block.clusters))
    }


def test_a_block_speaks_of_the_same_probes_however_many_clusters_a_round_has():
    codes, offer, bodies = noise(5_000, 10, 0), offer_of(5_000, 10), bodies_of(Comet(3, 3))
    cuts = [[b.slice for b in to_blocks(codes, offer, None, [codes] * count, bodies)] for count in (0, 2, 3)]
    assert cuts[0] == cuts[1] == cuts[2]
    assert len(cuts[0]) > 1


# Settings.


def test_a_student_that_speaks_for_all_does_not_go_with_clusters():
    with pytest.raises(InvalidValueError, match='downlink = "student" says one thing to all, comet one to each'):
        MethodSettings("comet", downlink="student")


def test_clusters_leave_room_for_fewer_probes_and_settings_say_so():
    most = 128 * rows_in_block(10, 10, bodies=3)
    probes = ProbeSet(PUBLIC_SET, most + 1, 10, builders.TASK)
    Settings(FED).check_against(probes)
    with pytest.raises(InvalidValueError, match=r"129 of at most 128 blocks: lower rounds\.probes"):
        Settings(FED, method=COMET).check_against(probes)
    Settings(FED, method=COMET, rounds=RoundSettings(probes=most)).check_against(probes)


# Rounds.


def test_a_round_publishes_what_each_camp_says_and_records_do_not_tell_who_is_in_it(tmp_path):
    world = world_of(tmp_path)
    camps = contribute(fleet(world, NAMES), np.random.default_rng(0))
    blocks, rows = world.consensus()
    np.testing.assert_allclose(rows, np.mean(camps, axis=0), atol=0.02)
    told = [rows_of(blocks[0], body) for body in blocks[0].clusters]
    assert len(told) == 2
    for camp in camps:
        assert min(np.abs(camp - cluster).max() for cluster in told) < 0.02
    assert world.state.consensus.metrics["clusters"] == 2
    record = Chronicle(world.store, FED).rounds()[0]
    assert record.consensus_sha256 == blocks[0].consensus_sha256
    assert record.own_sha256 == sha256(blocks[0].consensus_sha256 + blocks[0].clusters_sha256)


def test_a_crash_while_a_round_is_open_changes_no_bit_of_any_cluster(tmp_path):
    blocks = []
    for folder, crashes in (("calm", False), ("crashed", True)):
        (tmp_path / folder).mkdir()
        world = world_of(tmp_path / folder)
        devices = fleet(world, NAMES)
        rng = np.random.default_rng(0)
        if crashes:
            world.restart()
        contribute(devices, rng)
        blocks.append(world.consensus()[0][0])
    assert blocks[0].clusters == blocks[1].clusters


def test_a_kept_round_comes_out_again_with_its_clusters(tmp_path, capsys):
    world = world_of(tmp_path)
    devices = fleet(world, NAMES)
    rng = np.random.default_rng(0)
    for _ in range(2):
        contribute(devices, rng)
        world.wait(10)
    chronicle = Chronicle(world.store, FED)
    record = next(one for one in chronicle.rounds() if one.consensus_sha256)
    again = remake(chronicle, record)
    assert again.sha256 == record.own_sha256 != record.consensus_sha256
    other = remake(chronicle, record, Rerun(terms={"cluster_least": 4}))
    assert other.joined.blocks[0].consensus_sha256 == record.consensus_sha256
    assert other.sha256 != record.own_sha256, "identity covers the clusters"
    assert main(["init", str(tmp_path), "--federation", FED]) == 0
    capsys.readouterr()
    assert main(["verify", "--config", str(tmp_path / CONFIG_NAME)]) == 0
    assert "different" not in capsys.readouterr().out


def test_portions_that_stay_keep_the_clusters_that_they_were_made_with(tmp_path):
    world = world_of(tmp_path, probes=PROBES.count // 2, choose="need")
    devices = fleet(world, NAMES)
    rng = np.random.default_rng(0)
    contribute(devices, rng)
    first = world.consensus()[0][0]
    world.wait(10)
    contribute(devices, rng)
    kept, fresh = world.consensus()[0]
    assert (kept.clusters, kept.clusters_sha256) == (first.clusters, first.clusters_sha256)
    assert kept.consensus_sha256 == fresh.consensus_sha256 != first.consensus_sha256
    assert fresh.clusters_sha256 == sha256(b"".join(fresh.clusters)) != kept.clusters_sha256
    record = Chronicle(world.store, FED).rounds()[0]
    assert remake(Chronicle(world.store, FED), record).sha256 == record.own_sha256
    world.restart()
    assert world.consensus()[0] == [kept, fresh]


def test_an_agent_from_before_there_were_clusters_reads_what_all_say(tmp_path):
    world = world_of(tmp_path)
    contribute(fleet(world, NAMES), np.random.default_rng(0))
    block = world.consensus()[0][0]
    old = replace(block, clusters=(), clusters_sha256=b"")  # what is left where keys 10 and 11 are ignored
    assert isinstance(codec.decode(codec.encode(old), ConsensusBlock), ConsensusBlock)
    assert sha256(old.body) == old.consensus_sha256


def test_the_log_says_how_many_devices_know_no_clusters(tmp_path, caplog):
    world = world_of(tmp_path)
    with caplog.at_level(logging.WARNING, "broker-server"):
        for name in NAMES:
            world.device(name, capabilities=("u8-sqrt", *(("clusters",) if name in "abcd" else ())))
    assert "2 of 6 devices know no clusters: they learn what all say" in caplog.text


def test_other_rules_make_no_clusters():
    assert [name for name, make in RULES.items() if bodies_of(make(RuleTerms())) > 1] == ["comet"]
