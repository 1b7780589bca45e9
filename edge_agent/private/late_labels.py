"""Labels that come long after their samples, on a topic of a local broker, keyed by sample id.

    {"id": "press-7/1732871", "label": "worn"}   or with the id as the last level of the topic, or a bare label

The session lasts two weeks: what is said while the device is off is heard when it is back. A message is acknowledged
when its label is on the disk, or can never be: no JSON, no such class, no such sample any more.
"""

from __future__ import annotations

import json
import logging
import threading
from queue import Empty
from typing import Any

from edge_agent.json_paths import NOTHING, find
from edge_agent.private.settings import LateLabelSettings
from edge_agent.private.store import PrivateStore
from fd_protocol.errors import FedistillError
from fd_protocol.manifest import Task
from fd_runtime.links.link import Arrived, Link, LinkDown, LinkSettings, LinkUp
from fd_runtime.samples import class_number
from fd_runtime.storage.store import StoreError

SESSION_S = 14 * 24 * 3600
_RETRY_S = 5.0
_POLL_S = 1.0

log = logging.getLogger("edge-agent")


class BadLabelError(FedistillError):
    """A message is no label of a sample."""


def link_settings(settings: LateLabelSettings, client_id: str) -> LinkSettings:
    """Raises: OSError: the password cannot be read."""
    return settings.broker.link(client_id, (settings.topic,), session_s=SESSION_S, manual_ack=True)


def read(topic: str, payload: bytes, settings: LateLabelSettings, task: Task) -> tuple[str, int]:
    """Return sample id and class number of a message.

    Raises:
        BadLabelError: it has none.
        LabelError: the task has no such class.
    """
    text = payload.decode("utf-8", "replace")
    try:
        document: Any = json.loads(text) if settings.label else text
    except (ValueError, RecursionError) as error:
        raise BadLabelError(f"no JSON: {error}") from error
    sample_id = find(document, settings.id) if settings.id else topic.rpartition("/")[2]
    label = find(document, settings.label) if settings.label else text
    if not isinstance(sample_id, (str, int)) or isinstance(sample_id, bool) or label is NOTHING or label is None:
        raise BadLabelError(f"no {settings.id!r} or no {settings.label!r} in it")
    return str(sample_id), class_number(label, task)


def listen(link: Link, settings: LateLabelSettings, task: Task, store: PrivateStore, stop: threading.Event) -> None:
    """Take labels in until `stop`; the link is closed then. The body of a thread."""
    try:
        while not stop.is_set():
            try:
                event = link.events.get(timeout=_POLL_S)
            except Empty:
                continue
            match event:
                case Arrived():
                    if _take(event, settings, task, store, stop):
                        link.ack(event)
                case LinkUp():
                    log.info("late labels: connected")
                case LinkDown(reason):
                    log.warning("late labels: not connected: %s", reason)
    finally:
        link.close()


def _take(
    arrived: Arrived, settings: LateLabelSettings, task: Task, store: PrivateStore, stop: threading.Event
) -> bool:
    """Return whether nobody needs to say it again: it is kept, or of no use."""
    try:
        sample_id, label = read(arrived.topic, arrived.payload, settings, task)
    except FedistillError as error:
        log.warning("late labels: dropped a message on %s: %s", arrived.topic, error)
        return True
    while True:
        try:
            if not store.label(sample_id, label, by=arrived.topic):
                log.info("late labels: a label came for a sample that is not here (any more)")
        except StoreError as error:  # a full disk: worth waiting for
            log.warning("late labels: %s", error)
            if stop.wait(_RETRY_S):
                return False
        else:
            return True
