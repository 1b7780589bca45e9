"""What a round is about, as a device stands to it: the probes of a public set, or the labels of the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from edge_agent.learning.clustering import centroids_of, nearest_distances
from edge_agent.learning.nearest import nearest_targets
from edge_agent.learning.seen import SeenProbes
from edge_agent.private.data import Private
from fd_protocol.bodies import U8
from fd_protocol.competence import quantise_distances
from fd_protocol.errors import DecodeError
from fd_protocol.manifest import Task
from fd_protocol.messages import ConsensusBlock, Slice
from fd_protocol.payload import Codes
from fd_protocol.soft_labels import SoftLabels, soften
from fd_runtime.fitting import ProbeRows
from fd_runtime.models.model import F32, Features

Logits: TypeAlias = Callable[[Features], F32]
"""What the model says now: features [n, ...] -> float32 [n, classes]."""


class Ground(Protocol):
    """What a device has been asked about and answers from."""

    @property
    def digest(self) -> bytes:
        """Identity of the public set, or of what stands in its place."""
        ...

    def standing(self) -> U8:
        """Return how near the device's private rows come to each probe: the codes of its competence map."""
        ...

    def labels(self, logits: Logits, part: Slice, temperature: float) -> SoftLabels:
        """Return the device's soft labels for a slice.

        Raises:
            DecodeError: `unknown_public_set`.
        """
        ...

    def lesson(self, logits: Logits, blocks: Sequence[ConsensusBlock], own: Codes | None) -> ProbeRows:
        """Return what a consensus teaches. `own` are the device's labels in it, where it is known to hold them.

        Raises:
            DecodeError: `unknown_public_set`, or a body that does not hold its rows.
        """
        ...


class ProbeGround:
    """The probes of a public set.

    Args:
        seen: the set as the model sees it.
        private: the device's rows.
        task: of both.
    """

    def __init__(self, seen: SeenProbes, private: Private, task: Task) -> None:
        self._seen, self._private, self._task = seen, private, task

    @property
    def digest(self) -> bytes:
        return self._seen.digest

    def standing(self) -> U8:
        rows = self._private.located(self._seen.space, self._task)
        return quantise_distances(nearest_distances(self._seen.points, centroids_of(rows)))

    def labels(self, logits: Logits, part: Slice, temperature: float) -> SoftLabels:
        return SoftLabels.of(logits(self._slice_of(part)), temperature)

    def lesson(
        self,
        logits: Logits,
        blocks: Sequence[ConsensusBlock],
        own: Codes | None,  # noqa: ARG002 - what it said itself counts like the others'
    ) -> ProbeRows:
        features = np.concatenate([self._slice_of(block.slice) for block in blocks])

        def say(block: ConsensusBlock) -> F32:
            return soften(logits(self._slice_of(block.slice)), block.temperature)

        return ProbeRows(features, nearest_targets(blocks, say))

    def _slice_of(self, part: Slice) -> Features:
        stop = part.start + part.count
        if part.public_set != self.digest or stop > len(self._seen.features):
            raise DecodeError("unknown_public_set", f"no probes {part.start} to {stop}")
        return self._seen.features[part.start : stop]
