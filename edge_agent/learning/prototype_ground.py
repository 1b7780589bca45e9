"""FedProto without a public set, Tan et al. 2022: mean features of each class out, everybody's prototypes in.

    it tells of class y      C_k(y) = mean of the backbone's features over its own rows of y, from 11 rows on
    it learns                C(y), the mean of all who have y, as rows of class y among its own, for the tail

So a tail learns classes that the device has never seen. The paper pulls the features of a *trainable* extractor to the
prototypes instead; ours is frozen, and that term would have nothing to move (docs/adr/0013-without-a-public-set.md has
what was measured). A prototype is one row and stands for many: about one copy of each comes into every batch, and all
together count as much as the device's own rows, times the federation's probe weight.

Features, and so prototypes, change only when private rows do: a federation of resting devices comes to rest, and what
has been learned is not learned again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from edge_agent.learning.ground import Logits
from fd_protocol.bodies import U8
from fd_protocol.competence import FAR
from fd_protocol.errors import DecodeError
from fd_protocol.label_set import MIN_LABEL_ROWS, SPEAKS
from fd_protocol.messages import ConsensusBlock, Slice
from fd_protocol.payload import Codes, decode_body
from fd_protocol.prototypes import FULL, OFF, ON, STATES, UNKNOWN, PrototypeSpace
from fd_protocol.soft_labels import F32, SoftLabels
from fd_runtime.fitting import FitTerms, LabelledRows, ProbeRows
from fd_runtime.models.model import I64, Features


class PrototypeGround:
    """The features of one backbone.

    Args:
        space: of the device's bundle.
        rows: the device's private rows as the tail reads them, uint8; the hold-out is not among them.
    """

    def __init__(self, space: PrototypeSpace, rows: LabelledRows) -> None:
        self._space, self._rows = space, rows
        self._is_told = np.bincount(rows.labels, minlength=rows.classes) >= MIN_LABEL_ROWS

    @property
    def digest(self) -> bytes:
        return self._space.digest

    def standing(self) -> U8:
        return np.repeat(np.where(self._is_told, SPEAKS, FAR).astype(np.uint8), self._space.width)

    def labels(self, logits: Logits, part: Slice, temperature: float) -> SoftLabels:  # noqa: ARG002 - no model is asked
        self._check(part)
        table = np.zeros((self._space.classes, self._space.width, STATES), np.float32)
        table[~self._is_told, :, UNKNOWN] = 1.0
        flat = self._rows.features.reshape(len(self._rows.labels), -1)
        for label in np.flatnonzero(self._is_told):
            table[label, :, ON] = flat[self._rows.labels == label].mean(axis=0) / FULL
            table[label, :, OFF] = 1.0 - table[label, :, ON]
        return SoftLabels(table.reshape(-1, STATES)[part.start : part.start + part.count], temperature)

    def lesson(
        self,
        logits: Logits,  # noqa: ARG002 - no model is asked
        blocks: Sequence[ConsensusBlock],
        own: Codes | None,  # noqa: ARG002 - its own rows count like the others'
    ) -> ProbeRows:
        told = np.concatenate([self._told(block) for block in blocks])
        if len(told) != self._space.count:
            raise DecodeError("unknown_public_set", f"{len(told)} of {self._space.count} features")
        prototypes = told.reshape(self._space.classes, self._space.width)
        known = np.flatnonzero(~np.isnan(prototypes).any(axis=1))
        return self._taught(np.rint(prototypes[known]).astype(np.uint8), known)

    def _told(self, block: ConsensusBlock) -> F32:
        """Return the features that a block tells, 0..255, NaN where they are unknown: float32 [n]."""
        self._check(block.slice)
        rows = decode_body(block.body, block.codec, block.slice.count, STATES).probabilities()
        spoken = rows[:, ON] + rows[:, OFF]
        is_known = spoken > rows[:, UNKNOWN]
        shares: F32 = np.where(is_known, rows[:, ON] / np.where(is_known, spoken, 1.0), np.nan)
        return FULL * shares

    def _taught(self, prototypes: U8, labels: I64) -> ProbeRows:
        """Return the prototypes of `labels` as rows to learn from, shaped like private ones."""
        own = max(1, len(self._rows.labels))
        copies = -(-own // FitTerms().batch_rows)
        labels = np.tile(labels, copies)
        features = np.tile(prototypes, (copies, 1)).reshape(len(labels), *self._rows.features.shape[1:])
        weight = np.full(len(labels), own / max(1, len(labels)), np.float32)
        return ProbeRows(cast("Features", features), np.eye(self._rows.classes, dtype=np.float32)[labels], weight)

    def _check(self, part: Slice) -> None:
        if part.public_set != self.digest or part.start + part.count > self._space.count:
            raise DecodeError("unknown_public_set", f"no features {part.start} to {part.start + part.count}")
