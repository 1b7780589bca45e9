"""What the operator is warned of, on the worlds that we publish figures of: probes that no device's data resembles."""

import numpy as np
import pytest

from broker_server.core.coverage import WARN_UNCOVERED, Coverage, coverage, is_far
from edge_agent.learning.clustering import centroids_of, nearest_distances
from fd_protocol.competence import DECODED, quantise_distances
from fd_runtime.space import preprocessed
from fleet_sim.worlds import digits, new_class
from model_export.public_set import DIMENSIONS, principal_space


def coverage_of(world, probes) -> Coverage:
    """What a round would report if these were the probes of the world's devices."""
    flat = preprocessed(probes, world.task).reshape(len(probes), -1)
    space = principal_space(flat, DIMENSIONS)
    places = space.locate(flat)
    maps = [
        quantise_distances(nearest_distances(places, centroids_of(space.locate(preprocessed(part.values, world.task)))))
        for part in world.private
    ]
    counts = np.stack([np.sum(np.stack(maps) == code, axis=0) for code in range(len(DECODED))])
    return coverage(counts, sum(map(is_far, maps)))


@pytest.mark.parametrize("make_world", [digits, new_class])
def test_probes_of_the_devices_kind_are_covered_and_their_negatives_are_not(make_world):
    world = make_world(100)
    probes = world.probes.values
    assert coverage_of(world, probes).uncovered < WARN_UNCOVERED / 10
    assert coverage_of(world, probes.max() - probes).uncovered > 0.9
