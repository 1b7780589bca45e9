"""Nobody talks to anybody: a device trains on its own rows."""

from __future__ import annotations

import numpy as np

from fd_runtime.fitting import FitTerms, LabelledRows, fit
from fd_runtime.models.model import F32
from fleet_sim.baselines.factory_model import FactoryModel


def local_only(factory: FactoryModel, private: LabelledRows, terms: FitTerms, rng: np.random.Generator) -> F32:
    """Return theta after `terms` on `private` alone with Adam; without rows, the factory's."""
    if not len(private.labels):
        return factory.theta
    session = factory.session("adam")
    fit(session, private, None, terms, rng)
    return session.state.theta
