"""Power is cut, and the disk fails, at any write of the server's desk: nobody gets in twice, and nobody stays out.

As in `test_identity_power_cuts`, at the other end: what the authority's folder holds after a fault at the n-th call of
one kind. FEDISTILL_CUTS=all takes every one.
"""

import os
import random
import shutil
import subprocess
import sys
from datetime import timedelta

import pytest
from cryptography import x509

from broker_server.ca import Authority
from broker_server.certificates import Identity, Role, new_key
from broker_server.identity.desk import Desk
from broker_server.identity.settings import EnrolmentSettings
from tests.support.desk_errand import REFUSED
from tests.support.identity import now, request_pem

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CALLS = ("fsync", "rename", "mkdir", "unlink", "fchmod", "write", "flock")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
ALL = os.environ.get("FEDISTILL_CUTS") == "all"
SHORT = 2
"""Points of each act and fault, where not all are wanted."""
DEVICE = "dev-1"
ACTS = ("enrol", "renew", "revoke", "crl")


class Hall:
    """An authority with one device that is about to do something."""

    def __init__(self, folder, act):
        self.folder, self.act = folder, act
        self.authority = Authority.create(folder / "pki", fleet="demo", now=now())
        self.desk = Desk.of(EnrolmentSettings(enabled=True, authority=self.authority.folder))
        self.key, self.request = new_key(), folder / "request.pem"
        self.request.write_text(request_pem(self.key))
        self.token, _ = self.desk.make_token(DEVICE, timedelta(hours=1), now=now(), who="test")
        self.shown = folder / "shown.pem"
        if act != "enrol":
            began = now() - timedelta(days=24)
            identity = Identity(DEVICE, Role.DEVICE)
            self.shown.write_bytes(self.authority.sign(identity, self.key.public_key(), now=began, days=30))

    def do(self, *inject, act=None, request=None):
        act = act or self.act
        more = {"enrol": (self.token,), "renew": (str(self.shown),)}.get(act, ())
        more = (*more, str(request or self.request)) if more else ()
        command = [sys.executable, "-m", "tests.support.desk_errand", str(self.authority.folder), act, DEVICE, *more]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*inject, *command], capture_output=True, check=False, timeout=120, env=environment)
        return done.returncode

    def gets_there(self):
        """Whether the same act, undisturbed, comes to its end, and all that is kept is as it must be."""
        if self.do() != 0:
            return False
        crl = x509.load_pem_x509_crl(self.authority.crl_path.read_bytes())
        assert crl.next_update_utc > now() + timedelta(days=29)
        serials = {one.serial_number for one in self.authority.issued(DEVICE)}
        match self.act:
            case "enrol":
                other = self.folder / "other.pem"
                other.write_text(request_pem(new_key()))
                return len(serials) == 1 and self.do(request=other) == REFUSED
            case "renew":
                return len(serials) == 2
            case "revoke":
                return serials <= self.authority.revoked() and self.do(act="enrol") == REFUSED
        return True


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """How often each act, undisturbed, makes each call."""
    found = {}
    for act in ACTS:
        hall, log = Hall(tmp_path_factory.mktemp(act), act), tmp_path_factory.mktemp("log") / "log"
        assert hall.do("strace", "-f", "-qq", "-e", f"trace={','.join(CALLS)}", "-o", str(log)) == 0
        lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
        found[act] = {call: sum(line.startswith(f"{call}(") for line in lines) for call in CALLS}
    return found


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_desk_gets_there_whatever_fails_at_any_write(calls, tmp_path, says, act, fault):
    every = [(call, when) for call in CALLS for when in range(1, calls[act][call] + 1)]
    assert every
    tried = every if ALL else random.Random(f"{act} {fault}").sample(every, min(SHORT, len(every)))
    for call, when in tried:
        folder = tmp_path / f"{call}-{when}"
        folder.mkdir()
        hall, inject = Hall(folder, act), f"inject={call}:{fault}:when={when}"
        hall.do("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        assert hall.gets_there(), inject
    says(f"{act}, {fault}: {len(tried)} of {len(every)} points, 0 bad")


def test_the_test_can_fail(tmp_path):
    """A token that is claimed after its certificate was given lets two in: the harness sees that."""
    hall = Hall(tmp_path, "enrol")
    assert hall.do() == 0
    kept = hall.desk.tokens.folder / f"{DEVICE}.json"
    text = kept.read_text()
    hall.desk.make_token(DEVICE, timedelta(hours=1), now=now(), who="test")
    assert hall.do() == REFUSED
    kept.write_text(text[:20])
    assert not hall.gets_there()
