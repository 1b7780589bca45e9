"""What each device's word came to: shares of a round sum to 1, and follow the weights of the rule."""

import numpy as np
import pytest

from broker_server.core.influence import MOST_PATIENT_VOICES, MOST_VOICES
from broker_server.core.standing import Source, numbers
from broker_server.forming import form
from broker_server.rules.competence import Competence
from broker_server.rules.cronus import Cronus
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.order_statistics import Median
from broker_server.rules.per_label import PerLabel
from broker_server.rules.selective import Selective
from broker_server.rules.voice import WEIGHT_ONE, Voice
from fd_protocol.canaries import LabelledProbes
from fd_protocol.competence import FAR
from fd_protocol.messages import Codec, Slice
from fd_protocol.payload import quantise
from fd_protocol.soft_labels import SoftLabels
from tests.broker_server.builders import PUBLIC_SET
from tests.broker_server.builders import offer as offer_with

PROBES, CLASSES = 12, 4
NONE = LabelledProbes()
OFFER = offer_with(slice=Slice(PUBLIC_SET, 0, PROBES, CLASSES))


def voice(device, seed=0, *, distances=0, trust=WEIGHT_ONE, weight=WEIGHT_ONE, p=None):
    p = np.random.default_rng([*device.encode(), seed]).dirichlet(np.ones(CLASSES), PROBES) if p is None else p
    codes = quantise(SoftLabels(p.astype(np.float32), OFFER.temperature), Codec.U8_SQRT)
    full = np.broadcast_to(np.asarray(trust, np.int64), (CLASSES,)).copy()
    near = np.broadcast_to(np.asarray(distances, np.uint8), (PROBES,)).copy()
    return Voice(device, codes.integers(), near, full, weight)


class Hearings:
    """Lets voices be heard, and counts how often they are."""

    def __init__(self, voices):
        self.voices, self.count = voices, 0

    def __call__(self):
        self.count += 1
        return ((Source(one.device, b"", b"", b"", one.weight), one) for one in self.voices)


def standing(voices, rule, canaries=NONE):
    hearings = Hearings(voices)
    _, stood = form(hearings, rule, OFFER, canaries)
    return {one.source.device: one for one in stood}


@pytest.mark.parametrize("rule", [MeanProbabilities(), Competence(6.0, 2), PerLabel()])
def test_the_shares_of_a_round_sum_to_1(rule):
    rng = np.random.default_rng(0)
    voices = [voice(name, distances=rng.integers(0, FAR, PROBES), weight=100 * k + 7) for k, name in enumerate("abc")]
    assert sum(one.share for one in standing(voices, rule).values()) == pytest.approx(1.0)


