"""Federated averaging (McMahan et al. 2017, algorithm 1): weights travel instead of soft labels. And two that mend it.

    FedProx   Li et al. 2020, eq. 2: devices minimise F_k(w) + mu/2 |w - w_t|^2. Here `terms.prox` is mu
    FedAvgM   Hsu et al. 2019: v <- beta v + dw, w <- w - v with dw = w - average. `server_momentum` is beta

With a backbone the tail is averaged, without one the whole model. One architecture for all devices: the weights of two
cannot be averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fd_runtime.fitting import FitTerms, LabelledRows, fit
from fd_runtime.models.model import F32, OptimizerState
from fleet_sim.baselines.factory_model import FactoryModel
from fleet_sim.baselines.weight_codec import WeightCodec, transmit
from model_export.trainstep.optimizers import OptimizerName

Refine: TypeAlias = Callable[[F32, Sequence[F32]], F32]
"""From the average and what each device sent to what the server makes of them."""


@dataclass(frozen=True, slots=True)
class AveragedRound:
    """After a round: the average, and the bytes one device sent and received for it (mean over devices)."""

    theta: F32
    up_bytes: float
    down_bytes: float


def fedavg(
    factory: FactoryModel,
    private: Sequence[LabelledRows],
    terms: FitTerms,
    rng: np.random.Generator,
    *,
    optimizer: OptimizerName = "momentum",
    codec: WeightCodec = "f32",
    server_momentum: float = 0.0,
    refine: Refine = lambda average, _: average,
) -> Iterator[AveragedRound]:
    """Yield round after round, without end.

    Args:
        factory: where everyone starts.
        private: the devices' rows; a device counts with its number of rows (eq. in algorithm 1: n_k / n).
        terms: local epochs, batch, learning rate and mu of a round; optimizer slots start anew each round.
        rng: draws the order of rows.
        optimizer: of the devices.
        codec: how weights travel, both ways.
        server_momentum: beta of FedAvgM; 0 = the average as it is.
        refine: what the server does with each average.
    """
    session = factory.session(optimizer)
    slots = tuple(session.state.slots)
    shared, velocity = factory.theta, np.zeros_like(factory.theta)
    active = [rows for rows in private if len(rows.labels)]
    shares = np.array([len(rows.labels) for rows in active]) / sum(len(rows.labels) for rows in active)
    while True:
        received, sent_bytes = [], []
        for rows in active:
            session.state = OptimizerState.fresh(shared, slots)
            fit(session, rows, None, terms, rng)
            theta, size = transmit(session.state.theta, shared, factory.layout, codec)
            received.append(theta)
            sent_bytes.append(size)
        average = refine(np.average(received, axis=0, weights=shares).astype(np.float32), received)
        target = average + np.float32(server_momentum) * velocity  # = w - (beta v + w - average)
        velocity = target - shared
        shared, down_bytes = transmit(target, shared, factory.layout, codec)
        yield AveragedRound(shared, float(np.mean(sent_bytes)), down_bytes)
