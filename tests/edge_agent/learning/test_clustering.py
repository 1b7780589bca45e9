from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.learning.clustering import MAX_CLUSTERS, MIN_CLUSTER_ROWS, MIN_ROWS, centroids_of, nearest_distances


def blobs(*sizes, seed=0):
    """Rows around centres 100 apart, `sizes[i]` around the i-th."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(100 * np.arange(len(sizes)), sizes)
    return rng.permutation(rng.standard_normal((sum(sizes), 3)) + centres[:, None] * [1, 0, 0]).astype(np.float32)


def owners(rows, centroids):
    return np.linalg.norm(rows[:, None] - centroids[None], axis=2).argmin(axis=1)


def test_centroids_find_the_clusters():
    centroids = centroids_of(blobs(18, 18, 18, 18, 18, 18))
    assert set(np.rint(centroids[:, 0] / 100)) == {0, 1, 2, 3, 4, 5}


def test_no_map_below_twenty_rows():
    assert len(centroids_of(blobs(MIN_ROWS - 1))) == 0
    assert len(centroids_of(blobs(MIN_ROWS))) == 1


def test_a_small_cluster_leaves_no_centroid_of_its_own():
    rows = blobs(60, MIN_CLUSTER_ROWS - 1)
    assert np.bincount(owners(rows, centroids_of(rows))).min() >= MIN_CLUSTER_ROWS


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=10).filter(lambda sizes: sum(sizes) >= MIN_ROWS),
    st.integers(0, 9),
)
def test_every_centroid_is_the_mean_of_enough_rows(sizes, seed):
    rows = blobs(*sizes, seed=seed)
    centroids = centroids_of(rows)
    assert 1 <= len(centroids) <= MAX_CLUSTERS
    assert np.bincount(owners(rows, centroids), minlength=len(centroids)).min() >= MIN_CLUSTER_ROWS


def test_rows_that_are_all_equal_make_one_centroid():
    rows = np.ones((100, 3), np.float32)
    np.testing.assert_array_equal(centroids_of(rows), [[1, 1, 1]])


def test_the_same_rows_give_the_same_centroids():
    np.testing.assert_array_equal(centroids_of(blobs(50, 20, 12)), centroids_of(blobs(50, 20, 12)))


def test_a_distance_is_to_the_nearest_centroid():
    points = np.array([[0, 0], [3, 4], [10, 1]], np.float32)
    centroids = np.array([[0, 0], [10, 0]], np.float32)
    assert nearest_distances(points, centroids) == pytest.approx([0, 5, 1])


def test_without_centroids_every_probe_is_infinitely_far():
    assert np.isinf(nearest_distances(np.zeros((4, 2), np.float32), np.empty((0, 2), np.float32))).all()