def test_equal_voices_have_equal_shares_and_a_faded_one_less():
    stood = standing([voice("a"), voice("b"), voice("c", weight=WEIGHT_ONE // 2)], MeanProbabilities())
    assert [stood[name].share for name in "abc"] == pytest.approx([0.4, 0.4, 0.2])


def test_shares_are_those_of_the_competence_rule():
    """The share is what remains of the consensus when the others say nothing: measured on one-hot rows."""
    rule = Competence(3.0, 1)
    rng = np.random.default_rng(1)
    trusts = (WEIGHT_ONE, WEIGHT_ONE // 3, WEIGHT_ONE // 2)
    voices = [
        voice(name, distances=rng.integers(0, FAR + 1, PROBES), trust=trust, p=np.eye(CLASSES)[np.full(PROBES, k)])
        for k, (name, trust) in enumerate(zip("abc", trusts, strict=True))
    ]
    published = rule.consensus(voices).mean(axis=0)
    stood = standing(voices, rule)
    assert [stood[name].share for name in "abc"] == pytest.approx(published[:3].tolist(), abs=1e-6)
    assert max(stood[name].share for name in "abc") - min(stood[name].share for name in "abc") > 0.1


def test_who_speaks_of_no_label_has_no_share():
    stood = standing([voice("a"), voice("b", distances=FAR)], PerLabel())
    assert (stood["a"].share, stood["b"].share) == (1.0, 0.0)


def test_agreement_is_the_share_of_probes_with_the_class_of_the_consensus():
    classes = np.arange(PROBES) % CLASSES
    crowd = np.eye(CLASSES)[classes] * 0.7 + 0.075
    wrong = classes.copy()
    wrong[:3] = (wrong[:3] + 1) % CLASSES
    lone = np.eye(CLASSES)[wrong] * 0.7 + 0.075
    stood = standing([voice("a", p=crowd), voice("b", p=crowd), voice("c", p=lone)], MeanProbabilities())
    assert [stood[name].agreement for name in "abc"] == [1.0, 1.0, 0.75]


CANARIES = LabelledProbes(tuple(range(0, PROBES, 2)), tuple(k % CLASSES for k in range(0, PROBES, 2)))


def sure(classes):
    """One class likeliest in each row."""
    return np.eye(CLASSES)[classes % CLASSES] * 0.7 + 0.075


def test_what_a_device_earned_stands_with_it_where_there_are_canaries():
    truth, lie = np.arange(PROBES), np.arange(PROBES) + 1
    voices = [voice("a", p=sure(truth)), voice("b", p=sure(lie))]
    assert {one.trust for one in standing(voices, Competence(6.0, 2)).values()} == {None}
    stood = standing(voices, Competence(6.0, 2), CANARIES)
    assert stood["a"].trust > 10 * stood["b"].trust


def test_what_a_device_has_right_of_the_canaries_is_its_own_word():
    half = np.where(np.arange(PROBES) < PROBES // 2, np.arange(PROBES), np.arange(PROBES) + 1)
    voices = [voice("a", p=sure(np.arange(PROBES))), voice("b", p=sure(half)), voice("c", p=sure(half + 1))]
    stood = standing(voices, MeanProbabilities(), CANARIES)
    assert [stood[name].canaries for name in "abc"] == [1.0, 0.5, 0.0]
    assert {one.canaries for one in standing(voices, MeanProbabilities()).values()} == {None}


def test_the_influence_of_a_device_is_what_the_consensus_has_right_for_it():
    """Without `a` a tie of lies wins; the liars' absence costs nothing while one is left."""
    truth, lie = np.arange(PROBES), np.arange(PROBES) + 1
    voices = [voice("a", p=sure(truth), weight=WEIGHT_ONE), voice("b", p=sure(lie), weight=WEIGHT_ONE // 2)]
    stood = standing(voices, MeanProbabilities(), CANARIES)
    assert [stood[name].influence for name in "ab"] == [1.0, 0.0]
    assert {one.influence for one in standing(voices, MeanProbabilities()).values()} == {None}


def test_a_device_without_which_the_consensus_is_better_has_a_negative_influence():
    truth, lie = np.arange(PROBES), np.arange(PROBES) + 1
    voices = [voice("a", p=sure(truth), weight=WEIGHT_ONE // 2), voice("b", p=sure(lie))]
    assert standing(voices, MeanProbabilities(), CANARIES)["b"].influence == -1.0


@pytest.mark.parametrize(("rule", "most"), [(MeanProbabilities(), MOST_VOICES), (Cronus(0.4), MOST_PATIENT_VOICES)])
def test_of_many_devices_influence_is_not_asked(rule, most):
    voices = [voice(f"d{k}", seed=k) for k in range(most + 1)]
    assert {one.influence is None for one in standing(voices[:-1], rule, CANARIES).values()} == {False}
    stood = standing(voices, rule, CANARIES)
    assert {one.influence for one in stood.values()} == {None}
    assert None not in {one.canaries for one in stood.values()}


@pytest.mark.parametrize(
    ("rule", "canaries", "passes"),
    [
        (Competence(6.0, 2), CANARIES, 3),
        (Competence(6.0, 2), NONE, 2),
        (MeanProbabilities(), CANARIES, 2),
        (Median(), CANARIES, 2),
        (Selective(1), CANARIES, 4),
    ],
)
def test_the_store_is_read_once_to_judge_once_to_join_and_once_to_tell(rule, canaries, passes):
    hearings = Hearings([voice("a"), voice("b"), voice("c")])
    form(hearings, rule, OFFER, canaries)
    assert hearings.count == passes


def test_the_numbers_of_a_round_tell_whether_one_voice_owns_it():
    stood = standing([voice("a"), voice("b"), voice("c", weight=1)], MeanProbabilities())
    told = numbers(tuple(stood.values()))
    assert told["largest_share"] == pytest.approx(0.5, abs=0.001)
    assert told["effective_voices"] == pytest.approx(2.0, abs=0.01)
    assert told["agreement"] == pytest.approx(np.mean([one.agreement for one in stood.values()]))
