"""A log line has the form that its reader wants, and the last ones are still there when somebody asks."""

from __future__ import annotations

import io
import json
import logging
import os

import pytest

from fd_runtime.logs import LogSettings, leads_to_journal, set_level, set_up_logs

log = logging.getLogger("edge-agent")


@pytest.fixture(autouse=True)
def as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def said(form, who="", level="info"):
    """Everything that a program says, line by line."""
    stream = io.StringIO()
    set_up_logs(LogSettings(level, form), who=who, stream=stream)
    log.debug("a detail")
    log.info("connected to %s", "broker")
    log.warning("two\nlines")
    try:
        int("no")
    except ValueError:
        log.exception("it failed")
    return stream.getvalue().splitlines()


def test_people_get_a_time_and_a_level():
    lines = said("text", "worker")
    assert lines[0].endswith(" worker INFO connected to broker")
    assert lines[0][:4].isdigit()
    assert not any("a detail" in line for line in lines)


def test_journald_gets_a_priority_in_front_of_every_line_and_no_time():
    lines = said("journal", "worker", "debug")
    assert lines[:4] == ["<7>worker: a detail", "<6>worker: connected to broker", "<4>worker: two", "<4>lines"]
    assert lines[4] == "<3>worker: it failed"
    assert all(line.startswith("<3>") for line in lines[4:])
    assert lines[-1].startswith("<3>ValueError: ")


def test_a_collector_gets_an_object_a_line():
    objects = [json.loads(line) for line in said("json", "worker")]
    assert [one["level"] for one in objects] == ["info", "warning", "error"]
    assert objects[0] | {"at": ""} == {
        "at": "",
        "level": "info",
        "logger": "edge-agent",
        "process": "worker",
        "message": "connected to broker",
    }
    assert objects[0]["at"].endswith("Z")
    assert objects[1]["message"] == "two\nlines"
    assert "ValueError: " in objects[2]["trace"]


def test_auto_asks_whether_the_stream_is_the_journals(tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        mark = f"{status.st_dev}:{status.st_ino}"
        assert leads_to_journal(stream, {"JOURNAL_STREAM": mark})
        assert not leads_to_journal(stream, {"JOURNAL_STREAM": "1:2"})  # inherited, and sent elsewhere since
        assert not leads_to_journal(stream, {})
    assert not leads_to_journal(io.StringIO(), {"JOURNAL_STREAM": mark})


def test_under_systemd_auto_is_the_journals_form(tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        set_up_logs(LogSettings(), stream=stream)
        log.error("no room")
        stream.flush()
        assert (tmp_path / "stream").read_text() == "<3>no room\n"


def test_the_last_lines_are_kept_and_counted_and_bounded():
    tail = set_up_logs(LogSettings(), stream=io.StringIO())
    for number in range(700):
        log.warning("line %d %s", number, "x" * 5000)
    assert len(tail.lines) == 500
    assert all(len(line) <= 1000 for line in tail.lines)
    assert "line 699" in tail.lines[-1]
    assert tail.counts == {"warning": 700}


def test_a_level_can_be_changed_while_the_program_runs():
    stream = io.StringIO()
    set_up_logs(LogSettings("warning", "text"), stream=stream)
    log.info("before")
    set_level("debug")
    log.debug("after")
    assert stream.getvalue().endswith("after\n")
    assert "before" not in stream.getvalue()
