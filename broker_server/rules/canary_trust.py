"""Trust that is earned on canaries: how much a device's claim of a class weighs.

    g   = (sum w right + s g') / (sum w + s)                       the device's precision
    t_c = ((sum_c w right + s (g + q_c) / 2) / (sum_c w + s))^3    its precision where it claims class c

w is the device's competence weight on the canary, s the smoothing: a device is not judged where it claims to know
nothing, and a few lucky claims earn little. q_c^3 is the trust that it had, g' the mean of the q; of a stranger g' is
1 / C, and q_c = g. So what was earned before counts as much as s claims do, and fades where nothing confirms it. Per
class, because a device that lies about one class alone keeps its average; cubed, so that a weak claim loses to a strong
one (docs/adr/0004-methods.md, docs/adr/0014-rules.md).
"""

from __future__ import annotations

import numpy as np

from broker_server.rules.voice import F64, WEIGHT_ONE, to_weights
from fd_protocol.quantisers import I64

SMOOTHING = 3.0
POWER = 3


def earned(claims: I64, labels: I64, weights: F64, before: I64) -> I64:
    """Return the trust of each class, int64 [classes] in 1..WEIGHT_ONE.

    Args:
        claims: the class that the device holds likeliest on each canary, [q].
        labels: the true class, [q].
        weights: the device's competence there, [q] in 0..1.
        before: the trust that it had, [classes]; full trust in every class = a stranger.
    """
    classes, right = len(before), weights * (claims == labels)
    remembered = (before / WEIGHT_ONE) ** (1 / POWER)
    is_stranger = bool((before == WEIGHT_ONE).all())
    start = 1 / classes if is_stranger else remembered.mean()
    overall = (right.sum() + SMOOTHING * start) / (weights.sum() + SMOOTHING)
    expected = overall if is_stranger else (overall + remembered) / 2
    claimed = np.bincount(claims, weights, classes)
    confirmed = np.bincount(claims, right, classes)
    return to_weights(((confirmed + SMOOTHING * expected) / (claimed + SMOOTHING)) ** POWER)
