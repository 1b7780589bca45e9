"""What a round comes to: blocks, coverage, trust."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.consensus import join, rows_in_block, to_blocks
from broker_server.core.coverage import Coverage, coverage
from broker_server.rules.competence import Competence
from broker_server.rules.expguard import ExpGuard
from broker_server.rules.geometric_median import GeometricMedian
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.order_statistics import Median
from broker_server.rules.rule import Known
from broker_server.rules.voice import WEIGHT_ONE, Voice
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.codec import MAX_MESSAGE_BYTES
from fd_protocol.competence import FAR
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import MAX_PART_BYTES, Codec, Slice
from fd_protocol.payload import Codes, decode_body
from tests.broker_server import builders
from tests.laws.rule_laws import labels_of, voices_of

NO_CANARIES = LabelledProbes()


def offer_of(probes, classes, start=0):
    return builders.offer(slice=Slice(builders.PUBLIC_SET, start, probes, classes))


def noise(probes, classes):
    """Codes that deflate cannot shrink."""
    return Codes(Codec.U8_SQRT, classes, np.random.default_rng(0).integers(0, 256, (probes, classes)).astype(np.uint8))


def test_the_blocks_of_a_consensus_are_packets_that_join_to_it():
    codes, offer = noise(20_000, 10), offer_of(20_000, 10, start=100)
    blocks = to_blocks(codes, offer)
    assert len(blocks) == 4
    assert all(len(block.body) <= MAX_PART_BYTES for block in blocks)
    assert all(len(codec.encode(block)) <= MAX_MESSAGE_BYTES for block in blocks)
    starts = np.cumsum([100, *(block.slice.count for block in blocks)])
    assert [block.slice.start for block in blocks] == starts[:-1].tolist()
    assert starts[-1] == 20_100
    assert {block.consensus_sha256 for block in blocks} == {sha256(b"".join(block.body for block in blocks))}


def test_a_block_always_speaks_of_the_same_probes_whatever_is_said():
    easy = Codes(Codec.U8_SQRT, 10, np.full((20_000, 10), 80, np.uint8))
    cuts = [[block.slice for block in to_blocks(c, offer_of(20_000, 10))] for c in (noise(20_000, 10), easy)]
    assert cuts[0] == cuts[1]


def test_a_row_that_no_block_can_hold_is_refused():
    with pytest.raises(InvalidValueError, match="does not fit a block"):
        rows_in_block(60_000, 60_000)


def test_a_consensus_of_too_many_blocks_is_refused():
    codes = Codes(Codec.U8_SQRT, 50_000, np.zeros((129, 50_000), np.uint8))
    with pytest.raises(InvalidValueError, match="129 of at most 128 blocks"):
        to_blocks(codes, offer_of(129, 50_000))


def test_joining_gives_the_rules_own_consensus():
    voices, offer = voices_of(3), offer_of(17, 5)
    joined = join(voices, MeanProbabilities(), offer, Codec.U8_SQRT, NO_CANARIES)
    (block,) = joined.blocks
    told = decode_body(block.body, block.codec, 17, 5).probabilities()
    np.testing.assert_allclose(told, MeanProbabilities().consensus(voices), atol=0.01)
    assert joined.metrics["voices"] == 6
    assert joined.metrics["absent_voices"] == 2
    assert not joined.trust.by_device


def test_a_rule_that_goes_over_the_voices_many_times_is_told_of_each_device_once():
    voices, offer = voices_of(3), offer_of(17, 5)
    joined = join(voices, GeometricMedian(), offer, Codec.U8_SQRT, NO_CANARIES)
    assert (joined.metrics["voices"], joined.metrics["absent_voices"]) == (6, 2)


def test_a_rule_that_hears_voices_once_is_given_a_stream():
    joined = join(iter(voices_of(3)), Median(), offer_of(17, 5), Codec.U8_SQRT, NO_CANARIES)
    assert joined.metrics["voices"] == 6


def test_canaries_of_the_round_count_in_its_consensus():
    """All stand near; three say class 0 and two say class 1, which the canaries prove wrong."""
    say = np.zeros((5, 17, 3), np.float32)
    say[:3, :, 0], say[3:, :, 1] = 1, 1
    voices = [
        Voice(f"device-{k}", labels_of(said), np.zeros(17, np.uint8), np.full(3, WEIGHT_ONE))
        for k, said in enumerate(say)
    ]
    canaries = LabelledProbes(tuple(range(8)), (0,) * 8)
    joined = join(voices, Competence(2.0, 2), offer_of(17, 3), Codec.U8_SQRT, canaries)
    (block,) = joined.blocks
    told = decode_body(block.body, block.codec, 17, 3).probabilities()
    assert (told[:, 0] > 0.99).all()
    assert joined.trust.of("device-3")[1] < 10 < joined.trust.of("device-0")[0]


def test_expguard_remembers_without_canaries():
    joined = join(voices_of(3), ExpGuard(2.0), offer_of(17, 5), Codec.U8_SQRT, NO_CANARIES)
    assert joined.trust.method == "expguard"
    judged = ExpGuard(2.0).judge(voices_of(3), Known(np.empty(0, int), np.empty(0, int)))
    assert {name: trust.tolist() for name, trust in joined.trust.by_device.items()} == {
        name: trust.tolist() for name, trust in judged.items()
    }


def test_each_device_earns_trust_where_the_slice_has_canaries():
    voices, offer = voices_of(3), offer_of(17, 5, start=100)
    canaries = LabelledProbes((3, 101, 105), (0, 1, 2))
    joined = join(voices, Competence(2.0, 2), offer, Codec.U8_SQRT, canaries)
    assert set(joined.trust.by_device) == {voice.device for voice in voices}
    assert 0 <= joined.metrics["canary_accuracy"] <= 1


def test_a_slice_without_canaries_leaves_trust_as_it_was():
    voices = voices_of(3)
    joined = join(voices, Competence(2.0, 2), offer_of(17, 5), Codec.U8_SQRT, LabelledProbes((100,), (0,)))
    assert {voice.device: voice.trust.tolist() for voice in voices} == {
        device: trust.tolist() for device, trust in joined.trust.by_device.items()
    }


def test_trust_weighs_a_canary_by_the_devices_competence_on_it():
    near, *others = voices_of(3, count=3)
    right, wrong = near.integers[[0]].argmax(), (near.integers[[0]].argmax() + 1) % 5
    canaries = LabelledProbes((0,), (int(wrong),))

    def trust(distance):
        judged = replace(near, distances=np.full(17, distance, np.uint8))
        crowd = [replace(other, distances=np.zeros(17, np.uint8)) for other in others]
        joined = join([judged, *crowd], Competence(6.0, 2), offer_of(17, 5), Codec.U8_SQRT, canaries)
        return joined.trust.of(near.device)[right]

    assert trust(0) < trust(FAR)


def test_probes_far_from_every_device_and_devices_near_no_probe_are_told():
    voices = [
        replace(voices_of(0, count=2, probes=4)[0], distances=np.array([0, 0, 3, 1], np.uint8)),
        replace(voices_of(0, count=2, probes=4)[1], distances=np.array([3, 1, 3, 2], np.uint8)),
    ]
    metrics = join(voices, Competence(6.0, 2), offer_of(4, 5), Codec.U8_SQRT, NO_CANARIES).metrics
    assert (metrics["uncovered_probes"], metrics["far_devices"]) == (0.25, 0.5)


def test_where_no_maps_were_asked_for_nothing_is_told_of_coverage():
    metrics = join(voices_of(0), MeanProbabilities(), offer_of(17, 5), Codec.U8_SQRT, NO_CANARIES).metrics
    assert not {"uncovered_probes", "far_devices"} & set(metrics)


def test_coverage_counts_the_probes_that_everyone_is_far_from():
    counts = np.zeros((4, 8), np.int64)
    counts[0, 0], counts[1, 1], counts[2, 2], counts[FAR] = 1, 1, 1, 1
    counts[FAR, 3:] = 2
    assert coverage(counts, 0) == Coverage(5 / 8, 0.0)
