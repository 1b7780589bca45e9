"""Real brokers for tests. What needs Mosquitto skips, with a reason, where it is not installed."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import pytest

from broker_server.brokers.loopback import LOOPBACK, BrokerError, BrokerProcess, free_port
from broker_server.brokers.mosquitto import MosquittoSettings, find_mosquitto, mosquitto_process, write_config
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from fd_runtime.links.link import Arrived, Link, LinkEvent, LinkSettings, TlsFiles
from fd_runtime.links.mqtt_link import MqttLink

FEDERATION = "test"
AGGREGATOR = "agg-1"
DEADLINE_S = 5.0

Event = TypeVar("Event", bound=LinkEvent)


def _is_mosquitto_here() -> bool:
    try:
        find_mosquitto()
    except BrokerError:
        return False
    return True


needs_mosquitto = pytest.mark.skipif(not _is_mosquitto_here(), reason="mosquitto is not installed")


def now() -> datetime:
    return datetime.now(timezone.utc)


def next_event(link: Link, kind: type[Event] | tuple[type[Event], ...], deadline_s: float = DEADLINE_S) -> Event:
    """Return the link's next event of a kind; the others before it are dropped."""
    end_s = time.monotonic() + deadline_s
    while True:
        event = link.events.get(timeout=max(0.0, end_s - time.monotonic()))
        if isinstance(event, kind):
            return event


def topics_until(link: Link, last: str) -> list[str]:
    """Return the topics of what arrives, up to and with `last`."""
    topics = [next_event(link, Arrived).topic]
    while topics[-1] != last:
        topics.append(next_event(link, Arrived).topic)
    return topics


@contextmanager
def links(port: int, *settings: LinkSettings) -> Iterator[list[MqttLink]]:
    """Links to a broker on `port` that come back in a blink and are closed at the end."""
    quick = [replace(one, port=port, reconnect_min_s=0.05, reconnect_max_s=0.2) for one in settings]
    opened = [MqttLink(one) for one in quick]
    try:
        yield opened
    finally:
        for link in opened:
            link.close()


def plain_mosquitto(folder: Path, *lines: str) -> BrokerProcess:
    """A Mosquitto that lets everybody in, with `lines` more in its configuration."""
    port = free_port()
    config = folder / "plain.conf"
    text = [f"user {getpass.getuser()}", f"listener {port} {LOOPBACK}", "allow_anonymous true", *lines]
    config.write_text("\n".join([*text, ""]))
    return mosquitto_process(config, port)


@dataclass(frozen=True, slots=True)
class Fleet:
    """An authority, the certificates it issued, and the broker that asks for them."""

    authority: Authority
    folder: Path
    broker: BrokerProcess

    def identity(self, name: str, role: Role = Role.DEVICE) -> TlsFiles:
        return self.authority.issue(Identity(name, role), self.folder / name, now=now())

    def settings(self, name: str, *subscriptions: str, role: Role = Role.DEVICE) -> LinkSettings:
        return LinkSettings(name, host="localhost", tls=self.identity(name, role), subscriptions=subscriptions)


def make_fleet(
    folder: Path, *, crl_age: timedelta = timedelta(), names: tuple[str, ...] = (), guard: Path | None = None
) -> Fleet:
    """Make an authority and a broker with the shipped configuration, also under other `names`, not started yet."""
    authority = Authority.create(folder / "ca", fleet=FEDERATION, now=now() - crl_age)
    identity = Identity("broker", Role.BROKER, ("localhost", LOOPBACK, *names))
    tls = authority.issue(identity, folder / "broker", now=now())
    port = free_port()
    settings = MosquittoSettings(
        folder / "broker", tls, authority.crl_path, port=port, user=getpass.getuser(), guard=guard
    )
    config = write_config(settings, federation=FEDERATION, aggregator=AGGREGATOR)
    return Fleet(authority, folder, mosquitto_process(config, port))
