"""A device's visit to the enrolment site: its first, or a renewal; by the errand's own program."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_server.identity.ca import Authority
from edge_agent.enrolment import errand, request
from fd_runtime.links.certificate import outlook
from tests.faults.marks import marked, marks
from tests.support.identity import leaf, now

_FRESH_DAYS = 25


def act(config: str, kind: str, _name: str, _authority: str, seen: str) -> int:
    """Make the visit, and leave a mark before the server hears of a key, and when all is done."""
    ask = errand._Visitor._ask

    def tells(self, path, said, asked, **options):
        marked(seen, f"asked {_number(x509.load_pem_x509_csr(asked).public_key())}")
        return ask(self, path, said, asked, **options)

    errand._Visitor._ask = tells
    status = errand.main([config, kind])
    if status == 0:
        marked(seen, "done")
    return status


def careless(*arguments: str) -> int:
    """A device that keeps its key in mind until it has a certificate for it: for the harness to find out."""
    write, kept = errand.write_atomically, []

    def mind(path, content, **options):
        kept.append((path, content, options))

    def both(path, content, **options):
        write(path, content, **options)
        for other, bytes_, theirs in kept:
            write(other, bytes_, **theirs)

    request.write_atomically, errand.write_atomically = mind, both
    request.sync_file = lambda _: None
    return act(*arguments)


def trusting(*arguments: str) -> int:
    """A device that takes what it reads for what is on the disk."""
    request.sync_file = lambda _: None
    return act(*arguments)


def without_sync(*arguments: str) -> int:
    """A device that believes that a write is on the disk."""
    os.fsync = lambda _: None
    return act(*arguments)


def check(config: str, kind: str, name: str, authority: str, seen: str) -> None:
    """A certificate of the device's key, or none yet; what the server was told of is there; then the visit succeeds."""
    folder = Path(config).parent / "state" / "identity"
    told = [line for line in marks(seen) if line != "done"]
    _check_files(folder, renews=kind == "renew", told=told)
    assert "done" not in marks(seen) or (folder / "device.pem").exists(), "a certificate is gone that was there"
    before = _serials(authority, name)
    assert errand.main([config, kind]) == 0
    _check_files(folder, renews=True, told=told)
    life = outlook((folder / "device.pem").read_text())
    assert life.name == name
    assert (life.end - now()).days >= _FRESH_DAYS
    assert before <= _serials(authority, name)
    assert len(_serials(authority, name)) <= 1 + 2 * (kind == "renew")


def _serials(authority: str, name: str) -> set[int]:
    return {one.serial_number for one in Authority(Path(authority)).issued(name)}


def _check_files(folder: Path, *, renews: bool, told: list[str]) -> None:
    key, certificate = folder / "device.key", folder / "device.pem"
    mine = ""
    if key.exists():
        assert key.stat().st_mode & 0o777 == 0o600
        mine = _number(load_pem_private_key(key.read_bytes(), None).public_key())
    for line in told:
        assert line == f"asked {mine}", "the server was told of a key that is gone"
    if certificate.exists():
        assert _number(leaf(certificate.read_bytes()).public_key()) == mine, "a certificate without its key"
    else:
        assert not renews, "the certificate is gone"


def _number(key) -> str:
    return f"{key.public_numbers().x:x}"
