"""The shipped Mosquitto configuration: who gets in, and who reads and writes what."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker_server.brokers.loopback import LOOPBACK
from broker_server.identity.ca import CRL_DAYS, Authority
from broker_server.identity.certificates import Identity, Role
from fd_protocol.topics import Topics
from fd_runtime.links.link import (
    NOT_AUTHORIZED,
    PACKET_TOO_LARGE,
    Arrived,
    LinkDown,
    LinkSettings,
    LinkUp,
    Published,
    PublishRefused,
)
from tests.support.brokers import (
    AGGREGATOR,
    FEDERATION,
    Fleet,
    links,
    make_fleet,
    needs_mosquitto,
    next_event,
    now,
    topics_until,
)

pytestmark = [pytest.mark.system, needs_mosquitto]

TOPICS = Topics(FEDERATION)
OWN = ("state", "up/0", "report", "cmd/config", "prediction")
FLEET_WIDE = ("round", "consensus/0", "release/cnn-s", "probes", f"srv/{AGGREGATOR}")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = make_fleet(tmp_path)
    with fleet.broker:
        yield fleet


def aggregator(fleet: Fleet, *subscriptions: str) -> LinkSettings:
    return fleet.settings(AGGREGATOR, *subscriptions, role=Role.AGGREGATOR)


def verdict(fleet: Fleet, settings: LinkSettings, topic: str) -> Published | PublishRefused:
    with links(fleet.broker.port, settings) as [link]:
        link.publish(topic, b"x", retain=True)
        return next_event(link, (Published, PublishRefused))


def test_a_device_publishes_to_its_own_topics_and_the_aggregator_hears_it(fleet):
    with links(fleet.broker.port, aggregator(fleet, *TOPICS.server_filters()), fleet.settings("dev-1")) as [agg, dev]:
        next_event(agg, LinkUp)
        for leaf in OWN:
            dev.publish(TOPICS.device("dev-1", leaf), b"x")
            next_event(dev, Published)
        heard = topics_until(agg, TOPICS.report("dev-1"))
    assert heard == [TOPICS.device("dev-1", leaf) for leaf in ("state", "up/0", "report")]


@pytest.mark.parametrize(
    "topic",
    [
        *(TOPICS.device("dev-2", leaf) for leaf in (*OWN, "receipt")),
        *(f"{TOPICS.base}/{leaf}" for leaf in FLEET_WIDE),
        TOPICS.receipt("dev-1"),
        TOPICS.device("dev-1", "up"),
        TOPICS.device("dev-1", "up/0/1"),
        TOPICS.device("dev-1", "up/7"),
        TOPICS.device("dev-1", "cmd/anything"),
        TOPICS.device("dev-1", "anything"),
        Topics("other").state("dev-1"),
        "homeassistant/sensor/x/config",
        "$SYS/broker/uptime",
        "$CONTROL/dynamic-security/v1",
    ],
)
def test_a_device_may_write_nothing_else(fleet, topic):
    settings = fleet.settings("dev-1")
    with links(fleet.broker.port, settings) as [link]:
        refused = link.publish(topic, b"x", retain=True)
        assert next_event(link, PublishRefused) == PublishRefused(refused, NOT_AUTHORIZED)
        # Debian's Mosquitto hangs up on the offender; the link is back at once and what is allowed still goes through.
        allowed = link.publish(TOPICS.state("dev-1"), b"x")
        assert next_event(link, Published) == Published(allowed)


def test_a_device_that_subscribes_to_everything_is_delivered_nothing_foreign(fleet):
    everything = ("#", "$SYS/#", f"{TOPICS.base}/dev/+/receipt", f"$share/agg/{TOPICS.base}/dev/+/up/+")
    spy, victim = fleet.settings("dev-1", *everything), fleet.settings("dev-2")
    with links(fleet.broker.port, spy, victim, aggregator(fleet)) as [spying, speaking, agg]:
        next_event(spying, LinkUp)
        for leaf in ("state", "report", "cmd/config", "prediction"):
            speaking.publish(TOPICS.device("dev-2", leaf), b"secret", retain=True)
            next_event(speaking, Published)
        for topic in (TOPICS.receipt("dev-2"), TOPICS.receipt("dev-1"), TOPICS.round):
            agg.publish(topic, b"x", retain=True)
        heard = topics_until(spying, TOPICS.round)
    assert set(heard) == {TOPICS.receipt("dev-1"), TOPICS.round}
    with links(fleet.broker.port, replace(spy, client_id="later")) as [late]:  # retained messages, this time
        heard = topics_until(late, TOPICS.round)
    assert set(heard) <= {TOPICS.receipt("dev-1"), TOPICS.round}


def test_the_aggregator_writes_what_the_fleet_reads(fleet):
    with links(fleet.broker.port, fleet.settings("dev-1", *TOPICS.device_filters("dev-1")), aggregator(fleet)) as [
        dev,
        agg,
    ]:
        next_event(dev, LinkUp)
        for topic in (TOPICS.receipt("dev-1"), TOPICS.consensus(0), TOPICS.server(AGGREGATOR), TOPICS.round):
            agg.publish(topic, b"x")
        assert len(topics_until(dev, TOPICS.round)) == 4


def test_another_devices_client_id_takes_nothing_over(fleet):
    """The broker names a client by its certificate, whatever it calls itself."""
    victim, thief = fleet.settings("dev-1", TOPICS.receipt("dev-1")), fleet.settings("dev-2")
    with links(fleet.broker.port, victim) as [link]:
        next_event(link, LinkUp)
        with links(fleet.broker.port, replace(thief, client_id="dev-1"), aggregator(fleet)) as [stolen, agg]:
            assert not next_event(stolen, LinkUp).session_present
            agg.publish(TOPICS.receipt("dev-1"), b"x")
            assert isinstance(link.events.get(timeout=5), Arrived)


def test_a_user_name_gives_no_rights(fleet):
    posing = replace(fleet.settings("dev-1"), username=AGGREGATOR)
    assert verdict(fleet, posing, TOPICS.round) == PublishRefused(1, NOT_AUTHORIZED)


def test_a_client_without_a_certificate_is_not_even_answered(fleet):
    context = ssl.create_default_context(cafile=fleet.authority.root_path)
    with socket.create_connection((LOOPBACK, fleet.broker.port), timeout=5) as plain, pytest.raises(ssl.SSLError):
        say_hello(context.wrap_socket(plain, server_hostname="localhost"))


def say_hello(secure: ssl.SSLSocket) -> bytes:
    secure.sendall(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03spy")
    return secure.recv(100)


@pytest.mark.parametrize("case", ["foreign authority", "expired", "broker as client"])
def test_a_certificate_that_does_not_hold_is_refused_with_a_hint(fleet, case, tmp_path):
    settings = fleet.settings("dev-1")
    device = Identity("dev-9", Role.DEVICE)
    match case:
        case "foreign authority":
            foreign = Authority.create(tmp_path / "foreign", fleet="foreign", now=now())
            tls = replace(foreign.issue(device, tmp_path / "x", now=now()), ca=settings.tls.ca)
        case "expired":
            tls = fleet.authority.issue(device, tmp_path / "x", now=now() - timedelta(days=2), days=1)
        case _:
            tls = fleet.authority.issue(Identity("b", Role.BROKER, ("b",)), tmp_path / "x", now=now())
    with links(fleet.broker.port, replace(settings, tls=tls)) as [link]:
        assert "a certificate it does not accept" in link.events.get(timeout=5).reason


def is_refused(fleet: Fleet, settings: LinkSettings) -> bool:
    with links(fleet.broker.port, settings) as [link]:
        return isinstance(link.events.get(timeout=5), LinkDown)


def test_a_revoked_device_is_refused_once_the_broker_reloads_its_list(fleet):
    settings = fleet.settings("dev-1")
    with links(fleet.broker.port, settings) as [link]:
        next_event(link, LinkUp)
    fleet.authority.revoke("dev-1", now=now())
    fleet.broker.reload()
    assert any(is_refused(fleet, settings) for _ in range(100))  # the broker reloads when its loop comes round
    with links(fleet.broker.port, fleet.settings("dev-2")) as [other]:
        next_event(other, LinkUp)


def test_an_expired_revocation_list_locks_everybody_out_until_it_is_renewed(tmp_path):
    fleet = make_fleet(tmp_path, crl_age=timedelta(days=CRL_DAYS + 1))
    with fleet.broker, links(fleet.broker.port, fleet.settings("dev-1")) as [link]:
        assert isinstance(link.events.get(timeout=5), LinkDown)
        fleet.authority.renew_crl(now=now())
        fleet.broker.reload()
        next_event(link, LinkUp)


def test_a_payload_beyond_the_limit_is_refused_and_harms_nothing(fleet):
    with links(fleet.broker.port, fleet.settings("dev-1")) as [link]:
        assert next_event(link, LinkUp).max_packet_bytes == 300_000
        token = link.publish(TOPICS.upload("dev-1"), b"x" * 300_000)
        assert link.events.get(timeout=5) == PublishRefused(token, PACKET_TOO_LARGE)
        token = link.publish(TOPICS.upload("dev-1"), b"x" * 299_000)
        assert link.events.get(timeout=5) == Published(token)


# What it speaks, and how much of it.


def test_it_listens_on_one_port_and_with_tls_alone(fleet):
    config = (fleet.folder / "broker" / "mosquitto.conf").read_text().splitlines()
    assert [line for line in config if line.startswith(("listener", "port", "socket"))] == [
        f"listener {fleet.broker.port} {LOOPBACK}"
    ]
    with socket.create_connection((LOOPBACK, fleet.broker.port), timeout=5) as plain:
        plain.settimeout(5)
        plain.sendall(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03spy")
        with contextlib.suppress(ConnectionError):
            assert plain.recv(100)[:1] != b"\x20"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(("version", "is_spoken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_it_speaks_tls_1_2_and_newer(fleet, version, is_spoken):
    files = fleet.identity("dev-1")
    context = ssl.create_default_context(cafile=files.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(files.certificate, files.key)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    found = False
    with (
        contextlib.suppress(OSError),
        socket.create_connection((LOOPBACK, fleet.broker.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        found = say_hello(secure)[:1] == b"\x20"
    assert found is is_spoken


def test_it_has_no_qos_2_and_no_aliases_to_remember(fleet):
    files = fleet.identity("dev-1")
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    with (
        socket.create_connection((LOOPBACK, fleet.broker.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        answer = say_hello(secure)
        properties = answer[5:]
        assert b"\x24\x01" in properties, "Maximum QoS 1"
        assert b"\x22" not in properties, "no Topic Alias Maximum is none"
        topic = TOPICS.report("dev-1").encode()
        body = len(topic).to_bytes(2, "big") + topic + b"\x00\x01" + b"\x00" + b"x"
        secure.sendall(b"\x34" + bytes([len(body)]) + body)  # QoS 2
        answer = secure.recv(100)
        assert answer[:1] in (b"", b"\xe0"), "a DISCONNECT, or an end"
