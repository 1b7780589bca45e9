"""FedDF (Lin et al. 2020, algorithm 1): weights travel as in FedAvg; the server distils all of them into the average.

    x_0 = sum n_k / n x_k        x_j+1 = x_j - eta grad KL(softmax(mean of z_k(d)) || softmax(z_x(d)))

d are the public probes, z_k the logits of device k's weights, which the server computes itself: nothing but weights
travels. The paper stops where a validation set says so; here the epochs are chosen beforehand, on validation data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fd_protocol.soft_labels import soften
from fd_runtime.fitting import FitTerms, LabelledRows, ProbeRows, fit
from fd_runtime.models.model import F32, OptimizerState
from fleet_sim.baselines.factory_model import FactoryModel
from fleet_sim.baselines.fedavg import AveragedRound, fedavg
from fleet_sim.baselines.weight_codec import WeightCodec


def feddf(
    factory: FactoryModel,
    private: Sequence[LabelledRows],
    probes: LabelledRows,
    terms: FitTerms,
    rng: np.random.Generator,
    *,
    distillation: FitTerms,
    codec: WeightCodec = "f32",
) -> Iterator[AveragedRound]:
    """Yield round after round, without end.

    Args:
        factory: where everyone starts.
        private: the devices' rows.
        probes: what the server distils on; it never reads their labels.
        terms: of a device's round.
        rng: draws the order of rows.
        distillation: of the server's: epochs over the probes and learning rate of Adam, which starts anew each round.
        codec: how weights travel, both ways; the server distils what it decoded.
    """
    session = factory.session("adam")
    slots = tuple(session.state.slots)

    def distilled(average: F32, received: Sequence[F32]) -> F32:
        targets = soften(ensemble_logits(factory, received, probes), distillation.temperature)
        session.state = OptimizerState.fresh(average, slots)
        fit(session, None, ProbeRows(probes.features, targets), distillation, rng)
        return session.state.theta

    return fedavg(factory, private, terms, rng, codec=codec, refine=distilled)


def ensemble_logits(factory: FactoryModel, thetas: Sequence[F32], rows: LabelledRows) -> F32:
    """Return the mean of all models' logits, [n, classes]; each counts alike, whatever its rows."""
    total = factory.logits(thetas[0], rows)
    for theta in thetas[1:]:
        total = total + factory.logits(theta, rows)
    return total / np.float32(len(thetas))
