"""The certificate authority of a fleet, kept in a folder.

    root            key offline, in a drawer; 20 years
     └─ issuing     key online, may sign leaves only; a year; signs the revocation list too
         ├─ device       client; its common name is the device id
         ├─ aggregator   client; its common name is the aggregator id
         └─ broker       server; clients check its host names

    folder/  root.pem issuing.pem issuing.key crl.pem issued/{name}/{serial}.pem lock audit.log tokens/ probes/

Invariants:
- A name has one role for ever. The broker's ACL knows names only, so a device certificate that carried the
  aggregator's name would *be* the aggregator.
- A device's private key need not come here: its signing request is enough.
- `issued/` is the record by which a name is revoked; the revocation list itself is the record of what was.
- An expired revocation list locks out every client: whoever runs the broker renews it well before.
- Nothing outlives what signed it, and no leaf lives longer than a year; what has ended may be renewed for a grace of a
  year at most. So an entry of the list may go after two.
- Whoever changes something holds `locked()`: a renewal and a revocation of one name never pass each other.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker_server.identity.certificates import (
    CLOCK_SKEW,
    Identity,
    Role,
    Signer,
    Validity,
    certify,
    certify_authority,
    fingerprint,
    key_of,
    key_pem,
    new_key,
    pem,
    revocation_list,
    role_of,
)
from fd_protocol.errors import FedistillError
from fd_protocol.identity import check_name
from fd_runtime.files import write_atomically
from fd_runtime.links.link import TlsFiles
from fd_runtime.starting import exclusive

LEAF_DAYS = 365
ISSUING_DAYS = 365
CRL_DAYS = 30
MOST_GRACE_DAYS = 365
"""So long after its end, at most, may a certificate still be shown to be renewed."""
_ROOT_DAYS = 20 * 365
_FORGOTTEN = timedelta(days=ISSUING_DAYS + MOST_GRACE_DAYS) + 2 * CLOCK_SKEW
"""So long after its revocation no certificate is good for anything any more, on the list or not."""
_PRIVATE = 0o600


class CaError(FedistillError):
    """The authority will not, or cannot, do what it was asked."""


class RoleTakenError(CaError):
    """A name has another role already."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority that lives in `folder`."""

    folder: Path

    @property
    def root_path(self) -> Path:
        """What devices and brokers trust."""
        return self.folder / "root.pem"

    @property
    def root_key_path(self) -> Path:
        """Where the root's key is, unless `create` put it elsewhere. Needed by nothing that runs: keep it offline."""
        return self.folder / "root.key"

    @property
    def issuing_path(self) -> Path:
        return self.folder / "issuing.pem"

    @property
    def crl_path(self) -> Path:
        return self.folder / "crl.pem"

    @classmethod
    def create(cls, folder: Path, *, fleet: str, now: datetime, root_key: Path | None = None) -> Authority:
        """Make root, issuing intermediate and an empty revocation list.

        Args:
            folder: made where it is missing.
            fleet: stands in the authority's name.
            now: UTC.
            root_key: where the root's key goes, on a medium that can be taken out; None = into the folder.

        Raises:
            CaError: an authority is there already, or the medium is not.
            InvalidValueError: `fleet` is not a name.
        """
        check_name(fleet, "fleet")
        authority = cls(folder)
        if authority.root_path.exists():
            raise CaError(f"{folder} holds an authority already")
        if root_key is not None and not root_key.parent.is_dir():
            raise CaError(f"there is no folder {root_key.parent} for the root's key: is the medium in?")
        root, issuing = Signer.new(f"{fleet} root"), Signer.new(f"{fleet} issuing")
        (folder / "issued").mkdir(parents=True, exist_ok=True)
        write_atomically(root_key or authority.root_key_path, key_pem(root.key), mode=_PRIVATE)
        write_atomically(folder / "issuing.key", key_pem(issuing.key), mode=_PRIVATE)
        write_atomically(authority.issuing_path, pem(_certify_issuing(issuing, root, now)))
        authority._write_crl({}, 1, now)
        root_certificate = certify_authority(root, root, 1, Validity.days(now, _ROOT_DAYS))
        write_atomically(authority.root_path, pem(root_certificate))  # last: where it is, all is
        return authority

    def locked(self) -> AbstractContextManager[None]:
        """Hold the authority alone, among all processes; not to be entered twice."""
        self._read("issuing.pem")  # says where there is none, before a lock file is made
        return exclusive(self.folder / "lock", wait=True)

    def renew_issuing(self, root_key: Path, *, now: datetime) -> datetime:
        """Let the root certify the issuing key for another year, and return when that ends.

        The key stays, so what it has signed, the revocation list too, stays good.

        Raises:
            CaError: there is no authority here, or the key is not the root's.
            OSError: the key cannot be read.
        """
        root = x509.load_pem_x509_certificate(self._read("root.pem"))
        key = _load_key(root_key)
        if key.public_key() != root.public_key():
            raise CaError(f"{root_key} is not the key of {self.root_path}")
        renewed = _certify_issuing(self._signer(), Signer(root.subject, key), now)
        write_atomically(self.issuing_path, pem(renewed))
        return renewed.not_valid_after_utc

    def sign(
        self, identity: Identity, public_key: ec.EllipticCurvePublicKey, *, now: datetime, days: int = LEAF_DAYS
    ) -> bytes:
        """Return the PEM chain, leaf first, that makes the owner of `public_key` this identity.

        Raises:
            CaError: the name has another role already, or there is no authority here.
        """
        self.check_role(identity.name, identity.role)
        issuing = self._issuing_certificate()
        leaf = self._certify(identity, public_key, Validity.days(now, days))
        self._forget_ended(identity.name, now)
        folder = self.folder / "issued" / identity.name
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{leaf.serial_number:x}.pem", pem(leaf))
        return pem(leaf) + pem(issuing)

    def mint(self, identity: Identity, *, now: datetime, valid: timedelta) -> tuple[bytes, bytes, int]:
        """Return key, chain and serial of a short-lived certificate for our own use; no record is kept of it."""
        key = new_key()
        leaf = self._certify(identity, key.public_key(), Validity(now, now + valid))
        return key_pem(key), pem(leaf) + pem(self._issuing_certificate()), leaf.serial_number

    def issue(self, identity: Identity, out: Path, *, now: datetime, days: int = LEAF_DAYS) -> TlsFiles:
        """Make a key and its certificate in `out`, beside a copy of the root.

        Raises:
            CaError: as `sign`.
        """
        key = new_key()
        chain = self.sign(identity, key.public_key(), now=now, days=days)
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / f"{identity.name}.key", key_pem(key), mode=_PRIVATE)
        return self.deliver(identity.name, chain, out)

    def deliver(self, name: str, chain: bytes, out: Path) -> TlsFiles:
        """Write `chain` and a copy of the root into `out`, where the key of `name` belongs too."""
        files = TlsFiles(ca=out / "ca.pem", certificate=out / f"{name}.pem", key=out / f"{name}.key")
        write_atomically(files.ca, self.root_path.read_bytes())
        write_atomically(files.certificate, chain)
        return files

    def current(self, name: str, key: str, *, now: datetime) -> bytes | None:
        """Return the chain of the newest certificate of this name and key, if it is good and in its first half.

        Args:
            name: whom it names.
            key: its fingerprint.
            now: UTC.
        """
        revoked = self.revoked()
        for certificate in sorted(self.issued(name), key=lambda one: one.not_valid_after_utc, reverse=True):
            begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            is_fresh = end - now > (end - begin) / 2
            if is_fresh and certificate.serial_number not in revoked and fingerprint(key_of(certificate)) == key:
                return pem(certificate) + pem(self._issuing_certificate())
        return None

    def issued(self, name: str) -> list[x509.Certificate]:
        """Return the certificates of a name that are on record: those that have not ended, and the last."""
        check_name(name, "name")
        paths = (self.folder / "issued" / name).glob("*.pem")
        return [x509.load_pem_x509_certificate(path.read_bytes()) for path in paths]

    def revoked(self) -> frozenset[int]:
        """Return the serials on the revocation list."""
        return frozenset(self._revocations())

    def was_revoked(self, name: str, key: str, *, since: datetime) -> bool:
        """Whether a certificate of this name and key came onto the revocation list at that time or later."""
        times = self._revocations()
        mine = (one.serial_number for one in self.issued(name) if fingerprint(key_of(one)) == key)
        return any(times[serial] >= since for serial in mine if serial in times)

    def revoke(self, name: str, *, now: datetime, also: tuple[int, ...] = ()) -> int:
        """Put every certificate of `name` on the revocation list, and the serials in `also`; return how many it had.

        Raises:
            CaError: no certificate of that name was issued here.
        """
        certificates = self.issued(name)
        if not certificates:
            raise CaError(f"no certificate was issued to {name!r} here")
        serials = [*(certificate.serial_number for certificate in certificates), *also]
        self._renew_crl(dict.fromkeys(serials, now), now)
        return len(certificates)

    def renew_crl(self, *, now: datetime) -> datetime:
        """Sign the revocation list anew and return when it expires."""
        return self._renew_crl({}, now)

    def check_role(self, name: str, role: Role) -> None:
        """Raises: RoleTakenError: the name has another role already."""
        for certificate in self.issued(name):
            has = role_of(certificate)
            if has is not role:
                raise RoleTakenError(f"{name!r} has the role {has.value}, it cannot be {role.value} too")

    def _certify(self, identity: Identity, key: ec.EllipticCurvePublicKey, valid: Validity) -> x509.Certificate:
        end = min(valid.end, self._issuing_certificate().not_valid_after_utc)
        if end <= valid.start:
            raise CaError("the issuing certificate has ended: `ca issuing` renews it, with the root's key")
        return certify(identity, key, self._signer(), Validity(valid.start, end))

    def _forget_ended(self, name: str, now: datetime) -> None:
        """Let go of what has ended, but for the last: it says which role the name has."""
        ended = sorted((one for one in self.issued(name)), key=lambda one: one.not_valid_after_utc)[:-1]
        for certificate in ended:
            if certificate.not_valid_after_utc < now - CLOCK_SKEW:
                (self.folder / "issued" / name / f"{certificate.serial_number:x}.pem").unlink(missing_ok=True)

    def _signer(self) -> Signer:
        return Signer(self._issuing_certificate().subject, _load_key(self._existing("issuing.key")))

    def _issuing_certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._read("issuing.pem"))

    def _revocations(self) -> dict[int, datetime]:
        """Return the serials on the revocation list, each with the time since when."""
        crl = x509.load_pem_x509_crl(self._read("crl.pem"))
        return {entry.serial_number: entry.revocation_date_utc for entry in crl}

    def _renew_crl(self, added: dict[int, datetime], now: datetime) -> datetime:
        """The time of a first revocation stands. Dated later than the old list: a broker keeps the younger of two."""
        old = x509.load_pem_x509_crl(self._read("crl.pem"))
        kept = {
            entry.serial_number: entry.revocation_date_utc
            for entry in old
            if entry.revocation_date_utc > now - _FORGOTTEN
        }
        number = old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        start = max(now, old.last_update_utc + CLOCK_SKEW + timedelta(seconds=1))
        return self._write_crl(added | kept, number + 1, start)

    def _write_crl(self, revoked: dict[int, datetime], number: int, start: datetime) -> datetime:
        valid = Validity.days(start, CRL_DAYS)
        write_atomically(self.crl_path, pem(revocation_list(revoked, number, self._signer(), valid)))
        return valid.end

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise CaError(f"no authority in {self.folder}: {name} is missing")
        return path

    def _read(self, name: str) -> bytes:
        return self._existing(name).read_bytes()


def _certify_issuing(issuing: Signer, root: Signer, now: datetime) -> x509.Certificate:
    return certify_authority(issuing, root, 0, Validity.days(now, ISSUING_DAYS))


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise CaError(f"{path} is no private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CaError(f"{path} is no key on P-256")
    return key
