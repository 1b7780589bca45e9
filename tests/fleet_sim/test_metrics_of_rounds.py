"""What is said of a round is said of the arithmetic that the server really did."""

from dataclasses import replace

import numpy as np
import pytest

from broker_server.core.influence import leave_one_out
from broker_server.methods import rule_named
from broker_server.rules import RULES, RuleTerms
from broker_server.rules.voice import WEIGHT_ONE, Voice
from fd_protocol import codec
from fd_protocol.messages import Codec, ConsensusBlock
from fd_protocol.payload import decode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.metrics.hearing import heard_rounds, last_voices
from fleet_sim.metrics.listening import weights_of
from fleet_sim.scenario import PRESETS
from fleet_sim.worlds import digits

PROBES, CLASSES = 40, 5


def random_voices(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Voice(
            f"device-{number}",
            quantise(SoftLabels(rng.dirichlet(np.ones(CLASSES), PROBES).astype("f4"), 1.0), Codec.U8_SQRT).integers(),
            rng.integers(0, 4, PROBES).astype(np.uint8),
            rng.integers(1, WEIGHT_ONE + 1, CLASSES),
            int(rng.integers(1, WEIGHT_ONE + 1)),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("name", ["competence", "mean-probabilities"])
def test_the_weights_are_those_of_the_consensus(name):
    voices, rule = random_voices(6), rule_named(name, RuleTerms())
    weights = weights_of(rule, voices)
    sums = np.einsum("kn,knc->nc", weights, np.stack([voice.integers for voice in voices]))
    np.testing.assert_allclose(rule.consensus(voices), sums / sums.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_a_gain_is_the_accuracy_that_goes_with_the_device(name):
    voices, rule = random_voices(4), rule_named(name, RuleTerms())
    rows, labels = np.arange(5, 35), np.random.default_rng(1).integers(0, CLASSES, 30)

    def accuracy(heard):
        return (rule.consensus(heard).argmax(axis=1)[rows] == labels).mean()

    gains = leave_one_out(rule, voices, rows, labels)
    assert gains == {
        voice.device: pytest.approx(accuracy(voices) - accuracy([v for v in voices if v is not voice]))
        for voice in voices
    }


def test_an_expert_gains_and_a_liar_loses():
    labels = np.arange(PROBES) % CLASSES
    rule = rule_named("mean-probabilities", RuleTerms())
    like = random_voices(2)
    expert = replace(like[0], integers=np.eye(CLASSES, dtype=np.int64)[labels] * 2**20, weight=WEIGHT_ONE)
    liar = replace(like[1], integers=np.eye(CLASSES, dtype=np.int64)[(labels + 1) % CLASSES] * 2**20, weight=WEIGHT_ONE)
    half = replace(expert, device="half", weight=WEIGHT_ONE // 2)
    gains = leave_one_out(rule, [expert, half, liar], np.arange(PROBES), labels)
    assert gains[expert.device] == 1.0
    assert gains["half"] > 0 > gains[liar.device] - 1e-9
    assert gains[liar.device] <= 0


def test_a_consensus_of_nobody_guesses():
    (voice,) = random_voices(1)
    rule = rule_named("mean-logits", RuleTerms())
    labels = voice.integers.argmax(axis=1)
    assert leave_one_out(rule, [voice], np.arange(PROBES), labels) == {voice.device: pytest.approx(0.8)}


def test_only_those_who_are_named_are_asked_about():
    voices, rule = random_voices(3), rule_named("era", RuleTerms())
    rows, labels = np.arange(10), np.zeros(10, np.int64)
    assert list(leave_one_out(rule, voices, rows, labels, devices=["device-1"])) == ["device-1"]


@pytest.mark.parametrize("canaries", [False, True])
def test_the_voices_of_a_simulated_round_give_its_consensus_again(tmp_path, canaries):
    scenario = replace(PRESETS["digits"], rounds=3, devices=4, canaries=canaries)
    world = replace(digits(1, devices=4), canaries=np.arange(0, 600, 5))
    simulation = Simulation(scenario, world, equip(world, scenario.models, 1, tmp_path), 1)
    for _, trust in heard_rounds(simulation):
        state = simulation.server.aggregator.state
        blocks = [
            codec.decode(simulation.server.store.blob(digest), ConsensusBlock) for digest in state.consensus.blocks
        ]
        published = np.concatenate([decode_body(b.body, b.codec, b.slice.count, b.slice.classes).array for b in blocks])
        voices = last_voices(simulation.server, trust)
        consensus = rule_named("competence", scenario.method.terms).consensus(voices)
        again = quantise(SoftLabels(consensus, state.round.offer.temperature), blocks[0].codec)
        assert len(voices) == 4
        np.testing.assert_array_equal(again.array, published)
    assert (voices[0].trust < WEIGHT_ONE).any() == canaries  # trust has had its say
