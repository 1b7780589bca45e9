"""`fleet-sim run` plays what a file or a preset says, keeps what is done, and says where everyone stands."""

import csv
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleet_sim.bus.bus import Faults
from fleet_sim.cli import main
from fleet_sim.playing import Job, play_all, read_played
from fleet_sim.run import read_scenario

QUICK = """
rounds = 2
devices = 3
models = { families = ["mlp-s"], student = "mlp-s" }
training = { epochs = 1, warm_up_epochs = 1 }
"""


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(QUICK)
    return path


def played(capsys, *arguments):
    assert main(["run", "--json", "--jobs", "1", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def job(scenario: Path, folder: Path, seed=0, **changes) -> Job:
    return Job(replace(read_scenario(scenario, ""), **changes), seed, folder)


def test_a_file_is_played_round_by_round_and_seed_by_seed(scenario, capsys):
    result = played(capsys, scenario, "--seeds", 2, "--seed", 7)
    assert [one["seed"] for one in result["played"]] == [7, 8]
    for one in result["played"]:
        assert [each["number"] for each in one["rounds"]] == [1, 2]
        assert 0 <= one["rounds"][-1]["clients"] <= 1
        assert one["rounds"][-1]["own"] is None  # on digits no own rows are kept back
        assert sum(one["last_round"]["shares"].values()) == pytest.approx(1)


def test_the_same_seed_gives_the_same_result_and_another_rule_another(scenario, capsys):
    first, again = (played(capsys, scenario)["played"] for _ in range(2))
    other = played(capsys, scenario, "--rule", "mean-probabilities")["played"]
    assert first == again != other


def test_a_report_says_where_everyone_ended_and_whom_the_rule_listened_to(scenario, capsys):
    assert main(["run", str(scenario), "--rounds", "1", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    for words in ("After 1 rounds", "mean device, test", "bytes up", "effective voters", "device-2", "Who holds what"):
        assert words in said


def test_what_is_simulated_to_go_wrong_is_not_told_as_if_it_did(scenario, tmp_path, caplog):
    before = logging.getLogger("broker-server").level
    play_all([job(scenario, tmp_path, faults=Faults(loss=0.3))], 1)
    assert not caplog.records
    assert logging.getLogger("broker-server").level == before


def test_crashes_and_faults_can_be_asked_for(scenario, capsys):
    calm = played(capsys, scenario)["played"][0]["rounds"]
    scenario.write_text(QUICK + "crashes = { device = 0.1, server = 0.1 }\nfaults = { loss = 0.1, reorder = 0.5 }\n")
    stormy = played(capsys, scenario)["played"][0]["rounds"]
    assert [each["consensus_sha256"] for each in calm] == [each["consensus_sha256"] for each in stormy]


def test_a_folder_holds_report_table_and_picture_of_all_rounds(scenario, tmp_path, capsys):
    out = tmp_path / "out"
    result = played(capsys, scenario, "--seeds", 2, "--out", out)
    assert json.loads((out / "results.json").read_text()) == result
    rows = list(csv.DictReader((out / "rounds.csv").open()))
    assert [(row["seed"], row["number"]) for row in rows] == [("0", "1"), ("0", "2"), ("1", "1"), ("1", "2")]
    assert float(rows[-1]["clients"]) == result["played"][1]["rounds"][1]["clients"]
    assert rows[-1]["own"] == ""
    page = (out / "report.html").read_text()
    assert f"fleet-sim run --json --jobs 1 {scenario}" in page
    assert "scikit-learn" in page
    assert "<svg" in page
    assert (out / "report.png").stat().st_size > 1000


def test_a_finished_seed_is_not_played_again(scenario, tmp_path):
    jobs = [job(scenario, tmp_path, seed) for seed in range(2)]
    (first,) = play_all(jobs[:1], 1)
    heard = []
    again = play_all(jobs, 1, lambda one, result: heard.append((one.seed, result.number)))
    assert heard == [(1, 1), (1, 2)]
    assert repr(again[0]) == repr(first)


def test_another_scenario_is_played_anew_on_the_same_models_where_these_are_the_same(scenario, tmp_path):
    play_all([job(scenario, tmp_path), job(scenario, tmp_path, fraction=0.5)], 1)
    assert len(list((tmp_path / "played").iterdir())) == 2
    assert len(list((tmp_path / "factory").iterdir())) == 1
    play_all([job(scenario, tmp_path, devices=4)], 1)
    assert len(list((tmp_path / "factory").iterdir())) == 2


def test_several_processes_give_what_one_gives(scenario, tmp_path):
    alone = play_all([job(scenario, tmp_path / "one", seed) for seed in range(2)], 1)
    beside = play_all([job(scenario, tmp_path / "two", seed) for seed in range(2)], 2)
    in_lanes = play_all([job(scenario, tmp_path / "three")], 2)
    assert repr(alone) == repr(beside)
    assert repr(alone[:1]) == repr(in_lanes)


def test_what_is_played_is_read_as_it_was_written(scenario, tmp_path):
    (result,) = play_all([job(scenario, tmp_path)], 1)
    result.write(tmp_path / "copy.json")
    assert repr(read_played(tmp_path / "copy.json")) == repr(result)
    assert np.isnan(result.last.own)
    assert result.rows == 797


def test_where_probes_are_of_other_classes_nobody_is_said_to_gain(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 17, (700, 64), np.uint8), np.arange(700) % 3
    np.savez(tmp_path / "noise.npz", x=x, y=y)
    path = tmp_path / "scenario.toml"
    inputs = 'sample_shape = [64], sample_dtype = "uint8", preprocessing = { scale = 0.0625 }'
    task = f'{{ classes = ["a", "b", "c"], {inputs} }}'
    path.write_text(QUICK + f'probes = {{ source = {{ path = "noise.npz", task = {task} }} }}\n')
    (result,) = play_all([job(path, tmp_path)], 1)
    assert (result.last_round.gains, result.last_round.classes) == ({}, ())
    assert sum(result.last_round.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rule = 'mean'", ["rule"]),
        ("attack = { kind = 'bribe' }", ["bribe", "lma"]),
        ("faults = { loss = 2.0 }", ["faults", "[0, 1)"]),
        ("method = { name = 'majority' }", ["majority", "competence"]),
        ("cut = { probes = 2000 }", ["2000 rows for probes"]),
    ],
)
def test_what_is_wrong_with_a_scenario_is_said_in_one_line(scenario, capsys, line, words):
    scenario.write_text(QUICK + line)
    assert main(["run", str(scenario), "--jobs", "1"]) == 78
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("fleet-sim: ")
    for word in words:
        assert word in said


@pytest.mark.parametrize("arguments", [["--preset", "weather"], ["--rule", "majority"]])
def test_a_name_that_does_not_exist_is_answered_with_those_that_do(arguments, capsys):
    assert main(["run", *arguments]) == 78
    assert "there are" in capsys.readouterr().err


def test_no_seed_at_all_is_a_usage_error():
    with pytest.raises(SystemExit) as ended:
        main(["run", "--seeds", "0"])
    assert ended.value.code == 64
