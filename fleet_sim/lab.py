"""Samples as the models of each family see them, extracted once: for those who measure, and for baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_agent.learning.local_prior import correct, log_prior
from fd_runtime.artifacts import Bundle
from fd_runtime.fitting import LabelledRows
from fd_runtime.models.model import F32, I64
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import preprocessed
from fleet_sim.baselines.factory_model import FactoryModel
from fleet_sim.worlds import Samples, World

Hits = npt.NDArray[np.bool_]
"""Which of a device's kept-back rows it gets right, [2, n]: corrected by its local prior if it does so, and without."""


@dataclass(frozen=True, slots=True)
class Lab:
    """The bundles of a world, opened for measuring; `has_prior`: devices correct answers by their local prior."""

    world: World
    bundles: Mapping[str, Bundle]
    has_prior: bool = True
    _models: dict[str, LoadedModel] = field(default_factory=dict)
    _rows: dict[tuple[str, int], tuple[Samples, LabelledRows]] = field(default_factory=dict)

    def rows(self, family: str, samples: Samples) -> LabelledRows:
        """Return `samples` as the tail of `family` reads them."""
        key = family, id(samples)
        if key not in self._rows:
            self._rows[key] = samples, self._extract(family, samples)  # held, so that its id stays its own
        return self._rows[key][1]

    def factory_model(self, family: str) -> FactoryModel:
        return FactoryModel.of(self.bundles[family])

    def own_hits(self, family: str, index: int, logits_of: Callable[[LabelledRows], F32]) -> Hits:
        """Return how device `index` does on its kept-back rows, where `logits_of` are its model's answers."""
        labels = self.world.own[index].labels
        answers = self._own_logits(family, index, logits_of)
        return np.stack([answer.argmax(axis=1) == labels for answer in answers])

    def own_answers(self, family: str, index: int, logits_of: Callable[[LabelledRows], F32]) -> tuple[F32, I64]:
        """Return what device `index` says of its kept-back rows, corrected by its local prior, and their labels."""
        return self._own_logits(family, index, logits_of)[0], self.world.own[index].labels

    def _own_logits(self, family: str, index: int, logits_of: Callable[[LabelledRows], F32]) -> tuple[F32, F32]:
        """Return logits [n, classes] on the kept-back rows: corrected by the local prior, and without."""
        own, private = self.world.own[index], self.world.private[index]
        if not len(own):  # not every tail takes an empty batch
            return (nothing := np.empty((0, len(self.world.task.classes)), np.float32)), nothing
        logits = logits_of(self.rows(family, own))
        return (correct(logits, log_prior(private.labels, logits.shape[1])) if self.has_prior else logits), logits

    def _extract(self, family: str, samples: Samples) -> LabelledRows:
        task = self.world.task
        if len(samples):
            model = self._models.setdefault(family, self.bundles[family].open("onnxruntime"))
            features = model.features(preprocessed(samples.values, task))
        else:  # not every backbone takes an empty batch
            features = self.rows(family, self.world.probes).features[:0]
        return LabelledRows(features, samples.labels, len(task.classes))


def own_shares(devices: Sequence[Hits]) -> tuple[float, float]:
    """Return the share of all devices' kept-back rows that are right: corrected, and without; NaN of none."""
    hits = np.concatenate([np.empty((2, 0), np.bool_), *devices], axis=1)
    corrected, uncorrected = hits.mean(axis=1) if hits.size else (np.nan, np.nan)
    return float(corrected), float(uncorrected)
