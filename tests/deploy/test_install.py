"""`install.sh`: which package it takes, what it refuses. What it does as root is in `test_deb_lifecycle`."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from deploy.deb.catalogue import ROOT

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg on this system")

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def folder(tmp_path):
    """A release of two revisions for this machine, and one for another Python; of hardly more than their names."""
    shutil.copy(ROOT / "deploy" / "install.sh", tmp_path)
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    for version in (f"0.9.0-1+py{PYTHON}", f"0.10.0-1+py{PYTHON}", "9.0.0-1+py3.9"):
        tree = tmp_path / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        told = f"Package: fedistill-agent\nVersion: {version}\nArchitecture: {machine}\n"
        (tree / "DEBIAN" / "control").write_text(f"{told}Maintainer: nobody <n@example.org>\nDescription: a test\n")
        deb = tmp_path / f"fedistill-agent_{version}_{machine}.deb"
        subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, capture_output=True)
        shutil.rmtree(tree)
    sums = [f"{hashlib.sha256(deb.read_bytes()).hexdigest()}  {deb.name}\n" for deb in tmp_path.glob("*.deb")]
    (tmp_path / "SHA256SUMS").write_text("".join(sums))
    return tmp_path


@pytest.fixture
def refused(folder, tmp_path_factory):
    """Return a function that runs it as somebody who may install nothing, and returns exit code and complaint."""
    tools = tmp_path_factory.mktemp("tools")
    (tools / "python3").symlink_to(sys.executable)

    def run(*words, **tool_says):
        for tool, says in {"id": "1000", **tool_says}.items():
            (tools / tool).write_text(f"#!/bin/sh\necho {says}\n")
            (tools / tool).chmod(0o755)
        command = ["sh", folder / "install.sh", *words]
        environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert done.stdout == ""
        return done.returncode, done.stderr.removeprefix("install.sh: ").strip()

    return run


def test_of_all_that_lie_there_the_newest_for_this_machine_is_taken_and_only_root_may(refused):
    code, said = refused()
    assert (code, said.split(":")[0]) == (77, "needs root")


def test_a_package_that_is_not_whole_is_refused_by_its_name(refused, folder):
    newest = next(folder.glob("*_0.10.0-*"))
    newest.write_bytes(newest.read_bytes() + b"\n")  # which the older one, and a sum of another name, do not mend
    assert refused() == (65, f"{newest.name} is not what SHA256SUMS says: fetch it again")


def test_a_package_that_nobody_vouches_for_is_refused(refused, folder):
    newest = next(folder.glob("*_0.10.0-*"))
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if newest.name not in line))
    assert refused() == (65, f"{newest.name} does not stand in SHA256SUMS")
    sums.unlink()
    assert refused()[0] == 66


def test_what_is_not_there_for_this_machine_is_said(refused):
    code, said = refused("server")
    assert (code, said.split(" in ")[0].split(" on ")[0]) == (66, f"no fedistill-server for Python {PYTHON}")


@pytest.mark.parametrize(("machine", "words"), [("armhf", "32-bit"), ("riscv64", "no package for riscv64")])
def test_a_machine_for_which_there_can_be_none_is_told_why(refused, machine, words):
    code, said = refused(dpkg=machine)
    assert code == 69
    assert words in said


def test_a_word_that_it_does_not_know_is_a_usage_error(refused):
    assert refused("gateway") == (64, "agent or server, not gateway")
