"""Keys, requests and answers of a device; the only module of an agent's identity that needs `cryptography`.

A key is made once, P-256, in a file of mode 0600. `Requests` is the seam for keys that no file holds: a TPM, or what is
burnt into a chip.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_CONFIG, EX_DATAERR
from fd_runtime.files import sync_file, write_atomically

_COMMAND_S = 60.0


class RequestFailedError(FedistillError):
    """No request can be made."""

    exit_code = EX_CONFIG


class WrongAnswerError(FedistillError):
    """What the server gave is no certificate for this device and its key."""

    exit_code = EX_DATAERR


class Requests(Protocol):
    """Makes a request for a device's certificate, signed by the device's key, which it makes where it is missing."""

    def make(self, device: str, key: Path) -> bytes:
        """Return the request in PEM; `key` is what OpenSSL loads as the key from then on.

        Raises:
            RequestFailedError: it cannot be made.
            OSError: the key cannot be written or read.
        """


class KeyInFile:
    """The key is a file, on the disk before its request exists; one that is damaged is put aside for a new one."""

    def make(self, device: str, key: Path) -> bytes:
        private = _load(key) or _make(key)
        sync_file(key)  # it may be found in memory alone, where the life that made it was cut short
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        request = x509.CertificateSigningRequestBuilder(subject).sign(private, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM)


class KeyElsewhere:
    """A program of the owner's makes key and request (`enrolment.request_command`)."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    def make(self, device: str, key: Path) -> bytes:
        command = [*self._command, device, str(key)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_S, check=True
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip().splitlines()
            raise RequestFailedError(f"{self._command[0]}: status {error.returncode}: {' '.join(said[-1:])}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RequestFailedError(f"{self._command[0]}: {error}") from error
        return done.stdout


def check_answer(chain: bytes, request: bytes, device: str, ca: Path) -> None:
    """See that a chain is what was asked for.

    Args:
        chain: PEM, leaf first.
        request: that was sent.
        device: whom it must name.
        ca: who must have signed it, in the end.

    Raises:
        WrongAnswerError: it is not.
        OSError: `ca` cannot be read.
    """
    try:
        leaf, *above = x509.load_pem_x509_certificates(chain)
        roots = x509.load_pem_x509_certificates(ca.read_bytes())
        asked = x509.load_pem_x509_csr(request).public_key()
    except ValueError as error:
        raise WrongAnswerError("the server's answer is no chain of certificates") from error
    names = [one.value for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if leaf.public_key() != asked or names != [device]:
        raise WrongAnswerError(f"the server's answer is not for {device} and its key")
    issuers = [*roots, *(one for one in above if _is_authority(one) and _is_signed(one, roots))]
    if not _is_signed(leaf, issuers):
        raise WrongAnswerError(f"the server's answer does not come from the authority in {ca}")


def _is_signed(certificate: x509.Certificate, issuers: Sequence[x509.Certificate]) -> bool:
    for issuer in issuers:
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            certificate.verify_directly_issued_by(issuer)
            return True
    return False


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _load(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        path.replace(path.with_suffix(".damaged"))
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RequestFailedError(f"{path} is no key on P-256")
    return key


def _make(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    content = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    write_atomically(path, content, mode=0o600)
    return key
