"""Who differs from whom, and on which class: pictures of disagreement, from soft labels alone.

    claims     the class that a device holds likeliest on each probe, int64 [devices, n]
    consensus  the same of the consensus, int64 [n]

Nobody is right here by definition. A device that differs may lie, may be ill, or may be the only one that knows: the
picture says where to look, canaries say who was right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fd_protocol.quantisers import I64

F64 = npt.NDArray[np.float64]


def by_class(claims: I64, consensus: I64, classes: int) -> F64:
    """Return the share of the consensus' probes of each class on which a device says another, [devices, classes].

    NaN for a class that the consensus sees nowhere.
    """
    differs = (claims != consensus).astype(np.float64)
    sizes = np.bincount(consensus, minlength=classes).astype(np.float64)
    counts = np.zeros((len(claims), classes))
    for row, one in zip(counts, differs, strict=True):
        row[:] = np.bincount(consensus, one, classes)
    shares: F64 = np.divide(counts, sizes, out=np.full(counts.shape, np.nan), where=sizes > 0)
    return shares


def by_pair(claims: I64) -> F64:
    """Return the share of probes on which two devices differ, [devices, devices]."""
    return np.stack([(claims != row).mean(axis=1) for row in claims]) if len(claims) else np.empty((0, 0))


def in_total(claims: I64, consensus: I64) -> F64:
    """Return the share of probes on which a device differs from the consensus, [devices]."""
    differs: F64 = (claims != consensus).mean(axis=1)
    return differs
