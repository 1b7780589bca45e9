"""An act at the authority's desk: what the server keeps of who may be in; by the desk's own code."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from broker_server.identity import desk as desks
from broker_server.identity.ca import Authority
from broker_server.identity.desk import Desk, RefusedError
from broker_server.identity.settings import EnrolmentSettings
from broker_server.identity.tokens import Tokens
from tests.support.identity import now

DEVICE = "dev-1"
REFUSED = 3


def act(folder: str, what: str, token: str, mine: str, shown: str, _other: str) -> int:
    """Do `what` at the desk: enrol, renew, revoke or crl."""
    desk = Desk.of(EnrolmentSettings(enabled=True, authority=Path(folder)))
    request = Path(mine).read_bytes()
    try:
        match what:
            case "enrol":
                desk.enrol(DEVICE, token, request, now=now())
            case "renew":
                certificate = x509.load_pem_x509_certificates(Path(shown).read_bytes())[0]
                desk.renew(certificate, request, now=now(), is_proven=True)
            case "revoke":
                desk.revoke(DEVICE, now=now(), who="test")
            case "crl":
                with desk.authority.locked():
                    desk.authority.renew_crl(now=now())
    except RefusedError:
        return REFUSED
    return 0


def careless(*arguments: str) -> int:
    """A desk that notes whose a token is when it has given the certificate: for the harness to find out."""
    claim, give, later = Tokens.claim, desks.Desk._give, []

    def after(self, *what):
        chain = give(self, *what)
        for one in later:
            claim(*one)
        return chain

    Tokens.claim, desks.Desk._give = (lambda *one: later.append(one)), after
    return act(*arguments)


def without_sync(*arguments: str) -> int:
    """A desk that believes that a write is on the disk."""
    os.fsync = lambda _: None
    return act(*arguments)


def check(folder: str, what: str, token: str, mine: str, shown: str, other: str) -> None:
    """No key but one gets in by a token; the same act, undisturbed, comes to its end; what is kept is as it must be."""
    authority = Authority(Path(folder))
    if what == "enrol" and authority.issued(DEVICE):
        assert act(folder, what, token, other, shown, mine) == REFUSED, "a second key got in by one token"
    assert act(folder, what, token, mine, shown, other) == 0
    crl = x509.load_pem_x509_crl(authority.crl_path.read_bytes())
    assert crl.next_update_utc > now() + timedelta(days=29)
    serials = {one.serial_number for one in authority.issued(DEVICE)}
    match what:
        case "enrol":
            assert len(serials) == 1
            assert act(folder, what, token, other, shown, mine) == REFUSED, "a second key got in by one token"
        case "renew":
            assert len(serials) == 2
        case "revoke":
            assert serials <= authority.revoked()
            assert act(folder, "enrol", token, mine, shown, other) == REFUSED, "a revoked device got in"
