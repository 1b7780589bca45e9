"""Which of several consensuses a device learns: that which lies nearest to what it says itself."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.jobs import TrainJob
from edge_agent.learning.nearest import check_clusters, nearest_targets
from edge_agent.round.events import Task, Trained, Work, WorkFailed
from fd_protocol import codec
from fd_protocol.errors import DigestError
from fd_protocol.identity import sha256
from fd_protocol.messages import Codec, ConsensusBlock, Slice
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from tests.edge_agent.artifacts import CLASSES
from tests.edge_agent.builders import PUBLIC_SET, round_id
from tests.edge_agent.test_worker_core import PROBES, TERMS, Bench

ONE, OTHER = [0.9, 0.08, 0.02], [0.1, 0.1, 0.8]
ALL = [0.5, 0.09, 0.41]


def body_of(*rows):
    return encode_body(quantise(SoftLabels(np.array(rows, np.float32), 2.0), Codec.F16))


def blocks_of(*groups, public_set=PUBLIC_SET):
    """Blocks of two rows each; those of a group (a list of lists of clusters' rows) were made together."""
    bodies = [[[body_of(row, row) for row in clusters] for clusters in group] for group in groups]
    digest = sha256(b"".join(body_of(ALL, ALL) for group in groups for _ in group))
    count, made = sum(map(len, groups)), []
    for group in bodies:
        clusters_digest = sha256(b"".join(body for clusters in group for body in clusters))
        for clusters in group:
            index = len(made)
            made.append(
                ConsensusBlock(
                    round_id(), digest, index, count, Slice(public_set, 2 * index, 2, CLASSES), 2.0, Codec.F16,
                    body_of(ALL, ALL), (), tuple(clusters), clusters_digest if clusters else b"",
                )
            )  # fmt: skip
    return made


def saying(*rows):
    """What a device says of the probes of each block."""
    return lambda block: np.array([rows[block.block]] * 2, np.float32)


def test_a_device_learns_what_the_cluster_says_that_is_nearest_to_itself():
    blocks = blocks_of([[OTHER, ONE]])
    np.testing.assert_allclose(nearest_targets(blocks, saying([0.7, 0.2, 0.1])), [ONE, ONE], atol=1e-3)
    np.testing.assert_allclose(nearest_targets(blocks, saying([0.2, 0.2, 0.6])), [OTHER, OTHER], atol=1e-3)


def test_blocks_that_were_made_together_are_judged_together():
    blocks = blocks_of([[ONE, OTHER], [ONE, OTHER]])
    told = nearest_targets(blocks, saying([0.89, 0.09, 0.02], [0.4, 0.1, 0.5]))
    np.testing.assert_allclose(told, [ONE] * 4, atol=1e-3)


def test_blocks_of_another_round_are_judged_by_themselves_and_may_number_their_clusters_otherwise():
    blocks = blocks_of([[ONE, OTHER]], [[OTHER, ONE]], [[]])
    told = nearest_targets(blocks, saying([0.8, 0.1, 0.1], [0.8, 0.1, 0.1], None))
    np.testing.assert_allclose(told, [ONE, ONE, ONE, ONE, ALL, ALL], atol=1e-3)


def test_where_there_are_no_clusters_the_device_is_not_asked_what_it_says():
    told = nearest_targets(blocks_of([[], []]), lambda _: pytest.fail("asked"))
    np.testing.assert_allclose(told, [ALL] * 4, atol=1e-3)


def test_a_mixture_of_two_rounds_is_refused():
    check_clusters(blocks_of([[ONE, OTHER], [ONE, OTHER]], [[OTHER, ONE]], [[]]))
    one, other = blocks_of([[ONE, OTHER], [ONE, OTHER]])
    swapped = replace(other, clusters=other.clusters[::-1])
    with pytest.raises(DigestError, match="clusters"):
        check_clusters([one, swapped])
    with pytest.raises(DigestError, match="clusters"):
        check_clusters([one])


def clustered(bench, labels_by_cluster, number=1):
    """A consensus of all that is nearly uniform, and of each cluster one that is nearly sure of its labels."""
    part = Slice(bench.public.digest, 0, PROBES, CLASSES)
    uniform = body_of(*np.full((PROBES, CLASSES), 1 / CLASSES))
    bodies = tuple(body_of(*(np.eye(CLASSES)[labels] * 0.94 + 0.02)) for labels in labels_by_cluster)
    digest = sha256(uniform)
    block = ConsensusBlock(
        round_id(number), digest, 0, 1, part, 2.0, Codec.F16, uniform, (), bodies, sha256(b"".join(bodies))
    )
    return digest, (codec.encode(block),)


def test_a_device_trains_on_its_own_cluster(tmp_path):
    """One cluster says what is true, one calls every class the next; who knows better learns from the first."""
    bench = Bench(tmp_path)
    core = bench.core()
    core.handle(bench.warm_up())
    true = np.array([bench.public.probes()[k].reshape(3, 2).sum(axis=1).argmax() for k in range(PROBES)])
    digest, messages = clustered(bench, [(true + 1) % 3, true])
    answer = core.handle(TrainJob(Work(Task.TRAIN, round_id()), digest, messages, TERMS))
    assert isinstance(answer.event, Trained)
    assert answer.event.accepted
    features = core._ground._seen.features
    assert (core.logits(features).argmax(axis=1) == true).mean() > 0.9
    assert "cluster" not in " ".join(answer.event.metrics), "nobody is told"


def test_clusters_that_are_not_those_of_their_digest_are_not_learned(tmp_path):
    bench = Bench(tmp_path)
    digest, (message,) = clustered(bench, [np.zeros(PROBES, int), np.ones(PROBES, int)])
    forged = codec.encode(replace(codec.decode(message, ConsensusBlock), clusters_sha256=bytes(32)))
    answer = bench.core().handle(TrainJob(Work(Task.TRAIN, round_id()), digest, (forged,), TERMS))
    assert isinstance(answer.event, WorkFailed)
    assert "DigestError" in answer.event.reason
