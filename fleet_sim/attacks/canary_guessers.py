"""Colluding canary guessers: honest where a lie might be judged, false elsewhere.

    a(x) = <m(x), m(x) + z(x)>        m: mean of the accomplices' answers, z: last consensus

a grows with the chance that two accomplices name the same class, and an accomplice and the consensus. The `SHARE` of
probes where it is largest are taken for canaries: somebody had to label these, and what is labelled first is what all
agree on. There they say (m + z) / 2, the best they know; on the rest they are certain of the class which that thinks
least likely.

Ours; no paper. A server treats canaries like any probe, so nothing in a consensus gives them away: where they are drawn
at random, a guess of share s finds a share s of them, and the lies on the others cost the trust that canaries measure.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge, one_hot

SHARE = 0.5


def honest_on_guesses(knowledge: Knowledge) -> F32:
    mean = knowledge.accomplices.mean(axis=0)
    best = ((mean + knowledge.consensus) / 2).astype(np.float32)
    lie = one_hot(best.argmin(axis=1), best.shape[1])
    is_canary = guess(mean, knowledge.consensus)
    return np.where(is_canary[:, None], best, lie)


def guess(mean: F32, consensus: F32, share: float = SHARE) -> npt.NDArray[np.bool_]:
    """Return which probes are taken for canaries, bool [n]: `share` of them, rounded up.

    Args:
        mean: of the accomplices' answers, [n, classes].
        consensus: the last one, [n, classes].
        share: how many to be honest on.
    """
    agreement = (mean * (mean + consensus)).sum(axis=1)
    count = int(np.ceil(share * len(agreement)))
    is_canary = np.zeros(len(agreement), np.bool_)
    is_canary[np.argsort(-agreement, kind="stable")[:count]] = True
    return is_canary
