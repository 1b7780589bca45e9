"""What the attackers of a federation get to know, and what their devices send."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.consensus import to_blocks
from edge_agent.jobs import Answer, CompetenceJob, PredictJob, TrainJob, WarmUpJob
from edge_agent.round.events import CompetenceMapped, Predicted, Submission, Task, Trained, WarmedUp, Work, WorkFailed
from fd_protocol import codec
from fd_protocol.competence import decode_map, encode_map
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import CompetenceMap, Contribution, Slice, TrainingTerms
from fd_protocol.payload import Codes, decode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fleet_sim.attacks import ATTACKS
from fleet_sim.attacks.knowledge import Sees, uniform
from fleet_sim.attacks.liar import Liar
from fleet_sim.attacks.ring import Ring
from fleet_sim.scenario import AttackTerms
from tests.edge_agent.builders import PUBLIC_SET, offer, round_id
from tests.support.attackers import answers

PROBES, CLASSES = 16, 3
FIRST_HALF, SECOND_HALF = Slice(PUBLIC_SET, 0, 8, CLASSES), Slice(PUBLIC_SET, 8, 8, CLASSES)
OWN = answers(1, 8, CLASSES)


class Fleet:
    """Answers of the other devices, and how often they were asked."""

    def __init__(self):
        self.asked = []

    def survey(self, whom, devices):
        def ask(asked_for):
            self.asked.append((whom, asked_for.round.number))
            return answers(asked_for.round.number, devices, asked_for.slice.count, CLASSES)

        return ask


def ring_of(kind, fleet=None, **terms):
    fleet = fleet or Fleet()
    surveys = {Sees.ACCOMPLICES: fleet.survey(Sees.ACCOMPLICES, 2), Sees.HONEST: fleet.survey(Sees.HONEST, 5)}
    return Ring(AttackTerms(2, kind, **terms), surveys, PROBES, CLASSES, np.random.default_rng(0), seed=4)


def published(seed, number, part=FIRST_HALF):
    """A consensus: what it says, and its messages."""
    asked = offer(number, slice=part)
    codes = quantise(SoftLabels(answers(seed, part.count, CLASSES), asked.temperature), asked.codec)
    return codes.probabilities(), tuple(codec.encode(block) for block in to_blocks(codes, asked))


def train_job(messages, number=1):
    return TrainJob(Work(Task.TRAIN, round_id(number)), sha256(b"consensus"), messages, TrainingTerms())


def predict_job(number=1, part=FIRST_HALF):
    return PredictJob(Work(Task.PREDICT, round_id(number)), offer(number, slice=part))


def worker(job):
    """An honest device: it answers `OWN` and stands in the middle of all probes."""
    match job:
        case PredictJob(_, asked):
            stored = quantise(SoftLabels(OWN, asked.temperature), asked.codec).to_bytes()
            return Answer(
                Predicted(asked.round, Submission(sha256(b"p"), sha256(stored), sha256(b"p"))), (b"p", stored)
            )
        case CompetenceJob():
            payload = codec.encode(CompetenceMap(PUBLIC_SET, PROBES, encode_map(np.full(PROBES, 2, np.uint8)), 3))
            return Answer(CompetenceMapped(PUBLIC_SET, 3, sha256(payload)), (payload,))
        case TrainJob():
            return Answer(Trained(job.consensus_sha256, accepted=True))
    return Answer(WarmedUp())


def sent(answer):
    """What a contribution says, float32 [n, classes]; its event must name its bytes."""
    payload, stored = answer.blobs
    assert answer.event.submission == Submission(sha256(payload), sha256(stored), full=sha256(payload))
    contribution = codec.decode(payload, Contribution)
    said = decode_body(contribution.body, contribution.codec, contribution.slice.count, CLASSES)
    assert (said.array == Codes.from_bytes(stored).array).all()
    return said.probabilities()


# What they know.


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attacker_is_given_what_its_threat_model_grants_and_no_more(kind):
    fleet = Fleet()
    ring, sees = ring_of(kind, fleet), ATTACKS[kind].sees
    said, messages = published(seed=2, number=1)
    ring.hear(messages)
    known = ring.knowledge(OWN, offer(2))
    np.testing.assert_array_equal(known.own, OWN)
    np.testing.assert_array_equal(known.consensus, said if Sees.CONSENSUS in sees else uniform(8, CLASSES))
    assert len(known.accomplices) == (2 if Sees.ACCOMPLICES in sees else 0)
    assert len(known.honest) == (5 if Sees.HONEST in sees else 0)
    assert {whom for whom, _ in fleet.asked} == {whom for whom in (Sees.ACCOMPLICES, Sees.HONEST) if whom in sees}


def test_the_others_are_asked_once_a_round_however_many_attack():
    fleet = Fleet()
    ring = ring_of("lma", fleet)
    for number in (1, 1, 2, 2):
        ring.knowledge(OWN, offer(number))
    assert fleet.asked == [(Sees.HONEST, 1), (Sees.HONEST, 2)]


def test_what_is_known_cannot_be_written_to():
    known = ring_of("lma").knowledge(OWN.copy(), offer())
    for array in (known.own, known.consensus, known.accomplices, known.honest):
        assert not array.flags.writeable


def test_accomplices_draw_alike_within_a_round_and_otherwise_in_the_next():
    ring = ring_of("sybils")
    draws = [ring.knowledge(OWN, offer(number)).shared.integers(1 << 60) for number in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_each_attacker_draws_for_itself_what_is_not_shared():
    ring = ring_of("random")
    assert ring.knowledge(OWN, offer()).rng is ring.knowledge(OWN, offer()).rng is ring.rng


def test_a_consensus_is_remembered_probe_by_probe_until_there_is_a_newer_one():
    ring = ring_of("free-rider-replay")
    np.testing.assert_array_equal(ring.knowledge(OWN, offer(1)).consensus, uniform(8, CLASSES))
    first, messages = published(seed=2, number=1)
    ring.hear(messages)
    other, more = published(seed=3, number=2, part=SECOND_HALF)
    ring.hear(more)
    np.testing.assert_array_equal(ring.knowledge(OWN, offer(3)).consensus, first)
    np.testing.assert_array_equal(ring.knowledge(OWN, offer(3, slice=SECOND_HALF)).consensus, other)
    newer, messages = published(seed=4, number=3)
    ring.hear(messages)
    ring.hear(published(seed=5, number=2)[1])
    np.testing.assert_array_equal(ring.knowledge(OWN, offer(4)).consensus, newer)


def test_an_attack_on_a_class_that_the_task_has_not_is_refused():
    with pytest.raises(InvalidValueError, match="below 3"):
        ring_of("label-flip", target=CLASSES)


# What their devices send.


def test_a_free_rider_replays_the_consensus_that_it_was_to_train_on_byte_for_byte():
    ring = ring_of("free-rider-replay")
    liar = Liar(worker, ring)
    said, messages = published(seed=2, number=1)
    assert liar.handle(train_job(messages)) == worker(train_job(messages))
    replay = ring.attack.answer(ring.knowledge(OWN, offer(2)))
    assert replay.tobytes() == said.tobytes()
    asked = offer(2)
    np.testing.assert_array_equal(
        sent(liar.handle(predict_job(2))), quantise(SoftLabels(replay, asked.temperature), asked.codec).probabilities()
    )


def test_a_consensus_whose_training_failed_is_not_believed():
    """It may be a mixture of two; the worker checks its digest, the liar does not."""
    ring = ring_of("free-rider-replay")
    job = train_job(published(seed=2, number=1)[1])
    Liar(lambda each: Answer(WorkFailed(each.work, "DigestError")), ring).handle(job)
    np.testing.assert_array_equal(ring.knowledge(OWN, offer(2)).consensus, uniform(8, CLASSES))


def test_a_liar_starts_from_what_its_own_model_would_have_sent():
    flipped = sent(Liar(worker, ring_of("label-flip", source=0, target=2)).handle(predict_job()))
    np.testing.assert_allclose(flipped[:, 1], OWN[:, 1], atol=0.01)
    np.testing.assert_allclose(flipped[:, 2], OWN[:, 0] + OWN[:, 2], atol=0.01)


def test_who_only_overclaims_sends_what_an_honest_device_does():
    assert Liar(worker, ring_of("overclaim")).handle(predict_job()) == worker(predict_job())


def test_a_liar_lies_to_predictions_alone():
    liar = Liar(worker, ring_of("free-rider-constant", target=2))
    assert (sent(liar.handle(predict_job())).argmax(axis=1) == 2).all()
    job = WarmUpJob(Work(Task.WARM_UP, round_id()), TrainingTerms())
    assert liar.handle(job) == worker(job)


def test_work_that_fails_is_no_lie():
    failed = Answer(WorkFailed(predict_job().work, "MemoryError"))
    assert Liar(lambda _: failed, ring_of("lma")).handle(predict_job()) is failed


MAP_JOB = CompetenceJob(Work(Task.MAP_COMPETENCE, round_id()), 3, bytes(32))


def test_who_claims_everything_stands_at_distance_0_of_every_probe():
    answer = Liar(worker, ring_of("lma", claims="everything")).handle(MAP_JOB)
    honest, claimed = (codec.decode(each.blobs[0], CompetenceMap) for each in (worker(MAP_JOB), answer))
    assert (decode_map(claimed.body, PROBES) == 0).all()
    assert replace(claimed, body=honest.body) == honest
    assert answer.event == replace(worker(MAP_JOB).event, payload=sha256(answer.blobs[0]))


def test_who_claims_honestly_lies_in_its_answers_alone():
    liar = Liar(worker, ring_of("lma", claims="honest"))
    assert liar.handle(MAP_JOB) == worker(MAP_JOB)
    assert liar.handle(predict_job()) != worker(predict_job())
