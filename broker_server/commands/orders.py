"""`broker-server pause | resume | abort | ...`: an order into the spool, and what the server says to it."""

from __future__ import annotations

import argparse
from typing import Any

from broker_server.commands.commanding import say, with_config
from broker_server.commands.giving import EX_REFUSED, ask_server, order_of
from broker_server.config import Config
from broker_server.core.events import Command, Order
from broker_server.core.federation import Answer
from fd_runtime.config import load_toml

_HELP = {
    Command.PAUSE: "open no further round; the open one goes on",
    Command.RESUME: "open rounds again",
    Command.ABORT: "end the open round without a consensus",
    Command.ROUND_NOW: "open a round at once, whatever the schedule says",
    Command.WITHDRAW: "take back what was released or published last; what was before is current again",
}
WAIT_S = 5.0


def add_order_commands(commands: Any) -> None:
    """Add one command an order."""
    for command, text in _HELP.items():
        parser = commands.add_parser(command.value, help=text)
        with_config(parser, _give)
        add_wait(parser)
        if command is Command.ABORT:
            parser.add_argument("--reason", default="", help="for the record")
        if command is Command.WITHDRAW:
            parser.add_argument("--family", default="", help="of devices; without it: that of the server's own bundle")
        parser.set_defaults(command=command.value)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Give a command `--wait`."""
    parser.add_argument("--wait", type=float, default=WAIT_S, metavar="S", help="seconds to wait for the answer")


def _give(arguments: argparse.Namespace) -> int:
    config = load_toml(arguments.config, Config)
    said = {name: getattr(arguments, name, "") for name in ("reason", "family")}
    order = order_of(arguments.command, said)
    answer = ask_server(arguments.config, config, order, arguments.wait)
    return tell_answer(arguments, order, answer)


def tell_answer(arguments: argparse.Namespace, order: Order, answer: Answer) -> int:
    """Print what came of an order; return the exit code."""
    say(arguments, {**order.arguments, "obeyed": answer.is_obeyed, "outcome": answer.outcome}, answer.outcome)
    return 0 if answer.is_obeyed else EX_REFUSED
