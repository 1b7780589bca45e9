"""A real device from a folder of samples to a person's label: source, model, private store, outputs, local API."""

from __future__ import annotations

import json

import numpy as np
import pytest

from broker_server.brokers.loopback import free_port
from edge_agent import Agent
from tests.edge_agent.artifacts import TASK, clouds
from tests.edge_agent.processes import AgentProcess, settings_text
from tests.support.patience import wait_until

pytestmark = pytest.mark.system

SETTINGS = """
[api]
[outputs]
file = "said.jsonl"
[store]
rows = 400
questions = 20
question_every_s = 0.0
[sources.line.directory]
path = "scans"
poll_s = 0.1
settle_s = 0.0
labels = "folder"
"""


@pytest.fixture
def device(tmp_path):
    port = free_port()
    made = AgentProcess(tmp_path / "device", port, settings=f"{settings_text(port)}\n{SETTINGS}")
    (made.folder / "scans").mkdir()
    yield made
    made.end()


def scan(device, name, sample):
    path = device.folder / "scans" / name
    path.parent.mkdir(exist_ok=True)
    np.save(path, sample)


def said(device):
    path = device.folder / "said.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_sample_goes_from_a_folder_to_a_persons_label_and_into_training(device):
    samples, labels = clouds(70, seed=5)
    device.start()
    for number in range(10):
        scan(device, f"{number}.npy", samples[number])
    lines = wait_until(lambda: len(told := said(device)) == 10 and told)
    assert {line["source"] for line in lines} == {"line"}
    assert {line["label"] for line in lines} <= set(TASK.classes)
    with Agent(device.config, start=False) as agent:
        before = agent.status()["personal"]
        assert before["labelled_rows"] == 600  # of the file that the settings name
        asked = agent.uncertain()
        assert {one.sample_id for one in asked} == {line["sample_id"] for line in lines}
        device.kill_worker()
        for one in asked:
            number = int(one.sample_id.split("/")[-1].split(".")[0])
            assert agent.label(one.sample_id, TASK.classes[labels[number]])
        assert agent.uncertain() == []
        chosen = agent.status()
        assert (chosen["labels"], chosen["personal"]["class_prior"]) == (10, before["class_prior"])
        for number in range(10, 70):  # these come with their labels, all of one class
            scan(device, f"{TASK.classes[0]}/{number}.npy", samples[number])
        rows = wait_until(lambda: (told := agent.status()["personal"]) and told["labelled_rows"] >= 640 and told)
        assert rows["class_prior"][TASK.classes[0]] > 1.05 * before["class_prior"][TASK.classes[0]]
    wait_until(lambda: len(said(device)) == 70)
