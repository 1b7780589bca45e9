"""examples/smart-home: each of its commands, in a copy of the folder, as one would begin who brings an own meter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_agent.inference.outputs.discovery import HomeTopics
from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from fd_runtime.artifacts import load_bundle
from fd_runtime.links.link import LinkSettings
from fleet_sim.data.loads import THIRDS, days_of, loads
from tests.examples import folders
from tests.examples.buildings import NAMES, write_loads
from tests.examples.folders import (
    MODEL_EXPORT,
    agent,
    check_full_form,
    module_of,
    said_by,
    script,
    table_whose_head_begins,
)
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.homes import Home
from tests.support.patience import wait_until

EXAMPLE = folders.example("smart-home")
PUBLISHED = os.environ.get("FEDISTILL_SIMBENCH", "")
"""SimBench's wheel, where somebody has it."""
TOPICS = HomeTopics("load", "home-1")
METER, THIRD = "zigbee2mqtt/meter", "home/meter/third"
BUILDING, DAYS = "H0-B", 4
ROWS = (
    *("competence, student", "competence, mean device"),
    *("competence, float backbones, student", "competence, float backbones, mean device"),
    *("competence, epsilon 8, student", "competence, epsilon 8, mean device"),
    *("competence, every layer trains, student", "competence, every layer trains, mean device"),
    *("local only", "FedAvg, tail, f32", "FedAvg, tail + fine-tuning"),
    *("FedAvg, whole model, f32", "FedAvg, whole model, int4"),
    *("server only, with the canaries' labels", "centralised"),
)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    return write_loads(tmp_path_factory.mktemp("loads") / "simbench.whl")


@pytest.fixture(scope="session")
def example(wheel, tmp_path_factory):
    """A copy of the folder, its models built from few buildings."""
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("copied") / "mine")
    fleet = folder / "fleet.toml"
    counts = {"factory": 24, "probes": 100, "canaries": 18, "validation": 0, "unseen_groups": 2}
    text = fleet.read_text().replace("devices = 22", "devices = 2").replace("minimum = 100", "minimum = 5")
    for key, count in counts.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {count}", text, flags=re.MULTILINE)
    fleet.write_text(text)
    script(folder, "data.py", "--data", wheel)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 100", "epochs = 20"))
    script(folder, "-c", MODEL_EXPORT, "build", "recipe.toml", "--out", "artifacts")
    return folder


def test_the_short_form_has_a_row_for_all_that_is_compared_for_rules_and_for_each_board(wheel, tmp_path):
    said = folders.short_form(EXAMPLE, tmp_path, f"building-load={wheel}")
    for head in ("method | unseen buildings", "own kind of rows"):
        text = "\n".join(table_whose_head_begins(said, head))
        for row in ROWS:
            if "student" not in row or head.startswith("method"):
                assert re.search(rf"^\| {re.escape(row)} \| \d+\.\d ± ", text, re.MULTILINE), row
    rules = table_whose_head_begins(said, "a rule without a model")[2:]
    assert [0 < float(rule.split(" | ")[1].split(" ± ")[0]) <= 100 for rule in rules] == [True, True]
    costs = [line.split(" | ") for line in table_whose_head_begins(said, "a round of ours")[2:]]
    assert [(cells[0], cells[1]) for cells in costs] == [
        *(("| pi-zero-2w, wifi", "conv1d-s"), ("| pi-4, wifi", "conv1d-m"))
    ]
    assert all(float(joules) > 0 for cells in costs for joules in cells[3:5])


@pytest.mark.system
def test_real_programs_play_it_as_the_simulation_does(wheel, tmp_path):
    assert folders.real_form(EXAMPLE, tmp_path, f"building-load={wheel}") == 2


def test_the_full_form_can_be_played(monkeypatch):
    check_full_form(module_of(EXAMPLE, monkeypatch).cases({}, "full"), ROWS)


def test_a_rule_without_a_model_looks_at_the_hour_that_it_names(monkeypatch):
    module = module_of(EXAMPLE, monkeypatch)
    day = np.repeat(np.arange(24, dtype=np.float32), 4)
    days = np.stack([day, day, day[::-1]])[:, None, :]
    rows = type("Rows", (), {"values": days, "labels": np.array([2, 0, 0]), "__len__": lambda _: 3})()
    assert module.guessed(rows, -1) == pytest.approx(2 / 3)  # high, high, low
    assert module.guessed(rows, 0) == pytest.approx(1 / 3)  # low, low, high


def test_the_recipe_builds_two_sizes_of_the_task_that_the_meter_is_read_for(example):
    small, medium = (load_bundle(example / "artifacts" / f"load-{size}") for size in "sm")
    assert small.manifest.task.digest == medium.manifest.task.digest
    task = small.manifest.task
    assert (task.classes, task.sample_shape, task.time_axis, task.columns) == (THIRDS, (1, 96), 1, ("power",))


