"""`fleet-sim demo` as a person starts it: it ends with a report, or when told to, and leaves nothing running."""

from __future__ import annotations

import io
import re
import signal
from dataclasses import replace
from functools import cached_property

import pytest
from rich.console import Console

from broker_server.brokers.embedded import NOTICE
from fleet_sim.demo.play import Plan, play
from fleet_sim.demo.setting import Setting
from fleet_sim.scenario import ModelTerms
from fleet_sim.worlds import new_class
from tests.support.brokers import needs_mosquitto
from tests.support.foreground import Foreground
from tests.support.patience import wait_until

pytestmark = pytest.mark.system

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


def check_report(folder, printed, rounds):
    assert "Accuracy at the end" in printed
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    heads = "".join(f"<th>{number}</th>" for number in range(1, rounds + 1))
    assert f"<th>round</th>{heads}</tr>" in page
    for curve in ("student", "mean device"):
        assert re.search(rf"FD by competence, {curve}</td>(<td>\d+\.\d</td>){{{rounds}}}</tr>", page)


@needs_mosquitto
def test_a_demo_ends_with_its_report(start, folder):
    demo = start("--no-baselines")
    wait_until(lambda: len(demo.processes()) > 2 * DEVICES, PLAY_S)
    exit_code, printed = demo.result(PLAY_S)
    assert exit_code == 0
    check_report(folder, printed, ROUNDS)
    assert not demo.is_running()


class Small(Setting):
    """A demo of two devices of one small family."""

    @cached_property
    def scenario(self):
        return replace(super().scenario, devices=2, models=ModelTerms(("cnn-s",), "cnn-s", pretraining=None))

    @cached_property
    def world(self):
        return new_class(self.seed, devices=2, canaries=0)


def test_it_ends_as_well_over_the_broker_that_pip_brings(folder):
    printed = io.StringIO()
    play(Plan(Small(folder, rounds=1), embedded_broker=True, baselines=False), Console(file=printed, width=200))
    assert NOTICE.split(".")[0] in printed.getvalue()
    check_report(folder, printed.getvalue(), 1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_while_it_builds_the_models_it_does(start, folder, how):
    demo = start()
    wait_until(folder.exists)
    assert demo.interrupt(how) == 130


def test_ctrl_c_in_the_middle_ends_everything_that_it_started(start, folder):
    demo = start("--embedded-broker")
    log = folder / "programs" / "logs" / "aggregator.log"
    wait_until(lambda: log.exists() and "round 1" in log.read_text(), PLAY_S)
    assert len(demo.processes()) > 2 * DEVICES
    assert demo.interrupt(signal.SIGINT) == 130
    wait_until(lambda: not demo.is_running(), END_S)
