"""Ed25519 keys that sign releases: a file for whoever holds the key, and one beside it that all may read.

    FILE        PKCS#8, under a passphrase where it has one; readable by its owner alone
    FILE.pub    what others need to believe it

What is deliberately absent: what is signed (`tuf_repository`), and keys in hardware: whoever has one signs with it by
another program, the files are TUF's own.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from fd_protocol.errors import FedistillError
from fd_runtime.files import new_file, write_atomically


class SigningKeyError(FedistillError):
    """A file holds no key that can be used."""


def make_key(path: Path, passphrase: bytes = b"") -> SSlibKey:
    """Write a new key to `path` and `path`.pub, and return its public half.

    Args:
        path: of the file; its folder exists.
        passphrase: that opens it; empty = nothing does, as for a key that a server signs with by itself.

    Raises:
        FileExistsError: there is one already; no key is ever written over.
        OSError: the folder cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    lock = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    with new_file(path) as part:  # which is 0600
        part.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_atomically(path.with_name(f"{path.name}.pub"), public)
    return SSlibKey.from_crypto(key.public_key())


def is_locked(path: Path) -> bool:
    """Whether a passphrase opens the key.

    Raises:
        SigningKeyError: there is none.
    """
    return b"ENCRYPTED PRIVATE KEY" in _read(path)


def load_signer(path: Path, passphrase: bytes = b"") -> CryptoSigner:
    """Return what signs with the key at `path`.

    Raises:
        SigningKeyError: it is no Ed25519 key, or the passphrase does not open it.
    """
    data = _read(path)
    try:
        key = load_pem_private_key(data, passphrase or None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"{path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{path}: not an Ed25519 key")
    return CryptoSigner(key)


def load_public(path: Path) -> SSlibKey:
    """Return the key in a .pub file.

    Raises:
        SigningKeyError: it holds no Ed25519 key.
    """
    data = _read(path)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"{path}: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningKeyError(f"{path}: not an Ed25519 key")
    return SSlibKey.from_crypto(key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SigningKeyError(f"{path}: {error.strerror}") from error
