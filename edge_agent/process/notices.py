"""What the worker tells the supervisor unasked, at any time and from any of its threads.

    worker --notices--> supervisor: kept for status, journaled as an event, or said to the federation

A notice travels as an answer does, a CBOR list `[kind, body, blobs]`, under kinds of its own and without blobs. Nothing
waits for one: a notice that is lost with its worker costs nothing but the news.

What is deliberately absent: samples and arrays. A notice holds numbers, names and one line of text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.identity import require
from fd_protocol.schema import from_item, keyed, to_item


@dataclass(frozen=True, slots=True)
class Beat:
    """Every thread of the worker that has work has got on with it since the last beat (`heart`)."""


@dataclass(frozen=True, slots=True)
class PrivateRowsChanged:
    """Enough labelled rows have changed to count as other private data; there are `rows` of them now."""

    private_epoch: int = keyed(1)
    rows: int = keyed(2)


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers for whoever asks how the device is, by name: the newest of each name counts."""

    values: Mapping[str, float] = keyed(1)

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            require(math.isfinite(value), f"{name} is not finite")


@dataclass(frozen=True, slots=True)
class Spoke:
    """The model has predicted a live sample, and somebody wants to hear of it beyond this device."""

    sample_id: str = keyed(1)
    label: str = keyed(2)
    confidence: float = keyed(3)

    def __post_init__(self) -> None:
        require(math.isfinite(self.confidence), "a confidence is finite")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something is wrong, by a name such as `drift`; with an empty text it is no longer."""

    name: str = keyed(1)
    text: str = keyed(2)


Notice: TypeAlias = Beat | PrivateRowsChanged | Measured | Spoke | Alarm

KINDS: Mapping[str, type[Notice]] = {cls.__name__: cls for cls in Notice.__args__}


def encode_notice(notice: Notice) -> bytes:
    return cbor.encode([type(notice).__name__, cbor.encode(to_item(notice)), []])


def decode_notice(kind: str, body: bytes) -> Notice:
    """Raises: DecodeError: not a notice."""
    if kind not in KINDS:
        raise DecodeError("unsupported", f"notice {kind}")
    return from_item(KINDS[kind], cbor.decode(body))
