"""Who differs, and on which class."""

import numpy as np

from broker_server.dashboard.disagreement import by_class, by_pair, in_total

CONSENSUS = np.array([0, 0, 1, 1, 1, 1])
CLAIMS = np.array([[0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]])


def test_disagreement_by_class_counts_the_probes_that_the_consensus_gives_to_it():
    np.testing.assert_array_equal(by_class(CLAIMS, CONSENSUS, 3), [[0, 0, np.nan], [0.5, 0.25, np.nan]])


def test_disagreement_of_pairs_is_symmetric_and_nobody_differs_from_itself():
    np.testing.assert_allclose(by_pair(CLAIMS), [[0, 1 / 3], [1 / 3, 0]])


def test_disagreement_in_total_is_over_all_probes():
    np.testing.assert_allclose(in_total(CLAIMS, CONSENSUS), [0, 1 / 3])


def test_without_devices_there_is_nothing_to_differ():
    nobody = np.empty((0, 6), np.int64)
    assert by_class(nobody, CONSENSUS, 3).shape == (0, 3)
    assert by_pair(nobody).shape == (0, 0)
