"""`broker-server devices tag`, `devices replace` and `forget`: what an operator does to the record of a device."""

from __future__ import annotations

import argparse

from broker_server.clerk import DeviceCommand
from broker_server.commands.commanding import Subparsers, UnknownRecordError, chronicle_of, say, with_config
from broker_server.commands.errands import add_errand_commands
from broker_server.commands.giving import EX_REFUSED, have_done, order_of
from broker_server.commands.orders import add_wait
from broker_server.config import Config
from broker_server.core.events import Order
from broker_server.core.federation import Answer
from broker_server.identity.commands import add_identity_commands
from fd_protocol.identity import check_name
from fd_runtime.config import load_toml

_NOT_ERASED = (
    "the consensuses that it had a part in stay as they were published, and the student keeps what it learnt of them",
    "backups and exports that were made before hold it still, and the log of commands names it",
    "the broker keeps its last birth or will; revoke its certificate, or it comes back",
)


def add_device_commands(devices: Subparsers, subparsers: Subparsers) -> None:
    """Add `tag`, `replace` and orders to the commands on devices, and `forget` to all."""
    add_errand_commands(devices)
    add_identity_commands(devices)
    text = "put tags on a device, in the place of those it has"
    tag = with_config(devices.add_parser("tag", help=text), _tag, nested=True)
    tag.add_argument("device")
    tag.add_argument("tags", nargs="*", metavar="TAG", help="none takes all of them away")
    text = "let a new device take the place of an old one"
    swap = with_config(devices.add_parser("replace", help=text), _replace, nested=True)
    swap.add_argument("old")
    swap.add_argument("new")
    text = "erase all that a device sent"
    forget = with_config(subparsers.add_parser("forget", help=text), _forget)
    forget.add_argument("device")
    for parser in (tag, swap, forget):
        add_wait(parser)


def _tag(arguments: argparse.Namespace) -> int:
    tags = [check_name(tag, "tag") for tag in arguments.tags]
    _check_known(arguments, arguments.device)
    said = {"device": arguments.device, "tags": " ".join(tags)}
    answer = _have_done(arguments, order_of(DeviceCommand.TAG.value, said))
    return _tell(arguments, answer, {"device": arguments.device, "tags": tags}, answer.outcome)


def _replace(arguments: argparse.Namespace) -> int:
    for name in (arguments.old, arguments.new):
        check_name(name, "device")
    _check_known(arguments, arguments.old)
    said = {"device": arguments.old, "new": arguments.new}
    answer = _have_done(arguments, order_of(DeviceCommand.REPLACE.value, said))
    told = {"old": arguments.old, "new": arguments.new}
    return _tell(arguments, answer, told, f"{answer.outcome}; revoke the certificate of {arguments.old}")


def _forget(arguments: argparse.Namespace) -> int:
    device = check_name(arguments.device, "device")
    answer = _have_done(arguments, order_of(DeviceCommand.FORGET.value, {"device": device}))
    rounds = [int(number) for number in answer.facts.get("rounds", "").split()]
    counts = {name: int(count) for name, count in answer.facts.items() if name != "rounds"}
    told = {"device": device, **counts, "rounds": rounds, "not_erased": _NOT_ERASED}
    return _tell(arguments, answer, told, "\n".join([f"of {device} {answer.outcome}", *_NOT_ERASED]))


def _check_known(arguments: argparse.Namespace, device: str) -> None:
    with chronicle_of(arguments.config) as chronicle:
        if chronicle.device(device) is None:
            raise UnknownRecordError(f"no record of device {device}")


def _have_done(arguments: argparse.Namespace, order: Order) -> Answer:
    return have_done(arguments.config, load_toml(arguments.config, Config), order, arguments.wait)


def _tell(arguments: argparse.Namespace, answer: Answer, told: dict[str, object], line: str) -> int:
    """Print what was done, or why not."""
    if answer.is_obeyed:
        say(arguments, told, line)
        return 0
    say(arguments, {"refused": answer.outcome}, answer.outcome)
    return EX_REFUSED
