"""Keeps an eye on what is predicted on, and says when it is no longer what it was.

    rows --one in `every_s`--> a window of them --compared with the reference--> as ever
                                                 two windows in a row beyond --> Drifted, and the second window
                                                                                 becomes the reference
                              the first window that is as ever after that    --> Settled

The first reference is the bundle's. A bundle without one, and a model with other parameters than the bundle's, are
compared with their own first window instead, and what is said of them says so. A reference that was adopted outlives a
restart: a device that is unlike the factory is told so once.

What is deliberately absent: what to do about it (`loop`), and anything of a sample but shares of bins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edge_agent.inference.drift import Shift, shift_of_confidence, shift_of_inputs
from edge_agent.inference.settings import DriftSettings
from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_protocol.manifest import Manifest
from fd_protocol.reference import Binned, Reference
from fd_protocol.soft_labels import soften
from fd_runtime.files import write_atomically
from fd_runtime.models.model import F32, Features
from fd_runtime.models.reference import binned, pooled, reference_of

IN_A_ROW = 2
BUNDLE, DEVICE = "bundle", "device"

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Drifted:
    """Samples, or how sure the model is of them, are others than before."""

    inputs: Shift
    confidence: Shift | None

    def __str__(self) -> str:
        told = []
        if self.inputs.is_drift:
            told.append(f"samples {self.inputs.distance:.2f} from the reference, over {self.inputs.threshold:.2f}")
        if self.confidence is not None and self.confidence.is_drift:
            shift = self.confidence
            told.append(f"confidence {shift.distance:.2f} from the reference, over {shift.threshold:.2f}")
        return "; ".join(told)


@dataclass(frozen=True, slots=True)
class Settled:
    """Samples stay as they have become."""


DriftNews: TypeAlias = Drifted | Settled


@dataclass(frozen=True, slots=True)
class _Kept:
    """What outlives a restart: the reference that this device has made, and the bundle that it holds for."""

    bundle: str
    reference: Reference


@dataclass(slots=True)
class _Rows:
    """A window that fills."""

    pooled: list[F32] = field(default_factory=list)
    logits: list[F32] = field(default_factory=list)


class DriftWatch:
    """Compares windows of samples with a reference. Thread-safe.

    Args:
        manifest: of the bundle that predicts.
        settings: how.
        path: where an adopted reference is kept; None = nowhere.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: DriftSettings,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vocabulary = manifest.task.vocabulary
        self._bundle, self._settings, self._path, self._clock = manifest.digest.hex(), settings, path, clock
        self._lock = threading.Lock()
        self._rows, self._next_s = _Rows(), 0.0
        self._news: deque[DriftNews] = deque()
        self._beyond, self._is_drifted = 0, False
        self._inputs: Shift | None = None
        self._confidence: Shift | None = None
        self._confidence_rows = 0
        kept = self._load()
        self._source = BUNDLE if kept is None else DEVICE
        self._reference = manifest.reference if kept is None else kept
        if self._reference is not None:
            self._confidence_rows = self._reference.rows

    def observe(self, features: Features, logits: F32) -> None:
        """Look at samples: features [n, ...] as the tail reads them, logits [n, classes] before any adjustment."""
        now_s = self._clock()
        if now_s < self._next_s:  # read without the lock: at worst one row more counts
            return
        with self._lock:
            self._next_s = now_s + self._settings.every_s
            if self._settings.every_s > 0:
                features, logits = features[-1:], logits[-1:]
            self._rows.pooled.append(pooled(features, self._vocabulary))
            self._rows.logits.append(logits)
            if sum(map(len, self._rows.logits)) >= self._settings.window:
                rows, self._rows = self._rows, _Rows()
                self._judge(np.concatenate(rows.pooled), _confidence_of(np.concatenate(rows.logits)))

    def forget_confidence(self) -> None:
        """Learn anew how sure the model is: it has other parameters than before."""
        with self._lock:
            self._rows = _Rows()
            if self._reference is not None:
                self._reference = replace(self._reference, confidence=None)
            self._confidence = None

    def news(self) -> list[DriftNews]:
        """Return what has happened since this was asked last."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def measures(self) -> dict[str, float]:
        """Return the distances of the last window, by name."""
        named = {"drift_inputs": self._inputs, "drift_confidence": self._confidence}
        return {name: shift.distance for name, shift in named.items() if shift is not None}

    def facts(self) -> dict[str, object]:
        """Return how the watch stands, for people."""
        with self._lock:
            waiting = sum(map(len, self._rows.logits))
            shifts = {"inputs": self._inputs, "confidence": self._confidence}
            return {
                "is_drifted": self._is_drifted,
                "is_suspected": self._beyond > 0,
                "reference": self._source if self._reference is not None else "being learnt",
                "window": f"{waiting} of {self._settings.window} rows",
                **{
                    name: {"distance": round(shift.distance, 3), "threshold": round(shift.threshold, 3)}
                    for name, shift in shifts.items()
                    if shift is not None
                },
            }

    def _judge(self, rows: F32, confidence: F32) -> None:
        """Compare a full window; the caller has the lock."""
        reference = self._reference
        if reference is None or reference_is_foreign(reference, rows):
            self._adopt(rows, confidence)
            return
        self._inputs = shift_of_inputs(reference, rows)
        self._confidence = self._shift_of_confidence(reference, confidence)
        drifted = Drifted(self._inputs, self._confidence)
        if not str(drifted):
            self._beyond = 0
            if self._is_drifted:
                self._is_drifted = False
                self._news.append(Settled())
            return
        self._beyond += 1
        if self._beyond >= IN_A_ROW:
            self._beyond = 0
            self._is_drifted = True
            self._news.append(drifted)
            self._adopt(rows, confidence)

    def _shift_of_confidence(self, reference: Reference, confidence: F32) -> Shift | None:
        if reference.confidence is None:
            spread: Binned = binned(confidence)
            self._reference = replace(reference, confidence=spread)
            self._confidence_rows = len(confidence)
            return None
        return shift_of_confidence(reference.confidence, self._confidence_rows, confidence)

    def _adopt(self, rows: F32, confidence: F32) -> None:
        self._reference, self._source = reference_of(rows, confidence), DEVICE
        self._confidence_rows = len(rows)
        if self._path is None:
            return
        try:
            write_atomically(self._path, to_json(_Kept(self._bundle, self._reference)), mode=0o600)
        except OSError as error:
            log.warning("the reference of drift is not kept: %s", error)

    def _load(self) -> Reference | None:
        """Return the reference that an earlier life adopted for this bundle, if there is one that can be read."""
        if self._path is None:
            return None
        try:
            kept = from_json(_Kept, self._path.read_bytes(), Place(self._path, InvalidDocumentError))
        except FileNotFoundError:
            return None
        except (OSError, InvalidDocumentError) as error:
            log.warning("the reference of drift is learnt anew: %s", error)
            return None
        # How sure it was it cannot know: the model may have learned since.
        return replace(kept.reference, confidence=None) if kept.bundle == self._bundle else None


def reference_is_foreign(reference: Reference, rows: F32) -> bool:
    """Whether the reference was made of other features than pooled rows [n, d]: by another version, say."""
    return len(reference.features) != int(rows.shape[1])


def _confidence_of(logits: F32) -> F32:
    confidence: F32 = soften(np.nan_to_num(logits), 1.0).max(axis=1)
    return confidence
