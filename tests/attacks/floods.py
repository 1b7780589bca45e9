"""Attacks on what a broker has little of: connections, memory, time. By anybody, or by a certified device."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack

from paho.mqtt.properties import Properties

from fd_runtime.links import mqtt_connection
from fd_runtime.links.link import Arrived, LinkUp
from tests.attacks.entry import CHOSEN_IDS
from tests.attacks.ground import (
    MALLORY,
    MARK,
    PUPPETEER,
    TOPICS,
    Ground,
    Seen,
    Weakening,
    ground,
    said,
    without,
)
from tests.attacks.raw import (
    DISCONNECT,
    SESSION_EXPIRY,
    SUBACK,
    HungUpError,
    RawClient,
    connect,
    packet,
    publish,
    subscribe,
    tcp_socket,
    text,
    tls_socket,
    user_properties,
    varint,
)
from tests.attacks.row import Attack
from tests.support.brokers import links, next_event

HOUR = bytes((SESSION_EXPIRY,)) + (3600).to_bytes(4, "big")
HELLO_HALF = bytes.fromhex("16030100c8010000c40303") + bytes(20)
"""A TLS record that announces 200 bytes and has 31 of them."""


def _served(stage: Ground, says: str) -> Seen:
    """Say `says`, unless a bystander is no longer served."""
    is_served = stage.is_open_to(tries=3)
    return Seen(says if is_served else "nobody is served", got_through=not is_served)


# Connections.


def half_open(stage: Ground, count: int = 1_000) -> Seen:
    with ExitStack() as stack:
        opened = 0
        for _ in range(count):
            with contextlib.suppress(OSError):
                stack.enter_context(tcp_socket(stage.port))
                opened += 1
        return _served(stage, f"{opened} stay open, and wait")


def endless_handshake(stage: Ground, count: int = 200) -> Seen:
    with ExitStack() as stack:
        sockets = [stack.enter_context(tcp_socket(stage.port)) for _ in range(count)]
        for one in sockets:
            with contextlib.suppress(OSError):
                one.sendall(HELLO_HALF)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.sendall(b"\0")
        return _served(stage, f"{count} stay open, and wait")


def endless_connect(stage: Ground, count: int = 60) -> Seen:
    """Certified, each says half of a CONNECT."""
    half = connect("mallory" * 9)[:-20]
    with ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                one = stack.enter_context(tls_socket(stage.port, stage.files(MALLORY)))
                one.sendall(half)
        return _served(stage, f"{count} stay open, and wait")


def connection_flood(stage: Ground, count: int = 60) -> Seen:
    """Many connections by one certificate, under as many ids."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(RawClient(stage.port, stage.files(MALLORY), connect(f"mallory-{number}")))
            for number in range(count)
        ]
        alive = sum(client.is_alive() for client in clients)
    return Seen(f"{alive} of {count} stand", got_through=alive > 1)


def hoarded_sessions(stage: Ground, count: int = 20) -> Seen:
    """Have sessions of an hour under as many ids; end the first, and see which others are still there."""
    for number in range(count):
        RawClient(stage.port, stage.files(MALLORY), connect(f"hoard-{number}", props=HOUR)).close()
    present = 0
    for number in range(count):
        with RawClient(stage.port, stage.files(MALLORY)) as client:
            client.send(connect(f"hoard-{number}", clean=number == 0))
            present += client.receive().body[0]
    return Seen(f"{1 + present} of {count} are kept", got_through=present > 0)


# Packets.


def oversized(stage: Ground) -> Seen:
    """Say how long it is, then send it: what comes after a refusal has the kernel throw that away unread (RST)."""
    stage.listen()
    whole = publish(TOPICS.report(MALLORY), MARK + bytes(300_000))
    with stage.client() as client:
        client.send(whole[:64])
        try:
            came = client.receive(timeout_s=2.0)
        except TimeoutError:
            return Seen(said(client, whole[64:]), got_through=bool(stage.marked()))
        return Seen(f"DISCONNECT {came.reason:#x}", got_through=came.kind != DISCONNECT)


def endless(stage: Ground) -> Seen:
    """Announce 256 MB, and send as much as is taken."""
    before = stage.broker_mb()
    sent = 0
    with stage.client() as client:
        client.socket.settimeout(2.0)
        try:
            client.send(b"\x32" + varint(268_435_455) + text(TOPICS.report(MALLORY)) + b"\0\1\0")
            for _ in range(500):
                client.send(bytes(65_536))
                sent += 65_536
        except (HungUpError, TimeoutError):
            pass
        grown = stage.broker_mb() - before
    return Seen("hung up" if sent < 30_000_000 else "all is taken", got_through=grown > 20)


def doubled_ids(stage: Ground, count: int = 12_000) -> Seen:
    """Publish with QoS 2 and one packet id again and again, never ending it."""
    before = stage.broker_mb()
    with stage.client() as client:
        client.socket.settimeout(30)
        for start in range(0, count, 500):
            ids = range(1 + start, 501 + start) if stage.is_weak else [1] * 500
            with contextlib.suppress(HungUpError):
                client.send(
                    b"".join(publish(TOPICS.report(MALLORY), bytes(1_000), qos=2, packet_id=one) for one in ids)
                )
                client.heard()
        grown = stage.broker_mb() - before
    return Seen("nothing is kept" if grown < 10 else "all is kept", got_through=grown >= 10)


