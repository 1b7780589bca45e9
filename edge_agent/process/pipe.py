"""The pipe between supervisor and worker, from both ends.

The worker's `Mouth` takes what any thread says, under one lock, so that frames never mix. The supervisor's `Frames` cut
bytes as they come into frames, and never wait for the rest of one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import IO

from edge_agent.jobs import LENGTH, MAX_FRAME_BYTES, Answer, decode_answer, encode_answer, write_frame
from edge_agent.process.notices import KINDS, Notice, decode_notice, encode_notice
from fd_protocol import cbor
from fd_protocol.errors import DecodeError

READY = b"ready"
"""The worker's first frame that is no notice: everything is loaded."""


class Mouth:
    """The worker's only way to its supervisor."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def ready(self) -> None:
        """Raises: BrokenPipeError: the supervisor is gone."""
        self._write(READY)

    def answer(self, answer: Answer) -> None:
        """Raises: BrokenPipeError: the supervisor is gone."""
        self._write(encode_answer(answer))

    def tell(self, notice: Notice) -> None:
        """Say something unasked. Without a supervisor nobody hears it: the thread that takes jobs sees to the end."""
        with contextlib.suppress(BrokenPipeError):
            self._write(encode_notice(notice))

    def _write(self, data: bytes) -> None:
        with self._lock:
            write_frame(self._pipe, data)


def frame(data: bytes) -> bytes:
    """Return the bytes of a frame that holds `data`."""
    return LENGTH.pack(len(data)) + data


class Frames:
    """Cuts a stream of bytes into the frames that `write_frame` made."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that `data` completes.

        Raises:
            DecodeError: a length beyond reason; the other side is not one of ours.
        """
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise DecodeError("oversized", f"a frame of {length} bytes")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            whole = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield whole


def decode_said(data: bytes) -> Answer | Notice:
    """Return what a frame of the worker says.

    Raises:
        DecodeError: neither an answer nor a notice.
    """
    match cbor.decode(data):
        case [str(kind), bytes(body), _] if kind in KINDS:
            return decode_notice(kind, body)
    return decode_answer(data)
