"""`fleet-sim` beside `run`: comparisons, attacks, data sets."""

import csv
import json

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fleet_sim.attack_run import AttackPlan
from fleet_sim.cli import main
from fleet_sim.data import DATASETS
from fleet_sim.scenario import PRESETS

QUICK = """
rounds = 2
devices = 5
cut = { validation = 100, own_fraction = 0.2 }
partition = { iid = {} }
models = { families = ["mlp-s"], student = "mlp-s" }
"""


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(QUICK)
    return str(path)


def test_attacks_are_tables_of_rules_and_shares_and_without_attackers_all_are_one(scenario, tmp_path, capsys):
    names = ["--attacks", "lma", "random", "--rules", "competence", "mean-probabilities", "--shares", "0", "0.4"]
    assert main(["attack", scenario, *names, "--jobs", "1", "--out", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("lma", "random", "40% (2)", "mean-probabilities", "every honest answer"):
        assert words in said
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert len(rows) == 2 * 2 * 2
    clients = {(row["rule"], row["attack"], row["attackers"]): float(row["clients"]) for row in rows}
    for rule in ("competence", "mean-probabilities"):
        assert clients[rule, "lma", "0"] == clients[rule, "random", "0"]
        assert clients[rule, "lma", "2"] < clients[rule, "lma", "0"]
    assert len(list((tmp_path / "out" / "played").iterdir())) == 6
    assert len(list((tmp_path / "out" / "factory").iterdir())) == 1


def test_a_plan_of_attacks_refuses_what_there_is_not_and_a_federation_of_liars():
    with pytest.raises(InvalidValueError, match="no attack 'bribe'; there are lma"):
        AttackPlan(PRESETS["digits"], attacks=("bribe",))
    with pytest.raises(InvalidValueError, match="no method 'majority'"):
        AttackPlan(PRESETS["digits"], rules=("majority",))
    with pytest.raises(InvalidValueError, match="nobody is honest"):
        AttackPlan(PRESETS["digits"], shares=(0.2, 1.0))


def test_a_comparison_is_played_from_a_scenario_and_goes_on_where_it_ended(scenario, tmp_path, capsys):
    names = ["--methods", "competence", "local-only", "--budget", "2", "--seeds", "1", "--jobs", "1"]
    assert main(["compare", scenario, *names, "--out", str(tmp_path / "out")]) == 0
    first = capsys.readouterr().out
    assert "Paired differences" in first
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    assert main(["compare", scenario, *names, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert {cell["method"] for cell in json.loads(capsys.readouterr().out)["cells"]} == {"competence", "local-only"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()} == cells
    assert "fleet-sim compare" in (tmp_path / "out" / "report.html").read_text()


def test_all_data_sets_are_listed_with_what_is_known_of_those_that_are_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in DATASETS:
        assert any(name in line for line in lines)
    (digits,) = [line for line in lines if "│ digits " in line]
    for words in ("yes", "1,797", "CC-BY-4.0"):
        assert words in digits
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_says_what_it_holds(capsys, tmp_path):
    subject, activity = np.repeat([3, 5], 20), np.tile(np.arange(5), 8)
    np.savez(
        tmp_path / "walks.npz",
        windows=np.ones((40, 16, 6), np.int16),
        scale=np.float32(0.1),
        subject=subject,
        activity=activity,
    )
    assert main(["data", "motion-sense", "--path", str(tmp_path / "walks.npz")]) == 0
    said = capsys.readouterr().out
    for words in ("MIT", "float32 [6, 16]", "wlk 8", "users, sites or speakers"):
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["data", "weather"], 78, "there are digits"),
        (["data", "motion-sense"], 69, "github.com"),
        (["data", "motion-sense", "--path", "/nowhere"], 69, "there is nothing here"),
        (["run", "--preset", "natural"], 69, "github.com"),
        (["run", "nowhere.toml"], 78, "no such file"),
        (["attack", "--attacks", "bribe"], 78, "there are lma"),
        (["compare", "--methods", "prayer"], 78, "prayer"),
        (["compare", "--preset", "digits", "--methods", "local-only", "--jobs", "1"], 78, "no validation rows"),
        (["advise", "nowhere.toml"], 78, "no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(arguments, code, words, capsys):
    assert main(arguments) == code
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fleet-sim: ")]
    assert words in said
