"""`fleet-sim demo` as a person starts it: it ends with a report, or when told to, and leaves nothing running."""

from __future__ import annotations

import re
import signal

import pytest

from tests.edge_agent.patience import wait_until
from tests.support.brokers import needs_mosquitto
from tests.support.foreground import Foreground

pytestmark = pytest.mark.system

MOSQUITTO = pytest.param((), id="mosquitto", marks=needs_mosquitto)
EMBEDDED = pytest.param(("--embedded-broker",), id="embedded")
ROUNDS, DEVICES = 2, 10
PLAY_S, END_S = 600.0, 60.0


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def start(folder):
    demos = []

    def begin(*options):
        demos.append(Foreground("fleet-sim", "demo", "--out", folder, "--rounds", str(ROUNDS), *options))
        return demos[-1]

    yield begin
    for demo in demos:
        demo.end()


@pytest.mark.parametrize("broker", [MOSQUITTO, EMBEDDED])
def test_a_demo_ends_with_its_report(start, folder, broker):
    demo = start("--no-baselines", *broker)
    wait_until(lambda: len(demo.processes()) > 2 * DEVICES, PLAY_S)
    exit_code, printed = demo.result(PLAY_S)
    assert exit_code == 0
    assert "Accuracy at the end" in printed
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert "<th>round</th><th>1</th><th>2</th></tr>" in page
    for curve in ("student", "mean device"):
        assert re.search(rf"FD by competence, {curve}</td>(<td>\d+\.\d</td>){{{ROUNDS}}}</tr>", page)
    assert not demo.is_running()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_while_it_builds_the_models_it_does(start, folder, how):
    demo = start()
    wait_until(folder.exists)
    assert demo.interrupt(how) == 130


def test_ctrl_c_in_the_middle_ends_everything_that_it_started(start, folder):
    demo = start()
    log = folder / "programs" / "logs" / "aggregator.log"
    wait_until(lambda: log.exists() and "round 1" in log.read_text(), PLAY_S)
    assert len(demo.processes()) > 2 * DEVICES
    assert demo.interrupt(signal.SIGINT) == 130
    wait_until(lambda: not demo.is_running(), END_S)
