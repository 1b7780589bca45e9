"""Which consensus is a device's, where like-minded devices have one of their own (COMET, Cho et al. 2023).

    i = argmin_i sum_x |z_i(x) - p(x)|^2        p: what this device says of the probes, z_i: what cluster i does

The device finds it out by itself, by what its model says now, and tells nobody: not the server, not in its report. It
finds its place also where it has been away, or never contributed. Blocks that were made together are judged together;
those that stay from an earlier round, whose clusters are others, by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fd_protocol.errors import DigestError
from fd_protocol.identity import sha256
from fd_protocol.messages import ConsensusBlock
from fd_protocol.payload import decode_body
from fd_protocol.soft_labels import F32

Say = Callable[[ConsensusBlock], F32]
"""What the device says of the probes of a block, at its temperature: float32 [n, classes]."""


def nearest_targets(blocks: Sequence[ConsensusBlock], say: Say) -> F32:
    """Return what the device is to learn of all probes of `blocks`, in their order: float32 [n, classes].

    Where there are no clusters it is the consensus of all, and the device is not asked.

    Raises:
        DecodeError: a body does not hold its rows.
    """
    learned: dict[int, F32] = {}
    for made_together in _made_together(blocks):
        for block, targets in zip(made_together, _nearest(made_together, say), strict=True):
            learned[block.block] = targets
    return np.concatenate([learned[block.block] for block in blocks])


def check_clusters(blocks: Sequence[ConsensusBlock]) -> None:
    """Refuse clusters that are not those that were made together.

    Raises:
        DigestError: so.
    """
    for made_together in _made_together(blocks):
        digest = made_together[0].clusters_sha256
        actual = sha256(b"".join(body for block in made_together for body in block.clusters))
        if digest and actual != digest:
            raise DigestError("clusters", digest, actual)


def _made_together(blocks: Iterable[ConsensusBlock]) -> list[list[ConsensusBlock]]:
    groups: dict[tuple[bytes, int], list[ConsensusBlock]] = {}
    for block in blocks:
        groups.setdefault((block.clusters_sha256, len(block.clusters)), []).append(block)
    return list(groups.values())


def _nearest(blocks: Sequence[ConsensusBlock], say: Say) -> list[F32]:
    """Return what the nearest cluster says of the probes of each block."""
    if not blocks[0].clusters:
        return [_decoded(block, block.body) for block in blocks]
    by_cluster = [[_decoded(block, block.clusters[i]) for block in blocks] for i in range(len(blocks[0].clusters))]
    said = [say(block) for block in blocks]
    return min(by_cluster, key=lambda told: _distance(told, said))


def _distance(told: Sequence[F32], said: Sequence[F32]) -> float:
    return sum(float(np.square(z.astype(np.float64) - p).sum()) for z, p in zip(told, said, strict=True))


def _decoded(block: ConsensusBlock, body: bytes) -> F32:
    return decode_body(body, block.codec, block.slice.count, block.slice.classes).probabilities()
