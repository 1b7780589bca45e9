"""Power is cut, and the disk is full, at every write of an update: the device always has a model, and gets there.

`strace` injects the fault at the n-th call of one kind, in the device's program and in every trial that it starts: it
counts by process, so a disk that fills up in a trial does so in the next one, until somebody makes room. A trial that
is killed takes the device with it, as a power cut does. The short form takes a point of most kinds; FEDISTILL_CUTS=all
takes every one.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edge_agent.equipment import load_equipment
from tests.edge_agent.artifacts import write_private, write_public_set
from tests.edge_agent.processes import settings_text
from tests.edge_agent.slots.shop import Shop, make_factory

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CALLS = ("fsync", "rename", "mkdir", "unlink", "write")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
ALL = os.environ.get("FEDISTILL_CUTS") == "all"
SHORT = 1
"""Points of each call and fault, where not all are wanted."""
CUTS = [(call, fault) for call in CALLS for fault in FAULTS if ALL or fault == FAULTS[0] or call in {"fsync", "write"}]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuts")
    factory = make_factory(folder / "device" / "bundle")
    shop = Shop(factory, folder / "shop")
    device = folder / "device"
    write_public_set(device / "public")
    write_private(device / "private.npz", rows=300)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shop.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    releases = f'[releases]\nurl = "http://127.0.0.1:{server.server_port}"\nroot = "{shop.root}"\n'
    (device / "agent.toml").write_text(f"{settings_text(1883, model__runtime='onnxruntime')}\n{releases}")
    yield device, shop.good()
    server.shutdown()
    server.server_close()


def journey(stage, state, *inject, patience_s=120.0):
    """Run the way to the offered bundle, from what lies in `state`; return what it printed, if it came to an end.

    Where patience ends before it, power is cut.
    """
    device, offered = stage
    environment = {**os.environ, "FEDISTILL__STATE__FOLDER": str(state), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.edge_agent.slots.journey", str(device / "agent.toml")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen([*inject, *command, json.dumps(asdict(offered))], env=environment, **pipes) as process:
        try:
            said, errors = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, errors = process.communicate()
    return json.loads(said) if said else None, errors.decode()


@pytest.fixture(scope="module")
def calls(stage, tmp_path_factory):
    """How often each process of an undisturbed journey makes each call, at most."""
    folder = tmp_path_factory.mktemp("calls")
    journey(
        stage, folder / "state", "strace", "-ff", "-qq", "-e", f"trace={','.join(CALLS)}", "-o", str(folder / "log")
    )
    logs = [path.read_text().splitlines() for path in folder.glob("log.*")]
    return {call: max(sum(line.startswith(f"{call}(") for line in log) for log in logs) for call in CALLS}


def points(count, call, fault):
    every = list(range(1, count + 1))
    if ALL:
        return every
    return sorted(random.Random(f"{call} {fault}").sample(every, min(SHORT, count)))


@pytest.mark.parametrize(("call", "fault"), CUTS)
def test_a_device_survives_a_fault_at_any_write(stage, calls, tmp_path, monkeypatch, says, call, fault):
    device, offered = stage
    tried = points(calls[call], call, fault)
    assert tried
    for when in tried:
        state = tmp_path / f"state-{when}"
        inject = f"inject={call}:{fault}:when={when}"
        strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        journey(stage, state, *strace, patience_s=20.0)
        monkeypatch.setenv("FEDISTILL__STATE__FOLDER", str(state))
        load_equipment(device / "agent.toml").bundle.open("onnxruntime")  # there is a model, whatever happened
        ended, errors = journey(stage, state)
        assert ended is not None, errors
        assert ended["active"] == offered.bundle, (inject, ended, errors)
        assert load_equipment(device / "agent.toml").bundle.digest.hex() == offered.bundle
    says(f"{call}, {fault}: {len(tried)} points, each with a model throughout and the new bundle at the end")


def test_the_test_can_fail(stage, tmp_path):
    """A state that is written in place, not replaced, is lost by a cut: the harness must see that."""
    _, offered = stage
    state = tmp_path / "state"
    ended, errors = journey(stage, state)
    assert ended is not None, errors
    path = state / "slots" / "state.json"
    path.write_bytes(path.read_bytes()[:20])
    ended, _ = journey(stage, state)
    assert ended is not None
    assert (state / "slots" / "state.damaged").exists()
    assert ended["active"] == offered.bundle  # it is fetched and tried again: damage costs an update, not the device
