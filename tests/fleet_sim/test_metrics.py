"""Metrics agree with their definitions, written out naively."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_sim.metrics.calibration import calibration_error
from fleet_sim.metrics.estimates import estimate, paired
from fleet_sim.metrics.flips import flipped_share
from fleet_sim.metrics.listening import are_uncovered, by_class, contribution_shares, effective_voters, shares
from fleet_sim.metrics.neighbours import neighbour_agreement, of_each
from fleet_sim.metrics.targets import bytes_to_target, rounds_to_target

# Estimates.


def test_the_standard_error_is_that_of_the_mean():
    said = estimate([0.1, 0.2, 0.6])
    assert said.mean == pytest.approx(0.3)
    assert said.standard_error == pytest.approx(np.sqrt(((0.2**2 + 0.1**2 + 0.3**2) / 2) / 3))


def test_one_seed_has_no_standard_error_and_says_none():
    said = estimate([0.875])
    assert np.isnan(said.standard_error)
    assert said.in_percent() == "87.5"


def test_the_luck_of_a_seed_cancels_out_of_a_paired_difference():
    luck = np.array([0.0, 0.3, -0.2])
    difference = paired(0.5 + luck, 0.4 + luck)
    assert difference.mean == pytest.approx(0.1)
    assert difference.standard_error == pytest.approx(0.0, abs=1e-12)
    assert difference.in_percent(signed=True) == "+10.0 ± 0.0"


def test_differences_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        paired([0.1, 0.2], [0.1])


def test_what_was_not_asked_is_a_dash():
    assert estimate([float("nan"), 0.5]).in_percent() == "-"


# Targets.


def test_a_target_is_reached_in_the_first_round_that_is_as_good():
    curve, totals = (0.2, 0.8, 0.7, 0.9), ((10, 1), (20, 2), (30, 3), (40, 4))
    assert rounds_to_target(curve, 0.8) == 2
    assert bytes_to_target(curve, totals, 0.8) == (20, 2)
    assert bytes_to_target(curve, totals, 0.81) == (40, 4)


def test_a_target_that_is_never_reached_has_no_price():
    assert rounds_to_target((0.2, 0.3), 0.5) is None
    assert bytes_to_target((0.2, 0.3), ((1, 1), (2, 2)), 0.5) is None


def test_where_nothing_travels_a_target_is_free():
    assert bytes_to_target((0.9,), (), 0.5) == (0.0, 0.0)


# Calibration.


def naive_calibration_error(probabilities, labels, bins):
    error = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [row for row, p in enumerate(probabilities) if low < max(p) <= high]
        if inside:
            accuracy = sum(probabilities[row].argmax() == labels[row] for row in inside) / len(inside)
            confidence = sum(max(probabilities[row]) for row in inside) / len(inside)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    return error


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6), st.integers(1, 20))
def test_calibration_error_is_the_weighted_gap_of_each_bin(seed, rows, classes, bins):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), rows)
    labels = rng.integers(0, classes, rows)
    assert calibration_error(probabilities, labels, bins) == pytest.approx(
        naive_calibration_error(probabilities, labels, bins), abs=1e-9
    )


def test_a_model_that_is_sure_and_right_is_calibrated_and_one_that_is_sure_and_wrong_is_not():
    sure = np.eye(4, dtype=np.float32)
    assert calibration_error(sure, np.arange(4)) == 0.0
    assert calibration_error(sure, (np.arange(4) + 1) % 4) == 1.0


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    probabilities = np.array([[0.5, 0.5], [0.51, 0.49]])  # two bins: (0, .5] and (.5, 1]
    assert calibration_error(probabilities, np.array([0, 1]), bins=2) == pytest.approx((0.5 + 0.51) / 2)


def test_of_no_rows_nothing_is_claimed():
    assert np.isnan(calibration_error(np.empty((0, 3)), np.empty(0, np.int64)))


# Listening.

WEIGHTS = np.array([[1.0, 4.0, 0.0], [1.0, 0.0, 0.0], [1.0, 4.0, 0.0], [1.0, 0.0, 0.0]])


def test_equal_voters_count_in_full_and_silent_ones_not_at_all():
    np.testing.assert_allclose(effective_voters(WEIGHTS[:, :2]), [4, 2])


def test_unequal_voters_count_for_less_than_their_number():
    (voters,) = effective_voters(np.array([[3.0], [1.0]]))
    assert voters == pytest.approx(1 / (0.75**2 + 0.25**2))


def test_shares_of_a_probe_sum_to_one_even_where_nobody_has_weight():
    np.testing.assert_allclose(shares(WEIGHTS).sum(axis=0), 1.0)
    np.testing.assert_allclose(shares(WEIGHTS)[:, 2], 0.25)


def test_a_device_contributes_its_mean_share():
    np.testing.assert_allclose(contribution_shares(WEIGHTS[:, :2]), [0.375, 0.125, 0.375, 0.125])


DISTANCES = np.array([[0, 3, 3, 1], [2, 3, 0, 3]], np.uint8)


def test_a_probe_that_everyone_is_far_from_is_uncovered():
    assert are_uncovered(DISTANCES).tolist() == [False, True, False, False]


def test_coverage_is_told_for_each_class():
    weights = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 3.0]])
    first, second, third = by_class(weights, DISTANCES, np.array([0, 0, 1, 1]), 3)
    assert (first.probes, first.voters, first.uncovered, first.near_devices) == (2, 2.0, 0.5, 1)
    assert (second.probes, second.uncovered, second.near_devices) == (2, 0.0, 1)
    assert second.voters == pytest.approx((1 + 1.6) / 2)
    assert (third.probes, third.near_devices) == (0, 0)
    assert np.isnan([third.voters, third.uncovered]).all()


# Flips.


def test_a_flip_counts_rows_of_the_source_that_the_target_has_and_no_others():
    labels = np.array([7, 7, 7, 7, 1, 2])
    claims = np.array([1, 1, 7, 2, 1, 1])
    assert flipped_share(np.eye(10, dtype=np.float32)[claims], labels, 7, 1) == 0.5
    assert np.isnan(flipped_share(np.eye(10, dtype=np.float32)[claims], labels, 9, 1))


def test_neighbours_agree_where_the_nearest_of_another_group_has_the_same_class():
    points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]], np.float32)
    labels, groups = np.array([0, 1, 0, 1, 1]), np.array([0, 0, 1, 0, 1])
    # Nearest of the other group: 2, 2, 1, 4, 3.
    assert neighbour_agreement(points, labels, groups).tolist() == pytest.approx([0.6, 0.5, 2 / 3])


def test_who_has_more_rows_is_asked_no_more_of_them():
    groups = np.repeat([0, 1, 2], [50, 3, 10])
    rows = of_each(groups, 5, np.random.default_rng(0))
    assert np.bincount(groups[rows]).tolist() == [5, 3, 5]
    assert len(set(rows.tolist())) == len(rows)
