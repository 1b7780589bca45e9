"""A bundle as `model-export` makes it, on every runtime that it was proven on, in a real device."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from fd_protocol.manifest import Preprocessing, Task
from fd_protocol.messages import Kind
from fd_runtime.artifacts import load_public_set
from fd_runtime.links.link import LinkSettings
from model_export.building import build
from model_export.public_set import build_public_set
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.processes import TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.tflite_interpreters import python_of_tflite_runtime

pytestmark = [pytest.mark.system, needs_mosquitto]

PICTURES = Task(("a", "b", "c"), (1, 12, 12), "uint8", Preprocessing(1 / 255))


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """A folder with bundle, public set and private rows of small pictures, bright in one third or another."""
    folder, rng = tmp_path_factory.mktemp("factory"), np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    pictures = rng.integers(0, 80, (300, 1, 12, 12), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[0, 4 * label : 4 * label + 4] += 150
    nothing = FactoryData(pictures[:0], labels[:0], calibration=pictures[:100])
    build(Recipe("pictures", "cnn-s", pretraining=None), PICTURES, nothing, folder / "bundle")
    build_public_set(folder / "public", pictures[:60], PICTURES, seed=0)
    np.savez(folder / "private.npz", x=pictures[60:], y=labels[60:])
    return folder


def python_with(runtime):
    """The Python that a device on this runtime runs in; skips where there is none."""
    if runtime != "tflite-runtime":
        return sys.executable
    python = python_of_tflite_runtime()
    if subprocess.run([python, "-m", "edge_agent.cli", "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no edge-agent")
    return python


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert", "tflite-runtime"])
def test_a_device_goes_through_a_round_on(tmp_path, factory, runtime):
    python = python_with(runtime)
    broker = plain_mosquitto(tmp_path).start()
    settings = settings_text(broker.port, model__runtime=runtime)
    agent = AgentProcess(tmp_path / "device", broker.port, settings=settings, python=python)
    for name in ("bundle", "public"):
        shutil.rmtree(agent.folder / name)
        shutil.copytree(factory / name, agent.folder / name)
    shutil.copy(factory / "private.npz", agent.folder / "private.npz")
    settings = LinkSettings("agg", port=broker.port, subscriptions=TOPICS.server_filters())
    server = ScriptedServer(settings, load_public_set(factory / "public"))
    try:
        agent.start()
        server.offer(task=PICTURES.digest, competence=True)
        server.receipt(server.contribution())
        server.consensus()
        report = server.report()
        assert report.accepted, report.reason
        assert {part.kind for part in server.parts} == {Kind.CONTRIBUTION, Kind.COMPETENCE}
        assert server.states[-1].runtime == runtime
    finally:
        agent.end()
        server.link.close()
        broker.stop()
