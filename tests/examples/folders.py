"""What tests of every example have in common: its folder, its scripts, and whether its table can be played whole."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fleet_sim.comparison.comparing import Comparison
from fleet_sim.tables import TUNING_SEEDS, varied

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
"""Where data sets lie beside a checkout, if they do."""
MODEL_EXPORT = "import sys; from model_export.cli import main; sys.exit(main(sys.argv[1:]))"


def example(name: str) -> Path:
    return ROOT / "examples" / name


def script(folder, *words):
    """Run a script of the folder to its end; return what it printed."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def short_form(folder, results, *data):
    """Play the short form of an example; return what it printed."""
    return script(folder, "run.py", "--folder", results, "--data", *data, "--short", "--jobs", "1")


def real_form(folder, results, *data):
    """Play the short form by real programs over a broker; return how many consensuses are those of the simulation."""
    said = script(folder, "run.py", "--folder", results, "--data", *data, "--short", "--real", "--jobs", "1")
    real, simulated = (row.split(" | ")[1:] for row in said.splitlines()[2:4])
    assert real[0] == simulated[0] == "2"  # rounds
    same, of = map(int, re.search(r"(\d+) of (\d+) consensuses are the same", said).groups())
    assert of == 2
    if same == of:
        assert real[1:4] == simulated[1:4]
    return same


def module_of(folder: Path, monkeypatch, name: str = "run") -> ModuleType:
    """Return a script of an example as a module; it bounds the threads of a process of its own, not of this one."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    spec = importlib.util.spec_from_file_location(f"{folder.name.replace('-', '_')}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def check_full_form(cases, rows):
    """Scenarios and comparisons refuse to exist where they cannot be played; goals are about rows that there are."""
    for case in cases:
        for name, federation in case.federations.items():
            tried = [varied(federation, path, v) for path, values in case.axes_of(name).items() for v in values]
            for each in (federation, *tried):
                methods = (each.method.name, *case.baselines)
                Comparison(case.world, each, methods, (100,), TUNING_SEEDS, chosen_by=case.chosen_by)
        assert {name for goal in case.goals for name in (goal.name, goal.than)} <= set(rows)


def table_whose_head_begins(said, words):
    """Return the lines of a table, of all that a command has printed."""
    (found,) = (part.splitlines() for part in said.split("\n\n") if part.startswith(f"| {words}"))
    return found


@contextmanager
def agent(folder, port):
    """A device as agent.toml of the folder has it, at another port; it ends with the block."""
    config = folder / "agent.toml"
    config.write_text(config.read_text().replace("port = 1883", f"port = {port}"))
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=folder, env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"})
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def said_by(folder):
    """Return its predictions."""
    path = folder / "said.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
