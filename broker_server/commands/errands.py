"""`broker-server devices command` and `devices commands`: orders to devices, and what became of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from broker_server import errands
from broker_server.commands.commanding import Subparsers, chronicle_of, plain, say, tell, utc, with_config
from broker_server.commands.giving import EX_REFUSED, ask_server
from broker_server.commands.who import who
from broker_server.config import Config
from broker_server.core.events import DEVICE_COMMAND, MAX_ARGUMENTS, Order
from broker_server.errands import COMMAND, DEVICE, FOR_S, MARK, TAG, USUAL_S, Errand, message_of
from broker_server.orders import new_order
from fd_protocol.errors import FedistillError
from fd_protocol.messages import CommandState
from fd_runtime.config import EX_TEMPFAIL, EX_USAGE, load_toml
from fd_runtime.pages import Section
from fd_runtime.starting import blame
from fd_runtime.storage.store import Store

_COLUMNS = ("device", "command", "sent (UTC)", "state", "changed (UTC)", "id", "what came of it")
_POLL_S = 0.2
_ANSWER_S = 5.0
"""For the server's own answer: the order's, not the devices'."""


class WrongCommandError(FedistillError):
    """A command cannot be given like this."""

    exit_code = EX_USAGE


def add_errand_commands(devices: Subparsers) -> None:
    """Add `command` and `commands` to the commands on devices."""
    text = "let a device, or all with a tag, do something: config, diag, dry-run, log-level, restart-worker"
    give = with_config(devices.add_parser("command", help=text), _give, nested=True)
    give.add_argument("what", nargs="+", metavar="DEVICE COMMAND [KEY=VALUE]", help="DEVICE is left out with --tag")
    give.add_argument("--tag", help="all devices with this tag")
    give.add_argument("--for", type=int, default=USUAL_S, dest="for_s", metavar="S", help="seconds until it is void")
    wait = "wait S seconds at most for every device to end it, and show what came of it"
    give.add_argument("--wait", type=float, nargs="?", const=60.0, metavar="S", help=wait)
    show = with_config(
        devices.add_parser("commands", help="what became of commands, the last first"), _list, nested=True
    )
    show.add_argument("device", nargs="?", help="of one device")
    show.add_argument("--id", dest="order", help="of one order")
    show.add_argument("--limit", type=int, default=20, help="most rows; -1 = all of them")


def _give(arguments: argparse.Namespace) -> int:
    config = load_toml(arguments.config, Config)
    order = _order(arguments)
    answer = ask_server(arguments.config, config, order, _ANSWER_S)
    if not answer.is_obeyed or arguments.wait is None:
        told = {"id": order.id, "outcome": answer.outcome, "obeyed": answer.is_obeyed}
        say(arguments, told, f"{answer.outcome}; {order.id}" if answer.is_obeyed else answer.outcome)
        return 0 if answer.is_obeyed else EX_REFUSED
    found = _wait(config, order.id, arguments.wait)
    _show(arguments, found, f"{answer.outcome}: what came of it")
    if any(one.state is CommandState.FAILED for one in found):
        return EX_REFUSED
    return 0 if all(one.state.has_ended for one in found) else EX_TEMPFAIL


def _order(arguments: argparse.Namespace) -> Order:
    """Return the order that the words make.

    Raises:
        WrongCommandError: they make none.
        InvalidValueError: no command can say that.
    """
    words = list(arguments.what)
    target = {TAG: arguments.tag} if arguments.tag is not None else {DEVICE: words.pop(0)}
    if not words:
        raise WrongCommandError("devices command DEVICE COMMAND, or --tag TAG COMMAND")
    command, *pairs = words
    given = {**target, COMMAND: command, FOR_S: str(arguments.for_s)}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            raise WrongCommandError(f"{pair}: arguments are KEY=VALUE")
        given[f"{MARK}{key}"] = text
    if len(given) > MAX_ARGUMENTS:
        raise WrongCommandError(f"at most {MAX_ARGUMENTS - 3} arguments")
    order = new_order(DEVICE_COMMAND, who=who(), at_ms=time.time_ns() // 1_000_000, arguments=given)
    message_of(order)
    return order


def _wait(config: Config, order: str, patience_s: float) -> tuple[Errand, ...]:
    """Return what became of an order, as soon as every device has ended it, or when patience ends."""
    end_s = time.monotonic() + patience_s
    while True:
        with Store.view(config.state.store) as store:
            found = errands.of_order(store, config.federation, order)
        if (found and all(one.state.has_ended for one in found)) or time.monotonic() >= end_s:
            return found
        time.sleep(_POLL_S)


def _list(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle, blame(arguments.config, "state.folder"):
        found = errands.listed(chronicle.store, chronicle.federation, arguments.device)
    found = tuple(one for one in found if arguments.order in (None, one.id))
    found = found if arguments.limit < 0 else found[: arguments.limit]
    _show(arguments, found, f"Commands to {arguments.device or 'devices'} of {chronicle.federation}")
    return 0


def _show(arguments: argparse.Namespace, found: Sequence[Errand], title: str) -> None:
    now_s = time.time()
    told = [{**plain(one), "state": one.state.value, "standing": one.standing(now_s)} for one in found]
    section = Section("", _COLUMNS, tuple(_row(one, now_s) for one in found))
    tell(arguments, told, title, [section])


def _row(one: Errand, now_s: float) -> tuple[str, ...]:
    step = f" ({one.step})" if one.step else ""
    outcome = one.reason or ", ".join(f"{name} {text}" for name, text in one.result.items())
    arguments = " ".join(f"{name}={text}" for name, text in one.arguments.items())
    command = f"{one.command} {arguments}".rstrip()
    state = f"{one.standing(now_s)}{step}"
    return one.device, command, utc(one.sent_ms), state, utc(one.changed_ms), one.id, outcome
