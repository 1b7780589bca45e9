"""Each rule under the laws that its card promises, against its paper in plain NumPy."""

import numpy as np
import pytest

from broker_server.methods import rule_named
from broker_server.rules import RULES, Known, Need, RuleTerms
from broker_server.rules.comet import Comet
from broker_server.rules.competence import Competence
from broker_server.rules.cronus import Cronus
from broker_server.rules.enhanced_era import EnhancedEra, sharpened
from broker_server.rules.entropy_weighted import EntropyWeighted
from broker_server.rules.era import Era
from broker_server.rules.expguard import ExpGuard
from broker_server.rules.geometric_median import GeometricMedian
from broker_server.rules.histograms import by_cell, levels_of
from broker_server.rules.mean_logits import MeanLogits
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.order_statistics import Median, TrimmedMean
from broker_server.rules.per_label import PerLabel
from broker_server.rules.prototypes import Prototypes
from broker_server.rules.selective import Selective
from broker_server.rules.size_weighted import SizeWeighted
from broker_server.rules.stacks import by_probe
from broker_server.rules.variance_weighted import VarianceWeighted
from broker_server.rules.voice import WEIGHT_ONE, Voice
from broker_server.rules.votes import MajorityVote, WeightedVote
from fd_protocol.competence import FAR, distances_of
from fd_protocol.errors import InvalidValueError
from tests.laws.rule_laws import (
    HELD,
    RuleLaws,
    camps_of,
    fades_of,
    labels_of,
    probabilities_of,
    seeds,
    voices_of,
    weighted_mean,
)


def softmax(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def normalised(rows):
    return rows / rows.sum(axis=1, keepdims=True)


class TestMeanProbabilities(RuleLaws):
    rule = MeanProbabilities()

    def oracle(self, voices):
        fades = fades_of(voices)
        return (fades * probabilities_of(voices)).sum(axis=0) / fades.sum(axis=0)


class TestMeanLogits(RuleLaws):
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


class TestEnhancedEra(RuleLaws):
    rule = EnhancedEra(beta=3.0, agreement=0.2, entropy_floor=0.0)
    tolerance = 1e-4

    def oracle(self, voices):
        mean = TestMeanProbabilities().oracle(voices)
        return normalised(mean ** self.exponent(voices, mean))

    @staticmethod
    def exponent(voices, mean):
        agrees = probabilities_of(voices).argmax(axis=2) == mean.argmax(axis=1)
        agreement = np.average(agrees.mean(axis=1), weights=fades_of(voices).ravel())
        return 1 + 2 * max(0, (agreement - 0.2) / 0.8)


class TestEnhancedEraWithAFloor(TestEnhancedEra):
    rule = EnhancedEra(beta=3.0, agreement=0.2, entropy_floor=0.7)

    def oracle(self, voices):
        mean = TestMeanProbabilities().oracle(voices)
        return np.stack([self.kept_at_floor(row, self.exponent(voices, mean)) for row in mean])

    @staticmethod
    def kept_at_floor(row, most):
        """A fine grid in the place of bisection."""
        powers = normalised(row[None, :] ** np.linspace(1, most, 20_001)[:, None])
        entropies = -(powers * np.log(np.maximum(powers, 1e-300))).sum(axis=1)
        kept = np.flatnonzero(entropies >= 0.7)
        return powers[kept[-1] if len(kept) else 0]


class TestEntropyWeighted(RuleLaws):
    rule = EntropyWeighted(least_entropy=0.25)

    def oracle(self, voices):
        p = probabilities_of(voices)
        entropies = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=2)
        return weighted_mean(fades_of(voices)[:, 0] * np.exp(1 / np.maximum(entropies, 0.25)), p)


class TestVarianceWeighted(RuleLaws):
    rule = VarianceWeighted()

    def oracle(self, voices):
        p = probabilities_of(voices)
        return weighted_mean(fades_of(voices)[:, 0] * np.log(np.maximum(p, 2.0**-20)).var(axis=2), p)


SIZES = {"device-0": 900, "device-1": 30, "device-2": 400, "device-3": 70, "elsewhere": 20}
"""Of device-4 and device-5 nobody has stated a size."""


