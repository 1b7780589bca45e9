"""Outputs: whole lines, bounded files, nothing lost in silence, and no way out that holds the model up."""

from __future__ import annotations

import json
import logging
import os
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from edge_agent.inference.outputs.background import Background
from edge_agent.inference.outputs.callback import Callback
from edge_agent.inference.outputs.federation import ToFederation, opaque
from edge_agent.inference.outputs.json_lines import LinesFile, LinesStream, line_of
from edge_agent.inference.outputs.recent import Recent
from edge_agent.inference.outputs.webhook import Webhook, WebhookError
from edge_agent.inference.seams import LivePrediction
from edge_agent.inference.settings import OutputSettings
from edge_agent.process.notices import Spoke
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import Prediction
from tests.edge_agent.stores import until


def said(number=1, label="cat", confidence=0.75):
    return LivePrediction(f"s-{number}", label, confidence, 1_700_000_000_125, "camera")


def lines_in(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def numbers_in(path):
    return [int(line["sample_id"].split("-")[1]) for line in lines_in(path)]


# JSON lines.


def test_a_line_says_what_and_when_and_is_the_same_every_time():
    assert line_of(said()) == (
        b'{"at":"2023-11-14T22:13:20.125Z","confidence":0.75,"label":"cat","sample_id":"s-1","source":"camera"}\n'
    )
    assert json.loads(line_of(said(label='kätzchen "\n')))["label"] == 'kätzchen "\n'
    assert line_of(said(label="a\nb")).count(b"\n") == 1


def test_lines_are_appended_over_restarts(tmp_path):
    path = tmp_path / "predictions.jsonl"
    for number in (1, 2):
        lines = LinesFile(path, 10_000, 2)
        lines.write([said(number)])
        lines.close()
    assert numbers_in(path) == [1, 2]
    assert path.stat().st_mode & 0o007 == 0


def test_a_full_file_is_moved_aside_and_the_oldest_goes(tmp_path):
    path, size = tmp_path / "predictions.jsonl", len(line_of(said(10)))
    lines = LinesFile(path, 3 * size, 2)
    lines.write([said(number) for number in range(10, 21)])
    assert numbers_in(path) == [19, 20]
    assert numbers_in(tmp_path / "predictions.jsonl.1") == [16, 17, 18]
    assert numbers_in(tmp_path / "predictions.jsonl.2") == [13, 14, 15]
    assert sorted(tmp_path.iterdir()) == sorted(
        tmp_path / name for name in ("predictions.jsonl", "predictions.jsonl.1", "predictions.jsonl.2")
    )
    assert all(file.stat().st_size <= 3 * size for file in tmp_path.iterdir())


def test_no_full_file_is_kept_where_none_is_wanted(tmp_path):
    path, size = tmp_path / "p", len(line_of(said(10)))
    lines = LinesFile(path, size, 0)
    lines.write([said(10), said(11)])
    assert numbers_in(path) == [11]
    assert list(tmp_path.iterdir()) == [path]


def test_a_life_that_ended_within_a_line_costs_that_line_alone(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(line_of(said(1)) + line_of(said(2))[:30])
    lines = LinesFile(path, 10_000, 1)
    lines.write([said(3)])
    first, broken, third = path.read_bytes().splitlines()
    assert json.loads(first)["sample_id"] == "s-1"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(broken)
    assert json.loads(third)["sample_id"] == "s-3"


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path):
    folder = tmp_path / "later"
    lines = LinesFile(folder / "p", 10_000, 1)
    with pytest.raises(FileNotFoundError):
        lines.write([said(1)])
    folder.mkdir()
    lines.write([said(2)])
    assert numbers_in(folder / "p") == [2]


def test_a_full_disk_is_an_error_and_no_half_line_follows(tmp_path):
    lines = LinesFile(tmp_path / "full", 10_000, 1)
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        lines.write([said(1)])


def test_lines_go_down_a_pipe():
    read, write = os.pipe()
    stream = LinesStream(write)
    stream.write([said(1), said(2)])
    stream.close()
    with os.fdopen(read) as pipe:
        assert [json.loads(line)["sample_id"] for line in pipe] == ["s-1", "s-2"]


# What stands between.


def test_what_may_block_does_not_hold_the_model_up_and_the_oldest_are_dropped():
    go_on, written = threading.Event(), []

    def write(predictions):
        go_on.wait(30)
        written.extend(predictions)

    output = Background("slow", write)
    begin_s = time.monotonic()
    for number in range(3000):
        output.say(said(number))
    assert time.monotonic() - begin_s < 10  # it never waited for `go_on`
    go_on.set()
    until(lambda: output.facts()["written"] + output.facts()["dropped"] == 3000)
    output.close()
    assert written[-1].sample_id == "s-2999"
    assert output.facts()["dropped"] >= 1900


def test_failures_are_counted_and_told_once_and_what_comes_later_is_written(caplog):
    problem, written = [OSError("no room")], []

    def write(predictions):
        if problem:
            raise problem[0]
        written.extend(predictions)

    output = Background("file", write, pause_s=0.01)
    with caplog.at_level(logging.INFO):
        for number in range(3):
            output.say(said(number))
            until(lambda number=number: output.facts()["failed"] == number + 1)
        assert output.facts()["problem"] == "no room"
        problem.clear()
        output.say(said(3))
        until(lambda: written)
    output.close()
    assert caplog.messages == ["output file: no room", "output file: works again"]
    assert "problem" not in output.facts()


def test_what_was_said_before_the_end_is_still_written():
    written, closed = [], []
    output = Background("file", written.extend, lambda: closed.append(True))
    for number in range(500):
        output.say(said(number))
    output.close()
    assert len(written) == 500
    assert closed == [True]


# A function of one's own.


def test_a_function_hears_every_prediction_and_its_mistakes_cost_nothing(caplog):
    heard = []

    def function(prediction):
        heard.append(prediction)
        if prediction.sample_id == "s-2":
            raise KeyError("oops")

    output = Callback(function)
    with caplog.at_level(logging.WARNING):
        for number in (1, 2, 3):
            output.say(said(number))
    assert [one.sample_id for one in heard] == ["s-1", "s-2", "s-3"]
    assert output.facts() == {"written": 2, "failed": 1}
    assert "oops" in caplog.text


# The last few, for the API.


def test_the_last_few_are_numbered_and_one_can_go_on_where_one_was():
    recent = Recent(3)
    assert recent.last is None
    for number in range(1, 6):
        recent.say(said(number))
    assert [(number, one.sample_id) for number, one in recent.after(0)] == [(3, "s-3"), (4, "s-4"), (5, "s-5")]
    assert [number for number, _ in recent.after(4)] == [5]
    assert recent.after(5) == []
    assert recent.last.sample_id == "s-5"


def test_a_number_from_before_a_restart_begins_anew():
    recent = Recent()
    recent.say(said(1))
    assert [number for number, _ in recent.after(7000)] == [1]


def test_waiting_ends_with_the_next_prediction():
    recent = Recent()
    threading.Timer(0.05, lambda: recent.say(said(1))).start()
    assert [number for number, _ in recent.after(0, 20.0)] == [1]


# To the federation.


def test_the_federation_hears_an_opaque_name_and_not_too_often():
    now_s, told = [0.0], []
    output = ToFederation(told.append, 10.0, lambda: now_s[0])
    for at_s in (0.0, 1.0, 9.9, 10.0, 25.0):
        now_s[0] = at_s
        output.say(said(int(at_s)))
    assert [notice.sample_id for notice in told] == [opaque("s-0"), opaque("s-10"), opaque("s-25")]
    assert told[0] == Spoke(opaque("s-0"), "cat", 0.75)
    assert "s-0" not in told[0].sample_id
    assert len(opaque("cats/private.png")) == 16


def test_a_class_of_any_name_can_be_said():
    told = []
    ToFederation(told.append, 1.0).say(said(label="line\nbreak\x00"))
    (spoke,) = told
    Prediction(spoke.sample_id, spoke.label, spoke.confidence)
    assert spoke.label == "line?break?"


# To an address.


class Listener(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def listener(status=204, context=None):
    server = HTTPServer(("127.0.0.1", 0), Listener)
    server.posts, server.status = [], status
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_predictions_are_posted_where_the_settings_say():
    with listener() as server:
        Webhook(f"http://127.0.0.1:{server.server_port}/flow?from=agent").write([said(1), said(2)])
    assert server.posts == [
        ("/flow?from=agent", "application/json", {"predictions": [json.loads(line_of(said(n))) for n in (1, 2)]})
    ]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_any_other_answer_is_a_failure_and_no_redirect_is_followed(status):
    with listener(status) as server, pytest.raises(WebhookError, match=f"answered {status}"):
        Webhook(f"http://127.0.0.1:{server.server_port}/").write([said()])


def test_nobody_there_is_a_failure():
    with listener() as server:
        port = server.server_port
    with pytest.raises(OSError, match="refused"):
        Webhook(f"http://127.0.0.1:{port}/").write([said()])


def test_over_https_whoever_listens_must_prove_who_it_is(tmp_path):
    now = datetime.now(timezone.utc)
    authority = Authority.create(tmp_path / "ca", fleet="home", now=now - timedelta(hours=1))
    files = authority.issue(Identity("hook", Role.BROKER, ("127.0.0.1",)), tmp_path / "hook", now=now)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(files.certificate, files.key)
    with listener(context=server_side) as server:
        address = f"https://127.0.0.1:{server.server_port}/"
        with pytest.raises(ssl.SSLCertVerificationError):
            Webhook(address).write([said()])
        Webhook(address, ssl.create_default_context(cafile=files.ca)).write([said()])
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://127.0.0.1/x", "no address"),
        ("127.0.0.1:1880", "no address"),
        ("http://", "no address"),
        ("http://127.0.0.1:99999/", "no address"),
        ("http://192.168.1.5/x", "by https"),
        ("https://me:secret@example.org/", "no name and password"),
    ],
)
def test_an_address_that_predictions_must_not_go_to_is_refused_in_the_settings(url, problem):
    with pytest.raises(InvalidValueError, match=problem):
        OutputSettings(webhook=url)


def test_http_and_tls_are_loaded_by_those_alone_who_post():
    program = """
import sys
import edge_agent.inference.serving
assert not {"http.client", "http.server", "paho"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
