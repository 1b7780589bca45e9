"""A device's supervisor with messages that nobody receipts, through a round: by its core, store, spool and link."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_agent import spool as spools
from edge_agent.agent import Agent
from edge_agent.presence import begin_life
from edge_agent.spool import Spool
from edge_agent.worker import InlineWorker
from fd_protocol.topics import Topics
from fd_runtime.links.link import LinkSettings
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.storage.store import Store
from tests.edge_agent.builders import FEDERATION
from tests.edge_agent.wire import PROFILE, ScriptedModel
from tests.faults.marks import marked, marks

MESSAGES = 6
DEVICE = PROFILE.device
TOPICS = Topics(FEDERATION)
TOPIC = TOPICS.device(DEVICE, "prediction")


def act(state: str, port: int, seen: str) -> int:
    """Say what has not been said yet, take part in a round, and end when nothing waits; a mark for what is kept."""
    save = Spool._save

    def tells(self, number, message):
        is_kept = save(self, number, message)
        if is_kept:
            marked(seen, message.payload.decode())
        return is_kept

    Spool._save = tells
    folder = Path(state)
    folder.mkdir(exist_ok=True)
    store = Store.open(folder / "agent.db")
    begin_life(store)
    quick = {"reconnect_min_s": 0.05, "reconnect_max_s": 0.2}
    filters = Topics(FEDERATION).device_filters(DEVICE)
    settings = LinkSettings(DEVICE, port=port, manual_ack=True, only_acknowledged=True, subscriptions=filters, **quick)
    spool = Spool(folder / "outbox")
    link = MqttLink(settings)
    worker = InlineWorker(ScriptedModel().handle, link.events.put)
    agent = Agent(PROFILE, store, link, worker, lambda: time.monotonic_ns() // 1_000_000, spool=spool)
    for number in range(MESSAGES):
        if f"{number:02d}" not in marks(seen):
            agent.say(TOPIC, f"{number:02d}".encode())
            agent.pump(0)
    while agent.waiting or not Path(f"{seen}.over").exists():
        agent.pump(0.02)
    link.close()
    store.close()
    return 0


def careless(state: str, port: int, seen: str) -> int:
    """A device that takes a message from its outbox when it hands it to the link: for the harness to find out."""
    send = Spool.send

    def at_once(self, link, now_ms):
        for number, entry in self._entries.items():
            if entry.message is None:
                entry.message = spools._read(self._path(number))
                self._path(number).unlink()
        send(self, link, now_ms)

    Spool.send = at_once
    return act(state, port, seen)


def without_sync(state: str, port: int, seen: str) -> int:
    """A device that believes that a write is on the disk."""
    os.fsync = lambda _: None
    return act(state, port, seen)
