"""How much a training by DP-SGD tells of any one row: Renyi differential privacy (RDP), in plain Python.

    (sampling rate q, noise multiplier sigma, steps) --rdp_of--> RDP at many orders --epsilon_of--> (epsilon, delta)

A step sees a Poisson sample of the rows, sums their gradients, each clipped to C, and adds normal noise of deviation
sigma C. Neighbours differ by one row, added or removed. RDP adds up over steps and over trainings.

- Of a step: Mironov, Talwar & Zhang 2019, "Renyi differential privacy of the sampled Gaussian mechanism", section 3.3.
  Where their series alternates in sign it is summed by absolute value: never too little, and what `dp-accounting` does.
- From RDP to (epsilon, delta): Canonne, Kamath & Steinke 2020, proposition 12; Balle et al. 2020, theorem 21.

The tests hold it to `dp-accounting` within 1e-6.

What is deliberately absent: numpy, as the supervisor asks too; amplification by shuffling or iteration; other noises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from fd_protocol.errors import InvalidValueError

ORDERS: tuple[float, ...] = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *(float(order) for order in range(11, 64)),
    *(128.0, 256.0, 512.0, 1024.0),
)
"""At which RDP is known. Large epsilons are won at small orders, small ones at large orders."""
_LEAST_ORDER = 1.01
"""The conversion is not stable below, and of no use."""
_MOST_TERMS, _TERMS_TO_JUDGE = 1000, 32
_NEGLIGIBLE = 30.0
"""A term of e^-30 of the sum, once the terms fall, changes nothing that counts."""
_ASYMPTOTIC = 25.0
"""Above, erfc is near the smallest double, and its asymptotic series exact to 1e-9."""
_SIGMA_MOST = 1e4
_SIGMA_DIGITS = 1e-4
_FAR = 50.0
"""Stands for the logarithm of nothing, and of the infinite."""

Rdp = tuple[float, ...]
"""RDP at each of `ORDERS`."""

NOTHING: Rdp = (0.0,) * len(ORDERS)
"""What nothing tells."""


@lru_cache(maxsize=256)
def rdp_of(sampling_rate: float, noise_multiplier: float, steps: int) -> Rdp:
    """Return the RDP of `steps` steps of the sampled Gaussian mechanism.

    Args:
        sampling_rate: q, with which each row joins each step, in [0, 1].
        noise_multiplier: sigma, deviation of the noise over the clip.
        steps: how many.

    Raises:
        InvalidValueError: the arguments lie outside of these.
    """
    if not (0 <= sampling_rate <= 1 and noise_multiplier >= 0 and steps >= 0):
        raise InvalidValueError(f"no mechanism: q {sampling_rate}, sigma {noise_multiplier}, {steps} steps")
    if not steps or not sampling_rate:
        return NOTHING
    return tuple(steps * _of_a_step(sampling_rate, noise_multiplier, order) for order in ORDERS)


def composed(*parts: Rdp) -> Rdp:
    """Return the RDP of all parts together."""
    return tuple(map(sum, zip(NOTHING, *parts, strict=True)))


def epsilon_of(rdp: Rdp, delta: float) -> float:
    """Return the smallest epsilon >= 0 that is known to go with `delta`; infinite where none is.

    Raises:
        InvalidValueError: delta does not lie in (0, 1).
    """
    if not 0 < delta < 1:
        raise InvalidValueError(f"delta lies in (0, 1), not {delta}")
    return max(0.0, min(_epsilon_at(order, value, delta) for order, value in zip(ORDERS, rdp, strict=True)))


@lru_cache(maxsize=256)
def noise_multiplier_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the smallest sigma, up to 1e-4 of it, with which a training costs at most `epsilon` at `delta`.

    Raises:
        InvalidValueError: none up to 10^4 is enough.
    """

    def excess(sigma: float) -> float:
        """Return the logarithm of what it costs over what it may; above 0 it is too much."""
        cost = epsilon_of(rdp_of(sampling_rate, sigma, steps), delta)
        return math.log(cost / epsilon) if 0 < cost < math.inf else math.copysign(_FAR, cost - epsilon)

    low, high = _bracket(excess)
    below, above = excess(low), excess(high)
    while high > low * (1 + _SIGMA_DIGITS):
        # Illinois, on logarithms: costs are near to a power of sigma. A root so near to an end counts as at it.
        share = min(0.9, max(0.1, below / (below - above)))
        if high < low * (1 + 20 * _SIGMA_DIGITS):
            share = 0.5
        middle = low * (high / low) ** share
        cost = excess(middle)
        if cost > 0:
            low, below, above = middle, cost, above / 2
        else:
            high, above, below = middle, cost, below / 2
    return high