class TestSizeWeighted(RuleLaws):
    rule = SizeWeighted.of(SIZES)

    def oracle(self, voices):
        """McMahan et al. 2017, algorithm 1, with w^k for what a device says."""
        n = np.array([SIZES.get(voice.device, 20) for voice in voices])[:, None]
        return weighted_mean(n * fades_of(voices)[:, 0] * np.ones(17), probabilities_of(voices))


class TestSizeWeightedWithoutSizes(TestMeanProbabilities):
    rule = SizeWeighted.of({})


class TestSelective(RuleLaws):
    rule = Selective(farthest=1)

    def oracle(self, voices):
        fades, near = fades_of(voices)[:, 0], np.stack([voice.distances <= 1 for voice in voices])
        return weighted_mean(np.where(near | ~near.any(axis=0), fades, 0.0), probabilities_of(voices))


class TestMajorityVote(RuleLaws):
    rule = MajorityVote()

    def oracle(self, voices):
        p = probabilities_of(voices)
        votes = (fades_of(voices) * np.eye(p.shape[2])[p.argmax(axis=2)]).sum(axis=0)
        return normalised(np.isclose(votes, votes.max(axis=1, keepdims=True)) * 1.0)


class TestWeightedVote(RuleLaws):
    rule = WeightedVote()

    def oracle(self, voices):
        p = probabilities_of(voices)
        votes = np.eye(p.shape[2])[p.argmax(axis=2)] * p
        return normalised((fades_of(voices) * votes).sum(axis=0))


class TestMedian(RuleLaws):
    """On the grid the oracle is exact; `same` is half a step of it."""

    rule = Median()
    same = 0.01

    def oracle(self, voices):
        return normalised(per_cell(voices, self.of_cell))

    @staticmethod
    def of_cell(values, weights):
        order = np.argsort(values)
        values, cumulated = values[order], weights[order].cumsum()
        half = cumulated[-1] / 2
        return (values[np.flatnonzero(cumulated >= half)[0]] + values[np.flatnonzero(cumulated > half)[0]]) / 2


class TestTrimmedMean(RuleLaws):
    rule = TrimmedMean(0.2)
    same = 0.01
    tolerance = 1e-3  # a part of a voice's weight is cut by whole units of 2^-12

    def oracle(self, voices):
        return normalised(per_cell(voices, self.of_cell))

    @staticmethod
    def of_cell(values, weights):
        order = np.argsort(values)
        values, ends = values[order], weights[order].cumsum()
        starts, cut = ends - weights[order], 0.2 * weights.sum()
        kept = np.maximum(0, np.minimum(ends, ends[-1] - cut) - np.maximum(starts, cut))
        return (kept * values).sum()


def per_cell(voices, of_cell):
    """A statistic of each cell by itself, of values on the grid of 256 steps; a row of zeros becomes uniform."""
    values = (levels_of(np.stack([voice.integers for voice in voices])) / 255.0) ** 2
    weights = fades_of(voices).ravel()
    rows = np.array(
        [[of_cell(values[:, x, c], weights) for c in range(values.shape[2])] for x in range(values.shape[1])]
    )
    return np.where(rows.any(axis=1, keepdims=True), rows, 1.0)


class TestGeometricMedian(RuleLaws):
    """The sum of distances is checked to be the least, within 1e-3 of a distance, without Weiszfeld's steps."""

    rule = GeometricMedian()
    same = 2e-3
    tolerance = 2e-3

    def oracle(self, voices):
        p, fades = probabilities_of(voices), fades_of(voices)[:, 0, 0]
        consensus = self.rule.consensus(voices).astype(np.float64)
        return np.stack([self.least(p[:, x], fades, consensus[x]) for x in range(p.shape[1])])

    @staticmethod
    def least(points, weights, found):
        """The best of the voices, and of what the rule found; both where nothing near it is better."""

        def cost(z):
            return (weights * np.linalg.norm(points - z, axis=1)).sum()

        rng = np.random.default_rng(0)
        steps = rng.normal(size=(50, points.shape[1])) * 0.01
        around = [found + step - step.mean() for step in steps]
        return min([*points, *around, found], key=lambda z: cost(z) - (1e-3 * weights.sum() if z is found else 0))


