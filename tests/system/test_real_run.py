"""`fleet-sim run --real`: the same federation with real programs, to the last byte of every consensus."""

from __future__ import annotations

import json
import signal

import pytest

from fleet_sim.cli import main
from tests.support.foreground import Foreground
from tests.support.patience import wait_until

pytestmark = pytest.mark.system

PLAY_S, END_S, DEVICES = 600.0, 60.0, 4
PLAIN = f"devices = {DEVICES}\nrounds = 3\n"
CANARIES = PLAIN + "canaries = true\ncut = { probes = 400, canaries = 60, test = 300, own_fraction = 0.1 }\n"
PRIVATE = """
method = { name = "mean-probabilities" }
models = { families = ["mlp-s"], student = "mlp-s", private = true }
privacy = { epsilon = 8.0, steps = 5 }
"""


@pytest.fixture
def scenario(tmp_path):
    def write(text):
        path = tmp_path / "scenario.toml"
        path.write_text(text)
        return path

    return write


def rounds(path, out, *options):
    """Play, and return what is told of every round and of the last one."""
    assert main(["run", str(path), "--out", str(out), *options]) == 0
    (played,) = json.loads((out / "results.json").read_text())["played"]
    return played["rounds"], played["last_round"]


@pytest.mark.parametrize("text", [PLAIN, CANARIES], ids=["plain", "canaries"])
def test_real_programs_and_a_simulation_make_the_same_consensuses(scenario, tmp_path, text):
    path = scenario(text)
    (real, real_last), (simulated, simulated_last) = (
        rounds(path, tmp_path / "o", "--real"),
        rounds(path, tmp_path / "o"),
    )
    for key in ("number", "consensus_sha256", "student", "clients", "own", "own_uncorrected"):
        assert [one[key] for one in real] == [one[key] for one in simulated], key
    assert real_last == simulated_last
    assert all(one["sent_bytes"] > other["sent_bytes"] for one, other in zip(real, simulated, strict=True))


def test_devices_under_privacy_terms_speak_with_what_they_learned_under_them(scenario, tmp_path):
    """Their noise is not the simulation's, so only the ledgers and what was measured can be looked at."""
    real, _ = rounds(scenario(PLAIN + PRIVATE), tmp_path / "o", "--real")
    assert [one["number"] for one in real] == [1, 2, 3]
    assert all(one["clients"] > 0 for one in real)
    for ledger in (ledgers := list((tmp_path / "o").rglob("state/device-*/privacy/ledger"))):
        assert ledger.stat().st_size > 0
    assert len(ledgers) == DEVICES


@pytest.mark.parametrize("line", ["faults = { loss = 0.1 }", "attack = { devices = 1 }", "drift = { window = 0.5 }"])
def test_what_only_a_simulation_can_do_is_refused(scenario, capsys, line):
    assert main(["run", str(scenario(PLAIN + line)), "--real"]) != 0
    assert f"{line.split()[0]}: only simulated" in capsys.readouterr().err


def test_ctrl_c_in_the_middle_ends_everything_that_it_started(scenario, tmp_path):
    out = tmp_path / "out"
    run = Foreground("fleet-sim", "run", scenario(PLAIN.replace("3", "500")), "--real", "--out", out)
    try:
        wait_until(lambda: _is_playing(out), PLAY_S)
        assert len(run.processes()) > 2 * DEVICES
        assert run.interrupt(signal.SIGINT) == 130
        wait_until(lambda: not run.is_running(), END_S)
    finally:
        run.end()


def _is_playing(out):
    try:
        return any("round 1" in log.read_text() for log in out.rglob("logs/aggregator.log"))
    except FileNotFoundError:  # a bundle was being built, and has found its place
        return False