def property_bomb(stage: Ground) -> Seen:
    """Publish with thousands of user properties: whoever listens reads them all."""
    read: list[int] = []
    unpack, bare = Properties.unpack, mqtt_connection.bare

    def noted(self: Properties, buffer: bytes) -> tuple[Properties, int]:
        found = unpack(self, buffer)
        read.append(found[1])
        return found

    Properties.unpack = noted
    if stage.is_weak:
        mqtt_connection.bare = lambda _command, body: body
    try:
        with links(stage.port, stage.fleet.settings(PUPPETEER, TOPICS.report("+"))) as [link]:
            next_event(link, LinkUp)
            answer = stage.publish(TOPICS.report(MALLORY), MARK, props=user_properties(4_000))
            while next_event(link, Arrived, 30).payload != MARK:  # the victim reports too
                pass
    finally:
        Properties.unpack, mqtt_connection.bare = unpack, bare
    return Seen(answer, got_through=max(read) > 1_000)


def never_acknowledged(stage: Ground, megabytes: int = 76) -> Seen:
    """Subscribe, say that one packet may be under way, read and acknowledge nothing: what is for us piles up."""
    topic, one_mb = TOPICS.receipt(MALLORY), 4
    with RawClient(stage.port, stage.files(MALLORY), connect(props=HOUR + b"\x21\0\1")) as client:
        client.send(packet(8, b"\0\1\0" + text(topic) + b"\1", 2))
        client.answer(SUBACK)
    stage.deafen()
    before = stage.broker_mb()
    with stage.client(PUPPETEER) as server:
        for number in range(megabytes * one_mb):
            assert said(server, publish(topic, bytes(1_000_000 // one_mb), packet_id=1 + number)) == "PUBACK 0x0"
    grown = stage.broker_mb() - before
    stage.client(MALLORY).close()  # a clean start throws it away
    return Seen("64 MB wait" if grown < 70 else "all of it waits", got_through=grown >= 70)


def subscription_flood(stage: Ground) -> Seen:
    """Subscribe to long filters until the broker has no memory for more; here it has 32 MB."""
    control = Weakening("", without("memory_limit")) if stage.is_weak else None
    with ground(stage.folder / "small", control, memory_mb=32) as small, small.client() as client:
        answer = "granted without end"
        for number in range(300):
            try:
                client.send(subscribe(*(f"{number}x{part}/{'a' * 60_000}" for part in range(4))))
                client.answer(SUBACK)
            except HungUpError as error:
                answer = str(error)
                break
        grown = small.broker_mb()
        is_served = small.is_open_to(tries=3)
    return Seen(answer, got_through=grown > 60 or not is_served)


FEW = Weakening("`max_connections 50`", without("max_connections", more="max_connections 50"))
ANY_SIZE = Weakening("no `max_packet_size`", without("max_packet_size"))

ROWS = (
    Attack("1,000 half-open connections", "connect by TCP and say nothing", "1000 stay open, and wait", half_open, FEW),
    Attack(
        "TLS handshake without end",
        "200 connections say half a ClientHello",
        "200 stay open, and wait",
        endless_handshake,
        FEW,
    ),
    Attack(
        "CONNECT without end",
        "60 certified connections say half a CONNECT",
        "60 stay open, and wait",
        endless_connect,
        FEW,
    ),
    Attack(
        "connection flood",
        "one certificate connects 60 times under as many ids",
        "1 of 60 stand",
        connection_flood,
        CHOSEN_IDS,
    ),
    Attack(
        "hoarded sessions",
        "one certificate keeps sessions of an hour under 20 ids",
        "1 of 20 are kept",
        hoarded_sessions,
        CHOSEN_IDS,
    ),
    Attack("oversized packet", "publish 300 kB", "DISCONNECT 0x95", oversized, ANY_SIZE),
    Attack("endless packet", "announce 256 MB and send them", "hung up", endless, ANY_SIZE),
    Attack(
        "doubled QoS 2 ids",
        "publish 12,000 times with one packet id and never end it",
        "nothing is kept",
        doubled_ids,
        Weakening(
            "an id each, no `max_qos`, no limit under way",
            without("max_qos", "max_inflight_messages", more="max_inflight_messages 0"),
        ),
    ),
    Attack(
        "user properties",
        "publish with 4,000 of them",
        "PUBACK 0x0",
        property_bomb,
        Weakening("properties read by paho"),
    ),
    Attack(
        "nothing acknowledged",
        "have 76 MB sent, receive maximum 1, and read nothing",
        "64 MB wait",
        never_acknowledged,
        Weakening("no `max_queued_bytes`", without("max_queued_bytes")),
    ),
    Attack(
        "subscription flood",
        "subscribe to 60 kB filters until the broker's memory is full",
        "DISCONNECT 0x80",
        subscription_flood,
        Weakening("no `memory_limit`"),
    ),
)
