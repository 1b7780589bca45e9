"""systemd's units as the packages install them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.deb.catalogue import PACKAGES, ROOT

UNITS = sorted({unit for package in PACKAGES.values() for unit in package.units})
FOLDER = ROOT / "deploy/systemd"
SYSTEM = Path("/usr/lib/systemd/system")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not SYSTEM.is_dir(), reason="systemd is not installed"
)


def lines(unit):
    return (FOLDER / unit).read_text().splitlines()


def value(unit, key):
    """The one value of a key, or None."""
    return next((line.split("=", 1)[1] for line in lines(unit) if line.startswith(f"{key}=")), None)


def test_every_unit_that_we_have_is_in_a_package():
    assert sorted(path.name for path in FOLDER.iterdir()) == UNITS


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_exposed_by_2_at_most(unit):
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(FOLDER / unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:]


@needs_systemd
@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_systemd_has_nothing_to_say_against_a_unit(tmp_path, package):
    shutil.copytree(SYSTEM, tmp_path / "usr/lib/systemd/system", symlinks=True)
    for unit in package.units:
        shutil.copy(FOLDER / unit, tmp_path / "usr/lib/systemd/system")
    (tmp_path / "usr/bin").mkdir()
    program = tmp_path / "usr/bin" / package.program
    program.touch(0o755)
    command = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *package.units]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_forbids_nothing_that_onnxruntime_needs(unit):
    # Without sched_setaffinity and mlock it dies of SIGSYS; without /proc/cpuinfo it does not see what the CPU can do.
    filters = [line for line in lines(unit) if line.startswith("SystemCallFilter=")]
    assert filters
    assert not [line for line in filters if "@resources" in line]
    assert value(unit, "SystemCallErrorNumber") == "EPERM"
    assert value(unit, "ProcSubset") is None


def test_the_agent_tells_systemd_that_it_is_there_and_that_it_lives():
    assert value("edge-agent.service", "Type") == "notify"
    assert int(value("edge-agent.service", "WatchdogSec")) > 0


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_a_unit_runs_the_program_of_its_package_as_its_user(package):
    for unit in package.units:
        assert value(unit, "ExecStart").startswith(f"/usr/bin/{package.program} ")
        assert value(unit, "User") == package.user
        assert value(unit, "StateDirectory") == package.user
        assert f" --config /etc/{package.user}/" in value(unit, "ExecStart")
        assert value(unit, "ConditionPathExists") in value(unit, "ExecStart")
        assert value(unit, "EnvironmentFile") == f"-/etc/default/{package.program}"


def test_a_wrong_setting_is_not_tried_again_and_again():
    for unit in UNITS:
        assert value(unit, "RestartPreventExitStatus") == "64 65 66 77 78"
