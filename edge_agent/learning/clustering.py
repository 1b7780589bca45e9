"""Where a device's private rows lie: at most eight centroids, each the mean of at least eleven rows.

Centroids never leave the device; the distances of public probes to them do, two bits each. Smaller clusters could be
trilaterated back to single rows (docs/adr/0004-methods.md), so they dissolve into their neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

MAX_CLUSTERS = 8
MIN_CLUSTER_ROWS = 11
MIN_ROWS = 20
"""With fewer private rows there is no map: the device claims to stand nowhere."""
_LLOYD_STEPS = 20


def centroids_of(rows: F32) -> F32:
    """Return the centroids [k, d] of `rows` [n, d]; the same rows in the same order give the same centroids.

    k-means by Lloyd's algorithm from farthest-point seeds. While the smallest cluster has too few rows its centroid
    goes and its rows join the others. k = 0 where n < MIN_ROWS.
    """
    if len(rows) < MIN_ROWS:
        return np.empty((0, rows.shape[1]), np.float32)
    centroids, sizes = _lloyd(rows, _seeds(rows, max(1, min(MAX_CLUSTERS, len(rows) // MIN_CLUSTER_ROWS))))
    while sizes.min() < MIN_CLUSTER_ROWS:
        centroids, sizes = _lloyd(rows, np.delete(centroids, sizes.argmin(), axis=0))
    return centroids


def nearest_distances(points: F32, centroids: F32) -> F32:
    """Return the distance of each of `points` [m, d] to its nearest centroid: float32 [m], infinite without any."""
    if not len(centroids):
        return np.full(len(points), np.inf, np.float32)
    return np.asarray(np.sqrt(_squared_distances(points, centroids).min(axis=1)))


def _seeds(rows: F32, count: int) -> F32:
    """The row nearest to the mean, then again and again the row farthest from all seeds."""
    first = _squared_distances(rows, rows.mean(axis=0, keepdims=True))[:, 0].argmin()
    chosen = [first]
    farness = _squared_distances(rows, rows[first : first + 1])[:, 0]
    while len(chosen) < count:
        chosen.append(farness.argmax())
        farness = np.minimum(farness, _squared_distances(rows, rows[chosen[-1:]])[:, 0])
    return rows[chosen]


def _lloyd(rows: F32, centroids: F32) -> tuple[F32, npt.NDArray[np.int64]]:
    """Return centroids [k, d] and how many rows each is the mean of; one that nobody is near stays, with 0."""
    for _ in range(_LLOYD_STEPS):
        owners = _squared_distances(rows, centroids).argmin(axis=1)
        before, centroids = centroids, centroids.copy()
        for k in np.unique(owners):
            centroids[k] = rows[owners == k].mean(axis=0)
        if np.array_equal(before, centroids):
            break
    return centroids, np.bincount(owners, minlength=len(centroids))


def _squared_distances(points: F32, centroids: F32) -> F32:
    """[m, k]; one centroid at a time, so that memory stays at one copy of the points."""
    return np.stack([np.square(points - centroid).sum(axis=1) for centroid in centroids], axis=1)
