"""The bound that privacy forbids: all private rows and the factory's in one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fd_runtime.fitting import FitTerms, LabelledRows
from fd_runtime.models.model import F32
from fleet_sim.baselines.factory_model import FactoryModel
from fleet_sim.baselines.local_only import local_only


def centralised(factory: FactoryModel, parts: Sequence[LabelledRows], terms: FitTerms, rng: np.random.Generator) -> F32:
    """Return theta after `terms` on all `parts` together."""
    return local_only(factory, pooled(parts), terms, rng)


def pooled(parts: Sequence[LabelledRows]) -> LabelledRows:
    features = np.concatenate([part.features for part in parts])
    return LabelledRows(features, np.concatenate([part.labels for part in parts]), parts[0].classes)
