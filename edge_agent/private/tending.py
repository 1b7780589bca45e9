"""What grows old does so on a device where nothing comes in, too: a thread that looks now and then."""

from __future__ import annotations

import logging
import threading

from edge_agent.private.store import PrivateStore
from fd_runtime.storage.store import StoreError

EVERY_S = 3600.0

log = logging.getLogger("edge-agent")


def tend(store: PrivateStore, stop: threading.Event, every_s: float = EVERY_S) -> None:
    """Let old rows expire, and what the disk did not take before, every so many seconds, until `stop`.

    The body of a thread.
    """
    while not stop.wait(every_s):
        try:
            gone = store.tidy()
        except StoreError as error:
            log.warning("old rows stay for now: %s", error)
            continue
        if gone:
            log.info("%d private rows have grown too old and are deleted", gone)
