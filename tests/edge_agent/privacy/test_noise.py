import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from edge_agent.privacy.noise import NoiseStream
from fd_protocol.identity import sha256

KEY, TRAINING = bytes(range(32)), sha256(b"training")
STREAM = NoiseStream(KEY, TRAINING)


def test_the_same_key_training_and_step_give_the_same_draws():
    again = NoiseStream(KEY, TRAINING)
    np.testing.assert_array_equal(STREAM.normal(3, 1001, 2.0), again.normal(3, 1001, 2.0))
    np.testing.assert_array_equal(STREAM.lot(3, 1001, 0.3), again.lot(3, 1001, 0.3))


@pytest.mark.parametrize(
    "other", [NoiseStream(bytes(32), TRAINING), NoiseStream(KEY, sha256(b"other rows"))], ids=["key", "training"]
)
def test_another_key_or_training_gives_draws_that_have_nothing_in_common(other):
    ours, theirs = STREAM.normal(0, 20_000, 1.0), other.normal(0, 20_000, 1.0)
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.03
    assert not np.intersect1d(ours[:100], theirs[:100]).size


def test_steps_and_purposes_have_nothing_in_common():
    for ours, theirs in [(STREAM.normal(0, 9999, 1.0), STREAM.normal(1, 9999, 1.0))]:
        assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.04
    lots = [STREAM.lot(step, 9999, 0.5) for step in (0, 1)]
    assert abs(np.corrcoef(*lots)[0, 1]) < 0.04


@pytest.mark.parametrize("deviation", [0.25, 1.0, 40.0])
def test_noise_is_normal_with_the_deviation_that_was_asked_for(deviation):
    draws = STREAM.normal(5, 200_000, deviation)
    assert draws.dtype == np.float32
    assert draws.mean() == pytest.approx(0, abs=4 * deviation / math.sqrt(len(draws)))
    assert draws.std() == pytest.approx(deviation, rel=0.01)
    assert stats.kstest(draws.astype(np.float64) / deviation, "norm").pvalue > 0.001


def test_neighbouring_draws_are_independent():
    draws = STREAM.normal(5, 200_000, 1.0)
    for distance in (1, 2, 3, 100_000):
        assert abs(np.corrcoef(draws[:-distance], draws[distance:])[0, 1]) < 0.01
        assert abs(np.corrcoef(draws[:-distance] ** 2, draws[distance:] ** 2)[0, 1]) < 0.01


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_any_number_of_draws_can_be_had(rows):
    assert STREAM.normal(0, rows, 1.0).shape == STREAM.lot(0, rows, 0.5).shape == (rows,)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_a_lot_is_a_poisson_sample(rate):
    """Each row by itself: sizes are binomial, and no two rows go together."""
    lots = np.array([STREAM.lot(step, 40, rate) for step in range(4000)])
    assert lots.mean(axis=0) == pytest.approx(rate, abs=0.035)
    sizes = lots.sum(axis=1)
    assert sizes.mean() == pytest.approx(40 * rate, abs=0.3)
    assert sizes.var() == pytest.approx(40 * rate * (1 - rate), rel=0.12)
    together = np.corrcoef(lots.T) - np.eye(40)
    assert np.abs(together).max() < 0.08


def test_at_rate_one_every_row_joins_every_lot():
    assert all(STREAM.lot(step, 1000, 1.0).all() for step in range(20))


def test_draws_are_bytes_of_shake_256_of_the_key():
    """The first draw written out by hand: another generator, or another order, would change what a restart repeats."""
    stream = hashlib.shake_256(b"fedistill noise\n" + KEY + TRAINING + bytes(7) + b"\x02" + b"noise").digest(8 * 8)
    words = [int.from_bytes(stream[start : start + 8], "little") >> 11 for start in range(0, 64, 8)]
    uniform = [(word + 1) / 2**53 for word in words]
    radii, angles = uniform[:4], uniform[4:]
    normals = [math.sqrt(-2 * math.log(r)) * math.cos(2 * math.pi * a) for r, a in zip(radii, angles, strict=True)]
    assert STREAM.normal(2, 1, 3.0)[0] == pytest.approx(3.0 * sum(normals) / 2, rel=1e-6)
