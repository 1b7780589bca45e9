"""The books of a bad hour find what is wrong: each line of them has a federation in which it is not zero."""

from dataclasses import replace

import pytest

from benchmarks.chaos.books import balance, lines_of, receipts_in
from broker_server.records.chronicle import HearingRecord, RoundRecord

ROUNDS = [
    RoundRecord(1, 2, opened_ms=20, ended_ms=30, phase="closed", invited=2, heard=2),
    RoundRecord(1, 1, opened_ms=10, ended_ms=20, phase="aborted", invited=2, heard=1),
]
HEARINGS = [
    HearingRecord(1, 2, "a", status="stored", kind="contribution"),
    HearingRecord(1, 2, "b", status="stored", kind="contribution"),
    HearingRecord(1, 2, "b", status="stored", kind="competence"),
    HearingRecord(1, 1, "a", status="stored", kind="contribution"),
    HearingRecord(1, 1, "b", status="refused", kind="contribution", reason="late"),
]
RECEIPTS = {"a": {1, 2}, "b": set()}  # b was killed before it wrote down that it has one


def books(rounds=ROUNDS, hearings=HEARINGS, receipts=RECEIPTS, counted=3, unmade=0, unasked=0):
    return balance(rounds, hearings, receipts, counted=counted, unmade=unmade, unasked=unasked)


def test_balanced_books_tell_how_much_there_was():
    found = books()
    assert found.are_balanced
    assert "| contributions stored | 3 |" in lines_of(found)
    assert "| contributions refused | 1 |" in lines_of(found)
    assert "| **lost** | 0 |" in lines_of(found)


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("lost", {"receipts": {"a": {1, 2}, "b": {1}}}),  # the server refused it
        ("lost", {"hearings": HEARINGS[1:], "rounds": [replace(ROUNDS[0], heard=1), ROUNDS[1]], "counted": 2}),
        ("doubled", {"counted": 4}),
        ("doubled", {"hearings": [*HEARINGS, HEARINGS[0]]}),
        ("miscounted", {"rounds": [replace(ROUNDS[0], heard=3), ROUNDS[1]]}),
        ("hanging", {"rounds": [replace(ROUNDS[0], ended_ms=0), ROUNDS[1]]}),
        ("unmade", {"unmade": 1}),
        ("unasked", {"unasked": 1}),
    ],
)
def test_what_is_wrong_stands_in_its_own_line(line, changes):
    found = books(**changes)
    assert not found.are_balanced
    wrong = {name for name in ("lost", "doubled", "miscounted", "unmade", "hanging", "unasked") if getattr(found, name)}
    assert wrong == {line}


def test_a_device_tells_its_receipts_in_its_log():
    lines = ("round 7: submitting -> awaiting", "round 8: predicting -> submitting", "round 9: submitting -> idle")
    log = "".join(f"INFO {line}\n" for line in lines)
    assert receipts_in(log) == {7}
