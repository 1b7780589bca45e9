"""What programs would warn of is simulated, asked for, or in the results here: it would spoil the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRAMS = ("broker-server", "edge-agent", "model-export", "fedistill")


@contextmanager
def only_errors() -> Iterator[None]:
    """Hear nothing but errors of the programs' own loggers, in this process, while it lasts."""
    loggers = [logging.getLogger(name) for name in _PROGRAMS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
