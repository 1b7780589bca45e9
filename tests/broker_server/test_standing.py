"""What each device's word came to: shares of a round sum to 1, and follow the weights of the rule."""

import numpy as np
import pytest

from broker_server.consensus import join
from broker_server.rules.competence import Competence
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.per_label import PerLabel
from broker_server.rules.voice import WEIGHT_ONE, Voice
from broker_server.standing import Source, chosen_classes, numbers, standings
from fd_protocol.canaries import LabelledProbes
from fd_protocol.competence import FAR
from fd_protocol.messages import Codec, Slice
from fd_protocol.payload import quantise
from fd_protocol.soft_labels import SoftLabels
from tests.broker_server.builders import PUBLIC_SET
from tests.broker_server.builders import offer as offer_with

PROBES, CLASSES = 12, 4
OFFER = offer_with(slice=Slice(PUBLIC_SET, 0, PROBES, CLASSES))


def voice(device, seed=0, *, distances=0, trust=WEIGHT_ONE, weight=WEIGHT_ONE, p=None):
    p = np.random.default_rng([*device.encode(), seed]).dirichlet(np.ones(CLASSES), PROBES) if p is None else p
    codes = quantise(SoftLabels(p.astype(np.float32), OFFER.temperature), Codec.U8_SQRT)
    full = np.broadcast_to(np.asarray(trust, np.int64), (CLASSES,)).copy()
    near = np.broadcast_to(np.asarray(distances, np.uint8), (PROBES,)).copy()
    return Voice(device, codes.integers(), near, full, weight)


def standing(voices, rule, trust=None):
    joined = join(voices, rule, OFFER, Codec.U8_SQRT, LabelledProbes())
    heard = [(Source(one.device, b"", b"", b"", one.weight), one) for one in voices]
    stood = standings(lambda: iter(heard), rule, chosen_classes(joined.blocks), trust or {})
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


def test_what_a_device_earned_stands_with_it():
    stood = standing([voice("a"), voice("b")], MeanProbabilities(), {"a": 0.25})
    assert (stood["a"].trust, stood["b"].trust) == (0.25, None)


def test_the_numbers_of_a_round_tell_whether_one_voice_owns_it():
    stood = standing([voice("a"), voice("b"), voice("c", weight=1)], MeanProbabilities())
    told = numbers(tuple(stood.values()))
    assert told["largest_share"] == pytest.approx(0.5, abs=0.001)
    assert told["effective_voices"] == pytest.approx(2.0, abs=0.01)
    assert told["agreement"] == pytest.approx(np.mean([one.agreement for one in stood.values()]))
