r"""Predictions as JSON, one a line.

    {"at":"2026-01-31T12:00:00.125Z","confidence":0.93,"label":"kettle on","sample_id":"5f-17","source":"plug"}\n

The file is moved aside when it is full: predictions.jsonl -> predictions.jsonl.1 -> predictions.jsonl.2 and away. A
line is whole, or the next start ends it: a reader sees at most one that is none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from edge_agent.inference.seams import LivePrediction


def line_of(prediction: LivePrediction) -> bytes:
    """Return the line of a prediction, with its end."""
    at = datetime.fromtimestamp(prediction.at_ms / 1000, timezone.utc)
    fields = {
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "confidence": round(prediction.confidence, 6),
        "label": prediction.label,
        "sample_id": prediction.sample_id,
        "source": prediction.source,
    }
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class LinesFile:
    """Appends to a file of at most `most_bytes`, and keeps `kept` full ones.

    Args:
        path: of the file; its folder is there.
        most_bytes: of each file.
        kept: files beside it.
    """

    def __init__(self, path: Path, most_bytes: int, kept: int) -> None:
        self._path, self._most_bytes, self._kept = path, most_bytes, kept
        self._descriptor: int | None = None
        self._bytes = 0

    def write(self, predictions: Sequence[LivePrediction]) -> None:
        """Append lines.

        Raises:
            OSError: no room, or no folder; the file is closed, and opened again by the next call.
        """
        try:
            for line in map(line_of, predictions):
                if self._descriptor is None:
                    self._open()
                if self._bytes and self._bytes + len(line) > self._most_bytes:
                    self._rotate()
                self._append(line)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._descriptor, self._bytes = descriptor, os.fstat(descriptor).st_size
        if self._bytes and os.pread(descriptor, 1, self._bytes - 1) != b"\n":  # a life ended within a line
            self._append(b"\n")
        return descriptor

    def _append(self, data: bytes) -> None:
        descriptor = self._open() if self._descriptor is None else self._descriptor
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        self._bytes += len(data)

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept, 0, -1):
            older = self._aside(number - 1)
            if older.exists():
                older.replace(self._aside(number))
        if not self._kept:
            self._path.unlink()
        self._open()

    def _aside(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


class LinesStream:
    """Writes lines to a descriptor: the service's standard output.

    Args:
        descriptor: it becomes this object's own.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, predictions: Sequence[LivePrediction]) -> None:
        """Raises: OSError: nobody reads any more."""
        view = memoryview(b"".join(map(line_of, predictions)))
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        os.close(self._descriptor)
