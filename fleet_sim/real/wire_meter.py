"""Counts what really crosses the wire: a relay on loopback between each device and the broker.

The bytes are those of the TCP stream, so TLS, MQTT and every keepalive are in them; TCP and IP headers are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass

_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of TCP payload since the meter started: `up` to the broker, `down` from it."""

    up: int = 0
    down: int = 0

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.up - earlier.up, self.down - earlier.down)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.up + other.up, self.down + other.down)


class WireMeter:
    """One relay port per name, all in one thread. Use as a context manager."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._counts: dict[str, list[int]] = {}
        self._open: dict[str, asyncio.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire-meter", daemon=True)

    def __enter__(self) -> WireMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, name: str) -> int:
        """Open a relay for `name` and return its port on 127.0.0.1."""
        self._counts[name] = [0, 0]
        self._open[name] = asyncio.Event()
        self._open[name].set()
        return asyncio.run_coroutine_threadsafe(self._listen(name), self._loop).result()

    def cut(self, name: str) -> None:
        """Let nothing more through for `name`, either way, as where a router has lost its way: nobody hangs up."""
        asyncio.run_coroutine_threadsafe(self._switch(name, is_open=False), self._loop).result()

    def mend(self, name: str) -> None:
        """Let through again, what waited first."""
        asyncio.run_coroutine_threadsafe(self._switch(name, is_open=True), self._loop).result()

    def traffic(self, name: str) -> Traffic:
        """Return what `name` has sent and received so far."""
        up, down = self._counts[name]
        return Traffic(up, down)

    async def _switch(self, name: str, *, is_open: bool) -> None:
        event = self._open[name]
        (event.set if is_open else event.clear)()

    async def _listen(self, name: str) -> int:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._relay(name, reader, writer)

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    async def _relay(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a device's connection with one to the broker; when either side ends, both do.

        A broker that is down looks like a connection that closes at once, as a port forwarder's does.
        """
        with contextlib.closing(writer):
            await self._open[name].wait()
            try:
                upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            except OSError:
                return
            with contextlib.closing(upstream_writer):
                up = asyncio.ensure_future(self._pump(name, 0, reader, upstream_writer))
                down = asyncio.ensure_future(self._pump(name, 1, upstream_reader, writer))
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                up.cancel()
                down.cancel()

    async def _pump(self, name: str, way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._open[name].wait()
                self._counts[name][way] += len(data)
                writer.write(data)
                await writer.drain()

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
