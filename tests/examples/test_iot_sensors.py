"""examples/iot-sensors: each of its commands, in a copy of the folder, as one would begin who brings own sensors."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing

import numpy as np
import pytest

from edge_agent.inference.outputs.discovery import HomeTopics
from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from fd_runtime.artifacts import load_bundle
from fd_runtime.links.link import LinkSettings
from fleet_sim.data import DATASETS
from fleet_sim.data.sensors import ACTIVITIES, recordings, windows_of
from tests.examples import folders
from tests.examples.folders import MODEL_EXPORT, SHARED, agent, check_full_form, module_of, said_by, script
from tests.examples.motions import write_motions
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.homes import Home
from tests.support.patience import wait_until

EXAMPLE = folders.example("iot-sensors")
RECORDINGS = SHARED / "sensors" / "motionsense_9ch_f16_repack.npz"
TOPICS = HomeTopics("motion", "phone-1")
SECONDS, RATE_HZ, LENGTH, STRIDE = 10, 50, 128, 64
WINDOWS = (SECONDS * RATE_HZ - LENGTH) // STRIDE + 1
"""Of one recording."""
LABELLED_S = 4
LABELLED_WINDOWS = (LABELLED_S * RATE_HZ - LENGTH) // STRIDE + 1


@pytest.fixture(scope="session")
def motions(tmp_path_factory):
    return write_motions(tmp_path_factory.mktemp("motions") / "motions.zip", seconds=SECONDS)


@pytest.fixture(scope="session")
def example(motions, tmp_path_factory):
    """A copy of the folder, its models built from few people."""
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("copied") / "mine")
    fleet = folder / "fleet.toml"
    fleet.write_text(few_people(fleet.read_text()))
    script(folder, "data.py", "--data", motions)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 100", "epochs = 40"))
    script(folder, "-c", MODEL_EXPORT, "build", "recipe.toml", "--out", "artifacts")
    return folder


def few_people(fleet):
    """Return the fleet of two devices and two people whom nobody sees."""
    counts = {"factory": 24, "probes": 100, "canaries": 18, "validation": 0, "unseen_groups": 2}
    text = fleet.replace("devices = 19", "devices = 2").replace("minimum = 50", "minimum = 5")
    for key, count in counts.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {count}", text, flags=re.MULTILINE)
    return text


def short_form(folder, data):
    return folders.short_form(EXAMPLE, folder, f"motion-sense={data}")


ROWS = (
    *("competence, student", "competence, mean device"),
    *("competence, float backbones, student", "competence, float backbones, mean device"),
    *("competence, epsilon 8, student", "competence, epsilon 8, mean device"),
    *("local only", "FedAvg, tail, f32", "FedAvg, tail + fine-tuning"),
    *("FedAvg, whole model, f32", "FedAvg, whole model, int4"),
    *("server only, with the canaries' labels", "centralised"),
)


def test_the_short_form_has_a_row_for_all_that_is_compared_and_for_each_board(motions, tmp_path):
    said = short_form(tmp_path, motions)
    tables = {table.splitlines()[0]: table for table in said.split("\n\n") if table.startswith("| ")}
    unseen, own = (tables[f"| {head} | unseen people |"] for head in ("method", "own kind of rows"))
    for row in ROWS:
        assert re.search(rf"^\| {re.escape(row)} \| \d+\.\d ± ", unseen, re.MULTILINE), row
        if not row.endswith("student"):
            assert re.search(rf"^\| {re.escape(row)} \| \d+\.\d ± ", own, re.MULTILINE), row
    (boards,) = (table for head, table in tables.items() if head.startswith("| a round of ours"))
    for board, model in (("pi-zero-2w, wifi", "s"), ("pi-4, lte", "m"), ("pi-5, ethernet", "l")):
        row = re.search(rf"^\| {board} \| conv1d-{model} \| \d \| (\S+) \| (\S+) \|", boards, re.MULTILINE)
        assert all(float(joules) > 0 for joules in row.groups())


@pytest.mark.system
def test_real_programs_play_it_as_the_simulation_does(motions, tmp_path):
    assert folders.real_form(EXAMPLE, tmp_path, f"motion-sense={motions}") == 2


def test_the_full_form_can_be_played(monkeypatch):
    check_full_form(module_of(EXAMPLE, monkeypatch).cases({}, "full"), ROWS)


def test_data_are_cut_for_devices_and_nobody_holds_what_is_anothers(example):
    made = example / "made"
    parts = {path: np.load(path)["x"] for path in sorted(made.rglob("*.npz"))}
    assert {path.name for path in parts} == {
        *("factory.npz", "probes.npz", "canaries.npz", "unseen.npz"),
        *("device-0.npz", "device-1.npz"),
    }
    rows = [row.tobytes() for part in parts.values() for row in part]
    assert len(rows) == len(set(rows))
    assert "y" not in np.load(made / "probes.npz")


def test_windows_of_ones_own_are_cut_as_fleet_toml_names_them(motions, tmp_path):
    folder = shutil.copytree(EXAMPLE, tmp_path / "mine")
    there = DATASETS["motion-sense"].load(motions)
    np.savez(folder / "windows.npz", x=there.samples, y=there.labels, group=there.groups)
    task = f'{{ classes = {json.dumps(ACTIVITIES)}, sample_shape = [9, {LENGTH}], sample_dtype = "float32" }}'
    own = f'data = {{ path = "windows.npz", task = {task} }}'
    fleet = few_people((folder / "fleet.toml").read_text())
    (folder / "fleet.toml").write_text(re.sub(r"^data = .*", own, fleet, flags=re.MULTILINE))
    assert script(folder, "data.py").startswith("2 devices")
    assert np.load(folder / "made" / "factory.npz")["x"].shape == (24, 9, LENGTH)


def test_the_recipe_builds_three_sizes_of_the_task_that_sensors_are_read_for(example):
    bundles = [load_bundle(example / "artifacts" / f"motion-{size}") for size in "sml"]
    assert len({bundle.manifest.task.digest for bundle in bundles}) == 1
    task = bundles[0].manifest.task
    assert (task.classes, task.sample_shape, task.time_axis) == (ACTIVITIES, (9, LENGTH), 1)
    fields = re.findall(r'path = "(\w+)"', (example / "agent.toml").read_text())
    assert tuple(fields) == task.columns


@pytest.mark.system
@needs_mosquitto
def test_a_persons_recordings_go_through_a_broker_into_a_device_and_come_out_as_predictions(example, motions, tmp_path):
    """Every window of every recording is predicted; the store has those that the person named, number by number."""
    folder = shutil.copytree(example, tmp_path / "device")
    with plain_mosquitto(tmp_path) as broker, agent(folder, broker.port):
        home = Home(LinkSettings("home", port=broker.port, subscriptions=("homeassistant/#", "fedistill/#")))
        home.wait_for(TOPICS.availability, b"online")
        options = {"person": 1, "speed": 20, "pause-s": 1.5, "labelled-s": LABELLED_S, "port": broker.port}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        wait_until(lambda: "source phone: connected" in (folder / "log").read_text())
        told = script(folder, "replay.py", "--data", motions, *words)
        assert told.splitlines() == [f"{activity}: {SECONDS * RATE_HZ} readings" for activity in sorted(ACTIVITIES)]

        lines = wait_until(lambda: len(all_said := said_by(folder)) >= WINDOWS * len(ACTIVITIES) and all_said)
        assert len(lines) == WINDOWS * len(ACTIVITIES)
        assert {line["source"] for line in lines} == {"phone"}
        discovered = home.json(TOPICS.config)
        assert discovered["device"]["name"] == "Phone 1"
        assert discovered["components"]["label"]["options"] == list(ACTIVITIES)
        home.wait(lambda: home.json(TOPICS.state).get("sample_id") == lines[-1]["sample_id"])
        home.link.close()
    manifest = load_bundle(folder / "artifacts" / "motion-s").manifest
    with closing(PrivateStore.open(folder / "state" / "private.db", StoreSettings(), manifest)) as store:
        kept = {numbers(*row) for rows in store.batches() for row in zip(rows.samples, rows.labels, strict=True)}
    assert kept == {
        numbers(window, recording.activity)
        for recording in recordings(motions)
        if recording.subject == 1
        for window in windows_of(recording.signals, LENGTH, STRIDE)[:LABELLED_WINDOWS]
    }


def numbers(window, label):
    """Return what a labelled window says; zero has no sign."""
    return tuple(window.ravel().tolist()), int(label)


def test_the_short_form_plays_with_the_real_recordings(tmp_path):
    if not RECORDINGS.is_file():
        pytest.skip(f"no {RECORDINGS.name} beside the checkout")
    assert "| competence, student |" in short_form(tmp_path, RECORDINGS)
