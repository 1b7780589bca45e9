"""The X.509 forms of a fleet, on P-256: values and keys in, signed objects out. No files, no clock."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fd_protocol.errors import FedistillError, InvalidValueError, shown
from fd_protocol.identity import check_name

CLOCK_SKEW = timedelta(hours=1)
"""How far another machine's clock may lag behind ours: everything signed starts that much earlier."""

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What `cryptography` raises at the bytes of strangers, some of it only when a part is asked for."""

_LIST_HEAD = b"-----BEGIN X509 CRL-----"


class RequestError(FedistillError):
    """A certificate signing request that will not be signed."""


class Role(Enum):
    """What a certificate lets its owner be."""

    DEVICE = "device"
    AGGREGATOR = "aggregator"
    BROKER = "broker"

    @property
    def usage(self) -> ObjectIdentifier:
        return ExtendedKeyUsageOID.SERVER_AUTH if self is Role.BROKER else ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a leaf certificate names. `hosts` are a broker's host names and addresses; nobody else has any."""

    name: str
    role: Role
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, self.role.value)
        if (self.role is Role.BROKER) != bool(self.hosts):
            raise InvalidValueError("a broker, and nobody else, has the host names it is reached by")


@dataclass(frozen=True, slots=True)
class Validity:
    """From `start`, less `CLOCK_SKEW`, to `end`."""

    start: datetime
    end: datetime

    @classmethod
    def days(cls, now: datetime, count: int) -> Validity:
        return cls(now, now + timedelta(days=count))


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate authority's name and its key."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, common_name: str) -> Signer:
        return cls(_name(common_name), new_key())


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem(signed: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return signed.public_bytes(serialization.Encoding.PEM)


def certify_authority(subject: Signer, signer: Signer, path_length: int, valid: Validity) -> x509.Certificate:
    """Certify `subject` as an authority with at most `path_length` authorities below it."""
    builder = _builder(subject.name, subject.key.public_key(), signer, valid)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_key_usage(of_authority=True), critical=True)
    return builder.sign(signer.key, hashes.SHA256())


def certify(
    identity: Identity, public_key: ec.EllipticCurvePublicKey, signer: Signer, valid: Validity
) -> x509.Certificate:
    """Certify that the owner of `public_key` is `identity`."""
    builder = _builder(_name(identity.name, identity.role.value), public_key, signer, valid)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(of_authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([identity.role.usage]), critical=False)
    if identity.hosts:
        hosts = x509.SubjectAlternativeName([_host(host) for host in identity.hosts])
        builder = builder.add_extension(hosts, critical=False)
    return builder.sign(signer.key, hashes.SHA256())


def revocation_list(
    revoked: Mapping[int, datetime], number: int, signer: Signer, valid: Validity
) -> x509.CertificateRevocationList:
    """Sign the list of revoked serials, each with the time since when."""
    builder = (
        x509.CertificateRevocationListBuilder(signer.name, valid.start - CLOCK_SKEW, valid.end)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(signer), critical=False)
    )
    for serial, since in revoked.items():
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, since).build())
    return builder.sign(signer.key, hashes.SHA256())


def role_of(certificate: x509.Certificate) -> Role:
    [unit] = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return Role(unit.value)


def outlook(chain_pem: bytes) -> tuple[str, datetime]:
    """Return whom the first certificate of a chain names, and when the first of them ends.

    Raises:
        InvalidValueError: there is none.
    """
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        raise InvalidValueError("not a certificate in PEM") from error
    names = [str(one.value) for one in chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return " ".join(names), min(one.not_valid_after_utc for one in chain)


def next_update(lists_pem: bytes) -> datetime:
    """Return when the first of the revocation lists in a file ends; of several authorities there are several.

    Raises:
        InvalidValueError: there is none, or one never ends.
    """
    pieces = lists_pem.split(_LIST_HEAD)[1:]
    try:
        ends = [x509.load_pem_x509_crl(_LIST_HEAD + piece).next_update_utc for piece in pieces]
    except ValueError as error:
        raise InvalidValueError("not a revocation list in PEM") from error
    known = [end for end in ends if end is not None]
    if not known or len(known) < len(ends):
        raise InvalidValueError("not a revocation list in PEM, or one without an end")
    return min(known)


def fingerprint(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo in DER), in hex."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public_key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def key_of(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate of ours: all are on P-256."""
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def name_of(certificate: x509.Certificate) -> str:
    """Return whom a certificate names; empty: nobody, or nobody knows whom."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except UNREADABLE:
        return ""
    return str(names[0].value) if len(names) == 1 else ""


def requested_key(request_pem: bytes, name: str | None = None) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request. Nothing else in the request is believed.

    Args:
        request_pem: the request.
        name: whom it must be made for; None = whom it names is not looked at, somebody else has said who asks.

    Raises:
        RequestError: not a request, not signed by its own key, not P-256, or made for another name.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key, is_signed = request.public_key(), request.is_signature_valid
        names = [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except UNREADABLE as error:
        raise RequestError("not a certificate signing request in PEM that can be read") from error
    if not is_signed:
        raise RequestError("the signing request was not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError("the signing request's key is not on P-256")
    if name is not None and names != [name]:
        raise RequestError(f"the signing request is for {shown(names)}, not for {name!r}")
    return key


def _builder(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, signer: Signer, valid: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(signer.name, subject, public_key, x509.random_serial_number())
        .not_valid_before(valid.start - CLOCK_SKEW)
        .not_valid_after(valid.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key(signer), critical=False)
    )


def _authority_key(signer: Signer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())


def _name(common_name: str, unit: str = "") -> x509.Name:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    return x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, of_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not of_authority,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
