"""Chrysakis and Moens 2020: rare classes are kept whole, common ones share the rest evenly, each row is as likely."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from edge_agent.private.reservoir import BalancedReservoir, Counts
from fd_protocol.errors import InvalidValueError


def offer(reservoir, row, label):
    verdict = reservoir.judge(label)
    if verdict.is_kept:
        reservoir.keep(row, label, verdict)
    return verdict


def after(labels, capacity, seed=0):
    """The reservoir after a stream, in which a row's number is its place."""
    reservoir = BalancedReservoir(capacity, random.Random(seed))
    for row, label in enumerate(labels):
        offer(reservoir, row, label)
    return reservoir


def rows_in(reservoir, stream):
    return [row for row in range(stream) if row in reservoir]


def is_uniform(counts, drawn, trials):
    """Whether each of n things was among `drawn` of them equally often, by a chi-square test at 0.1 %.

    A sample without return has the covariance of n / (n - 1) (I - 1/n) p (1 - p), so the usual sum has that factor.
    """
    n, p = len(counts), drawn / len(counts)
    statistic = ((counts - trials * p) ** 2).sum() / (trials * p * (1 - p)) * (n - 1) / n
    return statistic < chi2.isf(0.001, n - 1)


def test_of_one_class_every_row_is_as_likely_to_stay():
    counts = np.zeros(60)
    for seed in range(3000):
        counts[rows_in(after([0] * 60, 15, seed), 60)] += 1
    assert counts.sum() == 3000 * 15
    assert is_uniform(counts, 15, 3000)


def test_within_a_common_class_every_row_is_as_likely_to_stay_beside_rare_ones():
    labels = [0] * 20 + [0, 0, 0, 1] * 15 + [0] * 25
    common = np.flatnonzero(np.array(labels) == 0)
    counts = np.zeros(len(labels))
    for seed in range(3000):
        reservoir = after(labels, 30, seed)
        assert reservoir.sizes() == {0: 15, 1: 15}
        counts[rows_in(reservoir, len(labels))] += 1
    assert (counts[np.array(labels) == 1] == 3000).all()
    assert is_uniform(counts[common], 15, 3000)


def test_two_common_classes_that_cannot_share_evenly_are_both_fair_samples():
    counts, kept = np.zeros(80), np.zeros(2)
    for seed in range(3000):
        rows = rows_in(after([0, 1] * 40, 15, seed), 80)
        counts[rows] += 1
        kept += np.bincount(np.array(rows) % 2, minlength=2)
    for label in (0, 1):
        assert is_uniform(counts[label::2], kept[label] / 3000, 3000)


def test_rare_classes_are_kept_whole_and_common_ones_share_the_rest():
    labels = [0] * 500 + [1] * 200 + [2] * 12 + [3] * 5
    random.Random(1).shuffle(labels)
    sizes = after(labels, 60).sizes()
    assert (sizes[2], sizes[3]) == (12, 5)
    assert sorted([sizes[0], sizes[1]]) == [21, 22]


STREAMS = st.lists(st.integers(0, 4), max_size=120), st.integers(1, 25), st.integers(0, 9)


@given(*STREAMS)
def test_whatever_comes_full_classes_are_even_and_all_others_whole(labels, capacity, seed):
    reservoir = BalancedReservoir(capacity, random.Random(seed))
    seen = Counter()
    for row, label in enumerate(labels):
        offer(reservoir, row, label)
        seen[label] += 1
        sizes, full = reservoir.sizes(), set(reservoir.counts.full)
        assert len(reservoir) == sum(sizes.values()) == min(capacity, row + 1)
        even = [sizes.get(label, 0) for label in full]
        assert not even or max(even) - min(even) <= 1
        assert all(sizes.get(label, 0) == seen[label] for label in seen if label not in full)


@given(*STREAMS)
def test_a_restart_in_the_middle_changes_nothing(labels, capacity, seed):
    rng = random.Random(seed)
    reservoir = BalancedReservoir(capacity, rng)
    members = {}
    for row, label in enumerate(labels):
        verdict = offer(reservoir, row, label)
        if verdict.is_kept:
            members.pop(verdict.displaced, None)
            members[row] = label
        again = BalancedReservoir(capacity, rng, members, reservoir.counts)
        assert (again.sizes(), again.counts) == (reservoir.sizes(), reservoir.counts)


def test_a_row_that_is_refused_changes_no_row():
    reservoir = after([0] * 1000, 5)
    before = rows_in(reservoir, 2000)
    verdicts = [reservoir.judge(0) for _ in range(20)]
    assert not all(verdict.is_kept for verdict in verdicts)
    assert rows_in(reservoir, 2000) == before


def test_what_is_left_after_rows_grew_old_is_still_a_fair_share_of_what_came_within_the_age():
    reservoir = after([0] * 1000, 50)
    for row in rows_in(reservoir, 1000)[:20]:
        reservoir.forget(row)
    assert reservoir.sizes() == {0: 30}
    assert reservoir.counts.seen["0"] == pytest.approx(1000 * 30 / 50)


def test_after_a_new_beginning_old_and_new_rows_are_as_likely_to_be_there():
    counts = np.zeros(500)
    for seed in range(600):
        reservoir = after([0] * 460, 20, seed)
        reservoir.begin_anew()
        for row in range(460, 500):
            offer(reservoir, row, 0)
        counts[rows_in(reservoir, 500)] += 1
    assert counts[460:].sum() / 600 == pytest.approx(20 * 40 / 60, abs=0.3)  # 2 of 3: 40 new, 20 old
    assert is_uniform(counts[460:], 20 * 40 / 60, 600)


def test_a_class_that_died_out_may_come_back_where_there_is_no_room():
    reservoir = after([0] * 50 + [1] * 50, 20)
    for row in rows_in(reservoir, 50):
        reservoir.forget(row)
    for row in range(100, 200):
        offer(reservoir, row, 1)
    assert reservoir.sizes() == {1: 20}
    for row in range(200, 230):
        offer(reservoir, row, 0)
    assert reservoir.sizes() == {0: 10, 1: 10}


def test_a_corrected_label_moves_the_row_and_its_count():
    reservoir = after([0, 0, 1], 5)
    reservoir.relabel(0, 1)
    assert reservoir.sizes() == {0: 1, 1: 2}
    assert reservoir.counts.seen == {"0": 1, "1": 2}


def test_less_room_lets_rows_of_the_largest_class_go():
    labels = [0] * 30 + [1] * 4
    old = after(labels, 40)
    smaller = BalancedReservoir(10, random.Random(0), dict(enumerate(labels)), old.counts)
    assert len(smaller.thin()) == 24
    assert smaller.sizes() == {0: 6, 1: 4}


def test_without_room_nothing_stays():
    assert len(after([0, 1, 2], 0)) == 0
    with pytest.raises(InvalidValueError):
        BalancedReservoir(-1, random.Random(0))


def test_counts_are_empty_at_first():
    assert BalancedReservoir(3, random.Random(0)).counts == Counts()
