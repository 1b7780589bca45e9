"""`broker-server devices tag`, `devices replace` and `forget`: what an operator does to the record of a device."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from getpass import getuser
from pathlib import Path

from broker_server.chronicle import CommandRecord, lower
from broker_server.commanding import Subparsers, UnknownRecordError, chronicle_of, existing_store, say, with_config
from broker_server.config import Config
from broker_server.departures import Registrar
from broker_server.errand_commands import add_errand_commands
from broker_server.scribe import Scribe
from broker_server.service import utc_ms
from broker_server.settings import Settings
from fd_protocol.identity import check_name
from fd_runtime.config import load_toml
from fd_runtime.starting import blame, exclusive
from fd_runtime.store import Store

_NOT_ERASED = (
    "the consensuses that it had a part in stay as they were published, and the student keeps what it learnt of them",
    "backups and exports that were made before hold it still, and the log of commands names it",
    "the broker keeps its last birth or will; revoke its certificate, or it comes back",
)


def add_device_commands(devices: Subparsers, subparsers: Subparsers) -> None:
    """Add `tag`, `replace` and orders to the commands on devices, and `forget` to all."""
    add_errand_commands(devices)
    text = "put tags on a device, in the place of those it has"
    tag = with_config(devices.add_parser("tag", help=text), _tag, nested=True)
    tag.add_argument("device")
    tag.add_argument("tags", nargs="*", metavar="TAG", help="none takes all of them away")
    text = "let a new device take the place of an old one; the server is stopped"
    swap = with_config(devices.add_parser("replace", help=text), _replace, nested=True)
    swap.add_argument("old")
    swap.add_argument("new")
    text = "erase all that a device sent; the server is stopped"
    with_config(subparsers.add_parser("forget", help=text), _forget).add_argument("device")


def _tag(arguments: argparse.Namespace) -> int:
    """The server may run: the column is nobody else's, and the transaction is short."""
    tags = tuple(check_name(tag, "tag") for tag in arguments.tags)
    with chronicle_of(arguments.config) as chronicle:
        if chronicle.device(arguments.device) is None:
            raise UnknownRecordError(f"no record of device {arguments.device}")
    config = load_toml(arguments.config, Config)
    with blame(arguments.config, "state.folder"), closing(Store.open(config.state.store)) as store:
        key = {"fed": config.federation, "device": arguments.device}
        with store.transaction():
            store.merge("devices", key, lower({"tags": tags}))
            _write_down(store, config, "tag", {"device": arguments.device, "tags": " ".join(tags)})
    say(arguments, {"device": arguments.device, "tags": tags}, f"{arguments.device}: {' '.join(tags) or 'no tags'}")
    return 0


def _replace(arguments: argparse.Namespace) -> int:
    for name in (arguments.old, arguments.new):
        check_name(name, "device")
    with _registrar(arguments.config) as registrar:
        registrar.replace(arguments.old, arguments.new)
        _write_down(registrar.store, registrar.settings, "replace", {"old": arguments.old, "new": arguments.new})
    line = f"{arguments.new} takes the place of {arguments.old}; revoke the certificate of {arguments.old}"
    say(arguments, {"old": arguments.old, "new": arguments.new}, line)
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    with _registrar(arguments.config) as registrar:
        forgotten = registrar.forget(check_name(arguments.device, "device"))
        _write_down(registrar.store, registrar.settings, "forget", {"device": arguments.device})
    told = asdict(forgotten)
    erased = ", ".join(f"{told[name]} {name}" for name in ("payloads", "parts", "unreadable", "hearings"))
    rounds = " ".join(map(str, forgotten.rounds)) or "none"
    say(arguments, {**told, "not_erased": _NOT_ERASED}, "\n".join(
        [f"erased of {arguments.device}: {erased}", f"rounds that cannot be made again for it: {rounds}", *_NOT_ERASED]
    ))  # fmt: skip
    return 0


@contextmanager
def _registrar(path: Path) -> Iterator[Registrar]:
    """Yield a registrar of a server that is stopped.

    Raises:
        StartError: it runs, or it has never run.
    """
    config = load_toml(path, Config)
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            database = existing_store(config)
            stack.enter_context(exclusive(config.state.lock))
            store = stack.enter_context(closing(Store.open(database)))
        yield Registrar(store, config)


def _write_down(store: Store, settings: Settings, command: str, arguments: dict[str, str]) -> None:
    record = CommandRecord(secrets.token_hex(8), utc_ms(), getuser(), "operator", command, arguments, "done")
    Scribe(store, settings.federation, settings.method).command(record)
