"""Messages <-> bytes. Anything malformed is a `DecodeError` and nothing else.

A message is a CBOR map; key 0 says which message it is, the other keys are its fields (`fd_protocol.schema`).
Unknown keys are ignored: an agent one version old reads today's server, and the reverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fd_protocol import messages, schema
from fd_protocol.errors import DecodeError

M = TypeVar("M")

MAX_MESSAGE_BYTES = 65_536
"""A packet on the wire. Payloads longer than a part travel as several `Part`s."""

KINDS: Mapping[int, type] = {
    1: messages.RoundOffer,
    2: messages.Part,
    3: messages.Receipt,
    4: messages.ConsensusBlock,
    5: messages.DeviceState,
    6: messages.ServerState,
    7: messages.RoundReport,
    8: messages.Contribution,
    9: messages.CompetenceMap,
    10: messages.Release,
    11: messages.Command,
    13: messages.ProbeNotice,
    15: messages.Prediction,
}
"""The messages and their numbers, which stand under key 0. A number is never used again."""
_NUMBERS = {cls: number for number, cls in KINDS.items()}


def encode(message: object) -> bytes:
    """Return the deterministic bytes of a message; equal messages give equal bytes."""
    return schema.encode(message, number=_NUMBERS[type(message)])


def decode(data: bytes, expected: type[M], *, limit: int = MAX_MESSAGE_BYTES) -> M:
    """Return the `expected` message in `data`.

    Args:
        data: bytes from a peer, trusted in nothing.
        expected: the message that the topic calls for.
        limit: most bytes to look at.

    Raises:
        DecodeError: `oversized`, `malformed`, `foreign_kind`, `unsupported` or `invalid`.
    """
    if len(data) > limit:
        raise DecodeError("oversized", f"{len(data)} of at most {limit} bytes")
    return schema.decode(expected, data, number=_NUMBERS[expected])