class TestCronus(RuleLaws):
    rule = Cronus(liars=0.45)
    tolerance = 1e-4

    def oracle(self, voices):
        p, fades = probabilities_of(voices), fades_of(voices)[:, 0, 0]
        return np.stack([self.filtered(p[:, x], fades) for x in range(p.shape[1])])

    @staticmethod
    def filtered(points, weights):
        dropped = int(0.45 * len(points) / 2)
        for _ in range(2):
            mean = np.average(points, axis=0, weights=weights)
            covariance = np.cov(points, rowvar=False, aweights=weights, bias=True)
            direction = np.linalg.svd(covariance)[0][:, 0] if len(points) > 1 else np.zeros(points.shape[1])
            kept = np.argsort(np.abs((points - mean) @ direction), kind="stable")[: len(points) - dropped]
            points, weights = points[kept], weights[kept]
        return np.average(points, axis=0, weights=weights)


class TestExpGuard(RuleLaws):
    rule = ExpGuard(rate=2.0)

    def oracle(self, voices):
        memory = np.array([voice.trust.mean() for voice in voices])[:, None]
        return weighted_mean(memory * fades_of(voices)[:, 0] * np.ones(17), probabilities_of(voices))

    @seeds
    def test_weights_fall_by_the_distance_to_the_mean(self, seed):
        voices = voices_of(seed)
        p, mean = probabilities_of(voices), TestMeanProbabilities().oracle(voices)
        losses = np.linalg.norm(p - mean, axis=2).mean(axis=1)
        weights = np.array([voice.trust.mean() for voice in voices]) * np.exp(-2.0 * losses)
        judged = self.rule.judge(voices, Known(np.empty(0, int), np.empty(0, int)))
        for voice, weight in zip(voices, weights / weights.max(), strict=True):
            assert judged[voice.device].tolist() == [max(1, round(weight * WEIGHT_ONE))] * 5


class TestComet(RuleLaws):
    """The consensus of all is the mean; that of each cluster is held to k-means in plain NumPy."""

    rule = Comet(most_clusters=3, least=3)

    def oracle(self, voices):
        return TestMeanProbabilities().oracle(voices)

    @seeds
    def test_clusters_are_those_of_k_means(self, seed):
        for voices in (camps_of(seed), camps_of(seed, apart=0.2), voices_of(seed, 14)):
            told, expected = self.rule.clusters(voices), self.k_means(voices)
            assert len(told) == len(expected)
            for cluster, mean in zip(told, expected, strict=True):
                np.testing.assert_allclose(cluster, mean, atol=1e-6)

    def k_means(self, voices):
        """Lloyd's algorithm on all devices at once, then again without the smallest cluster while it is too small."""
        voices = sorted(voices, key=lambda voice: voice.device)
        points, weights = probabilities_of(voices).reshape(len(voices), -1), fades_of(voices).ravel()
        centroids = self.seeded(points, weights)
        while True:
            owners, centroids = self.lloyd(points, weights, centroids)
            own = [weights[owners == k] for k in range(len(centroids))]
            sizes = np.array([each.sum() ** 2 / np.square(each).sum() if len(each) else 0 for each in own])
            if len(sizes) == 1:
                return []
            if sizes.min() >= self.rule.least:
                return centroids.reshape(len(sizes), *voices[0].integers.shape)
            centroids = np.delete(centroids, sizes.argmin(), axis=0)

    def seeded(self, points, weights):
        mean = np.average(points, axis=0, weights=weights)
        seeds = [points[np.linalg.norm(points - mean, axis=1).argmin()]]
        while len(seeds) < min(self.rule.most_clusters, int(weights.sum() / self.rule.least)):
            farness = np.min([np.linalg.norm(points - seed, axis=1) for seed in seeds], axis=0)
            order = np.argsort(-farness, kind="stable")
            seeds.append(points[order[np.flatnonzero(weights[order].cumsum() >= self.rule.least)[0]]])
        return np.stack(seeds)

    @staticmethod
    def lloyd(points, weights, centroids):
        for _ in range(20):
            owners = np.linalg.norm(points[:, None] - centroids[None], axis=2).argmin(axis=1)
            centroids = np.stack(
                [
                    np.average(points[owners == k], axis=0, weights=weights[owners == k]) if (owners == k).any() else c
                    for k, c in enumerate(centroids)
                ]
            )
        return owners, centroids

    @seeds
    def test_camps_that_are_there_are_found(self, seed):
        sizes = (5, 4, 3)
        voices = camps_of(seed, sizes, apart=0.8)
        told = self.rule.clusters(voices)
        assert len(told) == 3
        for camp in range(3):
            own = [voice for voice in voices if voice.device.startswith(f"camp-{camp}-")]
            mean = probabilities_of(own).mean(axis=0)
            assert min(np.abs(cluster - mean).max() for cluster in told) < 1e-5

    @seeds
    def test_a_camp_that_is_too_small_joins_the_others_and_takes_no_cluster_from_them(self, seed):
        voices = camps_of(seed, (5, 5, 2), apart=0.8)
        told = self.rule.clusters(voices)
        assert len(told) == 2
        lone = probabilities_of([v for v in voices if v.device.startswith("camp-2-")]).mean(axis=0)
        assert all(np.abs(cluster - lone).max() > 0.2 for cluster in told)


