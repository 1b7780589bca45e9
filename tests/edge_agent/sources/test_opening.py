"""Settings become sources; other distributions add theirs by an entry point."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_agent.settings import AgentSettings
from edge_agent.sources import opening
from edge_agent.sources.directory import DirectorySource
from edge_agent.sources.memory import Memory
from edge_agent.sources.opening import open_sources
from edge_agent.sources.settings import SourceSettings
from edge_agent.sources.source import SourceError
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.config import ConfigError, load_toml

TASK = Task(("a", "b"), (2,), "float32")
BASE = '[device]\nid = "dev-1"\nfederation = "f"\n[model]\nbundle = "b"\n[state]\nfolder = "s"\n'

# The example of docs/agent/data.md, word for word: a test below holds them together.
EXAMPLE = """\
import time

import numpy as np

from edge_agent.sources.source import Captured


class Radar:
    def __init__(self, name, options, task):
        self.name, self.task, self.every_s = name, task, options["every_s"]

    def run(self, deliver, stop):
        while not stop.wait(self.every_s):
            at_ms = time.time_ns() // 1_000_000
            echo = np.zeros(self.task.sample_shape, self.task.sample_dtype)
            deliver(Captured(echo, f"{self.name}/{at_ms}", at_ms, None, self.name))
"""


def settings(tmp_path, text):
    (tmp_path / "agent.toml").write_text(BASE + text)
    return load_toml(tmp_path / "agent.toml", AgentSettings, {})


def opened(tmp_path, text, task=TASK):
    return open_sources(settings(tmp_path, text).sources, task, Memory(None), device="dev-1")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution into a folder on the path, as `pip install --target` leaves it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def put(name="radar", *, distribution="my_radar", source=EXAMPLE, value="Radar"):
        (folder / f"{distribution}.py").write_text(source)
        info = folder / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution.replace('_', '-')}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{opening.GROUP}]\n{name} = {distribution}:{value}\n")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, distribution, raising=False)

    return put


TEXT = """
[sources.scans.directory]
path = "in"
labels = "folder"

[sources.press.mqtt]
topics = ["plant/press/7"]
fields = [{ path = "volts" }, { path = "amps", scale = 0.001, missing = "last" }]
[sources.press.mqtt.broker]
port = 1884

[sources.door.camera]
device = "/dev/video2"
fps = 2.5
"""


def test_sources_are_what_their_sections_say(tmp_path):
    known = settings(tmp_path, TEXT).sources
    assert known["scans"].directory.path == tmp_path / "in"
    assert (known["press"].mqtt.fields[1].scale, known["press"].mqtt.broker.port) == (0.001, 1884)
    assert known["door"].camera.fps == 2.5
    sources = opened(tmp_path, TEXT)
    assert isinstance(sources["scans"], DirectorySource)
    assert sorted(sources) == ["door", "press", "scans"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[sources.a]\n", "sources.a: a source is one of directory, mqtt, camera, plugin"),
        ('[sources.a.directory]\npath = "x"\n[sources.a.camera]\n', "a source is one of"),
        ("[sources.a.camra]\n", "sources.a.camra: unknown key, did you mean 'camera'?"),
        ("[sources.a.camera]\nfps = 0\n", "sources.a.camera: fps lies over 0"),
        ("[sources.a.directory]\n", "sources.a.directory.path: missing"),
        ('[sources.a]\nplugin = "x"\n[sources.a.camera]\n', "a source is one of"),
        ("[sources.a.camera]\n[sources.a.options]\nx = 1\n", "options are for a plugin"),
        ("[sources.Door_1.camera]\n", "the name of a source"),
        (
            '[sources.a.mqtt]\ntopics = ["a"]\nfields = [{ path = "x", missing = "none" }]\n',
            "expected one of 'skip', 'last'",
        ),
    ],
)
def test_a_section_that_cannot_be_is_refused_by_its_key(tmp_path, text, complaint):
    with pytest.raises(ConfigError, match=complaint.replace("?", r"\?")):
        settings(tmp_path, text)


def test_a_source_that_makes_no_sample_of_the_task_is_refused(tmp_path):
    with pytest.raises(SourceError, match="2 fields make no sample of shape"):
        opened(tmp_path, TEXT, Task(("a", "b"), (5,), "float32"))


def test_a_source_of_another_distribution_delivers(tmp_path, install):
    install()
    (source,) = opened(tmp_path, '[sources.roof]\nplugin = "radar"\noptions = { every_s = 0.01 }\n').values()
    stop, captured = threading.Event(), []

    def deliver(one):
        captured.append(one)
        stop.set()

    source.run(deliver, stop)
    assert (captured[0].source, captured[0].sample.shape) == ("roof", (2,))
    assert opening.names() == ("radar",)


def test_a_plugin_that_is_not_there_is_told(tmp_path, install):
    with pytest.raises(SourceError, match="no plugin 'sonar'; there are none"):
        opened(tmp_path, '[sources.roof]\nplugin = "sonar"\n')
    install()
    with pytest.raises(SourceError, match="no plugin 'sonar'; there are radar"):
        opened(tmp_path, '[sources.roof]\nplugin = "sonar"\n')


def test_two_distributions_with_one_name_are_both_refused(tmp_path, install):
    install()
    install(distribution="other_radar")
    with pytest.raises(SourceError, match=r"1\.2 and in .*1\.2"):
        opened(tmp_path, '[sources.roof]\nplugin = "radar"\n')


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise OSError('no such library')", "no such library"),
        ("Radar = 3", "not callable"),
        ("def Radar(*_): return object()", "has no `run`"),
        (EXAMPLE, "every_s"),
    ],
)
def test_what_is_no_source_is_refused_with_the_name_of_its_distribution(tmp_path, install, source, text):
    install(source=source)
    with pytest.raises(SourceError, match=rf"my-radar 1\.2.*{text}"):
        opened(tmp_path, '[sources.roof]\nplugin = "radar"\n')


def test_only_what_is_asked_for_is_loaded(tmp_path):
    code = (
        "import sys, edge_agent.settings; from edge_agent.sources import opening, settings;"
        "print(*{'numpy', 'cv2', 'PIL', 'cryptography', 'paho'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cv2" not in done.stdout
    assert "PIL" not in done.stdout
    assert "cryptography" not in done.stdout
    code = "import sys, edge_agent.settings; print(*{'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_source_has_one_kind():
    with pytest.raises(InvalidValueError):
        SourceSettings()


def test_the_example_of_the_manual_is_the_one_that_is_tested():
    manual = Path("docs/agent/data.md").read_text()
    assert f"```python\n{EXAMPLE}```" in manual
