"""The meter counts every byte of the stream, each way, per name."""

import socket
import socketserver
import threading

import pytest

from fleet_sim.real.wire_meter import Traffic, WireMeter


class _Doubler(socketserver.BaseRequestHandler):
    """Answers every byte with two."""

    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data + data)


@pytest.fixture
def upstream_port():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Doubler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def exchange(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        answer = b""
        while len(answer) < 2 * len(data):
            came = connection.recv(4096)
            assert came, f"the connection ended after {len(answer)} bytes"
            answer += came
    return answer


def test_bytes_pass_unchanged_and_are_counted_each_way_per_name(upstream_port):
    with WireMeter(upstream_port) as meter:
        ports = {name: meter.add(name) for name in ("one", "two")}
        assert exchange(ports["one"], b"x" * 5000) == b"x" * 10_000
        before = meter.traffic("one")
        exchange(ports["one"], b"y" * 10)
        assert before == Traffic(5000, 10_000)
        assert meter.traffic("one") - before == Traffic(10, 20)
        assert meter.traffic("two") == Traffic(0, 0)


def test_where_the_wire_is_cut_nothing_passes_and_nobody_hangs_up_until_it_is_mended(upstream_port):
    with WireMeter(upstream_port) as meter:
        port = meter.add("device")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"x")
            assert connection.recv(4) == b"xx"
            meter.cut("device")
            connection.sendall(b"y")
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            assert meter.traffic("device") == Traffic(1, 2)
            connection.settimeout(5)
            meter.mend("device")
            assert connection.recv(4) == b"yy"


def test_a_broker_that_is_down_looks_like_a_closed_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with WireMeter(unused.getsockname()[1]) as meter:
            port = meter.add("device")
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                assert connection.recv(1) == b""
