"""What stands against whoever should not ask the local API, asks too much, or never ends asking."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection

import pytest

from edge_agent.api.addresses import TokenError, listen_tcp, listen_unix, read_token
from fd_protocol.errors import InvalidValueError
from tests.edge_agent.api_stage import NPY, TOKEN, api_with_store, ask, npy, predict
from tests.edge_agent.stores import until
from tests.support.small_bundles import pictures

# Who may.


def test_over_tcp_a_request_needs_the_token_and_the_page_itself_does_not(port):
    for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "x", "é"):
        status, told = ask(port, "GET", "/v1/status", token=token)
        assert status == 401
        assert "token" in told["error"]
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/healthz"):
        assert ask(port, "GET", path, token=None)[0] == 200
    assert ask(port, "POST", "/", b"", token=None)[0] == 401
    assert ask(port, "GET", "/v1/status", token=None, Authorization=f"Basic {TOKEN}")[0] == 401
    assert ask(port, "GET", "/v1/status", token=None, Authorization=f"bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1.nip.io:{port}"]
)
def test_a_name_that_was_made_to_lead_here_is_not_answered(port, host):
    """DNS rebinding: the browser thinks it talks to another site, whose script may then read our answers."""
    status, told = ask(port, "GET", "/v1/status", Host=host.format(port=port))
    assert status == 421
    assert "127.0.0.1" in told["error"]


def test_the_names_of_this_machine_are_answered(port):
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert ask(port, "GET", "/v1/status", Host=host)[0] == 200


def test_pages_of_other_sites_are_refused_even_with_the_token(api, port):
    label = {"sample_id": "a", "label": "fox"}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
    ):
        assert ask(port, "POST", "/v1/label", label, **headers)[0] == 403
    assert (
        ask(port, "POST", "/v1/label", label, Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0] == 404
    )
    assert ask(port, "GET", "/", token=None, Sec_Fetch_Site="cross-site")[0] == 200  # a link that leads here


def test_no_answer_lets_another_site_read_it_or_frame_it(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/", headers={"Origin": f"http://127.0.0.1:{port}"})
    headers = connection.getresponse().headers
    connection.close()
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]
    assert headers["Set-Cookie"] is None


# Bounds.


def raw(port, data, patience_s=20.0):
    """Send bytes and return all that comes back until the other side ends."""
    with socket.create_connection(("127.0.0.1", port), patience_s) as connection:
        connection.sendall(data)
        answer = b""
        while block := connection.recv(1 << 16):
            answer += block
    return answer


def head(port, *lines, method="POST", path="/v1/predict"):
    first = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {TOKEN}", *lines, "", ""]
    return "\r\n".join(first).encode()


def test_a_body_that_is_too_long_is_refused_before_it_is_read(bundle):
    with api_with_store(bundle, body_bytes=1000).tcp() as port:
        assert b" 413 " in raw(port, head(port, f"Content-Type: {NPY}", "Content-Length: 1001"))
        assert b" 413 " in raw(port, head(port, f"Content-Type: {NPY}", "Content-Length: 999999999999"))
        assert b" 413 " in raw(port, head(port, f"Content-Type: {NPY}", "Content-Length: 5000") + bytes(5000))
        assert predict(port, pictures(1)[0])[0] == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Transfer-Encoding: chunked"], b" 411 "),
        (["Content-Length: -1"], b" 400 "),
        (["Content-Length: 0x10"], b" 400 "),
        (["Content-Length: 1e3"], b" 400 "),
        (["Content-Length: ٣"], b" 400 "),
        (["Content-Length: " + "1" * 5000], b" 400 "),
        (["Content-Length: 5", "Content-Length: 6"], b" 400 "),
        (["X: " + "y" * 70_000], b" 431 "),
        ([f"X-{number}: y" for number in range(200)], b" 431 "),
    ],
)
def test_a_head_that_cannot_be_trusted_ends_the_connection(port, lines, status):
    answer = raw(port, head(port, *lines))
    assert status in answer.split(b"\r\n")[0]
    assert answer.count(b"HTTP/1.1") == 1


def test_bytes_that_are_no_http_are_answered_with_a_line_and_an_end(port):
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 70_000,
    ):
        answer = raw(port, data)
        assert answer == b"" or b'{"error"' in answer
    assert ask(port, "GET", "/healthz")[0] == 200


def test_a_slow_client_is_cut_and_the_others_are_answered(bundle):
    with api_with_store(bundle, patience_s=1.0).tcp() as port:
        slow = socket.create_connection(("127.0.0.1", port), 30)
        drip = head(port, f"Content-Type: {NPY}", "Content-Length: 5000")
        begin_s, sent = time.monotonic(), 0
        try:
            while time.monotonic() < begin_s + 20:  # a byte now and then: no single wait is ever long
                slow.send(drip[sent : sent + 1] or b"x")
                sent += 1
                time.sleep(0.1)
                if sent % 5 == 0:
                    assert ask(port, "GET", "/healthz")[0] == 200
        except OSError:
            cut_s = time.monotonic() - begin_s
        slow.close()
    assert cut_s < 15


def test_whoever_only_connects_is_cut_too(bundle):
    with api_with_store(bundle, patience_s=0.5).tcp() as port:
        assert raw(port, b"") == b""


def test_there_are_no_more_connections_than_the_settings_say_and_a_place_becomes_free(bundle):
    with api_with_store(bundle, connections=3).tcp() as port:
        held = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(3)]
        for connection in held:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")  # begun, not ended

        def refused():
            with socket.create_connection(("127.0.0.1", port), 20) as one:
                one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                return one.recv(100).startswith(b"HTTP/1.1 503")

        until(refused)
        for connection in held:
            connection.close()
        until(lambda: not refused())


def test_a_connection_serves_many_requests(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(20):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        local = connection.sock.getsockname()
    assert connection.sock.getsockname() == local
    connection.close()


def test_a_client_that_wants_to_be_told_to_go_on_is_told(port):
    body = npy(pictures(1)[0])
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(head(port, f"Content-Type: {NPY}", f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_mistake_of_ours_costs_the_request_and_tells_nothing_of_it(api, port, monkeypatch, caplog):
    def broken(*_args, **_options):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(api.loop, "facts", broken)
    status, told = ask(port, "GET", "/v1/status")
    assert status == 500
    assert "secret" not in json.dumps(told)
    assert "secret detail" in caplog.text
    assert ask(port, "GET", "/healthz")[0] == 200


def test_after_the_end_nobody_answers_and_open_connections_are_cut(api):
    with api.tcp() as port:

        def wait():
            with suppress(ConnectionResetError):  # an end, too
                raw(port, b"")

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert ask(port, "GET", "/healthz")[0] == 200
    waiting.join(10)
    assert not waiting.is_alive()
    with pytest.raises(OSError, match="refused"):
        ask(port, "GET", "/healthz")


# The sockets.


def test_the_unix_socket_is_closed_to_other_users_and_needs_no_token(api, tmp_path):
    path = tmp_path / "api.sock"
    with api.unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ask(path, "GET", "/v1/status")[0] == 200
        assert ask(path, "GET", "/v1/status", Host="evil.example")[0] == 421


def test_a_socket_that_a_killed_life_left_is_replaced_and_another_file_is_not(tmp_path):
    path = tmp_path / "api.sock"
    listen_unix(path).close()
    assert path.exists()
    listen_unix(path).close()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(InvalidValueError, match="is no socket"):
        listen_unix(path)
    assert path.read_text() == "mine"


def test_a_folder_of_any_length_can_hold_the_socket(api, tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with api.unix(folder / "api.sock") as path:
        assert ask(path, "GET", "/healthz")[0] == 200


def test_tcp_is_on_the_loopback_and_nowhere_else():
    listening = listen_tcp(0)
    host, port = listening.getsockname()
    assert host == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), 5)
    listening.close()


def test_the_token_is_made_once_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "api.token"
    token = read_token(path)
    assert len(token) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(path) == token
    path.chmod(0o640)
    with pytest.raises(TokenError, match="chmod 600"):
        read_token(path)
    path.write_text("short\n")
    path.chmod(0o600)
    with pytest.raises(TokenError, match="at least 16"):
        read_token(path)
