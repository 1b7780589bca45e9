"""Waiting for other processes."""

from __future__ import annotations

import time

PATIENCE_S = 120.0
_LOOK_S, _LONGEST_S = 0.005, 0.25


def wait_until(claim, patience_s=PATIENCE_S):
    """Return the first truthy value of `claim()`; a machine under load gets much time, a broken program a failure.

    Looks take a third of the time at most: who waits shall not take a processor from those that are waited for.
    """
    end_s = time.monotonic() + patience_s
    while True:
        begun_s = time.monotonic()
        if value := claim():
            return value
        now_s = time.monotonic()
        assert now_s < end_s, f"never came true: {claim}"
        time.sleep(max(_LOOK_S, min(_LONGEST_S, 2 * (now_s - begun_s))))
