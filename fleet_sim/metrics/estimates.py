"""What several seeds say: mean, standard error of it, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `count` seeds; its standard error s / sqrt(n) is NaN of a single one."""

    mean: float
    standard_error: float
    count: int

    def in_percent(self, *, signed: bool = False) -> str:
        """Return "87.4 ± 0.9": percent, plus or minus two standard errors; "-" of NaN."""
        return Estimate(100 * self.mean, 100 * self.standard_error, self.count).plainly(signed=signed)

    def plainly(self, *, signed: bool = False) -> str:
        """Return the same of what is no share."""
        if np.isnan(self.mean):
            return "-"
        mean = f"{self.mean:{'+' if signed else ''}.1f}"
        return mean if np.isnan(self.standard_error) else f"{mean} ± {2 * self.standard_error:.1f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Return what `values`, one a seed, say of their mean."""
    array = np.array(values, np.float64)
    error = array.std(ddof=1) / len(array) ** 0.5 if len(array) > 1 else np.nan
    return Estimate(float(array.mean()), float(error), len(array))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Return what ours - theirs is on the mean, seed by seed: the luck of a split cancels out.

    Raises:
        ValueError: they are not of the same seeds.
    """
    return estimate([our - their for our, their in zip(ours, theirs, strict=True)])
