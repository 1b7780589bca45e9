"""Work in processes of its own: each item in one, a few at a time, with news of how far they are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Generic, TypeVar

from fd_protocol.errors import FedistillError

A = TypeVar("A")
N = TypeVar("N")
R = TypeVar("R")


class ProcessDiedError(FedistillError):
    """A process ended without a word: killed from outside, for want of memory most likely."""

    def __init__(self, item: object) -> None:
        self.item = item
        super().__init__(f"the process of {item} died")


def each_in_its_own(
    work: Callable[[A, Callable[[N], None]], R],
    items: Sequence[A],
    processes: int,
    on_news: Callable[[A, N], None] = lambda _item, _news: None,
) -> list[R]:
    """Return `work(item, tell)` of each item, in their order, as if called here one after the other.

    Args:
        work: a function that a new process can import; `tell` sends news.
        items: what to work on.
        processes: most at a time.
        on_news: called here with an item and its news.

    Raises:
        ProcessDiedError: one ended without a result. The others are ended too, as at every exception and Ctrl-C;
            one that `work` raises is raised here.
    """
    team = _Team(work, items, processes, on_news)
    try:
        return team.run()
    finally:
        team.end()


class _Team(Generic[A, N, R]):
    """The processes under way, by the pipe that each talks through."""

    def __init__(
        self,
        work: Callable[[A, Callable[[N], None]], R],
        items: Sequence[A],
        processes: int,
        on_news: Callable[[A, N], None],
    ) -> None:
        self._work, self._items, self._processes, self._on_news = work, items, processes, on_news
        self._context: SpawnContext = multiprocessing.get_context("spawn")  # a fork would copy sessions that are open
        self._waiting = list(reversed(range(len(items))))
        self._running: dict[Connection, tuple[int, SpawnProcess]] = {}
        self._results: dict[int, R] = {}

    def run(self) -> list[R]:
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self._processes:
                self._start(self._waiting.pop())
            for pipe in wait(list(self._running)):
                assert isinstance(pipe, Connection)
                self._listen(pipe)
        return [self._results[index] for index in range(len(self._items))]

    def end(self) -> None:
        for _, process in self._running.values():
            process.terminate()
        for _, process in self._running.values():
            process.join()

    def _start(self, index: int) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run, args=(self._work, self._items[index], theirs))
        with interrupts_held_back():
            process.start()
        theirs.close()  # so that its end is heard
        self._running[ours] = index, process

    def _listen(self, pipe: Connection) -> None:
        index, process = self._running[pipe]
        try:
            kind, content = pipe.recv()
        except EOFError:
            raise ProcessDiedError(self._items[index]) from None
        if kind == "news":
            self._on_news(self._items[index], content)
            return
        if kind == "error":
            raise content
        self._results[index] = content
        del self._running[pipe]
        process.join()


def _run(work: Callable[[Any, Callable[[Any], None]], Any], item: Any, pipe: Connection) -> None:
    end_with_parent()
    try:
        result = work(item, lambda news: pipe.send(("news", news)))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again where it is waited for
        pipe.send(("error", error))
    else:
        pipe.send(("result", result))


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Processes that start in here never hear Ctrl-C: who started them ends them. Ours is heard afterwards."""
    resource_tracker.ensure_running()  # which would let interrupts through again when it starts with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_like_ctrl_c() -> None:
    """Let a kill, or a terminal that closes, end what we started too; a signal that `nohup` ignores stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
