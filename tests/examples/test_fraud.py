"""examples/fraud: each of its commands, in a copy of the folder, as a user begins who brings banks of their own."""

from __future__ import annotations

import csv
import json
import re
import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml
from fleet_sim.partitions import PartitionTerms
from fleet_sim.scenario import Scenario
from tests.examples import folders
from tests.examples.folders import (
    MODEL_EXPORT,
    SHARED,
    agent,
    check_full_form,
    module_of,
    said_by,
    script,
    table_whose_head_begins,
)
from tests.examples.payments import DAYS_S, HEAD, write_payments
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until

EXAMPLE = folders.example("fraud")
ULB, TAIWAN = (
    SHARED / "fraud" / name for name in ("ulb_creditcard_union_repack.npz", "uci_taiwan_default_UCI_Credit_Card.csv.gz")
)
FEDERATIONS = ("competence", "competence, float backbones", "competence, rows come and go", "competence, epsilon 8")
ROWS = (
    *(f"{name}, {who}" for name in FEDERATIONS for who in ("student", "mean device")),
    *("factory model", "local only", "FedAvg, tail, f32", "FedAvg, tail + fine-tuning", "FedAvg, whole model, f32"),
    *("FedAvg, whole model, int4", "server only, with the canaries' labels", "centralised"),
)
BANKS, LACKING = 6, 4


@pytest.fixture(scope="session")
def payments(tmp_path_factory):
    return write_payments(tmp_path_factory.mktemp("payments") / "creditcard.csv")


@pytest.fixture(scope="session")
def mine(payments, tmp_path_factory):
    """A copy of the folder, its banks made and its models built from few payments."""
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("copied") / "mine", ignore=shutil.ignore_patterns("made"))
    told = script(folder, "banks.py", "--data", payments)
    assert len(told.splitlines()) == BANKS
    fleet = folder / "fleet.toml"
    fleet.write_text(few_payments(fleet.read_text()))
    assert script(folder, "data.py") == f"{BANKS} devices\n"
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 60", "epochs = 5"))
    script(folder, "-c", MODEL_EXPORT, "build", "recipe.toml", "--out", "artifacts")
    return folder


def few_payments(fleet):
    text = fleet
    for key, count in {"factory": 40, "probes": 80, "canaries": 40, "validation": 40}.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {count}", text, flags=re.MULTILINE)
    return text


def short_form(results, *data):
    return folders.short_form(EXAMPLE, results, *data)


def test_the_short_form_says_what_banks_ask_of_all_that_is_compared(payments, tmp_path):
    said = short_form(tmp_path, f"card-fraud={payments}")
    head, _, *rows = table_whose_head_begins(said, "card-fraud | auprc: all")
    assert "recall-at-1-permille-alerts: worst" in head
    assert tuple(row.split(" | ")[0].removeprefix("| ") for row in rows) == ROWS
    assert all(re.match(r"\| [^|]+ \| \d+\.\d ± ", row) for row in rows)
    _, _, *drawn = table_whose_head_begins(said, "card-fraud, rows as they come | auprc: all")
    assert [row.split(" | ")[0] for row in drawn] == [
        f"| {name}" for name in ("competence, student", "competence, mean device", "local only")
    ]


@pytest.mark.system
def test_real_programs_play_it_as_the_simulation_does(payments, tmp_path):
    assert folders.real_form(EXAMPLE, tmp_path, f"card-fraud={payments}") == 2


def test_the_full_form_can_be_played(mine, payments, monkeypatch):
    monkeypatch.syspath_prepend(mine)
    cases = module_of(mine, monkeypatch).cases({"card-fraud": payments}, "full")
    check_full_form(cases, ROWS)
    assert [next(iter(case.federations.values())).partition.natural.balanced for case in cases] == [True, False]


