"""The laws of every rule, written once: a rule's tests inherit those that its card promises."""

import random
import weakref
from functools import partial

import numpy as np
import pytest

from broker_server.rules import Clustering, Judging, Known, Promise, Scaled, Weighing, scale_of
from broker_server.rules.voice import WEIGHT_ONE, UnheardError, Voice
from fd_protocol.messages import Codec
from fd_protocol.payload import quantise
from fd_protocol.soft_labels import SoftLabels


def voices_of(seed, count=6, probes=17, classes=5):
    """Devices that differ in everything a rule may look at."""
    rng = np.random.default_rng(seed)
    return [
        Voice(
            f"device-{k}",
            labels_of(rng.dirichlet(np.full(classes, 0.3), probes)),
            rng.integers(0, 4, probes).astype(np.uint8),
            rng.integers(1, WEIGHT_ONE, classes, endpoint=True),
            WEIGHT_ONE if k % 3 else int(rng.integers(1, WEIGHT_ONE)),
        )
        for k in range(count)
    ]


def camps_of(seed, sizes=(5, 4, 3), classes=5, apart=0.6, name="camp"):
    """Camps of devices: those of one say nearly the same, each camp something else; they come in no order."""
    rng = np.random.default_rng([seed, 1])
    voices = []
    for camp, size in enumerate(sizes):
        shared = rng.dirichlet(np.full(classes, 0.3), 17)
        for place in range(size):
            p = apart * shared + (1 - apart) * rng.dirichlet(np.full(classes, 0.3), 17)
            full = np.full(classes, WEIGHT_ONE)
            voices.append(Voice(f"{name}-{camp}-{place}", labels_of(p), np.zeros(17, np.uint8), full))
    random.Random(seed).shuffle(voices)
    return voices


def labels_of(probabilities):
    return quantise(SoftLabels(probabilities.astype(np.float32), 2.0), Codec.U8_SQRT).integers()


def probabilities_of(voices):
    """[devices, probes, classes] in float64."""
    integers = np.stack([voice.integers for voice in voices]).astype(np.float64)
    return integers / integers.sum(axis=2, keepdims=True)


def fades_of(voices):
    return np.array([voice.weight for voice in voices])[:, None, None] / WEIGHT_ONE


def weighted_mean(weights, probabilities):
    """Of [devices, probes] and [devices, probes, classes]."""
    return (weights[:, :, None] * probabilities).sum(axis=0) / weights.sum(axis=0)[:, None]


# Not hypothesis: an inherited `given` would run under several classes, which it refuses.
seeds = pytest.mark.parametrize("seed", range(10))


def where(condition):
    """Mark a law that holds for rules of which `condition` does."""

    def mark(law):
        law.condition = condition
        return law

    return mark


def promised(promise):
    return where(lambda rule: promise in rule.card.promises)


HELD = set()
"""Names of the rules that have inherited the laws."""


