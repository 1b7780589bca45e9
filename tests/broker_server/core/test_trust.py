"""Trust is earned per class on the canaries that a device claims to know."""

import numpy as np
import pytest

from broker_server.core.trust import TrustTable, reassigned
from broker_server.rules.canary_trust import earned
from broker_server.rules.voice import WEIGHT_ONE
from fd_protocol import cbor
from fd_protocol.errors import DecodeError

LABELS = np.tile(np.arange(4), 25)
SURE = np.ones(100)
STRANGER = np.full(4, WEIGHT_ONE)


def test_a_device_that_is_always_right_is_all_but_fully_trusted():
    assert (earned(LABELS, LABELS, SURE, STRANGER) > 0.9 * WEIGHT_ONE).all()


def test_a_device_that_is_always_wrong_keeps_almost_nothing():
    trust = earned((LABELS + 1) % 4, LABELS, SURE, STRANGER)
    assert (trust >= 1).all()
    assert (trust < 0.001 * WEIGHT_ONE + 1).all()


def test_a_lie_about_one_class_costs_that_class_and_leaves_the_others():
    claims = np.where(LABELS == 0, 1, LABELS)
    trust = earned(claims, LABELS, SURE, STRANGER)
    assert trust[1] < 0.25 * WEIGHT_ONE
    assert (trust[[2, 3]] > 0.85 * WEIGHT_ONE).all()


def test_a_device_is_not_judged_where_it_claims_to_know_nothing():
    wrong_half = np.where(np.arange(100) < 50, (LABELS + 1) % 4, LABELS)
    knows_the_other_half = np.where(np.arange(100) < 50, 0.0, 1.0)
    assert (earned(wrong_half, LABELS, knows_the_other_half, STRANGER) > 0.8 * WEIGHT_ONE).all()


def test_few_claims_earn_less_than_many():
    few = earned(LABELS[:4], LABELS[:4], np.ones(4), STRANGER)
    assert (few < earned(LABELS, LABELS, SURE, STRANGER)).all()


def precision(claims, weights, c, expected):
    claimed = claims == c
    return (weights[claimed & (claims == LABELS)].sum() + 3 * expected) / (weights[claimed].sum() + 3)


@pytest.mark.parametrize("before", [STRANGER, np.array([4000, 1, 300, 2048])])
def test_it_is_the_formula_of_the_module(before):
    rng = np.random.default_rng(1)
    claims, weights = rng.integers(0, 4, 100), rng.random(100)
    q = (before / WEIGHT_ONE) ** (1 / 3)
    start = 1 / 4 if before is STRANGER else q.mean()
    g = (weights[claims == LABELS].sum() + 3 * start) / (weights.sum() + 3)
    trust = earned(claims, LABELS, weights, before)
    for c in range(4):
        t = precision(claims, weights, c, g if before is STRANGER else (g + q[c]) / 2) ** 3
        assert trust[c] == pytest.approx(max(1, round(t * WEIGHT_ONE)), abs=1)


def test_what_a_device_has_earned_counts_as_much_as_a_few_claims():
    known = earned(LABELS, LABELS, SURE, STRANGER)
    few = slice(0, 4)
    stranger_lies, known_lies = (
        earned((LABELS[few] + 1) % 4, LABELS[few], SURE[few], before).mean() for before in (STRANGER, known)
    )
    assert stranger_lies < 0.01 * WEIGHT_ONE < known_lies


def test_a_device_that_begins_to_lie_is_known_in_the_same_round():
    known = earned(LABELS, LABELS, SURE, STRANGER)
    assert (earned((LABELS + 1) % 4, LABELS, SURE, known) < 0.01 * WEIGHT_ONE).all()


def test_a_liar_that_mends_its_ways_is_heard_again():
    liar = earned((LABELS + 1) % 4, LABELS, SURE, STRANGER)
    assert (earned(LABELS, LABELS, SURE, liar) > 0.5 * WEIGHT_ONE).all()


def test_a_table_survives_its_bytes_and_trusts_whom_it_does_not_know():
    table = TrustTable(3, {"a": np.array([1, 17, WEIGHT_ONE])}, "competence")
    again = TrustTable.from_bytes(table.to_bytes(), 3)
    assert again.method == "competence"
    assert again.of("a").tolist() == [1, 17, WEIGHT_ONE]
    assert again.of("stranger").tolist() == [WEIGHT_ONE] * 3


@pytest.mark.parametrize("data", [b"", b"\x01", TrustTable(2, {"a": np.array([1, 1])}).to_bytes()])
def test_a_damaged_table_is_refused(data):
    with pytest.raises(DecodeError):
        TrustTable.from_bytes(data, 3)


def test_a_table_of_the_version_before_is_read_as_one_of_competence():
    """It was a map of devices to rows alone."""
    rows = {"a": np.array([4096, 7], "<u2").tobytes()}
    table = TrustTable.from_bytes(cbor.encode(rows), 2)
    assert (table.method, table.of("a").tolist()) == ("competence", [4096, 7])


def test_trust_is_handed_on_or_forgotten_without_a_word_on_the_others():
    table = TrustTable(2, {name: np.array([k, 9]) for k, name in enumerate("abc", 1)}, "competence")
    heir = TrustTable.from_bytes(reassigned(table.to_bytes(), "a", "d"), 2)
    assert {name: row.tolist() for name, row in heir.by_device.items()} == {"b": [2, 9], "c": [3, 9], "d": [1, 9]}
    nobody = TrustTable.from_bytes(reassigned(table.to_bytes(), "a"), 2)
    assert (set(nobody.by_device), nobody.method) == ({"b", "c"}, "competence")
    assert reassigned(table.to_bytes(), "z", "d") == table.to_bytes()


def test_what_another_rule_gave_is_empty_even_where_its_classes_were_others():
    table = TrustTable(4, {"a": np.array([1, 2, 3, 4])}, "competence")
    assert TrustTable.under("competence", table.to_bytes(), 4).of("a").tolist() == [1, 2, 3, 4]
    other = TrustTable.under("prototypes", table.to_bytes(), 3)
    assert other.of("a").tolist() == [WEIGHT_ONE] * 3
    assert TrustTable.under("competence", b"", 4).by_device == {}
    with pytest.raises(DecodeError):
        TrustTable.under("competence", table.to_bytes(), 3)


def test_who_is_not_spoken_of_keeps_what_it_had():
    before = TrustTable(2, {"a": np.array([7, 8]), "b": np.array([9, 10])}, "expguard")
    after = TrustTable(2, {"b": np.array([1, 2])}, "expguard").onto(before)
    assert ({name: row.tolist() for name, row in after.by_device.items()}, after.method) == (
        {"a": [7, 8], "b": [1, 2]},
        "expguard",
    )
