"""Tells open pages that something has changed, by server-sent events: one look every half second for all of them.

What is sent is a number and nothing else; the page fetches itself again, with the rights that it has then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from broker_server.dashboard.reading import Source
from fd_runtime.starting import is_held
from fd_runtime.storage.store import Store, StoreError

POLL_S = 0.5
HEARTBEAT_S = 15.0
LEAST_PAUSE_S = 1.0
"""Between two events of one page: a busy round commits hundreds of times a second."""
MOST_PAGES = 100

log = logging.getLogger("broker-server")


class TooManyPagesError(Exception):
    """No more pages can be told at once; they work without, by reloading."""


@dataclass(slots=True)
class Watch:
    """Watches one database from the event loop. `run` beside as many `events` as there are open pages."""

    source: Source
    _number: int = 0
    _pages: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        with ExitStack() as stack:
            store: Store | None = None
            before: object = None
            while True:
                store = store or self._open(stack)
                seen = self._see(store)
                if seen != before:
                    before = seen
                    async with self._changed:
                        self._number += 1
                        self._changed.notify_all()
                await asyncio.sleep(POLL_S)

    async def events(self, may_stay: Callable[[], bool]) -> AsyncGenerator[str, None]:
        """Yield the text of the stream: a heartbeat now and then, an event for each change; ends with `may_stay`.

        Raises:
            TooManyPagesError: before anything was sent.
        """
        if self._pages >= MOST_PAGES:
            raise TooManyPagesError
        self._pages += 1
        try:
            yield "retry: 3000\n\n"
            known = self._number
            while may_stay():
                number = await self._wait(known)
                yield ": still here\n\n" if number == known else f"event: changed\ndata: {number}\n\n"
                if number != known:
                    known = number
                    await asyncio.sleep(LEAST_PAUSE_S)
        finally:
            self._pages -= 1

    async def _wait(self, known: int) -> int:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until_changed(known), HEARTBEAT_S)
        return self._number

    async def _until_changed(self, known: int) -> None:
        # Lock and wait in one task: a page that leaves while another waits would else let go of the other's lock.
        async with self._changed:
            await self._changed.wait_for(lambda: self._number != known)

    def _open(self, stack: ExitStack) -> Store | None:
        """None: there is no database yet."""
        if not self.source.database.is_file():
            return None
        try:
            return stack.enter_context(Store.view(self.source.database))
        except StoreError as error:
            log.warning("not watched: %s", error)
            return None

    def _see(self, store: Store | None) -> object:
        """What is another value once something has changed: the commits of others, and whether the server runs."""
        is_running = is_held(self.source.lock) if self.source.lock else None
        try:
            return (store.changes if store else None), is_running
        except StoreError as error:
            log.warning("not watched: %s", error)
            return None