def test_hindsight_says_what_the_table_is_made_of(wheel, monkeypatch):
    """Each hour's class by the plain program is that by which models are judged."""
    hindsight, replay = (module_of(EXAMPLE, monkeypatch, name) for name in ("hindsight", "replay"))
    load = next(load for load in loads(wheel) if load.building == BUILDING)
    looks = hindsight.Hindsight()
    said = [told for reading in replay.readings(load, DAYS) if (told := looks.told(reading)) is not None]
    _, thirds = days_of(load.power[: DAYS * 96])
    assert [told["label"] for told in said[::4]] == [THIRDS[third] for third in thirds]
    assert said[0]["id"] == "2016-01-02T00:00:00+01:00"


def test_hindsight_overlooks_what_is_no_reading(monkeypatch):
    looks = module_of(EXAMPLE, monkeypatch, "hindsight").Hindsight()
    for reading in (7, [], {}, {"power": "much", "last_seen": "now"}, {"power": 3}, {"power": 3, "last_seen": 4}):
        assert looks.told(reading) is None


@contextmanager
def hindsight(folder, port):
    process = subprocess.Popen([sys.executable, "hindsight.py", "--port", str(port)], cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.system
@needs_mosquitto
def test_a_meter_teaches_the_device_by_what_came_an_hour_later(example, wheel, tmp_path):
    """Every hour is predicted when it begins; the store has each day with the class of the hour that came."""
    folder = shutil.copytree(example, tmp_path / "device")
    with plain_mosquitto(tmp_path) as broker, agent(folder, broker.port), hindsight(folder, broker.port):
        topics = ("homeassistant/#", "fedistill/#", THIRD)
        home = Home(LinkSettings("home", port=broker.port, subscriptions=topics))
        home.wait_for(TOPICS.availability, b"online")
        wait_until(lambda: "source meter: connected" in (folder / "log").read_text())
        home.link.publish(METER, b"no plug's")
        options = {"building": BUILDING, "days": DAYS, "period-s": 0.01, "port": broker.port}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        told = script(folder, "replay.py", "--data", wheel, *words)
        assert told == f"{BUILDING}: {DAYS * 96} readings\n"
        days = (DAYS - 1) * 24 + 1
        lines = wait_until(lambda: len(all_said := said_by(folder)) >= days and all_said)
        assert len(lines) == days
        assert {line["label"] for line in lines} <= set(THIRDS)
        assert home.json(TOPICS.config)["device"]["name"] == "Next hour"
        manifest = load_bundle(folder / "artifacts" / "load-s").manifest
        kept = wait_until(lambda: len(found := labelled(folder, manifest)) >= days - 1 and found)
        home.link.close()
    load = next(load for load in loads(wheel) if load.building == BUILDING)
    samples, thirds = days_of(load.power[: DAYS * 96])
    assert {number for _, number in kept} == set(thirds.tolist())
    for sample, third in zip(samples, thirds.tolist(), strict=True):
        near = [number for own, number in kept if np.abs(own - sample).max() < 0.001]  # a plug says tenths of a watt
        assert near == [third]


def labelled(folder: Path, manifest) -> list[tuple[np.ndarray, int]]:
    with closing(PrivateStore.open(folder / "state" / "private.db", StoreSettings(), manifest)) as store:
        batches = list(store.batches())
    return [(own[0], int(label)) for rows in batches for own, label in zip(rows.samples, rows.labels, strict=True)]


def test_buildings_of_ones_own_are_cut_as_fleet_toml_names_them(wheel, tmp_path):
    folder = shutil.copytree(EXAMPLE, tmp_path / "mine")
    days = [days_of(load.power, 6) for load in loads(wheel)]
    x, y = (np.concatenate(parts) for parts in zip(*days, strict=True))
    group = np.repeat(np.arange(len(NAMES)), [len(own) for _, own in days])
    np.savez(folder / "days.npz", x=x[:, None, :], y=y, group=group)
    task = f'{{ classes = {json.dumps(THIRDS)}, sample_shape = [1, 96], sample_dtype = "float32" }}'
    fleet = (folder / "fleet.toml").read_text()
    for key, count in {"factory": 24, "probes": 60, "canaries": 18, "validation": 0, "unseen_groups": 2}.items():
        fleet = re.sub(rf"^{key} = \d+", f"{key} = {count}", fleet, flags=re.MULTILINE)
    fleet = fleet.replace("devices = 22", "devices = 3").replace("minimum = 100", "minimum = 5")
    (folder / "fleet.toml").write_text(
        re.sub(r"^data = .*", f'data = {{ path = "days.npz", task = {task} }}', fleet, flags=re.MULTILINE)
    )
    assert script(folder, "data.py").startswith("3 devices")


def test_the_short_form_plays_with_the_real_buildings(tmp_path):
    if not PUBLISHED:
        pytest.skip("FEDISTILL_SIMBENCH names no wheel")
    assert "| competence, student |" in folders.short_form(EXAMPLE, tmp_path, f"building-load={PUBLISHED}")
