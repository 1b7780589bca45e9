"""A federation of a table under privacy terms: what the promise to every row costs, beside the same one without it."""

from __future__ import annotations

from dataclasses import replace

from fd_protocol.terms import PrivacyTerms
from fleet_sim.scenario import Scenario
from fleet_sim.tables.choice import Axes

AXES_OF_TERMS: Axes = {"privacy.learning_rate": (1e-2, 2e-2, 5e-2), "privacy.clip_norm": (0.5, 1.0)}
"""Values to try for what DP-SGD may choose freely."""
_DELTA = 1e-4


def under_terms(scenario: Scenario, epsilon: float, rows: int) -> Scenario:
    """Return the scenario with (epsilon, 1e-4)-differential privacy of each row of a device.

    No competence map may leave a device then: the server weighs devices by its canaries.

    Args:
        scenario: with canaries in its cut.
        epsilon: of all that a device sends.
        rows: a round number near what a device holds, see `PrivacyTerms.rows`.
    """
    terms = PrivacyTerms(epsilon=epsilon, delta=_DELTA, rows=rows)
    return replace(scenario, canaries=True, models=replace(scenario.models, private=True), privacy=terms)
