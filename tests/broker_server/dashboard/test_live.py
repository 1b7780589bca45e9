"""Open pages are told that something has changed, soon, without a log-in that has ended, and not for ever."""

import asyncio
import http.client
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
import uvicorn

from broker_server.brokers.loopback import free_port
from broker_server.dashboard import watching
from broker_server.dashboard.app import Site, make_app
from broker_server.dashboard.watching import TooManyPagesError, Watch
from fd_runtime.starting import exclusive
from tests.broker_server.dashboard.stage import OPERATOR, Stage, form_of

PATIENCE_S = 60.0


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


@contextmanager
def served(stage):
    """Yield the port of the real HTTP server, on a thread."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(make_app(Site(stage.source, stage.access, stage.spool)), port=port, log_level="critical")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end_s = time.monotonic() + PATIENCE_S
    while not server.started:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_S)


def stream(port, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", "/events", headers=headers)
    return connection, connection.getresponse()


def next_event(response):
    """Return the next event's data; heartbeats pass."""
    end_s = time.monotonic() + PATIENCE_S
    while line := response.readline():
        assert time.monotonic() < end_s, "nothing but heartbeats"
        if line.startswith(b"data:"):
            return int(line[5:])
    return None


def test_a_commit_of_the_server_reaches_an_open_page(stage):
    with served(stage) as port:
        connection, response = stream(port)
        with closing(connection):
            assert response.getheader("content-type").startswith("text/event-stream")
            assert response.readline() == b"retry: 3000\n"
            stage.world.device("a")
            first = next_event(response)
            stage.world.device("b")
            assert next_event(response) > first


def test_a_page_is_told_when_the_first_database_is_made(tmp_path, stage):
    late = replace(stage.source, database=tmp_path / "late.db")

    async def play():
        watch = Watch(late)
        watching_it = asyncio.create_task(watch.run())
        events = watch.events(lambda: True)
        assert await anext(events) == "retry: 3000\n\n"
        await asyncio.sleep(0)
        (tmp_path / "late.db").write_bytes((tmp_path / "server.db").read_bytes())
        told = await asyncio.wait_for(anext(events), PATIENCE_S)
        watching_it.cancel()
        return told

    stage.world.store.close()
    assert asyncio.run(play()).startswith("event: changed")


def test_a_page_is_told_when_the_server_stops(tmp_path, stage):
    lock = tmp_path / "server.lock"
    source = replace(stage.source, lock=lock)

    async def play():
        watch = Watch(source)
        watching_it = asyncio.create_task(watch.run())
        with exclusive(lock):
            await asyncio.sleep(2 * watching.POLL_S)
            events = watch.events(lambda: True)
            await anext(events)
        told = await asyncio.wait_for(anext(events), PATIENCE_S)
        watching_it.cancel()
        return told

    assert asyncio.run(play()).startswith("event: changed")


def test_a_quiet_federation_sends_heartbeats(stage, monkeypatch):
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.01)

    async def play():
        events = Watch(stage.source).events(lambda: True)
        return [await anext(events) for _ in range(3)]

    assert asyncio.run(play())[1:] == [": still here\n\n"] * 2


def test_there_is_a_limit_to_open_pages_and_who_leaves_makes_room(stage, monkeypatch):
    monkeypatch.setattr(watching, "MOST_PAGES", 2)

    async def play():
        watch = Watch(stage.source)
        pages = [watch.events(lambda: True) for _ in range(3)]
        await anext(pages[0])
        await anext(pages[1])
        with pytest.raises(TooManyPagesError):
            await anext(pages[2])
        await pages[0].aclose()
        await anext(watch.events(lambda: True))

    asyncio.run(play())


def test_the_stream_ends_with_the_session(stage, monkeypatch, tmp_path):
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.05)
    closed = replace(stage.access.settings, viewer_token_file=tmp_path / "viewer")
    object.__setattr__(stage.access, "settings", closed)
    browser = stage.browser()
    browser.post("/login", data={"form": form_of(browser.get("/login")), "token": OPERATOR})
    cookie = f"{stage.access.session_cookie}={browser.cookies[stage.access.session_cookie]}"
    with served(stage) as port:
        assert stream(port)[1].status == 401
        connection, response = stream(port, Cookie=cookie)
        with closing(connection):
            assert response.readline() == b"retry: 3000\n"
            stage.access.sessions.end(cookie.partition("=")[2])
            assert next_event(response) is None


@pytest.mark.parametrize("turns", range(8))
def test_a_page_that_leaves_at_any_moment_takes_no_other_with_it(stage, turns):
    async def leave_and_come():
        watch = Watch(stage.source)
        pages = [watch.events(lambda: True) for _ in range(3)]
        for page in pages:
            await anext(page)
        leaving = asyncio.ensure_future(anext(pages[0]))
        for _ in range(8):
            await asyncio.sleep(0)
        staying = [asyncio.ensure_future(anext(page)) for page in pages[1:]]
        for turn in range(16):
            if turn >= turns:
                leaving.cancel()  # again and again, as Starlette does until the task has ended
            await asyncio.sleep(0)
        changes = asyncio.ensure_future(watch.run())
        told = await asyncio.wait_for(asyncio.gather(*staying), PATIENCE_S)
        changes.cancel()
        return told

    assert asyncio.run(leave_and_come()) == ["event: changed\ndata: 1\n\n"] * 2
