"""The agent's package at work on arm64: Debian 12 and 13 in chroots, every program of them emulated by qemu-user.

    make test-arm64         (FEDISTILL_ROOTS=build/roots pytest -s tests/deploy/test_arm64.py)

The kernel, and so the network, is this machine's: server, broker and a second device run here as they are.
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deploy.deb import building
from deploy.deb.catalogue import targets
from edge_agent.cli.place import SYSTEM_CONFIG
from tests.edge_agent.stores import until
from tests.support import answers as answering
from tests.support import device_suite
from tests.support.answers import answers
from tests.support.brokers import needs_mosquitto
from tests.support.plants import FEDERATION, MINUTES_S, NEIGHBOUR, Plant, write_rows
from tests.support.roots import Root, needs_arm64_roots
from tests.support.small_bundles import small_bundle

pytestmark = [pytest.mark.slow, needs_arm64_roots]

SUITES = {"bookworm": "3.11", "trixie": "3.13"}
PYTHON = "/usr/lib/fedistill-agent/bin/python"
ETC = str(SYSTEM_CONFIG.parent)


@pytest.fixture(scope="module", params=SUITES)
def suite(request):
    return request.param


@pytest.fixture(scope="module")
def target(suite):
    (target,) = targets(["fedistill-agent"], [SUITES[suite]], ["arm64"])
    return target


@pytest.fixture(scope="module")
def root(suite, target, tmp_path_factory):
    """A system with the package, made of this tree unless FEDISTILL_DEBS has one."""
    kept = os.environ.get("FEDISTILL_DEBS")
    found = sorted(Path(kept).glob(f"fedistill-agent_*+py{SUITES[suite]}_arm64.deb")) if kept else []
    if not found:
        (made,) = building.build([target], tmp_path_factory.mktemp("debs"))
        found = [made.path]
    root = Root(suite, tmp_path_factory.mktemp(suite) / "root", "arm64")
    root.install(found[-1])
    return root


def test_the_package_is_whole_on_its_processor(root, target):
    assert root.run("uname", "-m").strip() == "aarch64"
    assert root.status("fedistill-agent") == "install ok installed"
    assert root.run("dpkg", "-V", "fedistill-agent") == ""
    said = root.run(PYTHON, "-c", "import onnxruntime, platform; print(platform.machine(), platform.python_version())")
    assert f"aarch64 {target.python.name}" in said


def test_the_agents_own_suite_passes_on_the_installed_package(root, target, tmp_path, says):
    device_suite.put(device_suite.stage(target, tmp_path / "suite"), root)
    said = root.run(*device_suite.command(*device_suite.TESTS), patience_s=4 * MINUTES_S)
    (passed,) = re.findall(r"(\d+) passed", said)
    says(f"  {root.suite}: {said.strip().splitlines()[-1]}")
    assert int(passed) >= 400, said
    assert "failed" not in said


LOGITS_TOLERANCE = 1e-5
"""Of the float32 tail, relative to the logits' range: another processor adds in another order."""


def test_int8_answers_are_those_of_x86_bit_for_bit(root, tmp_path, says):
    bundle = small_bundle(tmp_path / "bundle")
    here = answers(bundle.folder)
    shutil.copytree(bundle.folder, root.path("/root/bundle"))
    shutil.copy(Path(answering.__file__), root.path("/root"))
    root.run(PYTHON, "/root/answers.py", "/root/bundle", "/root/there.npz")
    there = np.load(root.path("/root/there.npz"))
    off = float(np.abs(there["logits"] - here["logits"]).max() / np.ptp(here["logits"]))
    losses = float(np.abs(there["losses"] / here["losses"] - 1).max())
    says(
        f"  {root.suite}: {there['features'].size} int8 features of {len(there['logits'])} samples,"
        f" {(there['features'] != here['features']).sum()} differ; logits off by {off:.1g} of their range,"
        f" losses of three train steps by {losses:.1g}"
    )
    assert there["features"].dtype == np.uint8
    np.testing.assert_array_equal(there["features"], here["features"])
    assert off <= LOGITS_TOLERANCE
    assert losses <= LOGITS_TOLERANCE
    np.testing.assert_array_equal(there["logits"].argmax(1), here["logits"].argmax(1))


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    with Plant(tmp_path_factory.mktemp("plant")).open() as plant:
        yield plant


@needs_mosquitto
def test_a_real_round_to_its_receipt_and_a_consensus_that_is_learned(root, plant, tmp_path, says):
    device = f"press-{root.suite}"
    (tmp_path / "token").write_text(plant.token(device))
    root.run("edge-agent", "init", ETC, "--device", device, "--federation", FEDERATION)
    etc = root.path(ETC)
    for name in ("bundle", "public_set"):
        shutil.copytree(plant.folder / name, etc / name)
    shutil.copy(plant.ca, etc / "ca.pem")
    write_rows(etc / "private.npz", seed=9)
    pairs = {
        "broker.host": "localhost",
        "broker.port": str(plant.mqtt),
        "data.private": "private.npz",
        "enrolment.url": f"https://localhost:{plant.https}",
        "enrolment.ca_file": "ca.pem",
        "enrolment.token_file": "enrolment.token",
    }
    root.run("edge-agent", "config", "set", *(word for pair in pairs.items() for word in pair))
    root.path("/etc/hosts").write_text("127.0.0.1\tlocalhost\n")
    shutil.copy(tmp_path / "token", etc / "enrolment.token")
    root.run("chown", "fedistill", f"{ETC}/enrolment.token")
    root.run("chmod", "600", f"{ETC}/enrolment.token")
    for folder in ("/var/lib/fedistill", "/run/fedistill"):  # as systemd does
        root.run("install", "-d", "-o", "fedistill", "-m", "0700", folder)
    log, since = tmp_path / "log", time.monotonic()
    process = root.start("edge-agent", "run", user="fedistill", log=log)
    try:
        moments = {}
        for what, words in (
            ("enrolled", f"certificate of {device}: "),
            ("connected", " connected"),
            ("receipt", "submitting -> awaiting"),
            ("learned", "training -> reporting"),
            ("round over", "reporting -> "),
        ):
            until(lambda words=words: words in log.read_text() or process.poll() is not None, MINUTES_S)
            assert process.poll() is None, log.read_text()
            moments[what] = time.monotonic() - since
        status = root.run("edge-agent", "status", "--json", user="fedistill")
        assert f'"learned from": "{FEDERATION}/' in status
    finally:
        root.stop(process, MINUTES_S)
        sys.stderr.write(log.read_text())
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()
    assert plant.audit(device) == ["token", "enrolled"]
    says(f"  {root.suite}: " + ", ".join(f"{what} {at:.1f} s" for what, at in moments.items()))
    assert [device, NEIGHBOUR] in [sorted(devices, reverse=True) for devices in plant.heard().values()]
