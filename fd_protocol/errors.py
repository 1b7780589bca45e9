"""Errors that cross a border of fedistill.

FedistillError
├── InvalidValueError   a value refused to exist: the caller's mistake (ours, or a config's)
├── DecodeError         the peer's bytes are not a value of the protocol; carries a machine-readable reason
└── DigestError         bytes are not the ones their SHA-256 promised
"""

from __future__ import annotations

_SHOWN = 80


class FedistillError(Exception):
    """Root of every error that fedistill raises on purpose."""


class InvalidValueError(FedistillError, ValueError):
    """A value refused to exist."""


class DecodeError(FedistillError):
    """Bytes from a peer are not a protocol value.

    Attributes:
        reason: one word of `a-z_`, stable over releases, fit for a receipt and a counter; docs/wire.md lists them.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)


class DigestError(FedistillError):
    """Bytes differ from what their SHA-256 promised."""

    def __init__(self, name: str, expected: bytes, actual: bytes) -> None:
        self.name, self.expected, self.actual = name, expected, actual
        super().__init__(f"{name}: expected sha256 {expected.hex()[:16]}..., found {actual.hex()[:16]}...")


def shown(value: object) -> str:
    """Return what an error may tell of a peer's value: its `repr`, of a text or a number the first 80 characters."""
    return repr(value[:_SHOWN]) if isinstance(value, str) else repr(value)[:_SHOWN]
