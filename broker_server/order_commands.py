"""`broker-server pause | resume | abort | ...`: an order into the spool, and what the server says to it."""

from __future__ import annotations

import argparse
import getpass
import time
from pathlib import Path
from typing import Any

from broker_server.config import Config
from broker_server.events import Command, Order
from broker_server.federation import Answer
from broker_server.journal import Journal
from broker_server.orders import new_order, place_order
from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_TEMPFAIL, load_toml
from fd_runtime.starting import blame, is_held
from fd_runtime.store import Store, StoreError

_HELP = {
    Command.PAUSE: "open no further round; the open one goes on",
    Command.RESUME: "open rounds again",
    Command.ABORT: "end the open round without a consensus",
    Command.ROUND_NOW: "open a round at once, whatever the schedule says",
    Command.RELEASE: "release the student as it is: the bundle that devices should run",
    Command.WITHDRAW: "take the last release back; the one before is current again",
}
_POLL_S = 0.1
EX_REFUSED = 1


class UnansweredError(FedistillError):
    """Nobody has answered an order yet."""

    exit_code = EX_TEMPFAIL

    def __init__(self, *, is_running: bool) -> None:
        super().__init__(f"the server {'does not answer' if is_running else 'is not running'}: the order waits for it")


def add_order_commands(commands: Any) -> None:
    """Add one command an order."""
    for command, text in _HELP.items():
        parser = commands.add_parser(command.value, help=text)
        parser.add_argument("--config", type=Path, required=True, metavar="federation.toml", help="of the server")
        parser.add_argument("--wait", type=float, default=5.0, metavar="S", help="seconds to wait for the answer")
        if command is Command.ABORT:
            parser.add_argument("--reason", default="", help="for the record")
        parser.set_defaults(run=_give, command=command.value)


def _give(arguments: argparse.Namespace) -> int:
    config = load_toml(arguments.config, Config)
    reason = getattr(arguments, "reason", "")
    order = new_order(
        arguments.command,
        who=getpass.getuser(),
        at_ms=time.time_ns() // 1_000_000,
        arguments={"reason": reason} if reason else {},
    )
    answer = ask(arguments.config, config, order, arguments.wait)
    print(answer.outcome)  # noqa: T201 - what the command was for
    return 0 if answer.is_obeyed else EX_REFUSED


def ask(path: Path, config: Config, order: Order, patience_s: float) -> Answer:
    """Place an order and return the server's answer.

    Raises:
        StartError: the spool cannot be written.
        UnansweredError: none came in time; the order waits.
    """
    with blame(path, "state.folder"):
        place_order(config.state.orders, order)
    was_running = _is_running(config)
    answer = _wait_for(config, order, patience_s if was_running else 0.0)
    if answer is None:
        raise UnansweredError(is_running=was_running and _is_running(config))
    return answer


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


def _is_running(config: Config) -> bool:
    """Whether a server holds the folder; where the system does not tell, it is taken to."""
    return is_held(config.state.lock) is not False
