"""KuLSIF, Kanamori et al. 2012: how much denser private rows lie at a point than public ones, in closed form.

    r(x) = sum_i a_i k(x, u_i) + sum_j k(x, v_j) / (m l)        u: n public points, v: m private ones
    (K_uu / n + l I) a = - K_uv 1 / (n m l)                     k(x, y) = exp(-|x - y|^2 / (2 s^2))

r minimises  sum_i r(u_i)^2 / (2 n) - sum_j r(v_j) / m + l |r|^2 / 2  over the kernel's space. Selective-FD (Shao et al.
2024) lets a device speak of the probes whose r is above the 25 % quantile of r at kept-back private rows. Their public
demo multiplies by the matrix of the second line where its inverse is meant; the solution is what this module is for.

Not what a device tells of itself today: r has a bump at every single private row, so a lone row would show as an island
of probes around it, where clusters of at least eleven rows do not (`clustering`, docs/adr/0014-rules.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError

F64 = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]

QUANTILE = 0.25
"""Of the ratio at kept-back private rows: the paper's threshold."""


@dataclass(frozen=True, slots=True, eq=False)
class DensityRatio:
    """r; use `fitted`."""

    centres: F64
    weights: F64
    width: float

    def at(self, points: Points) -> F64:
        """Return r at `points` [k, d]: float64 [k]. A density ratio is not negative; its estimate may be."""
        ratios: F64 = _kernel(points, self.centres, self.width) @ self.weights
        return ratios


def fitted(private: Points, public: Points, *, width: float, regularisation: float | None = None) -> DensityRatio:
    """Return the ratio of the densities of `private` [m, d] and `public` [n, d].

    Args:
        private: where private rows lie.
        public: where public ones do; a few hundred are enough, the cost is cubic.
        width: s.
        regularisation: l; None = n^(-1/2), the paper's.

    Raises:
        InvalidValueError: there are no points, or a constant is not above 0.
    """
    m, n = len(private), len(public)
    strength = n**-0.5 if regularisation is None and n else regularisation
    if not (m and n and width > 0 and strength and strength > 0):
        raise InvalidValueError("a density ratio needs points, a width and a regularisation above 0")
    left = _kernel(public, public, width) / n + strength * np.eye(n)
    right = -_kernel(public, private, width).sum(axis=1) / (n * m * strength)
    weights = np.concatenate([np.linalg.solve(left, right), np.full(m, 1 / (m * strength))])
    return DensityRatio(np.concatenate([public, private]).astype(np.float64), weights, width)


def stands_near(
    ratio: DensityRatio, probes: Points, kept_back: Points, quantile: float = QUANTILE
) -> npt.NDArray[np.bool_]:
    """Return of which probes [k] the device may speak: where r is above what it is at most of its kept-back rows."""
    near: npt.NDArray[np.bool_] = ratio.at(probes) > np.quantile(ratio.at(kept_back), quantile)
    return near


def _kernel(points: Points, centres: Points, width: float) -> F64:
    """Return k of each pair, [points, centres]."""
    a, b = points.astype(np.float64), centres.astype(np.float64)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :] - 2 * a @ b.T
    values: F64 = np.exp(-np.maximum(squares, 0.0) / (2 * width**2))
    return values
