"""What never comes is a failure: a line, an end."""

import signal
import subprocess

import pytest

from tests.support.programs import patient, running, stop

MUTE = ["sh", "-c", "sleep 600 & sleep 600"]
"""It says nothing, and what it has started holds its output too."""
STUBBORN = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"]

Failed = pytest.fail.Exception


def test_a_program_that_says_nothing_is_killed_with_all_that_it_has_started():
    with pytest.raises(Failed, match=r"waited 0 s for .*sleep"), running(MUTE, 0.2, stdout=subprocess.PIPE) as mute:
        assert mute.stdout.read() == b""  # there is nobody left who could say anything
    assert mute.returncode == -signal.SIGKILL


def test_a_program_whose_block_fails_is_not_waited_for():
    with pytest.raises(ZeroDivisionError), running(MUTE) as mute:
        1 / 0  # noqa: B018 - it fails
    assert mute.returncode == -signal.SIGKILL


def test_a_program_that_will_not_end_is_killed():
    process = subprocess.Popen(STUBBORN, stdout=subprocess.PIPE)
    with process, patient(process):
        assert process.stdout.readline() == b"up\n"
        with pytest.raises(Failed, match="waited 0 s"):
            stop(process, 0.2)
    assert process.returncode == -signal.SIGKILL