class TestPerLabel(RuleLaws):
    rule = PerLabel()

    def oracle(self, voices):
        """Jeong et al. 2018, algorithm 1, over the devices that have the label."""
        has_label = np.stack([voice.distances < FAR for voice in voices])[:, :, None] * fades_of(voices)
        sums = (has_label * probabilities_of(voices)).sum(axis=0)
        counts = has_label.sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1e-12), 1 / sums.shape[1])

    def is_spoken_of(self, voices):
        return np.any([voice.distances < FAR for voice in voices], axis=0)

    @seeds
    def test_a_device_that_lacks_a_label_does_not_speak_of_it(self, seed):
        voices = voices_of(seed)
        there = [Voice(v.device, v.integers, np.zeros_like(v.distances), v.trust, v.weight) for v in voices[1:]]
        silent = Voice("silent", voices[0].integers, np.full_like(voices[0].distances, FAR), voices[0].trust)
        assert np.array_equal(self.rule.consensus([*there, silent]), self.rule.consensus(there))


class TestPrototypes(RuleLaws):
    """Rows of features: each class of a row but the last is a state; the last is "I cannot tell"."""

    rule = Prototypes()

    def oracle(self, voices):
        """Tan et al. 2022, equation 6, with the weights of the voices for rows, their sum 1."""
        spoken = fades_of(voices) * probabilities_of(voices)
        spoken[:, :, -1] = 0
        return normalised(spoken.sum(axis=0))

    @seeds
    def test_those_who_cannot_tell_do_not_count_and_where_nobody_can_that_is_told(self, seed):
        rng = np.random.default_rng(seed)
        p = rng.random((4, 17))
        knows = rng.random((4, 17)) < 0.4
        rows = np.stack([np.where(knows, p, 0), np.where(knows, 1 - p, 0), ~knows], axis=2)
        full = np.full(3, WEIGHT_ONE)
        voices = [Voice(f"d{k}", labels_of(one), np.zeros(17, np.uint8), full) for k, one in enumerate(rows)]
        told = self.rule.consensus(voices)
        for x in range(17):
            if knows[:, x].any():
                assert told[x, 0] == pytest.approx(p[knows[:, x], x].mean(), abs=5e-3)
                assert told[x, 2] == 0
            else:
                assert told[x].tolist() == [0, 0, 1]


