"""`broker-server pause | resume | abort | ...`: an order into the spool, and what the server says to it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from broker_server.config import Config
from broker_server.events import Command
from broker_server.giving import EX_REFUSED, ask_server, order_of
from fd_runtime.config import load_toml

_HELP = {
    Command.PAUSE: "open no further round; the open one goes on",
    Command.RESUME: "open rounds again",
    Command.ABORT: "end the open round without a consensus",
    Command.ROUND_NOW: "open a round at once, whatever the schedule says",
    Command.RELEASE: "release the student as it is; start | widen | halt | resume: a bundle for some devices first",
    Command.WITHDRAW: "take back what was released or published last; what was before is current again",
}
WAIT_S = 5.0


def add_order_commands(commands: Any) -> None:
    """Add one command an order."""
    for command, text in _HELP.items():
        parser = commands.add_parser(command.value, help=text)
        # `release` has commands of its own, which ask for it themselves.
        is_needed = command is not Command.RELEASE
        parser.add_argument("--config", type=Path, required=is_needed, metavar="federation.toml", help="of the server")
        add_wait(parser)
        if command is Command.ABORT:
            parser.add_argument("--reason", default="", help="for the record")
        if command is Command.WITHDRAW:
            parser.add_argument("--family", default="", help="of devices; without it: that of the server's own bundle")
        parser.set_defaults(run=_give, command=command.value, parser=parser)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Give a command `--wait`."""
    parser.add_argument("--wait", type=float, default=WAIT_S, metavar="S", help="seconds to wait for the answer")


def _give(arguments: argparse.Namespace) -> int:
    if arguments.config is None:
        arguments.parser.error("the following arguments are required: --config")
    config = load_toml(arguments.config, Config)
    said = {name: getattr(arguments, name, "") for name in ("reason", "family")}
    order = order_of(arguments.command, said)
    answer = ask_server(arguments.config, config, order, arguments.wait)
    print(answer.outcome)  # noqa: T201 - what the command was for
    return 0 if answer.is_obeyed else EX_REFUSED
