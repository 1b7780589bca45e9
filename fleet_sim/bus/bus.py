"""A broker in memory: MQTT 5 at QoS 1, as `fd_runtime.links.link` promises it, moved by hand and broken by dice.

    broker = InMemoryBroker(rng, Faults(loss=0.1))
    link = broker.link(LinkSettings("kettle", subscriptions=(...,)))     a program's end, a `fd_runtime.links.link.Link`
    while broker.turn(): ...                                             one step of every message under way

Nothing moves outside `turn`, nothing depends on time or threads: equal seeds give equal histories. Kept from MQTT:
sessions that queue while a client is away, and expire; retained messages, wills, redelivery of what was not
acknowledged, message expiry, the receive maximum, order within a topic.

What is deliberately absent: ACLs and TLS (the tests of the real broker have them), QoS 0 and 2, `$share`, will delays
(a will is due at once, the harder case).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import (
    MESSAGE_EXPIRED,
    PACKET_TOO_LARGE,
    Arrived,
    LinkDown,
    LinkSettings,
    LinkUp,
    Published,
    PublishRefused,
)
from fleet_sim.bus.link import BusLink, Line, Message
from fleet_sim.bus.retained import Retained
from fleet_sim.bus.topic_tree import TopicTree


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, each a probability per message.

    Attributes:
        loss: a connection breaks under a publish; in one half of the cases the broker has it and its answer is lost.
        duplicate: a message is delivered twice.
        reorder: a message overtakes those of other topics.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= p < 1 for p in (self.loss, self.duplicate, self.reorder)):
            raise InvalidValueError("a fault's probability lies in [0, 1)")


@dataclass(slots=True)
class _Session:
    """What the broker keeps of a client, connected or not; `expires_at_s` is infinite while it is connected."""

    settings: LinkSettings
    expires_at_s: float = math.inf
    queue: deque[Message] = field(default_factory=deque)
    unacked: dict[int, Message] = field(default_factory=dict)


class InMemoryBroker:
    """Holds sessions and retained messages; `turn` moves what is under way.

    Attributes:
        sent_bytes, received_bytes: packets by client id, as they would lie on the wire (publishes alone).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        faults: Faults | None = None,
        *,
        now_s: Callable[[], float] = lambda: 0.0,
        max_packet_bytes: int = 65_536 + 1024,
    ) -> None:
        self.sent_bytes: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.faults = faults or Faults()
        self._rng = rng
        self._now_s = now_s
        self._max_packet_bytes = max_packet_bytes
        self._tokens = itertools.count(1)
        self._links: dict[str, BusLink] = {}
        self._sessions: dict[str, _Session] = {}
        self._listeners: TopicTree[str] = TopicTree()
        self._retained = Retained()
        self._is_running = True

    @property
    def retained(self) -> Mapping[str, bytes]:
        return {message.topic: message.payload for message in self._retained}

    def link(self, settings: LinkSettings, line: Line | None = None) -> BusLink:
        """Return a new client's end, over `line`; an older one of the same client id is dead from now on."""
        self.kill(settings.client_id)
        link = self._links[settings.client_id] = BusLink(settings, self._tokens, self._now_s, line)
        return link

    def kill(self, client_id: str) -> None:
        """A program dies without a word: what it had not handed over is gone, its will is published."""
        link = self._links.pop(client_id, None)
        if link is not None:
            self._disconnect(link, "killed")

    def cut(self, client_id: str) -> None:
        """A connection breaks; both sides live, and the link connects again in the next turn."""
        self._disconnect(self._links[client_id], "connection reset")

    def stop(self, *, forget: bool = False) -> None:
        """The broker goes away; with `forget` its retained messages and sessions do not survive."""
        self._is_running = False
        for link in self._links.values():
            self._fall(link, "broker gone")
        if forget:
            self._retained, self._listeners = Retained(), TopicTree()
            self._sessions.clear()

    def start(self) -> None:
        self._is_running = True

    def turn(self) -> bool:
        """Let every client connect, send and receive what is due, in an order drawn anew. False: nothing was due."""
        if not self._is_running:
            self._tell_the_unconnected()
            return False
        links = list(self._links.values())
        if self.faults.reorder:
            self._rng.shuffle(links)
        return bool(sum(self._serve(link) for link in links))

    def _serve(self, link: BusLink) -> int:
        """Return how many things moved for one client."""
        if link.is_closed:
            return self._goodbye(link)
        if link.line is not None and link.line.is_down:
            return self._lose(link)
        if not link.is_up:
            self._connect(link)
            return 1
        return self._take_acks(link) + self._take_publishes(link) + self._deliver(link)

    def _lose(self, link: BusLink) -> int:
        """The line is down: a connection breaks, and none is made."""
        was_up = link.is_up
        if was_up:
            self._disconnect(link, "no network")
        return int(was_up)

    def _connect(self, link: BusLink) -> None:
        client = link.settings.client_id
        session = self._session_of(client)
        link.is_up, link.was_told = True, False
        link.acks.clear()
        link.events.put(LinkUp(session is not None, self._max_packet_bytes))
        fresh = self._subscribe(client, link.settings)
        if session is not None:
            left = (*session.unacked.values(), *session.queue)
            fresh.queue.extend(message for message in left if not message.retain)  # those come anew, below
        fresh.queue.extend(self._retained.matching(link.settings.subscriptions))

    def _session_of(self, client: str) -> _Session | None:
        """Return what is kept of a client; None: nothing, or not any more."""
        session = self._sessions.get(client)
        return session if session is not None and session.expires_at_s > self._now_s() else None

    def _subscribe(self, client: str, settings: LinkSettings) -> _Session:
        """Return a fresh session in the place of the client's last one."""
        last = self._sessions.get(client)
        for pattern in set(last.settings.subscriptions) if last else ():
            self._listeners.remove(pattern, client)
        for pattern in settings.subscriptions:
            self._listeners.add(pattern, client)
        session = self._sessions[client] = _Session(settings)
        return session

    def _take_acks(self, link: BusLink) -> int:
        session, taken = self._sessions[link.settings.client_id], len(link.acks)
        for token in link.acks:
            session.unacked.pop(token, None)
        link.acks.clear()
        return taken

    def _take_publishes(self, link: BusLink) -> int:
        taken = 0
        while link.outbox and link.is_up:
            token, message = next(iter(link.outbox.items()))
            if link.line is not None and not link.line.carried_up(message.packet_bytes):
                break
            taken += 1
            self._take_publish(link, token, message)
        return taken

    def _take_publish(self, link: BusLink, token: int, message: Message) -> None:
        refusal = self._refusal(message)
        if refusal:
            del link.outbox[token]
            link.events.put(PublishRefused(token, refusal))
            return
        breaks = self._strikes(self.faults.loss)
        if not breaks or self._strikes(0.5):
            self.sent_bytes[link.settings.client_id] += message.packet_bytes
            self._route(message)
        if breaks:
            self._disconnect(link, "connection reset")
        else:
            del link.outbox[token]
            link.events.put(Published(token))

    def _refusal(self, message: Message) -> str:
        if message.packet_bytes > self._max_packet_bytes:
            return PACKET_TOO_LARGE
        return MESSAGE_EXPIRED if message.expires_at_s <= self._now_s() else ""

    def _route(self, message: Message) -> None:
        if message.retain:
            self._retained.keep(message)
        live = Message(message.topic, message.payload, retain=False, expires_at_s=message.expires_at_s)
        for client in dict.fromkeys(self._listeners.along(message.topic)):  # a set would have no order of its own
            self._enqueue(self._sessions[client].queue, live)

    def _enqueue(self, queue: deque[Message], message: Message) -> None:
        place = len(queue)
        if self._strikes(self.faults.reorder):
            after_own_topic = max((i + 1 for i, other in enumerate(queue) if other.topic == message.topic), default=0)
            place = int(self._rng.integers(after_own_topic, len(queue) + 1))
        for _ in range(1 + self._strikes(self.faults.duplicate)):
            queue.insert(place, message)

    def _deliver(self, link: BusLink) -> int:
        session, delivered = self._sessions[link.settings.client_id], 0
        while session.queue and link.is_up and len(session.unacked) < link.settings.receive_maximum:
            if link.line is not None and not link.line.carried_down(session.queue[0].packet_bytes):
                break
            message = session.queue.popleft()
            delivered += 1
            if message.expires_at_s > self._now_s():
                self._hand_over(link, session, message)
        return delivered

    def _hand_over(self, link: BusLink, session: _Session, message: Message) -> None:
        token = next(self._tokens)
        if link.settings.manual_ack:
            session.unacked[token] = message
        self.received_bytes[link.settings.client_id] += message.packet_bytes
        link.events.put(Arrived(message.topic, message.payload, message.retain, token))

    def _goodbye(self, link: BusLink) -> int:
        """What was handed over before the end is still sent."""
        taken = self._take_acks(link) + self._take_publishes(link) if link.is_up else 0
        del self._links[link.settings.client_id]
        self._fall(link, "closed")
        return taken + 1

    def _tell_the_unconnected(self) -> None:
        for link in self._links.values():
            if not link.was_told:
                link.was_told = True
                link.events.put(LinkDown("no broker"))

    def _disconnect(self, link: BusLink, reason: str) -> None:
        was_up, will = link.is_up, link.settings.will
        self._fall(link, reason)
        if was_up and will is not None and not link.is_closed:
            self._route(Message(will.topic, will.payload, retain=True, expires_at_s=math.inf))

    def _fall(self, link: BusLink, reason: str) -> None:
        if link.line is not None:
            link.line.interrupt()
        if link.is_up:
            link.is_up = False
            link.events.put(LinkDown(reason))
            session = self._sessions.get(link.settings.client_id)
            if session is not None:
                session.expires_at_s = self._now_s() + session.settings.session_expiry_s

    def _strikes(self, probability: float) -> bool:
        return probability > 0 and bool(self._rng.random() < probability)
