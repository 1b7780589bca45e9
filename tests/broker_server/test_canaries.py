"""Canaries fit their public set, or the server does not start."""

import random

import pytest

from broker_server.canaries import InvalidCanariesError, deal, load_canaries, read_canaries
from broker_server.cli import main
from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Slice
from fd_runtime.config import exit_code_for

SET = sha256(b"set")
CANARIES = Canaries(SET.hex(), LabelledProbes((1, 4, 9), (0, 1, 2)), LabelledProbes((2, 5), (1, 1)))


def load(path, *, public_set=SET, count=10, classes=3):
    return load_canaries(path, public_set=public_set, count=count, classes=classes)


def test_canaries_survive_their_file(tmp_path):
    path = tmp_path / "canaries.json"
    path.write_bytes(CANARIES.to_json())
    assert load(path) == CANARIES


def test_those_within_a_slice_are_told_by_their_rows():
    rows, labels = CANARIES.trust.within(Slice(SET, 4, 6, 3))
    assert (rows.tolist(), labels.tolist()) == ([0, 5], [1, 2])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"public_set": sha256(b"other")}, "public_set_sha256: belongs to another public set"),
        ({"count": 9}, "trust: a probe is not below 9"),
        ({"classes": 2}, "trust: .* label not below 2"),
    ],
)
def test_canaries_of_another_set_are_refused_by_name_and_key(tmp_path, changes, text):
    path = tmp_path / "canaries.json"
    path.write_bytes(CANARIES.to_json())
    with pytest.raises(InvalidCanariesError, match=rf"canaries\.json: {text}") as caught:
        load(path, **changes)
    assert exit_code_for(caught.value) == 78


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidCanariesError, match=r"none\.json: cannot be read"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize(("probes", "labels"), [((1,), ()), ((2, 1), (0, 0)), ((1, 1), (0, 0)), ((-1,), (0,))])
def test_probes_that_make_no_sense_are_refused(probes, labels):
    with pytest.raises(InvalidValueError):
        LabelledProbes(probes, labels)


def test_no_probe_judges_devices_and_student():
    with pytest.raises(InvalidValueError, match="trust and for release"):
        Canaries(SET.hex(), LabelledProbes((1,), (0,)), LabelledProbes((1,), (0,)))


def test_canaries_are_dealt_to_hands_that_share_none_and_have_all_of_them():
    known = Canaries("ab" * 32, probes(range(0, 41, 2)), probes(range(1, 20, 2)))
    hands = deal(known, 4, random.Random(7))
    for name in ("trust", "release"):
        parts = [getattr(hand, name) for hand in hands]
        assert sorted(p for part in parts for p in part.probes) == list(getattr(known, name).probes)
        assert max(len(part.probes) for part in parts) - min(len(part.probes) for part in parts) <= 1
        labels = dict(zip(getattr(known, name).probes, getattr(known, name).labels, strict=True))
        for part in parts:
            assert [labels[p] for p in part.probes] == list(part.labels)
    assert deal(known, 4, random.Random(8)) != hands


@pytest.mark.parametrize(("count", "hands", "why"), [(3, 4, "too few"), (30, 1, "at least 2")])
def test_too_few_canaries_are_not_dealt(count, hands, why):
    with pytest.raises(InvalidValueError, match=why):
        deal(Canaries("ab" * 32, probes(range(count))), hands, random.Random(7))


def test_the_command_line_deals_into_files_for_their_owner_alone(tmp_path, capsys):
    file = tmp_path / "all.json"
    file.write_bytes(Canaries("ab" * 32, probes(range(8)), probes(range(8, 16))).to_json())
    assert main(["probes", "deal", str(file), "--hands", "2", "--out", str(tmp_path / "hands")]) == 0
    assert "2 files" in capsys.readouterr().out
    hands = [read_canaries(tmp_path / "hands" / f"canaries-{number}.json") for number in (1, 2)]
    assert not {*hands[0].trust.probes} & {*hands[1].trust.probes}
    assert (tmp_path / "hands" / "canaries-1.json").stat().st_mode & 0o777 == 0o600
    assert main(["probes", "deal", str(file), "--hands", "2", "--out", str(tmp_path / "hands")]) == 73
    assert main(["probes", "deal", str(tmp_path / "none.json"), "--out", str(tmp_path / "x")]) == 78


def probes(places):
    return LabelledProbes(tuple(places), tuple(place % 3 for place in places))
