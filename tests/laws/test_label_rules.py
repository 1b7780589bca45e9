"""The rules that need no public set: under the laws of all rules, and against their papers in plain NumPy."""

import numpy as np
import pytest

from broker_server.rules.per_label import PerLabel
from broker_server.rules.prototypes import PrototypeTable, mean_prototypes
from broker_server.rules.voice import WEIGHT_ONE, UnheardError, Voice
from fd_protocol.competence import FAR
from tests.laws.rule_laws import RuleLaws, fades_of, labels_of, probabilities_of, seeds, voices_of


class TestPerLabel(RuleLaws):
    rule = PerLabel()
    tolerance = 1e-5

    def oracle(self, voices):
        """Jeong et al. 2018, algorithm 1, over the devices that have the label."""
        has_label = np.stack([voice.distances < FAR for voice in voices])[:, :, None] * fades_of(voices)
        sums = (has_label * probabilities_of(voices)).sum(axis=0)
        counts = has_label.sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1e-12), 1 / sums.shape[1])

    @seeds
    def test_a_device_that_lacks_a_label_does_not_speak_of_it(self, seed):
        voices = voices_of(seed)
        there = [Voice(v.device, v.integers, np.zeros_like(v.distances), v.trust, v.weight) for v in voices[1:]]
        silent = Voice("silent", voices[0].integers, np.full_like(voices[0].distances, FAR), voices[0].trust)
        assert np.array_equal(self.rule.consensus([*there, silent]), self.rule.consensus(there))


def test_a_label_that_nobody_has_is_uniform():
    labels = labels_of(np.array([[0.9, 0.1], [0.2, 0.8]]))
    voice = Voice("only", labels, np.array([0, FAR], np.uint8), np.full(2, WEIGHT_ONE))
    np.testing.assert_allclose(PerLabel().consensus([voice]), [[0.9, 0.1], [0.5, 0.5]], atol=0.01)


def tables_of(seed, count=5):
    rng = np.random.default_rng(seed)
    return [
        PrototypeTable(f"device-{k}", rng.integers(0, 256, (4, 7)), rng.integers(0, 5, 4) * (k != 0))
        for k in range(count)
    ]


@seeds
def test_prototypes_are_the_weighted_mean_of_class_means_in_any_order(seed):
    """Tan et al. 2022, equation 6, its weights summing to one."""
    tables = tables_of(seed)
    prototypes, weights = mean_prototypes(tables)
    np.testing.assert_array_equal(weights, sum(table.weights for table in tables))
    for label in np.flatnonzero(weights):
        shares = np.array([table.weights[label] for table in tables]) / weights[label]
        expected = sum(s * table.codes[label] for s, table in zip(shares, tables, strict=True))
        np.testing.assert_allclose(prototypes[label], expected, rtol=1e-5)
    assert not prototypes[weights == 0].any()
    assert np.array_equal(mean_prototypes(reversed(tables))[0], prototypes)


def test_a_device_with_two_tables_a_table_of_another_width_and_silence_are_refused():
    tables = tables_of(0)
    narrow = PrototypeTable("narrow", np.zeros((4, 6), np.int64), np.ones(4, np.int64))
    for wrong in ([*tables, tables[1]], [*tables, narrow], []):
        with pytest.raises(UnheardError):
            mean_prototypes(wrong)
