"""FedProto's aggregation against its paper in plain NumPy."""

import numpy as np
import pytest

from broker_server.rules.prototypes import PrototypeTable, mean_prototypes
from broker_server.rules.voice import UnheardError
from tests.laws.rule_laws import seeds


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