class TestCompetence(RuleLaws):
    rule = Competence(sharpness=2.0, clip_rank=2)
    tolerance = 2e-3  # integers of 12 bits stand for weights

    def oracle(self, voices):
        d = np.stack([distances_of(voice.distances) for voice in voices]).astype(np.float64)
        p = probabilities_of(voices)
        trust = np.stack([voice.trust for voice in voices]) / WEIGHT_ONE
        claims = np.take_along_axis(trust, p.argmax(axis=2), axis=1) * fades_of(voices)[:, 0]
        t = np.maximum(np.floor(claims * WEIGHT_ONE + 1e-9), 1)
        share = min(self.rule.clip_rank, len(d)) / len(d)
        clip = np.stack([self.clip(d[:, x], t[:, x], share) for x in range(d.shape[1])])
        w = np.minimum(1.0, np.exp(-self.rule.sharpness * (d - clip)))
        return weighted_mean(np.maximum(w, 1 / WEIGHT_ONE) * t, p)

    @staticmethod
    def clip(distances, trust, share):
        """The least distance within which this share of all trust lies."""
        order = np.argsort(distances)
        within = trust[order].cumsum() / trust.sum()
        return distances[order][np.flatnonzero(within >= share - 1e-12)[0]]


class TestSharpCompetence(TestCompetence):
    rule = Competence(sharpness=6.0, clip_rank=1)
    tolerance = 1e-2  # where all weights on a probe are a few units of 2^-12


class TestLenientCompetence(TestCompetence):
    rule = Competence(sharpness=6.0, clip_rank=7)


def test_every_rule_that_is_built_in_has_its_laws():
    assert set(RULES) <= HELD


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


def test_liars_that_the_canaries_caught_do_not_count_towards_the_clip():
    honest = [voice("near", EXPERT, code=1), voice("next", EXPERT, code=1), voice("far", NOVICE, code=3)]
    liars = [voice(f"liar-{k}", NOVICE, 0, [1, 1, 1]) for k in range(4)]
    told = Competence(6.0, 2).consensus([*honest, *liars])[0]
    assert told == pytest.approx(Competence(6.0, 2).consensus(honest)[0], abs=2e-3)


def test_a_claim_that_the_canaries_proved_wrong_weighs_nothing_and_other_claims_of_the_device_do():
    honest = voice("honest", EXPERT, code=0)
    flips = [WEIGHT_ONE, WEIGHT_ONE, 1]
    assert Competence(6.0, 2).consensus([honest, voice("flipper", NOVICE, 0, flips)])[0].argmax() == 0
    agreeing = voice("flipper", (0.02, 0.96, 0.02), 0, flips)
    assert Competence(6.0, 2).consensus([honest, agreeing])[0] == pytest.approx([0.49, 0.49, 0.02], abs=1e-2)


def test_the_name_on_a_card_finds_its_rule_and_no_other_name_does():
    for name in RULES:
        assert rule_named(name, RuleTerms()).card.name == name
    with pytest.raises(InvalidValueError, match="no method 'vote'; there are competence, mean-probabilities"):
        rule_named("vote", RuleTerms())


def test_devices_are_asked_for_maps_where_a_rule_reads_them():
    needing = {name for name, make in RULES.items() if Need.COMPETENCE in make(RuleTerms()).card.needs}
    assert needing == {"competence", "selective", "per-label"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sharpness": 0.0},
        {"clip_rank": 0},
        {"era_temperature": -1.0},
        {"beta": 0.9},
        {"beta_agreement": 1.0},
        {"entropy_floor": -0.1},
        {"least_entropy": 0.0},
        {"farthest": 3},
        {"trim": 0.5},
        {"cronus_liars": 0.5},
        {"expguard_rate": 0.0},
        {"clusters": 1},
        {"clusters": 17},
        {"cluster_least": 1},
        {"sizes": {"press-1": 0}},
        {"sizes": {"press-1": (1 << 24) + 1}},
        {"sizes": {"Press 1": 5}},
    ],
)
def test_constants_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        RuleTerms(**wrong)


def test_a_label_that_nobody_has_is_uniform():
    labels = labels_of(np.array([[0.9, 0.1], [0.2, 0.8]]))
    only = Voice("only", labels, np.array([0, FAR], np.uint8), np.full(2, WEIGHT_ONE))
    np.testing.assert_allclose(PerLabel().consensus([only]), [[0.9, 0.1], [0.5, 0.5]], atol=0.01)


