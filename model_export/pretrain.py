"""The factory: training every layer of a forward model before it is deployed, by the train step that devices use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import numpy as np

from fd_protocol.identity import require
from fd_runtime.fitting import FitReport, FitTerms, LabelledRows, fit
from fd_runtime.models.model import F32, Features, OptimizerState
from fd_runtime.models.onnx_model import OnnxTrainSession
from model_export.forward import ForwardModel
from model_export.normalisation import normalise_statistics
from model_export.surgery import theta_of, with_theta
from model_export.trainstep import compile_train_step

_MEASURED_ROWS = 256

View: TypeAlias = Callable[[F32, np.random.Generator], F32]
"""Samples -> as many samples of the same shape and labels, drawn anew every epoch."""


@dataclass(frozen=True, slots=True)
class PretrainTerms:
    """How the factory trains.

    Attributes:
        epochs: passes over the rows, each over a new view of them.
        batch_rows: most rows of a step.
        learning_rate: of Adam at the start; it falls to 0 along half a cosine.
        weight_decay: decoupled (AdamW).
    """

    epochs: int = 300
    batch_rows: int = 50
    learning_rate: float = 2e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(self.epochs >= 1 and self.batch_rows >= 1, "there is at least 1 epoch, and 1 row in a batch")
        require(self.learning_rate > 0, f"learning_rate is positive, not {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay is 0 or more, not {self.weight_decay}")

    def of_epoch(self, epoch: int) -> FitTerms:
        """Return the terms of one pass, counted from 0 (Loshchilov & Hutter 2017, SGDR, eq. 5, without restarts)."""
        fraction = (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return FitTerms(epochs=1, batch_rows=self.batch_rows, learning_rate=self.learning_rate * fraction)


def pretrain(
    forward: ForwardModel,
    rows: LabelledRows,
    terms: PretrainTerms,
    rng: np.random.Generator,
    *,
    view: View | None = None,
    on_epoch: Callable[[int, FitReport], None] = lambda _epoch, _report: None,
) -> ForwardModel:
    """Return `forward` with all of its parameters trained on labelled rows, its fresh statistics measured on them.

    Args:
        forward: any model whose ops have gradient rules.
        rows: features are samples [n, *sample_shape].
        terms: how to train.
        rng: draws views and the order of rows; the same state gives the same bytes.
        view: what to make of the samples before each epoch; None = train on them as they are.
        on_epoch: told after each epoch.

    Raises:
        UnsupportedOpError: a layer has no gradient rule; freeze what lies before it and pretrain elsewhere.
        TrainingDivergedError: the learning rate is too high.
    """
    forward = normalise_statistics(forward, _spread(rows.features))
    step = compile_train_step(
        forward.model,
        input_name=forward.input_name,
        logits_name=forward.logits_name,
        trainable=forward.parameters,
        optimizer="adam",
        weight_decay=terms.weight_decay,
    )
    begin = OptimizerState.fresh(theta_of(forward.model, step.layout), step.slots)
    session = OnnxTrainSession(step.model.SerializeToString(), begin)
    for epoch in range(terms.epochs):
        seen = rows if view is None else replace(rows, features=view(cast("F32", rows.features), rng))
        on_epoch(epoch, fit(session, seen, None, terms.of_epoch(epoch), rng))
    return replace(forward, model=with_theta(forward.model, step.layout, session.state.theta))


def _spread(features: Features) -> Features:
    """Rows from the first to the last, some hundreds: rows may lie in the order of their classes."""
    places = np.linspace(0, len(features) - 1, min(len(features), _MEASURED_ROWS))
    return features[places.astype(np.int64)]
