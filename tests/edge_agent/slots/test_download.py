"""A package over a bad link, from a real web server that misbehaves on command."""

import hashlib
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from edge_agent.slots import download
from edge_agent.slots.download import CalledOffError, Parcel, PostponedError, WrongPackageError, fetch
from tests.support.trust import Dripping

CONTENT = np.random.default_rng(3).bytes(700_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if server.status is not None:
            self.send_error(server.status)
            return
        start = 0
        if self.headers.get("Range") and server.knows_ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.bytes_then_cut is not None:
            self.wfile.write(body[: server.bytes_then_cut])
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(content=CONTENT, *, knows_ranges=True, status=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.content, server.knows_ranges, server.status = content, knows_ranges, status
    server.bytes_then_cut, server.asked = None, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def parcel(server):
    return Parcel(f"http://127.0.0.1:{server.server_port}/v1/blobs/{DIGEST}", DIGEST, len(CONTENT))


def test_a_package_comes_whole(tmp_path):
    counted = []
    with serving() as server:
        fetch(parcel(server), tmp_path / "part", on_bytes=counted.append)
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)


def test_what_is_whole_is_not_asked_for_again(tmp_path):
    with serving() as server:
        fetch(parcel(server), tmp_path / "part")
        fetch(parcel(server), tmp_path / "part")
        assert len(server.asked) == 1


def test_a_lost_link_costs_only_what_had_not_come(tmp_path):
    counted = []
    with serving() as server:
        server.bytes_then_cut = 300_000
        with pytest.raises(PostponedError):
            fetch(parcel(server), tmp_path / "part", on_bytes=counted.append)
        server.bytes_then_cut = None
        fetch(parcel(server), tmp_path / "part", on_bytes=counted.append)
        assert server.asked == [None, f"bytes={counted_until(counted, 300_000)}-"]
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)


def counted_until(counted, limit):
    """Bytes of the first connection: all that came before it was cut."""
    total = 0
    for count in counted:
        if total + count > limit:
            break
        total += count
    return total


def test_a_server_without_ranges_sends_it_all_again(tmp_path):
    (tmp_path / "part").write_bytes(b"x" * 1000)
    with serving(knows_ranges=False) as server:
        fetch(parcel(server), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content",
    [CONTENT[:-1] + b"?", b"y" * len(CONTENT), CONTENT + b"more, which is not read"],
    ids=["one byte", "another", "too long"],
)
def test_other_bytes_than_promised_are_no_package(tmp_path, content):
    with serving(content) as server:
        if content.startswith(CONTENT):
            fetch(parcel(server), tmp_path / "part")
            assert (tmp_path / "part").read_bytes() == CONTENT
            return
        with pytest.raises(WrongPackageError):
            fetch(parcel(server), tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_a_damaged_beginning_is_found_and_thrown_away(tmp_path):
    (tmp_path / "part").write_bytes(b"x" * 1000)
    with serving() as server:
        with pytest.raises(WrongPackageError):
            fetch(parcel(server), tmp_path / "part")
        fetch(parcel(server), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_package_that_is_shorter_there_ends(tmp_path):
    with serving(CONTENT[:500]) as server:
        with pytest.raises(PostponedError):
            fetch(parcel(server), tmp_path / "part")
        with pytest.raises(WrongPackageError):
            fetch(parcel(server), tmp_path / "part")


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_a_server_that_will_not_is_asked_another_time(tmp_path, status):
    with serving(status=status) as server, pytest.raises(PostponedError, match=str(status)):
        fetch(parcel(server), tmp_path / "part")


def test_nobody_there_is_another_time(tmp_path):
    with serving() as server:
        gone = parcel(server)
    with pytest.raises(PostponedError):
        fetch(gone, tmp_path / "part")


def test_who_calls_it_off_keeps_what_has_come(tmp_path):
    with serving() as server, pytest.raises(CalledOffError):
        fetch(parcel(server), tmp_path / "part", is_over=lambda: True)
    assert 0 < (tmp_path / "part").stat().st_size < len(CONTENT)


def test_a_server_that_gives_a_byte_now_and_then_is_left(tmp_path, monkeypatch):
    """Slow retrieval: each byte comes in time, and the package never would. What has come stays."""
    monkeypatch.setattr(download, "_PACE_S", 0.5)
    with Dripping() as (address, _):
        began_s = time.monotonic()
        with pytest.raises(PostponedError, match="less than"):
            fetch(Parcel(f"{address}/v1/blobs/{DIGEST}", DIGEST, 1000), tmp_path / "part")
        assert time.monotonic() - began_s < 60.0  # it would take 100 s, and a larger one for ever
    assert (tmp_path / "part").stat().st_size > 0
