"""FD without a public set, Jeong et al. 2018, algorithm 1: what a device says of each label, and learns of it.

    it says of label y      p_k(y) = mean of softmax(logits / T) over its own rows of y, from 11 rows on
    it learns for label y   z_-k(y) = (W(y) z(y) - w_k p_k(y)) / (W(y) - w_k)

z(y) is the consensus, W(y) the weight behind it and w_k the device's own share of that: the target of a device is made
by the others alone. Every private row of y is then a probe with that target; its own label it has beside it in the
same batch. Nothing is learned of labels that the device lacks, or of which nobody else speaks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.learning.ground import Logits
from fd_protocol.bodies import U8
from fd_protocol.competence import FAR
from fd_protocol.errors import DecodeError
from fd_protocol.label_set import MIN_LABEL_ROWS, SPEAKS, VOICE_ONE, label_set
from fd_protocol.messages import ConsensusBlock, Slice
from fd_protocol.payload import Codes, decode_body
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32, SoftLabels, soften
from fd_runtime.fitting import LabelledRows, ProbeRows


class LabelGround:
    """The labels of a task.

    Args:
        task: its digest.
        rows: the device's private rows as the tail reads them; the hold-out is not among them.
    """

    def __init__(self, task: bytes, rows: LabelledRows) -> None:
        self._digest, self._rows = label_set(task), rows
        self._standing = standing_of(np.bincount(rows.labels, minlength=rows.classes))

    @property
    def digest(self) -> bytes:
        return self._digest

    def standing(self) -> U8:
        return self._standing

    def labels(self, logits: Logits, part: Slice, temperature: float) -> SoftLabels:
        self._check(part)
        table = np.full((self._rows.classes, self._rows.classes), 1 / self._rows.classes, np.float32)
        if len(self._rows.labels):
            said = soften(logits(self._rows.features), temperature)
            for label in np.flatnonzero(self._standing < FAR):
                table[label] = said[self._rows.labels == label].mean(axis=0)
        return SoftLabels(table[part.start : part.start + part.count], temperature)

    def lesson(
        self,
        logits: Logits,  # noqa: ARG002 - the target is made by the others alone
        blocks: Sequence[ConsensusBlock],
        own: Codes | None,
    ) -> ProbeRows:
        for block in blocks:
            self._check(block.slice)
        labels = np.concatenate([np.arange(b.slice.start, b.slice.start + b.slice.count) for b in blocks])
        consensus = np.concatenate([_consensus_of(block) for block in blocks])
        voices = np.concatenate([np.array(block.voices or [0] * block.slice.count, np.int64) for block in blocks])
        if own is not None and len(own) == len(labels):
            own_voices = np.where(self._standing[labels] < FAR, VOICE_ONE, 0)
            targets = others(consensus, voices, own.probabilities(), own_voices)
        else:
            targets = others(consensus, voices, np.zeros_like(consensus), np.zeros_like(voices))
        return self._taught(labels, targets)

    def _taught(self, labels: I64, targets: F32) -> ProbeRows:
        """Give each private row the target of its label; rows of a label without one are left out."""
        table = np.zeros((self._rows.classes, self._rows.classes), np.float32)
        table[labels] = targets
        own_targets = table[self._rows.labels]
        is_taught = own_targets.any(axis=1)
        return ProbeRows(self._rows.features[is_taught], own_targets[is_taught])

    def _check(self, part: Slice) -> None:
        if part.public_set != self._digest or part.start + part.count > self._rows.classes:
            raise DecodeError("unknown_public_set", f"no labels {part.start} to {part.start + part.count}")


def _consensus_of(block: ConsensusBlock) -> F32:
    return decode_body(block.body, block.codec, block.slice.count, block.slice.classes).probabilities()


def others(consensus: F32, voices: I64, own: F32, own_voices: I64) -> F32:
    """Return the mean of all others, float32 [n, classes]; a row is zero where nobody else speaks.

    Args:
        consensus: mean of all who speak, [n, classes].
        voices: the weight behind each row, [n].
        own: what the device itself said, [n, classes].
        own_voices: the share of `voices` that is its own, [n].
    """
    sums = np.maximum(0.0, voices[:, None] * consensus.astype(np.float64) - own_voices[:, None] * own)
    totals = sums.sum(axis=1, keepdims=True)
    is_taught = (voices > own_voices)[:, None] & (totals > 0)
    return np.where(is_taught, sums / np.where(is_taught, totals, 1.0), 0.0).astype(np.float32)


def standing_of(counts: I64) -> U8:
    """Return the codes uint8 [classes] of a device that has `counts` [classes] rows of each label."""
    return np.where(counts >= MIN_LABEL_ROWS, SPEAKS, FAR).astype(np.uint8)
