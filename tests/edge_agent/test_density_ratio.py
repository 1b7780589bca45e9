"""KuLSIF against what it is the solution of, and against densities that are known."""

import numpy as np
import pytest

from edge_agent.density_ratio import DensityRatio, fitted, stands_near
from fd_protocol.errors import InvalidValueError

WIDTH, STRENGTH = 0.7, 0.1


def kernel(a, b):
    return np.exp(-np.square(a[:, None, :] - b[None, :, :]).sum(axis=2) / (2 * WIDTH**2))


def cost(weights, centres, private, public):
    """Kanamori et al. 2012, equation 4."""
    at_public, at_private = kernel(public, centres) @ weights, kernel(private, centres) @ weights
    norm = weights @ kernel(centres, centres) @ weights
    return np.square(at_public).mean() / 2 - at_private.mean() + STRENGTH * norm / 2


@pytest.mark.parametrize("seed", range(5))
def test_no_other_function_of_the_kernels_space_is_better(seed):
    rng = np.random.default_rng(seed)
    private, public = rng.normal(0.5, 0.5, (12, 2)), rng.normal(0, 1, (15, 2))
    ratio = fitted(private, public, width=WIDTH, regularisation=STRENGTH)
    least = cost(ratio.weights, ratio.centres, private, public)
    for step in rng.normal(size=(200, 27)):
        assert cost(ratio.weights + 0.01 * step, ratio.centres, private, public) > least


def test_it_is_the_solution_of_the_equations_and_not_a_product_with_them():
    rng = np.random.default_rng(0)
    private, public = rng.normal(0.5, 0.5, (12, 2)), rng.normal(0, 1, (15, 2))
    ratio = fitted(private, public, width=WIDTH, regularisation=STRENGTH)
    left = kernel(public, public) / 15 + STRENGTH * np.eye(15)
    right = -kernel(public, private).sum(axis=1) / (15 * 12 * STRENGTH)
    np.testing.assert_allclose(left @ ratio.weights[:15], right, atol=1e-12)
    wrong = DensityRatio(ratio.centres, np.concatenate([left @ right, ratio.weights[15:]]), WIDTH)
    assert (
        cost(wrong.weights, wrong.centres, private, public) > cost(ratio.weights, ratio.centres, private, public) + 0.1
    )


def test_it_follows_the_ratio_of_known_densities():
    rng = np.random.default_rng(1)
    private, public = rng.normal(1, 0.5, (400, 1)), rng.normal(0, 1, (250, 1))
    places = np.linspace(-2, 2.5, 50)[:, None]
    true = 2 * np.exp(-((places - 1) ** 2) * 2 + places**2 / 2)[:, 0]
    told = fitted(private, public, width=0.5, regularisation=0.01).at(places)
    assert np.corrcoef(told, true)[0, 1] > 0.95


def test_a_device_stands_near_probes_like_its_own_rows_and_not_near_others():
    rng = np.random.default_rng(2)
    ours, others = rng.normal(0, 1, (300, 8)), rng.normal(4, 1, (300, 8))
    probes = np.concatenate([rng.normal(0, 1, (100, 8)), rng.normal(4, 1, (100, 8))])
    public = np.concatenate([ours[:100], others[:100]])
    near = stands_near(fitted(ours[100:250], public, width=3.0), probes, ours[250:])
    assert near[:100].mean() == pytest.approx(0.75, abs=0.12)
    assert near[100:].mean() < 0.02


@pytest.mark.parametrize("wrong", [{"width": 0.0}, {"width": 1.0, "regularisation": 0.0}])
def test_constants_that_make_no_ratio_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        fitted(np.zeros((3, 2)), np.zeros((3, 2)), **wrong)


def test_a_ratio_of_nothing_is_refused():
    with pytest.raises(InvalidValueError):
        fitted(np.zeros((0, 2)), np.zeros((3, 2)), width=1.0)
