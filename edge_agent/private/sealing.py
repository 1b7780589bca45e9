"""Bytes -> bytes that can lie on a disk: as they are, or encrypted.

AES-256-GCM (NIST SP 800-38D) of the library `cryptography`, each record by itself:

    12 bytes nonce, random | ciphertext | 16 bytes tag

What a record is about (`label`) is authenticated beside it: a record put in the place of another does not open. With
random nonces one key may seal 2^32 records (section 8.3): a hundred a second for more than a year.
"""

from __future__ import annotations

import secrets
from typing import Any, Protocol

from edge_agent.private.keys import KEY_BYTES
from fd_protocol.errors import FedistillError
from fd_protocol.identity import require
from fd_runtime.config import EX_CONFIG
from fd_runtime.extras import MissingExtraError

_NONCE_BYTES = 12


class SealError(FedistillError):
    """A record does not open: it was sealed with another key, or it is damaged."""

    exit_code = EX_CONFIG


class Seal(Protocol):
    """Both directions."""

    def close(self, data: bytes, label: bytes) -> bytes:
        """Return what may lie on the disk."""
        ...

    def open(self, sealed: bytes, label: bytes) -> bytes:
        """Return the data.

        Raises:
            SealError: these are not bytes that `close` returned for this label.
        """
        ...


class Plain:
    """Nothing is encrypted."""

    def close(self, data: bytes, _label: bytes) -> bytes:
        return data

    def open(self, sealed: bytes, _label: bytes) -> bytes:
        return sealed


class AesGcm:
    """Everything is.

    Raises:
        MissingExtraError: `cryptography` is not installed.
    """

    def __init__(self, key: bytes) -> None:
        require(len(key) == KEY_BYTES, f"a key has {KEY_BYTES} bytes")
        self._cipher, self._invalid_tag = _cipher_of(key)

    def close(self, data: bytes, label: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return bytes(nonce + self._cipher.encrypt(nonce, data, label))

    def open(self, sealed: bytes, label: bytes) -> bytes:
        try:
            return bytes(self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], label))
        except (self._invalid_tag, ValueError) as error:  # ValueError: too short to be one
            raise SealError(f"record {label!r} does not open: another key, or damage") from error


def _cipher_of(key: bytes) -> tuple[Any, type[Exception]]:
    try:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only devices with a key need it
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("encrypted stores", "cryptography", "agent-encrypted") from error
    return AESGCM(key), InvalidTag
