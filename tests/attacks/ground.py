"""The ground of an attack: a real Mosquitto as we ship it, or with one line taken out; who is around; what they hold.

`Observer` hears everything that the broker delivers under `fd/`, by two lines that the ACL of these tests has besides:
it is how a row knows that something got through, and gives an attacker nothing.

What is deliberately absent: the server and the devices that are attacked (`victims`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from broker_server.identity.certificates import Role
from fd_protocol.topics import Topics
from fd_runtime.links.link import TlsFiles
from tests.attacks.raw import (
    DISCONNECT,
    PUBACK,
    SUBACK,
    HungUpError,
    Packet,
    RawClient,
    connect,
    publish,
    subscribe,
)
from tests.support.brokers import FEDERATION, Fleet, make_fleet

TOPICS = Topics(FEDERATION)
MALLORY, VICTIM, WITNESS, OBSERVER, PUPPETEER = "mallory", "dev-1", "witness", "observer", "puppeteer"
"""A certified device that attacks; the device that is attacked; a bystander; who hears all; who may also write all."""
MARK = b"forged by mallory"


@dataclass(frozen=True, slots=True)
class Weakening:
    """What is taken from the shipped product so that an attack must succeed; `conf` edits mosquitto.conf."""

    says: str
    conf: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attacker saw, and whether they got what they wanted."""

    says: str
    got_through: bool = False


def without(*options: str, more: str = "") -> Callable[[str], str]:
    """Return an edit of mosquitto.conf that drops options and adds a line."""

    def edit(conf: str) -> str:
        kept = [line for line in conf.splitlines() if line.partition(" ")[0] not in options]
        assert len(kept) < len(conf.splitlines()) or not options, f"the shipped configuration lacks {options}"
        return "\n".join([*kept, *more.splitlines(), ""])

    return edit


@dataclass(slots=True)
class Ground:
    """A broker and its fleet; `is_weak` says that an attacker has been given what the row's control gives."""

    fleet: Fleet
    folder: Path
    is_weak: bool = False
    observer: RawClient | None = None
    _files: dict[str, TlsFiles] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.fleet.broker.port

    def files(self, name: str, role: Role = Role.DEVICE) -> TlsFiles:
        """Return the certificate of a member of the fleet, always the same one."""
        if name not in self._files:
            self._files[name] = self.fleet.identity(name, role)
        return self._files[name]

    def client(self, name: str = MALLORY, **how: object) -> RawClient:
        """Return a client with the certificate of `name`, connected."""
        return RawClient(self.port, self.files(name), connect(name, **how))

    def publish(self, topic: str | bytes, payload: bytes = MARK, *, name: str = MALLORY, **how: object) -> str:
        """Publish once over a connection of its own; return what the broker says to it."""
        with self.client(name) as client:
            return said(client, publish(topic, payload, **how))

    def listen(self) -> None:
        """Let the observer forget what it has heard."""
        if self.observer is None:
            self.observer = self.client(OBSERVER, keepalive_s=600)
            self.observer.send(subscribe("fd/#"))
            self.observer.answer(SUBACK)
        self.observer.heard()

    def deafen(self) -> None:
        """Take the observer away: what it does not read would wait for it in the broker's memory."""
        if self.observer is not None:
            self.observer.close()
            self.observer = None

    def heard(self) -> list[tuple[str, bytes]]:
        """Return what the observer has heard since: all that the broker took before this call."""
        assert self.observer is not None
        return self.observer.heard()

    def marked(self) -> list[str]:
        """Return the topics on which the observer heard an attacker's mark."""
        return [topic for topic, payload in self.heard() if MARK in payload]

    def is_open_to(self, name: str = WITNESS, tries: int = 1) -> bool:
        """Whether a bystander gets in and is served."""
        for _ in range(tries):
            try:
                answer = self.publish(TOPICS.report(name), b"still here", name=name, packet_id=7)
            except (HungUpError, TimeoutError, OSError):
                time.sleep(0.05)
            else:
                return answer in ("PUBACK 0x0", "PUBACK 0x10")  # 0x10: nobody listens
        return False

    def broker_mb(self) -> float:
        """Memory that the broker has, in MB."""
        process = self.fleet.broker._process
        assert process is not None
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def said(client: RawClient, data: bytes) -> str:
    """Send, and return in words how the broker answers a publish."""
    try:
        client.send(data)
        while True:
            came: Packet = client.receive()
            if came.kind == PUBACK:
                return f"PUBACK {came.reason:#x}"
            if came.kind == DISCONNECT:
                return f"DISCONNECT {came.reason:#x}"
    except HungUpError:
        return "hung up"
    except TimeoutError:
        return "nothing"


@contextmanager
def ground(
    folder: Path, weakening: Weakening | None = None, *, memory_mb: int = 0, guard: Path | None = None
) -> Iterator[Ground]:
    """Start a broker as it is shipped, with a weakening or a guard; `memory_mb` is what its machine lets it have."""
    folder.mkdir(parents=True, exist_ok=True)
    fleet = make_fleet(folder, guard=guard)
    acl, conf = folder / "broker" / "acl", folder / "broker" / "mosquitto.conf"
    more = f"\nuser {OBSERVER}\ntopic read fd/#\n\nuser {PUPPETEER}\ntopic readwrite fd/#\n"
    acl.write_text(acl.read_text() + more)
    if weakening is not None and weakening.conf is not None and not memory_mb:
        conf.write_text(weakening.conf(conf.read_text()))
    if memory_mb:
        text = without("memory_limit", more=f"memory_limit {memory_mb << 20}")(conf.read_text())
        conf.write_text(weakening.conf(text) if weakening is not None and weakening.conf is not None else text)
    made = Ground(replace(fleet, folder=folder), folder, is_weak=weakening is not None)
    with fleet.broker:
        yield made
        if made.observer is not None:
            made.observer.close()
