"""The accountant against one that we did not write: Google's dp-accounting."""

import math
from functools import cache

import pytest
from absl import logging
from dp_accounting.rdp import rdp_privacy_accountant as oracle

from edge_agent.privacy.accountant import ORDERS, epsilon_of, noise_multiplier_for, rdp_of

logging.set_verbosity(logging.ERROR)  # it warns of each order that it leaves out

RATES = (1e-3, 0.01, 0.1, 0.5, 0.9, 1.0)
SIGMAS = (0.4, 0.8, 1.0, 2.0, 20.0)


@cache
def of_a_step(rate, sigma):
    return oracle._compute_rdp_poisson_subsampled_gaussian(rate, sigma, ORDERS)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_rdp_of_a_step_is_that_of_dp_accounting_at_every_order(rate, sigma):
    expected = of_a_step(rate, sigma)
    assert list(rdp_of(rate, sigma, 1)) == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("steps", [1, 30, 1000])
@pytest.mark.parametrize("rate", RATES)
def test_epsilon_is_that_of_dp_accounting_within_a_millionth(rate, steps, delta):
    for sigma in SIGMAS:
        rdp = steps * of_a_step(rate, sigma)
        expected, _ = oracle.compute_epsilon(ORDERS, rdp, delta)
        found = epsilon_of(rdp_of(rate, sigma, steps), delta)
        assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize(("epsilon", "rate"), [(0.5, 1.0), (2.0, 0.01), (8.0, 0.5)])
def test_the_noise_is_the_least_that_dp_accounting_allows(epsilon, rate):
    sigma = noise_multiplier_for(epsilon, 1e-5, rate, 100)

    def cost(multiplier):
        rdp = 100 * oracle._compute_rdp_poisson_subsampled_gaussian(rate, multiplier, ORDERS)
        return oracle.compute_epsilon(ORDERS, rdp, 1e-5)[0]

    assert cost(sigma) <= epsilon + 1e-6
    assert cost(0.999 * sigma) > epsilon
