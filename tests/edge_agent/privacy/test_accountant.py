import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.privacy.accountant import NOTHING, ORDERS, composed, epsilon_of, noise_multiplier_for, rdp_of
from fd_protocol.errors import InvalidValueError

rates = st.floats(0.01, 1.0)
sigmas = st.floats(0.5, 20.0)


def test_a_full_batch_is_the_plain_gaussian_mechanism():
    assert list(rdp_of(1.0, 3.0, 4)) == pytest.approx([4 * order / 18 for order in ORDERS])


def test_nothing_seen_costs_nothing():
    for rdp in (rdp_of(0.0, 1.0, 9), rdp_of(0.5, 1.0, 0), composed()):
        assert rdp == NOTHING
    assert epsilon_of(NOTHING, 1e-5) == 0.0


def test_no_noise_costs_everything():
    assert math.isinf(epsilon_of(rdp_of(0.1, 0.0, 1), 1e-5))


@settings(max_examples=10)
@given(rates, sigmas, st.integers(1, 50))
def test_steps_add_up(rate, sigma, steps):
    assert rdp_of(rate, sigma, 2 * steps) == pytest.approx(composed(*[rdp_of(rate, sigma, steps)] * 2))


@settings(max_examples=20)
@given(rates, sigmas)
def test_less_noise_more_rows_and_smaller_delta_never_cost_less(rate, sigma):
    cost = epsilon_of(rdp_of(rate, sigma, 10), 1e-5)
    assert epsilon_of(rdp_of(rate, 0.9 * sigma, 10), 1e-5) >= cost
    assert epsilon_of(rdp_of(0.9 * rate, sigma, 10), 1e-5) <= cost + 1e-12
    assert epsilon_of(rdp_of(rate, sigma, 10), 1e-7) >= cost


@settings(max_examples=5)
@given(st.floats(0.2, 50.0), rates, st.integers(1, 200))
def test_a_training_with_the_noise_that_was_asked_for_costs_no_more(epsilon, rate, steps):
    sigma = noise_multiplier_for(epsilon, 1e-5, rate, steps)
    assert epsilon_of(rdp_of(rate, sigma, steps), 1e-5) <= epsilon


def test_what_no_noise_can_buy_is_refused():
    with pytest.raises(InvalidValueError, match="no noise"):
        noise_multiplier_for(1e-3, 1e-9, 1.0, 100_000)


@pytest.mark.parametrize("wrong", [(1.1, 1.0, 1), (-0.1, 1.0, 1), (0.5, -1.0, 1), (0.5, 1.0, -1)])
def test_a_mechanism_that_is_none_is_refused(wrong):
    with pytest.raises(InvalidValueError):
        rdp_of(*wrong)


def test_the_supervisors_half_of_privacy_needs_no_numpy():
    modules = "accountant", "ledger", "limits", "saying", "settings", "facts"
    code = "import sys\n" + "".join(f"import edge_agent.privacy.{name}\n" for name in modules)
    code += "print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