def test_what_is_sharpened_starts_at_the_mean_and_rises_with_agreement_alone():
    rule = EnhancedEra(beta=2.0, agreement=0.8, entropy_floor=0.0)
    assert [rule.exponent(a) for a in (0.0, 0.5, 0.8)] == [1.0, 1.0, 1.0]
    assert [rule.exponent(a) for a in (0.9, 1.0)] == pytest.approx([1.5, 2.0])


def test_a_row_that_is_sharper_than_the_floor_stays_as_it_is():
    row = np.array([[0.98, 0.01, 0.01]])
    np.testing.assert_allclose(sharpened(row, 3.0, entropy_floor=0.5), row, atol=1e-6)


def test_a_tie_is_shared():
    votes = [voice("a", (0.6, 0.3, 0.1), 0), voice("b", (0.1, 0.5, 0.4), 0)]
    assert MajorityVote().consensus(votes).tolist() == [[0.5, 0.5, 0.0]]


def test_where_nobody_stands_near_selective_hears_all():
    far = [voice("a", (0.9, 0.05, 0.05), 3), voice("b", (0.05, 0.9, 0.05), 2)]
    assert np.array_equal(Selective(1).consensus(far), MeanProbabilities().consensus(far))


def test_where_no_class_is_likely_to_half_of_the_devices_the_median_does_not_know():
    apart = [voice(f"device-{c}", np.eye(3)[c], 0) for c in range(3)]
    np.testing.assert_allclose(Median().consensus(apart), [[1 / 3] * 3], atol=1e-6)


@pytest.mark.parametrize("budget_bytes", [1, 20 << 10, 1 << 20])
def test_histograms_in_blocks_of_rows_give_the_same_bits(budget_bytes):
    voices = voices_of(0)
    statistic = TrimmedMean(0.2)._means
    assert np.array_equal(by_cell(voices, statistic, budget_bytes), by_cell(voices, statistic))


@pytest.mark.parametrize("budget_bytes", [1, 1000, 1 << 20])
def test_stacks_of_few_rows_give_the_same_bits(budget_bytes):
    voices, statistic = voices_of(0), Cronus(0.45)._filtered
    assert np.array_equal(by_probe(voices, statistic, budget_bytes), by_probe(voices, statistic))


def test_in_a_stack_devices_stand_by_name_in_whatever_order_they_came():
    """Sums of floats depend on their order, if seldom in the bits that a float32 shows."""
    voices = voices_of(0)
    first = by_probe(voices[::-1], lambda _, labels: labels[0])
    np.testing.assert_allclose(first, probabilities_of(voices)[0], atol=1e-6)


def test_a_lone_liar_is_filtered_by_cronus_where_the_mean_follows_it():
    honest = [voice(f"honest-{k}", (0.90 - 0.01 * k, 0.06 + 0.01 * k, 0.04), 0) for k in range(5)]
    liar = voice("liar", (0.0, 0.0, 1.0), 0)
    assert Cronus(0.4).consensus([*honest, liar])[0, 2] < 0.05
    assert MeanProbabilities().consensus([*honest, liar])[0, 2] > 0.15


def test_expguard_silences_a_stubborn_liar_round_by_round_and_does_not_forget():
    rule, nobody = ExpGuard(rate=2.0), Known(np.empty(0, int), np.empty(0, int))
    honest = [voice(f"honest-{k}", (0.8, 0.1, 0.1), 0) for k in range(3)]
    lie, truth, trust, memory = (0.0, 0.1, 0.9), (0.8, 0.1, 0.1), None, []
    for said in [*[lie] * 8, *[truth] * 8]:
        trust = rule.judge([*honest, voice("liar", said, 0, trust)], nobody)["liar"]
        memory.append(int(trust[0]))
    assert memory[:8] == sorted(memory[:8], reverse=True)
    assert memory[7] < 0.01 * WEIGHT_ONE
    assert memory[-1] <= memory[7]  # weights are relative: who is as good as all others stays where it was
