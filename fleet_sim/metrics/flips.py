"""How far a targeted attack gets: the share of one class that models take for another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import F32, I64


def flipped_share(logits: F32, labels: I64, source: int, target: int) -> float:
    """Return the share of the rows of class `source` whose largest logit is `target`'s, in 0..1; NaN without such rows.

    An honest model mistakes some, too: compare with the same where nobody attacks.

    Args:
        logits: [n, classes].
        labels: [n].
        source: the class that an attacker hides.
        target: the class that it names instead.
    """
    of_source: npt.NDArray[np.bool_] = labels == source
    return float((logits[of_source].argmax(axis=1) == target).mean()) if of_source.any() else float("nan")
