"""Power is cut, and the disk fails, at any call of an enrolment and of a renewal: the next try gets there.

`strace` injects the fault at the n-th call of one kind in the errand, whatever it does at that moment: writes its key,
speaks to the server, puts the certificate in its place. Each point has a device, a token and a state folder of its own.
The short form takes a point of most kinds; FEDISTILL_CUTS=all takes every one but for reads and opens, of which an
interpreter makes hundreds before it does anything: of those the last fifty.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_server.certificates import Identity, Role
from fd_runtime.certificate import outlook
from tests.edge_agent.processes import settings_text
from tests.support.identity import Counter, leaf, now

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CALLS = ("fsync", "rename", "mkdir", "fchmod", "write", "flock", "connect", "read", "openat")
KILL, FULL, BROKEN = "signal=KILL", "error=ENOSPC", "error=EIO"
ALL = os.environ.get("FEDISTILL_CUTS") == "all"
LAST = 50
WRITES = {"fsync", "rename", "mkdir", "fchmod", "write"}
CUTS = [(call, fault) for call in CALLS for fault in (KILL, FULL, BROKEN) if fault == KILL or call in WRITES]


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    with Counter(tmp_path_factory.mktemp("counter")).open() as counter:
        yield counter


class Device:
    """One that is blank; or, where it `renews`, one whose certificate is old."""

    def __init__(self, counter, folder, name, *, renews=False):
        self.counter, self.folder, self.name, self.renews = counter, folder, name, renews
        folder.mkdir()
        text = settings_text(
            1,
            enrolment__url=counter.url,
            enrolment__ca_file=str(counter.authority.root_path),
            enrolment__token_file="enrolment.token",
        )
        self.config = folder / "agent.toml"
        self.config.write_text(text.replace('"dev-1"', f'"{name}"'))
        self.token = counter.token(name)
        (folder / "enrolment.token").write_text(self.token)
        self.identity = folder / "state" / "identity"
        if renews:
            assert self.visit("enrol") == 0
            key = load_pem_private_key((self.identity / "device.key").read_bytes(), None).public_key()
            old = counter.authority.sign(Identity(name, Role.DEVICE), key, now=now() - timedelta(days=24), days=30)
            (self.identity / "device.pem").write_bytes(old)

    def visit(self, kind=None, *inject):
        """Send the errand; return its exit code."""
        kind = kind or ("renew" if self.renews else "enrol")
        command = [*inject, sys.executable, "-m", "edge_agent.enrolment.errand", str(self.config), kind]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
        with subprocess.Popen(command, env=environment, **pipes) as process:
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        return process.returncode

    def is_whole(self):
        """Whether it can go on: a certificate of its key, or none yet; and no file that others may read."""
        key, certificate = self.identity / "device.key", self.identity / "device.pem"
        if key.exists():
            assert key.stat().st_mode & 0o777 == 0o600
            load_pem_private_key(key.read_bytes(), None)
        if certificate.exists():
            mine = load_pem_private_key(key.read_bytes(), None).public_key()
            return leaf(certificate.read_bytes()).public_key() == mine
        return not self.renews

    def gets_there(self):
        """Whether an undisturbed try ends with a fresh certificate of its own, by the same token."""
        if self.visit() != 0 or not self.is_whole():
            return False
        seen = outlook((self.identity / "device.pem").read_text())
        return seen.name == self.name and seen.end > now() + timedelta(days=25)


@pytest.fixture(scope="module")
def calls(counter, tmp_path_factory):
    """How often an undisturbed visit makes each call, for both kinds of visit."""
    folder, found = tmp_path_factory.mktemp("calls"), {}
    for renews in (False, True):
        log = folder / f"log-{renews}"
        device = Device(counter, folder / f"device-{renews}", f"count-{int(renews)}", renews=renews)
        strace = ("strace", "-f", "-qq", "-e", f"trace={','.join(CALLS)}", "-o", str(log))
        assert device.visit(None, *strace) == 0
        lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
        found[renews] = {call: sum(line.startswith(f"{call}(") for line in lines) for call in CALLS}
    return found


def points(count, call, fault, *, renews):
    first = max(1, count - LAST) if call in {"read", "openat"} else 1
    every = list(range(first, count + 1))
    if ALL:
        return every
    return sorted(random.Random(f"{call} {fault} {renews}").sample(every, min(1, count)))


@pytest.mark.parametrize("renews", [False, True], ids=["enrolment", "renewal"])
@pytest.mark.parametrize(("call", "fault"), CUTS)
def test_a_device_gets_its_certificate_whatever_fails_at_any_call(counter, calls, tmp_path, says, call, fault, renews):
    tried = points(calls[renews][call], call, fault, renews=renews)
    for when in tried:
        name = f"{call}-{fault.rpartition('=')[2].lower()}-{int(renews)}-{when}"
        device = Device(counter, tmp_path / name, name, renews=renews)
        inject = f"inject={call}:{fault}:when={when}"
        device.visit(None, "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        assert device.is_whole(), inject
        assert device.gets_there(), inject
        assert len(counter.authority.issued(name)) <= 1 + 2 * renews, inject
    says(f"{call}, {fault}, {'renewal' if renews else 'enrolment'}: {len(tried)} points, 0 bad")


def test_the_test_can_fail(counter, tmp_path):
    """A key that is written after it was told to the server, or in place, is lost by a cut: the harness sees that."""
    device = Device(counter, tmp_path / "device", "careless")
    assert device.visit() == 0
    for name in ("device.pem", "token.used"):
        (device.identity / name).unlink()
    key = device.identity / "device.key"
    key.write_bytes(key.read_bytes()[:20])
    key.chmod(0o600)
    assert not device.gets_there()