def _bracket(excess: Callable[[float], float]) -> tuple[float, float]:
    """Return a sigma that is too little, and one that is enough.

    Raises:
        InvalidValueError: none up to 10^4 is enough.
    """
    low = high = 1.0
    while excess(high) > 0:
        low, high = high, 2 * high
        if high > _SIGMA_MOST:
            raise InvalidValueError("no noise makes so many steps cost so little")
    while excess(low) <= 0:
        low, high = low / 2, low
        if low < 1 / _SIGMA_MOST:
            break
    return low, high


def _epsilon_at(order: float, rdp: float, delta: float) -> float:
    if delta**2 + math.expm1(-rdp) > 0:  # delta <= sqrt(1 - exp(-KL)), Bretagnolle & Huber 1979: epsilon 0 will do
        return 0.0
    if order <= _LEAST_ORDER:
        return math.inf
    return rdp + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


# One step at one order.


def _of_a_step(q: float, sigma: float, order: float) -> float:
    if sigma == 0:
        return math.inf
    if q == 1:
        return order / (2 * sigma**2)
    log_a = _log_a_whole(q, sigma, int(order)) if order.is_integer() else _log_a_broken(q, sigma, order)
    return log_a / (order - 1)


def _log_a_whole(q: float, sigma: float, order: int) -> float:
    """Log A for an integer order: sum over i of C(order, i) (1 - q)^(order - i) q^i exp((i^2 - i) / 2 sigma^2)."""
    log_q, log_not_q = math.log(q), math.log1p(-q)
    terms = [
        _log_binomial(order, i) + i * log_q + (order - i) * log_not_q + _exponent(i, sigma) for i in range(order + 1)
    ]
    return _log_sum(terms)


def _log_a_broken(q: float, sigma: float, order: float) -> float:
    """Log A for any order: two series, one for each side of z0; infinite where they end too late to be summed."""
    log_q, log_not_q = math.log(q), math.log1p(-q)
    z0 = sigma**2 * math.log(1 / q - 1) + 0.5
    width = math.sqrt(2) * sigma
    total, last = -math.inf, (-math.inf, -math.inf)
    for i in range(_MOST_TERMS):
        j, log_binomial = order - i, _log_binomial(order, i)
        below = i * log_q + j * log_not_q + _exponent(i, sigma) + _log_erfc((i - z0) / width)
        above = j * log_q + i * log_not_q + _exponent(j, sigma) + _log_erfc((z0 - j) / width)
        both = (log_binomial + math.log(0.5) + below, log_binomial + math.log(0.5) + above)
        total = _log_sum((total, *both))
        if both[0] < last[0] and both[1] < last[1] and max(both) < total - _NEGLIGIBLE:
            return total
        last = both
        # Far enough out, terms fall as i^-(order + 2) and no faster: where that is too slow one need not wait for it.
        if i >= _TERMS_TO_JUDGE and i > abs(z0) + order + 6 * sigma:
            left = (order + 2) * math.log(_MOST_TERMS / (i - abs(z0)))
            if max(both) - left > total - _NEGLIGIBLE + 1:
                return math.inf
    return math.inf


def _exponent(i: float, sigma: float) -> float:
    return (i * i - i) / (2 * sigma**2)


def _log_binomial(n: float, k: int) -> float:
    """Log |C(n, k)|, n any number above 0."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_sum(terms: Sequence[float]) -> float:
    """Log of the sum of exp(terms)."""
    greatest = max(terms)
    if math.isinf(greatest):
        return greatest
    return greatest + math.log(math.fsum(math.exp(term - greatest) for term in terms))


def _log_erfc(x: float) -> float:
    if x < _ASYMPTOTIC:
        return math.log(math.erfc(x))
    # Abramowitz & Stegun 7.1.23.
    inverse = 1 / (2 * x * x)
    series = 1 - inverse + 3 * inverse**2 - 15 * inverse**3
    return -x * x - math.log(x * math.sqrt(math.pi)) + math.log(series)