class RuleLaws:
    """Inherit, and give `rule` and `oracle`."""

    rule = None
    tolerance = 1e-5
    same = 2e-5
    """How far a consensus of equal voices may lie from them."""

    def __init_subclass__(cls):
        HELD.add(cls.rule.card.name)
        for name, law in vars(RuleLaws).items():
            if not getattr(law, "condition", lambda _: True)(cls.rule):
                setattr(cls, name, None)

    def oracle(self, voices):
        """The paper's formula in plain float64: [probes, classes]."""
        raise NotImplementedError

    @pytest.mark.parametrize("count", [1, 2, 3, 9])
    @seeds
    def test_it_is_the_papers_formula(self, seed, count):
        voices = voices_of(seed, count)
        np.testing.assert_allclose(self.rule.consensus(voices), self.oracle(voices), atol=self.tolerance)

    @seeds
    def test_any_order_of_voices_gives_the_same_bits(self, seed):
        voices = voices_of(seed)
        before = self.rule.consensus(voices)
        random.Random(seed).shuffle(voices)
        assert np.array_equal(self.rule.consensus(voices), before)

    @seeds
    def test_a_replay_gives_the_same_bits_whatever_was_heard_between(self, seed):
        voices = voices_of(seed)
        before = self.rule.consensus(voices)
        self.rule.consensus(voices_of(seed + 100))
        assert np.array_equal(self.rule.consensus(voices), before)

    @seeds
    def test_rows_are_distributions(self, seed):
        consensus = self.rule.consensus(voices_of(seed))
        assert consensus.dtype == np.float32
        SoftLabels(consensus, 2.0)  # refuses to exist otherwise

    def test_a_device_that_speaks_twice_is_refused(self):
        voices = voices_of(0)
        with pytest.raises(UnheardError, match="device-2 speaks twice"):
            self.rule.consensus([*voices, voices[2]])

    def test_silence_is_refused(self):
        with pytest.raises(UnheardError, match="nobody"):
            self.rule.consensus([])

    @pytest.mark.parametrize("other", [partial(voices_of, probes=16), partial(voices_of, classes=4)])
    def test_voices_of_different_shapes_are_refused(self, other):
        with pytest.raises(UnheardError, match="cells"):
            self.rule.consensus([*voices_of(0, 2), other(0, 3)[2]])

    @seeds
    def test_a_voice_that_fades_loses_its_pull(self, seed):
        here, other = voices_of(seed, 2)
        loud, faint = (
            Voice(other.device, other.integers, here.distances, here.trust, weight) for weight in (WEIGHT_ONE, 1)
        )
        here = Voice(here.device, here.integers, here.distances, here.trust)
        alone, far, near = (self.rule.consensus(v).astype(float) for v in ([here], [here, loud], [here, faint]))
        assert np.abs(near - alone).max() <= np.abs(far - alone).max() + 1e-6

    @promised(Promise.HEARS_ONCE)
    def test_a_stream_gives_the_same_bits_as_a_collection(self):
        assert np.array_equal(self.rule.consensus(iter(voices_of(0))), self.rule.consensus(voices_of(0)))

    @promised(Promise.HEARS_ONCE)
    def test_no_voice_is_kept_when_the_next_is_heard(self):
        heard = []

        def stream():
            for number in range(30):
                voice = voices_of(number, 1)[0]
                voice = Voice(f"device-{number}", voice.integers, voice.distances, voice.trust)
                heard.append(weakref.ref(voice.integers))
                yield voice
                del voice
                assert sum(ref() is not None for ref in heard) <= 2

        self.rule.consensus(stream())
        assert len(heard) == 30

    @promised(Promise.HULL)
    @seeds
    def test_it_lies_between_the_voices(self, seed):
        voices = voices_of(seed)
        consensus, p = self.rule.consensus(voices), probabilities_of(voices)
        assert (consensus >= p.min(axis=0) - 1e-5).all()
        assert (consensus <= p.max(axis=0) + 1e-5).all()

    @promised(Promise.UNANIMITY)
    @seeds
    def test_unanimous_voices_are_the_consensus(self, seed):
        first, *others = voices_of(seed)
        voices = [first, *(Voice(v.device, first.integers, v.distances, v.trust, v.weight) for v in others)]
        expected = np.where(
            self.is_spoken_of(voices)[:, None], probabilities_of(voices)[0], 1 / first.integers.shape[1]
        )
        np.testing.assert_allclose(self.rule.consensus(voices), expected, atol=self.same)

    def is_spoken_of(self, voices):
        """Which rows anybody speaks of, [probes]."""
        return np.ones(len(voices[0].distances), bool)

    @where(lambda rule: rule.card.breakdown > 0)
    @pytest.mark.parametrize("lie", ["alike", "each its own"])
    @seeds
    def test_below_its_breakdown_point_liars_do_not_move_what_the_others_agree_on(self, seed, lie):
        count = 9
        liars = int(np.ceil(self.rule.card.breakdown * count)) - 1
        rng = np.random.default_rng(seed)
        first, *rest = voices_of(seed, count)
        honest = [Voice(v.device, first.integers, v.distances, v.trust) for v in (first, *rest[liars:])]
        aim = rng.integers(0, 5, 17)
        lying = [self._lie(v, aim if lie == "alike" else rng.integers(0, 5, 17)) for v in rest[:liars]]
        assert liars
        assert len(honest) + len(lying) == count
        expected = self.rule.consensus(honest)
        np.testing.assert_allclose(self.rule.consensus([*lying, *honest]), expected, atol=self.same)

    @staticmethod
    def _lie(voice, classes):
        return Voice(voice.device, labels_of(np.eye(5)[classes]), np.zeros_like(voice.distances), voice.trust)

    @where(lambda rule: isinstance(rule, Weighing))
    @seeds
    def test_it_is_the_mean_by_the_weights_that_it_tells(self, seed):
        voices = voices_of(seed)
        weights = np.array(list(map(self.rule.weigher(voices), voices)), np.float64)
        is_weighed = weights.any(axis=0)
        mean = weighted_mean(weights[:, is_weighed], probabilities_of(voices)[:, is_weighed])
        np.testing.assert_allclose(self.rule.consensus(voices)[is_weighed], mean, atol=2e-5)

    @where(lambda rule: isinstance(rule, Scaled))
    @seeds
    def test_what_it_knows_of_weights_when_it_has_heard_is_what_hearing_again_tells(self, seed):
        voices = voices_of(seed)
        labels, known = self.rule.scaled(iter(voices))
        told = scale_of(self.rule, lambda: iter(voices))
        assert labels.tobytes() == self.rule.consensus(voices).tobytes()
        assert known.totals.tolist() == told.totals.tolist()
        for voice in voices:
            assert known.weigh(voice).tolist() == told.weigh(voice).tolist()

    @where(lambda rule: isinstance(rule, Judging))
    @seeds
    def test_its_judgement_is_trust_and_does_not_depend_on_order_or_on_earlier_ones(self, seed):
        voices, known = voices_of(seed), Known(np.array([0, 3, 7, 11]), np.array([1, 0, 4, 1]))
        before = self.rule.judge(voices, known)
        assert set(before) == {voice.device for voice in voices}
        for trust in before.values():
            assert trust.dtype == np.int64
            assert 1 <= trust.min() <= trust.max() <= WEIGHT_ONE
        random.Random(seed).shuffle(voices)
        again = self.rule.judge(voices, known)
        assert {device: trust.tolist() for device, trust in again.items()} == {
            device: trust.tolist() for device, trust in before.items()
        }

    @where(lambda rule: isinstance(rule, Clustering))
    @seeds
    def test_its_clusters_are_the_same_bits_for_any_order_and_between_their_members(self, seed):
        voices = camps_of(seed)
        before = self.rule.clusters(voices)
        assert 2 <= len(before) <= self.rule.most_clusters
        random.Random(seed + 1).shuffle(voices)
        assert all(np.array_equal(a, b) for a, b in zip(self.rule.clusters(voices), before, strict=True))
        p = probabilities_of(voices)
        for cluster in before:
            SoftLabels(cluster, 2.0)
            assert (cluster >= p.min(axis=0) - 1e-5).all()
            assert (cluster <= p.max(axis=0) + 1e-5).all()

    @where(lambda rule: isinstance(rule, Clustering))
    @seeds
    def test_its_clusters_tell_nobody_what_one_device_said(self, seed):
        """A device alone in its camp, or one whose fellows have all but faded, has no consensus of its own."""
        crowd, alone = camps_of(seed, (6, 6)), camps_of(seed + 50, (1,), name="alone")
        faint = [Voice(f"faint-{k}", alone[0].integers, alone[0].distances, alone[0].trust, 1) for k in range(5)]
        for strangers in (alone, [*alone, *faint]):
            for cluster in self.rule.clusters([*crowd, *strangers]):
                assert np.abs(cluster - probabilities_of(alone)[0]).max() > 0.1

    @where(lambda rule: isinstance(rule, Clustering))
    def test_devices_of_one_mind_have_no_clusters(self):
        first, *others = voices_of(0, 12)
        same = [Voice(v.device, first.integers, v.distances, v.trust, v.weight) for v in others]
        assert self.rule.clusters([first, *same]) == ()
        assert self.rule.clusters([first]) == ()