def test_banks_have_other_payments_other_columns_and_a_later_time(mine, payments, monkeypatch):
    with np.load(mine / "made" / "banks.npz") as made:
        values, labels, bank, is_later = (made[name] for name in ("x", "y", "group", "test"))
    table = np.genfromtxt(payments, delimiter=",", names=True)
    in_time = table[np.argsort(table["Time"], kind="stable")]
    assert values.shape == (len(table), HEAD.count(",") - 1)  # neither the time nor the class
    assert np.array_equal(labels, in_time["Class"])
    assert in_time["Time"][is_later].min() >= in_time["Time"][~is_later].max()
    assert in_time["Time"][is_later].min() == pytest.approx(0.7 * DAYS_S, rel=0.01)
    lacking = [np.isnan(values[bank == number]).all(axis=0).sum() for number in range(BANKS)]
    assert lacking == [0, LACKING] * (BANKS // 2)
    rates = [labels[bank == number].mean() for number in range(BANKS)]
    kinds = [np.histogram(in_time["Amount"][bank == number], [0, 10, 40, 1e9])[0] for number in range(BANKS)]
    assert max(rates) > 1.2 * min(rates)
    assert len({int(np.argmax(amounts)) for amounts in kinds}) > 1


def test_a_banks_store_has_all_its_frauds_and_its_own_rows_are_what_comes_later(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine)
    scenario, room = load_toml(mine / "fleet.toml", Scenario), 40
    banks = module_of(mine, monkeypatch, "banks")
    with np.load(mine / "made" / "banks.npz") as made:
        later = [made["x"][made["test"] & (made["group"] == number)] for number in range(BANKS)]
    whole = banks.world(scenario, 100)
    for own, rows in zip(whole.own, later, strict=True):
        np.testing.assert_array_equal(own.values, rows)
    partition = PartitionTerms(natural=replace(scenario.partition.natural, most=room))
    for kept, rows in zip(banks.world(replace(scenario, partition=partition), 100).private, whole.private, strict=True):
        assert len(kept) == min(room, len(rows))
        assert kept.labels.sum() == min(rows.labels.sum(), room // 2)


def test_banks_of_ones_own_are_played_as_fleet_toml_names_them(mine, tmp_path, monkeypatch):
    """A table of other classes and columns, whose banks are named; `data` is as the README writes it."""
    folder = shutil.copytree(mine, tmp_path / "mine", ignore=shutil.ignore_patterns("made", "artifacts"))
    with np.load(mine / "made" / "banks.npz") as made:
        names = np.array(["north", "south", "east", "west", "hill", "bay"])[made["group"]]
        few = {"x": made["x"][:, :20], "y": made["y"], "group": names, "test": made["test"]}
    np.savez(folder / "mine.npz", **few)
    written = re.search(r"data = (\{ path = .* \})`", (EXAMPLE / "README.md").read_text()).group(1)
    own = written.replace("...", json.dumps(["pays", "defaults"])[1:-1]).replace("COLUMNS", "20")
    fleet = (folder / "fleet.toml").read_text()
    (folder / "fleet.toml").write_text(re.sub(r"^data = .*", f"data = {own}", fleet, flags=re.MULTILINE))
    assert script(folder, "data.py") == f"{BANKS} devices\n"
    assert np.load(folder / "made" / "factory.npz")["x"].shape == (40, 20)
    monkeypatch.syspath_prepend(folder)
    cases = module_of(folder, monkeypatch).cases({}, "full")
    assert [case.name for case in cases] == ["banks", "banks, rows as they come"]
    check_full_form(cases, ROWS)


def with_little_room(config, room):
    config.write_text(config.read_text().replace("rows = 350", f"rows = {room}\nquestions = 0"))


@pytest.mark.system
@needs_mosquitto
def test_payments_in_a_csv_are_predicted_and_of_the_labelled_ones_a_balanced_share_is_kept(mine, tmp_path):
    folder, room = shutil.copytree(mine, tmp_path / "device"), 60
    with (folder / "made" / "bank-1.csv").open(newline="") as file:
        _, *lines = csv.reader(file)
    assert any(not cell for cell in lines[0])  # this bank lacks columns
    frauds = sum(line[-1] == "fraud" for line in lines)
    assert 0 < frauds < room // 2 < room < len(lines)
    (folder / "incoming").mkdir()
    with_little_room(folder / "agent.toml", room)
    with plain_mosquitto(tmp_path) as broker, agent(folder, broker.port):
        shutil.copy(folder / "made" / "bank-1.csv", folder / "incoming" / "monday.csv")
        said = wait_until(lambda: len(found := said_by(folder)) >= len(lines) and found)
    assert len(said) == len(lines)
    manifest = load_bundle(folder / "artifacts" / "fraud-s").manifest
    with closing(
        PrivateStore.open(folder / "state" / "private.db", StoreSettings(rows=room, questions=0), manifest)
    ) as store:
        labels = np.concatenate([rows.labels for rows in store.batches()])
    assert len(labels) <= room
    assert labels.sum() == frauds


def test_the_short_form_plays_with_the_real_payments(tmp_path):
    if not ULB.is_file():
        pytest.skip(f"no {ULB.name} beside the checkout")
    assert "| card-fraud | auprc: all |" in short_form(tmp_path, f"card-fraud={ULB}")


def test_the_second_table_has_other_columns_and_no_time(mine, monkeypatch):
    if not TAIWAN.is_file():
        pytest.skip(f"no {TAIWAN.name} beside the checkout")
    monkeypatch.syspath_prepend(mine)
    case, _ = module_of(mine, monkeypatch).cases({"taiwan-default": TAIWAN}, "full")
    world, scores = case.world(100), case.federations["competence"].scores
    assert (case.name, world.task.classes, scores.prevalence) == ("taiwan-default", ("pays", "defaults"), None)
    assert world.test.values.shape == (9000, 23)
    assert sum(map(len, world.own)) == 9000
    assert [int(np.isnan(own.values).all(axis=0).sum()) for own in world.own] == [0, LACKING] * (BANKS // 2)
