"""Giving orders on the server's machine: into the spool of a server that runs, or obeyed here where none does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from broker_server.clerk import Clerk, obey_here
from broker_server.commands.commanding import existing_store
from broker_server.commands.who import who
from broker_server.config import Config
from broker_server.core.events import Order
from broker_server.core.federation import Answer
from broker_server.equipment import load_equipment, plain_kits
from broker_server.journal import Journal
from broker_server.orders import new_order, place_order
from broker_server.records.scribe import Scribe
from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_TEMPFAIL
from fd_runtime.starting import blame, exclusive, is_held
from fd_runtime.storage.store import Store, StoreError

EX_REFUSED = 1
_POLL_S = 0.1


class UnansweredError(FedistillError):
    """Nobody has answered an order yet."""

    exit_code = EX_TEMPFAIL

    def __init__(self, *, is_running: bool) -> None:
        super().__init__(f"the server {'does not answer' if is_running else 'is not running'}: the order waits for it")


def order_of(command: str, arguments: Mapping[str, str]) -> Order:
    """Return an order of whoever runs this process; arguments that are empty are left out."""
    said = {name: text for name, text in arguments.items() if text}
    return new_order(command, who=who(), at_ms=time.time_ns() // 1_000_000, arguments=said)


def ask_server(path: Path, config: Config, order: Order, wait_s: float) -> Answer:
    """Put an order into the spool and return the server's answer, once it is durable.

    Raises:
        StartError: the spool cannot be written.
        UnansweredError: none came in `wait_s` seconds; the order waits for the server.
    """
    with blame(path, "state.folder"):
        place_order(config.state.orders, order)
    was_running = is_running(config)
    answer = _wait_for(config, order, wait_s if was_running else 0.0)
    if answer is None:
        raise UnansweredError(is_running=was_running and is_running(config))
    return answer


def have_done(path: Path, config: Config, order: Order, wait_s: float) -> Answer:
    """Have the running server obey an order; where none runs, obey it here, in the same way.

    Raises:
        ConfigError, StartError: the settings are wrong, or the server has never run.
        UnansweredError: as `ask_server`.
    """
    with blame(path, "state.folder"):
        existing_store(config)
    if is_running(config):
        return ask_server(path, config, order, wait_s)
    with clerk_here(path, config) as clerk:
        return obey_here(clerk, order, order.at_ms)


@contextmanager
def clerk_here(path: Path, config: Config) -> Iterator[Clerk]:
    """Yield a clerk of a server that is stopped, and that cannot start meanwhile.

    Raises:
        StartError: it runs, or it has never run.
    """
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            database = existing_store(config)
            stack.enter_context(exclusive(config.state.lock))
            store = stack.enter_context(closing(Store.open(database)))
        scribe = Scribe(store, config.federation, config.method)
        yield Clerk(store, config, scribe, lambda: plain_kits(load_equipment(path)))


def is_running(config: Config) -> bool:
    """Whether a server holds the folder; where the system does not tell, it is taken to."""
    return is_held(config.state.lock) is not False


def _wait_for(config: Config, order: Order, timeout_s: float) -> Answer | None:
    """Return the answer, as soon as it is durable; None: none came in time."""
    end_s = time.monotonic() + timeout_s
    while (answer := _answer(config, order)) is None and time.monotonic() < end_s:
        time.sleep(_POLL_S)
    return answer


def _answer(config: Config, order: Order) -> Answer | None:
    try:
        with Store.view(config.state.store) as store:
            return Journal(store, config.federation).replay().answer_to(order.id)
    except StoreError:
        return None  # no server has ever run here
