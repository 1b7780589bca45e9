"""What the emulated systems stand on, without any: root file systems that are kept, a console, the suite's list."""

import ast
import json
import stat

import pytest

from deploy.deb.catalogue import PYTHONS, ROOT, targets
from deploy.deb.wheels import read_lock
from tests.support import device_suite, roots
from tests.support.machines import BootFiles, Machine

MAKER = """\
#!/bin/sh
for last; do :; done
echo "$*" >>"$last.asked"
echo system >"$last"
"""
"""Stands in mmdebstrap's place: writes what was asked for, and a file."""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(MAKER)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(roots, "KEPT", str(tmp_path / "roots"))
    roots.tarball.cache_clear()
    yield tmp_path / "roots"
    roots.tarball.cache_clear()


def again(*words, **named):
    roots.tarball.cache_clear()
    return roots.tarball(*words, **named)


def asked(kept):
    return sum(len(path.read_text().splitlines()) for path in kept.glob("*.asked"))


def test_a_root_file_system_is_made_once_and_says_when_and_of_what(kept):
    tar = roots.tarball("bookworm", "arm64")
    assert again("bookworm", "arm64") == tar == kept / "bookworm-arm64.tar"
    assert asked(kept) == 1
    said = json.loads(tar.with_suffix(".json").read_text())
    assert said["included"] == roots.INCLUDED
    assert len(said["sha256"]) == 64
    assert said["made"][:2] == "20"


def test_one_that_boots_is_another(kept):
    assert roots.tarball("bookworm", "arm64", boots=True) != roots.tarball("bookworm", "arm64")
    assert "linux-image" in (kept / "bookworm-arm64-boot.part.tar.asked").read_text()


def test_a_damaged_one_is_refused(kept):
    tar = roots.tarball("bookworm", "arm64")
    tar.write_text("systen\n")
    with pytest.raises(AssertionError, match="is not what was made"):
        again("bookworm", "arm64")


def test_one_for_which_less_was_asked_is_made_anew(kept, monkeypatch):
    roots.tarball("bookworm", "arm64")
    monkeypatch.setattr(roots, "INCLUDED", f"{roots.INCLUDED},tzdata")
    tar = again("bookworm", "arm64")
    assert asked(kept) == 2
    assert "tzdata" in tar.with_suffix(".json").read_text()


def test_a_console_is_read_as_it_was_written_and_in_time(tmp_path):
    machine = Machine(tmp_path / "disk", BootFiles(tmp_path / "k", tmp_path / "i"), tmp_path / "key")
    machine.lines += [(1.5, "Linux version 6.1"), (60.0, "edge-agent[9]: connected"), (70.0, "connected")]
    assert machine.at(r"connected$") == 60.0
    assert machine.at("receipt") is None
    assert machine.tail(1) == "   70.0 connected"


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("python", PYTHONS)
def test_tools_of_the_suite_take_nothing_of_the_packages_place(python):
    """What is tested is what is installed: no tool is a wheel that the package has."""
    (target,) = targets(["fedistill-agent"], [python], ["arm64"])
    assert not set(device_suite.TOOLS) & set(read_lock(target.lock))


def test_the_suite_for_devices_names_tests_that_there_are():
    missing = [name for name in device_suite.TESTS if not (ROOT / "tests" / name).is_file()]
    assert missing == []
    assert len(set(device_suite.TESTS)) == len(device_suite.TESTS)
    ours = {"fd_protocol", "fd_runtime", "edge_agent"}
    named = {name for test in device_suite.TESTS for name in imported(ROOT / "tests" / test)}
    assert ours <= named
    assert not named & {"fleet_sim", "torch", "ai_edge_litert", "playwright", "cddl_verifier"}
