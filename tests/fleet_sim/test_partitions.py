"""Partitions: nobody's row is another's, and each law hands out what its paper says."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import InvalidValueError
from fd_runtime.config import ConfigError, load_toml
from fleet_sim.partitions import (
    Census,
    Classes,
    Dirichlet,
    Iid,
    Natural,
    PartitionTerms,
    Quantity,
    Shards,
)
from fleet_sim.partitions.levelling import levelled
from fleet_sim.partitions.quantity import apportioned

COMPLETE = {
    "iid": Iid(),
    "dirichlet": Dirichlet(0.1),
    "dirichlet with a minimum": Dirichlet(0.05, minimum=8),
    "shards": Shards(2),
    "classes": Classes(3),
    "power law": Quantity("power", 1.5),
    "dirichlet sizes": Quantity("dirichlet", 0.3),
}
"""Partitions that hand out every row."""


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def census_of(rows: int, classes: int = 10, seed: int = 0) -> Census:
    return Census(rng(seed).integers(0, classes, rows))


@pytest.mark.parametrize("partition", COMPLETE.values(), ids=COMPLETE)
@pytest.mark.parametrize("devices", [4, 7, 40])
def test_every_row_is_handed_out_once(partition, devices):
    census = census_of(1000)
    parts = partition.assign(census, devices, rng(1))
    assert len(parts) == devices
    assert all(np.array_equal(part, np.sort(part)) for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))


@pytest.mark.parametrize("partition", [*COMPLETE.values(), Natural()], ids=[*COMPLETE, "natural"])
def test_equal_seeds_give_equal_parts_and_other_seeds_others(partition):
    labels = rng().integers(0, 10, 800)
    census = Census(labels, rng(5).integers(0, 40, 800))
    first, again, other = (partition.assign(census, 12, rng(seed)) for seed in (1, 1, 2))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert [part.tolist() for part in first] != [part.tolist() for part in other]


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 6))
def test_a_minimum_is_kept_or_refused(seed, devices, minimum):
    census = census_of(100, seed=seed)
    for partition in (Iid(minimum), Dirichlet(0.05, minimum), Quantity("dirichlet", 0.05, minimum)):
        if devices * minimum > 100:
            with pytest.raises(InvalidValueError, match="lower devices or minimum"):
                partition.assign(census, devices, rng(seed))
        else:
            parts = partition.assign(census, devices, rng(seed))
            assert min(map(len, parts)) >= minimum
            assert sorted(np.concatenate(parts).tolist()) == list(range(100))


def test_levelling_takes_from_the_richest_and_no_more_than_it_must():
    parts = [np.arange(0, 10), np.arange(10, 16), np.arange(16, 17)]
    sizes = [len(part) for part in levelled(parts, 4, rng())]
    assert sizes == [7, 6, 4]


def test_levelling_leaves_parts_alone_that_have_enough():
    parts = [np.array([3, 1]), np.array([0, 2])]
    assert [part.tolist() for part in levelled(parts, 2, rng())] == [[1, 3], [0, 2]]


def test_iid_sizes_are_at_most_one_apart():
    sizes = [len(part) for part in Iid().assign(census_of(103), 10, rng())]
    assert sorted(sizes) == [10] * 7 + [11] * 3


def test_the_dirichlet_draws_in_the_order_that_published_figures_were_made_with():
    labels, generator = rng().integers(0, 10, 2700), rng([3, 1])
    expected: list[list[int]] = [[] for _ in range(10)]
    for label in range(10):
        rows = generator.permutation(np.flatnonzero(labels == label))
        ends = (np.cumsum(generator.dirichlet(np.full(10, 0.1))) * len(rows)).astype(int)
        ends[-1] = len(rows)
        for place, row in enumerate(rows.tolist()):
            expected[int((ends <= place).sum())].append(row)
    parts = Dirichlet(0.1).assign(Census(labels), 10, rng([3, 1]))
    assert [part.tolist() for part in parts] == [sorted(part) for part in expected]


def test_shares_of_a_class_have_the_moments_of_a_dirichlet():
    devices, rows, alpha, draws = 5, 10_000, 0.5, 4000
    census = Census(np.zeros(rows, np.int64))
    generator = rng(7)
    shares = np.array([[len(p) for p in Dirichlet(alpha).assign(census, devices, generator)] for _ in range(draws)])
    shares = shares[:, 0] / rows
    mean, variance = 1 / devices, (devices - 1) / (devices**2 * (devices * alpha + 1))
    assert shares.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / draws))
    assert shares.var() == pytest.approx(variance, rel=0.1)


def test_a_device_share_of_a_class_is_distributed_as_beta():
    stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn
    census, generator = Census(np.zeros(5000, np.int64)), rng(11)
    shares = [len(Dirichlet(1.0).assign(census, 4, generator)[2]) / 5000 for _ in range(1000)]
    counts, _ = np.histogram(stats.beta(1.0, 3.0).cdf(shares), bins=10, range=(0, 1))
    assert stats.chisquare(counts).pvalue > 0.01


def test_classes_are_spread_independently():
    census = Census(np.repeat([0, 1], 5000))
    generator = rng(13)
    pairs = []
    for _ in range(1500):
        part = Dirichlet(0.5).assign(census, 6, generator)[0]
        pairs.append(((part < 5000).sum(), (part >= 5000).sum()))
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 4 / np.sqrt(1500)


@given(st.integers(0, 2**32), st.integers(1, 10), st.integers(1, 25))
def test_every_device_holds_exactly_so_many_classes(seed, per_device, devices):
    labels = np.repeat(np.arange(10), 60)
    if devices * per_device < 10:
        with pytest.raises(InvalidValueError, match="leave some of 10 to nobody: raise devices or per_device"):
            Classes(per_device).assign(Census(labels), devices, rng(seed))
        return
    parts = Classes(per_device).assign(Census(labels), devices, rng(seed))
    assert {len(set(labels[part])) for part in parts} == {per_device}
    holders = np.array([[label in labels[part] for part in parts] for label in range(10)]).sum(axis=1)
    assert np.ptp(holders) <= 1
    for label, count in enumerate(holders):
        shares = [n for part in parts if (n := int((labels[part] == label).sum()))]
        assert len(shares) == count
        assert max(shares) - min(shares) <= 1


def test_more_classes_than_there_are_and_too_few_rows_are_refused():
    with pytest.raises(InvalidValueError, match="per_device is 11, but there are 10 classes"):
        Classes(11).assign(Census(np.arange(10)), 5, rng())
    with pytest.raises(InvalidValueError, match=r"class 0 has 1 rows for .* devices: lower devices or per_device"):
        Classes(2).assign(Census(np.arange(10)), 10, rng())


def test_shards_are_runs_of_rows_sorted_by_class():
    labels = rng().permutation(np.repeat(np.arange(10), 60))
    parts = Shards(2).assign(Census(labels), 100, rng(1))
    assert {len(part) for part in parts} == {6}
    assert all(len(set(labels[part])) <= 2 for part in parts)  # 200 shards of 3 rows: no shard has two classes
    mixed = [len(set(labels[part])) for part in parts]
    assert np.mean(mixed) == pytest.approx(
        1 + 1 - 19 / 199, abs=0.15
    )  # the second shard is of the same class: 19 of 199


def test_shards_across_borders_add_no_more_than_a_class_each():
    labels = np.repeat(np.arange(10), 50)
    parts = Shards(1).assign(Census(labels), 7, rng(2))
    assert sorted(tuple(np.unique(labels[part])) for part in parts) == sorted(
        tuple(np.unique(piece)) for piece in np.array_split(labels, 7)
    )


def test_a_natural_device_holds_one_group_whole():
    groups = np.array([2, 0, 0, 2, 5, 5, 5])
    parts = Natural().assign(Census(np.zeros(7, np.int64), groups), 3, rng())
    assert [part.tolist() for part in parts] == [[1, 2], [0, 3], [4, 5, 6]]


def test_chance_says_which_groups_take_part_where_there_are_too_many():
    groups = np.repeat(np.arange(20), 3)
    seen = set()
    for seed in range(60):
        parts = Natural().assign(Census(np.zeros(60, np.int64), groups), 4, rng(seed))
        assert len({int(groups[part[0]]) for part in parts}) == 4
        assert all(len(set(groups[part])) == 1 and len(part) == 3 for part in parts)
        seen |= {int(groups[part[0]]) for part in parts}
    assert seen == set(range(20))


def test_small_groups_are_dropped_or_share_a_device():
    groups = np.array([0] * 5 + [1] * 2 + [2] * 1 + [3] * 6 + [4] * 2 + [5] * 1)
    census = Census(np.zeros(len(groups), np.int64), groups)

    def groups_of(partition) -> list[set[int]]:
        return [set(groups[part].tolist()) for part in partition.holders(census)]

    assert groups_of(Natural(minimum=3)) == [{0}, {3}]
    assert groups_of(Natural(minimum=3, small="merge")) == [{0}, {3}, {1, 2}, {4, 5}]
    assert groups_of(Natural(minimum=5, small="merge")) == [{0}, {3}, {1, 2, 4}]  # 5 is left over


def test_a_natural_device_holds_so_many_rows_of_its_group_at_most():
    census = Census(np.zeros(60, np.int64), np.repeat([0, 1, 2], [40, 15, 5]))
    parts = Natural(most=10).assign(census, 3, rng())
    assert [len(part) for part in parts] == [10, 10, 5]
    assert [set(census.groups[part]) for part in parts] == [{0}, {1}, {2}]
    assert all((np.diff(part) > 0).all() for part in parts)
    others = Natural(most=10).assign(census, 3, rng(1))
    assert {*parts[0]} != {*others[0]}  # drawn, not the first


def test_a_natural_device_may_hold_what_a_private_store_would_keep_of_its_group():
    """Of a class that is rare all rows, of the common one a draw."""
    labels = np.tile([1, *[0] * 19], 5)
    census = Census(np.concatenate([labels, labels]), np.repeat([0, 1], 100))
    parts = Natural(most=20, balanced=True).assign(census, 2, rng())
    assert [np.bincount(census.labels[part]).tolist() for part in parts] == [[15, 5], [15, 5]]
    assert [{*census.groups[part]} for part in parts] == [{0}, {1}]
    assert all((np.diff(part) > 0).all() for part in parts)
    assert {*parts[0]} != {*Natural(most=20, balanced=True).assign(census, 2, rng(1))[0]}
    assert [len(part) for part in Natural(most=300, balanced=True).assign(census, 2, rng())] == [100, 100]


def test_natural_says_what_is_missing():
    with pytest.raises(InvalidValueError, match="choose another partition"):
        Natural().assign(Census(np.zeros(3, np.int64)), 1, rng())
    with pytest.raises(InvalidValueError, match="2 groups have 1 rows or more: lower devices"):
        Natural().assign(Census(np.zeros(3, np.int64), np.array([0, 0, 1])), 3, rng())


def test_a_power_law_has_the_sizes_of_the_law():
    parts = Quantity("power", 1.0).assign(census_of(11_000), 6, rng())
    harmonic = sum(1 / k for k in range(1, 7))
    expected = [11_000 / k / harmonic for k in range(1, 7)]
    np.testing.assert_allclose(sorted(map(len, parts), reverse=True), expected, atol=1)


def test_sizes_of_a_dirichlet_have_its_variance():
    census, generator = census_of(2000), rng(3)
    sizes = np.array([len(Quantity("dirichlet", 2.0, 0).assign(census, 4, generator)[1]) / 2000 for _ in range(3000)])
    assert sizes.mean() == pytest.approx(1 / 4, abs=0.01)
    assert sizes.var() == pytest.approx(3 / (16 * 9), rel=0.1)


def test_quantity_skew_leaves_the_class_mix_alone():
    census = census_of(20_000, classes=4)
    for part in Quantity("power", 0.5).assign(census, 4, rng(2)):
        counts = np.bincount(census.labels[part], minlength=4)
        chi_square = ((counts - len(part) / 4) ** 2 / (len(part) / 4)).sum()
        assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30), st.integers(0, 5000))
def test_apportioned_sizes_sum_to_the_total_and_lie_next_to_their_shares(weights, total):
    shares = np.array(weights) / np.sum(weights)
    sizes = apportioned(shares, total)
    assert sizes.sum() == total
    assert (np.abs(sizes - shares * total) < 1 + 1e-9).all()


def test_a_partition_is_one_table_of_a_scenario(tmp_path):
    file = tmp_path / "partition.toml"

    def read(text: str) -> PartitionTerms:
        file.write_text(text)
        return load_toml(file, PartitionTerms, {})

    assert read("dirichlet = { alpha = 0.3, minimum = 10 }").partition == Dirichlet(0.3, 10)
    assert read("natural = {}") == PartitionTerms(natural=Natural())
    assert read('quantity = { law = "power" }').kind == "quantity"
    with pytest.raises(ConfigError, match=r"exactly one of iid, dirichlet, .*; found none"):
        read("")
    with pytest.raises(ConfigError, match="found iid, shards"):
        read("iid = {}\nshards = {}")
    with pytest.raises(ConfigError, match=r"dirichlet.*alpha is above 0"):
        read("dirichlet = { alpha = 0.0 }")
    with pytest.raises(ConfigError, match=r"dirichlet.aplha: unknown key, did you mean 'alpha'"):
        read("dirichlet = { aplha = 0.5 }")


@pytest.mark.parametrize(
    "refused",
    [
        lambda: Iid(-1),
        lambda: Dirichlet(0),
        lambda: Dirichlet(0.1, -1),
        lambda: Shards(0),
        lambda: Classes(0),
        lambda: Natural(0),
        lambda: Natural(5, most=4),
        lambda: Natural(balanced=True),
        lambda: Quantity(strength=0),
        lambda: Census(np.zeros(2, np.int64), np.zeros(3, np.int64)),
    ],
)
def test_what_makes_no_sense_does_not_exist(refused: Callable[[], object]):
    with pytest.raises(InvalidValueError):
        refused()


def test_too_many_devices_for_shards_are_refused():
    with pytest.raises(InvalidValueError, match="10 rows are not 2 for each of 6 devices"):
        Shards(2).assign(census_of(10), 6, rng())


@pytest.mark.scale
@pytest.mark.parametrize("partition", COMPLETE.values(), ids=COMPLETE)
def test_a_thousand_devices_get_their_rows(partition):
    census = census_of(60_000)
    parts = partition.assign(census, 1000, rng())
    assert len(parts) == 1000
    assert sum(map(len, parts)) == 60_000
