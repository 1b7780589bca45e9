"""Each rule under the laws of all rules, against its paper in plain NumPy."""

import numpy as np
import pytest

from broker_server.rules import RULES, RuleTerms, rule_named
from broker_server.rules.competence import Competence
from broker_server.rules.era import Era
from broker_server.rules.mean_logits import MeanLogits
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.voice import WEIGHT_ONE, Voice
from fd_protocol.competence import distances_of
from fd_protocol.errors import InvalidValueError
from tests.laws.rule_laws import HullLaws, RuleLaws, UnanimityLaws, fades_of, labels_of, probabilities_of


def softmax(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


class TestMeanProbabilities(RuleLaws, HullLaws, UnanimityLaws):
    rule = MeanProbabilities()
    tolerance = 1e-5

    def oracle(self, voices):
        fades = fades_of(voices)
        return (fades * probabilities_of(voices)).sum(axis=0) / fades.sum(axis=0)


class TestMeanLogits(RuleLaws, UnanimityLaws):
    rule = MeanLogits()
    tolerance = 1e-4

    def oracle(self, voices):
        fades = fades_of(voices)
        logits = np.log(np.maximum(probabilities_of(voices), 2.0**-20))
        return softmax((fades * logits).sum(axis=0) / fades.sum())


class TestEra(RuleLaws):
    rule = Era(0.1)
    tolerance = 1e-4

    def oracle(self, voices):
        return softmax(TestMeanProbabilities().oracle(voices) / 0.1)


class TestCompetence(RuleLaws, HullLaws, UnanimityLaws):
    rule = Competence(sharpness=2.0, clip_rank=2)

    def oracle(self, voices):
        d = np.stack([distances_of(voice.distances) for voice in voices]).astype(np.float64)
        clip = np.sort(d, axis=0)[min(self.rule.clip_rank, len(d)) - 1]
        w = np.minimum(1.0, np.exp(-self.rule.sharpness * (d - clip)))
        p = probabilities_of(voices)
        trust = np.stack([voice.trust for voice in voices]) / WEIGHT_ONE
        t = np.take_along_axis(trust, p.argmax(axis=2), axis=1)
        weights = np.maximum(w, 1 / WEIGHT_ONE) * np.maximum(t * fades_of(voices)[:, 0], 1 / WEIGHT_ONE)
        return (weights[:, :, None] * p).sum(axis=0) / weights.sum(axis=0)[:, None]


class TestSharpCompetence(TestCompetence):
    rule = Competence(sharpness=6.0, clip_rank=1)
    tolerance = 1e-2  # where all weights on a probe are a few units of 2^-12


class TestLenientCompetence(TestCompetence):
    rule = Competence(sharpness=6.0, clip_rank=7)


def voice(device, probabilities, code, trust=None):
    labels = labels_of(np.array([probabilities]))
    full = np.full(len(probabilities), WEIGHT_ONE)
    return Voice(device, labels, np.array([code], np.uint8), full if trust is None else np.array(trust))


EXPERT, NOVICE = (0.96, 0.02, 0.02), (0.02, 0.02, 0.96)


def test_where_one_device_knows_a_probe_it_is_listened_to():
    crowd = [voice(f"novice-{k}", NOVICE, code=3) for k in range(8)]
    experts = [voice("expert-0", EXPERT, code=0), voice("expert-1", EXPERT, code=0)]
    assert Competence(6.0, 2).consensus([*crowd, *experts])[0].argmax() == 0
    assert MeanProbabilities().consensus([*crowd, *experts])[0].argmax() == 2


def test_one_device_that_claims_to_stand_everywhere_gains_no_more_than_an_honest_one():
    honest = [voice(f"honest-{k}", EXPERT, code=1) for k in range(4)]
    liar = voice("liar", NOVICE, code=0)
    clipped = Competence(6.0, clip_rank=2).consensus([*honest, liar])[0]
    assert clipped[0] == pytest.approx((4 * 0.96 + 0.02) / 5, abs=1e-3)
    assert Competence(6.0, clip_rank=1).consensus([*honest, liar])[0].argmax() == 2


def test_a_claim_that_the_canaries_proved_wrong_weighs_nothing_and_other_claims_of_the_device_do():
    honest = voice("honest", EXPERT, code=0)
    flips = [WEIGHT_ONE, WEIGHT_ONE, 1]
    assert Competence(6.0, 2).consensus([honest, voice("flipper", NOVICE, 0, flips)])[0].argmax() == 0
    agreeing = voice("flipper", (0.02, 0.96, 0.02), 0, flips)
    assert Competence(6.0, 2).consensus([honest, agreeing])[0] == pytest.approx([0.49, 0.49, 0.02], abs=1e-2)


def test_rules_are_found_by_name_and_only_competence_asks_for_maps():
    needing = {name for name in RULES if rule_named(name, RuleTerms()).needs_competence}
    assert needing == {"competence", "per-label"}
    with pytest.raises(InvalidValueError, match="no method 'vote'; there are mean-probabilities"):
        rule_named("vote", RuleTerms())


@pytest.mark.parametrize("wrong", [{"sharpness": 0.0}, {"clip_rank": 0}, {"era_temperature": -1.0}])
def test_constants_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        RuleTerms(**wrong)
