"""The gate lets through what is better, and of equals no more than its level says."""

import numpy as np
import pytest

from broker_server.core.release_gate import ReleaseGate, sign_test
from fd_protocol.errors import InvalidValueError


def answers(right: int, wrong: int) -> np.ndarray:
    return np.array([True] * right + [False] * wrong)


def test_the_test_is_exact():
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(4, 1) == (5 + 1) / 32
    assert sign_test(0, 5) == 1.0


def test_only_canaries_on_which_they_differ_count():
    released, student = answers(50, 50), answers(56, 44)
    verdict = ReleaseGate(margin=0.05).judge(released, student)
    assert (verdict.gained, verdict.lost, verdict.gain, verdict.p) == (6, 0, pytest.approx(0.06), 1 / 64)
    assert verdict.is_better
    agreed = answers(1000, 0)
    more = ReleaseGate().judge(np.append(released, agreed), np.append(student, agreed))
    assert (more.gained, more.lost, more.p) == (6, 0, 1 / 64)


def test_what_is_sure_but_small_is_not_released():
    released = answers(900, 100)
    student = released.copy()
    student[900:906] = True
    assert ReleaseGate(margin=0.006).judge(released, student).is_better
    assert not ReleaseGate(margin=0.01).judge(released, student).is_better


def test_what_is_large_but_unsure_is_not_released():
    assert not ReleaseGate().judge(answers(8, 4), answers(12, 0)).is_better
    assert ReleaseGate().judge(answers(7, 5), answers(12, 0)).is_better


def test_a_worse_student_never_passes():
    verdict = ReleaseGate(margin=0.0, level=0.5).judge(answers(9, 1), answers(5, 5))
    assert verdict.gain == pytest.approx(-0.4)
    assert not verdict.is_better


def test_of_equal_students_no_more_pass_than_the_level_says():
    rng, gate = np.random.default_rng(0), ReleaseGate(margin=0.0, level=0.05)
    passed = [gate.judge(rng.random(200) < 0.8, rng.random(200) < 0.8).is_better for _ in range(2000)]
    assert np.mean(passed) < 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_answers_to_other_canaries_cannot_be_paired():
    for other in (answers(3, 0), answers(0, 0)):
        with pytest.raises(InvalidValueError, match="paired"):
            ReleaseGate().judge(other, answers(0, 0))
