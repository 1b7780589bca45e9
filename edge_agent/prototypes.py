"""FedProto on a device, Tan et al. 2022: mean features of each class out, everybody's prototypes in.

    C_k(y) = mean of the tail's features over the private rows of y, from 11 rows on        (equation 3)
    a sample belongs to the class of the nearest prototype                                  (section 4.3)

The paper also pulls the extractor's features to the prototypes. Ours is frozen, so that term has no parameter to move;
instead the prototypes enter the batch as rows of their class, and the tail learns classes that the device lacks.

Not where every layer trains: there a "feature" is the sample itself, and a mean of samples must not leave the device.
Not yet asked for by any job (docs/adr/0013-without-a-public-set.md).
"""

from __future__ import annotations

from typing import cast

import numpy as np

from fd_protocol.label_set import MIN_LABEL_ROWS
from fd_runtime.fitting import LabelledRows, ProbeRows
from fd_runtime.model import F32, I64, Features


def row_weights(counts: I64) -> I64:
    """Return what a prototype of `counts` rows weighs: 0 below 11, else a power of two, so that no count is told."""
    return np.array([1 << (int(n) // MIN_LABEL_ROWS).bit_length() - 1 if n >= MIN_LABEL_ROWS else 0 for n in counts])


def prototypes_of(rows: LabelledRows) -> tuple[F32, I64]:
    """Return the mean flat features float32 [classes, width] of `rows`, and their weights; zero of too few rows."""
    flat = rows.features.reshape(len(rows.features), -1)
    weights = row_weights(np.bincount(rows.labels, minlength=rows.classes))
    means = np.zeros((rows.classes, flat.shape[1]), np.float32)
    for label in np.flatnonzero(weights):
        means[label] = flat[rows.labels == label].mean(axis=0)
    return means, weights


def rows_of(prototypes: F32, weights: I64, like: LabelledRows) -> ProbeRows:
    """Return prototypes [classes, width] as rows to learn from, shaped and typed `like` private rows."""
    known = np.flatnonzero(weights)
    features = prototypes[known].reshape(len(known), *like.features.shape[1:])
    if like.features.dtype.kind in "iu":
        features = np.rint(features)
    as_private = cast("Features", features.astype(like.features.dtype))
    return ProbeRows(as_private, np.eye(like.classes, dtype=np.float32)[known])


def nearest_class(features: F32, prototypes: F32, weights: I64) -> I64:
    """Return the class of the nearest prototype for each of `features` [n, width]: int64 [n]."""
    known = np.flatnonzero(weights)
    distances = np.stack([np.square(features - prototypes[label]).sum(axis=1) for label in known], axis=1)
    nearest: I64 = known[distances.argmin(axis=1)]
    return nearest
