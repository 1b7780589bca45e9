from __future__ import annotations

import subprocess
import sys

import pytest

SUPERVISOR = "edge_agent.cli.run"
ARRAYS = {"numpy", "onnxruntime", "ai_edge_litert"}
NOW_AND_THEN = {
    "difflib", "email", "http.client", "importlib.metadata", "importlib.resources", "urllib.request", "zipfile",
}  # fmt: skip
"""Megabytes of the standard library that a device needs for a download, a proxy or an error, if at all."""


def imported_by(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def supervisor():
    return imported_by(SUPERVISOR)


def test_the_supervisor_never_imports_an_array_library(supervisor):
    assert {"edge_agent.service", "paho.mqtt.client", "sqlite3"} <= supervisor
    assert supervisor & ARRAYS == set()


def test_what_a_device_needs_now_and_then_does_not_lie_in_its_memory_for_a_year(supervisor):
    assert supervisor & NOW_AND_THEN == imported_by("sys") & NOW_AND_THEN  # an environment may bring some
