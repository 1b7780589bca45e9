"""What went through a connection, by the kernel's own count."""

import socket

import pytest

from fd_runtime.links.link import LinkSettings, LinkUp, Traffic
from fd_runtime.links.tcp_count import count
from tests.support.brokers import links, needs_mosquitto, next_event, plain_mosquitto
from tests.support.patience import wait_until
from tests.support.proxy import Proxy

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not count")

_HANDSHAKE_BYTES = 2
"""SYN and FIN take a place in the stream that is acknowledged."""


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        for end in (near, far):
            end.settimeout(60)
        with near, far:
            yield near, far


def near(found, expected):
    return 0 <= found - expected <= _HANDSHAKE_BYTES


def test_both_directions_are_counted_to_the_byte(pair):
    here, there = pair
    here.sendall(b"x" * 100_000)
    received = 0
    while received < 100_000:
        received += len(there.recv(65_536))
    there.sendall(b"y" * 777)
    here.recv(1000)
    counted = count(here.fileno())
    assert near(counted.sent_bytes, 100_000)
    assert near(counted.received_bytes, 777)


def test_a_descriptor_that_is_closed_or_no_connection_counts_nothing(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        assert count(file.fileno()) is None
    assert count(-1) is None


def test_traffic_adds_up():
    assert Traffic(1, 2) + Traffic(10, 20) == Traffic(11, 22)


@needs_mosquitto
def test_a_link_counts_what_a_broker_got_and_sent_over_all_its_connections(tmp_path):
    with plain_mosquitto(tmp_path) as broker:
        proxy = Proxy(broker.port)
        settings = LinkSettings("a", subscriptions=("echo",), reconnect_min_s=0.05, reconnect_max_s=0.1)
        with links(proxy.port, settings) as [link]:
            next_event(link, LinkUp)
            for _ in range(2):
                before = link.traffic
                link.publish("other", b"x" * 50_000)
                link.publish("echo", b"x" * 30_000)
                wait_until(lambda before=before: link.traffic.received_bytes - before.received_bytes > 30_000)
                wait_until(lambda before=before: link.traffic.sent_bytes - before.sent_bytes > 80_000)
                spent = Traffic(
                    link.traffic.sent_bytes - before.sent_bytes, link.traffic.received_bytes - before.received_bytes
                )
                assert spent.sent_bytes < 81_000
                assert spent.received_bytes < 31_000
                proxy.cut()
                next_event(link, LinkUp)
        proxy.close()
