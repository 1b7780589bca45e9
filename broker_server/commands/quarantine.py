"""`broker-server quarantine`: what broke a decoder, listed; one of them shown, its bytes only on demand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from broker_server.commands.commanding import with_config
from broker_server.config import Config
from broker_server.records.quarantine import Quarantine, Quarantined, outline
from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import MissingArtifactError
from fd_runtime.config import load_toml
from fd_runtime.starting import blame
from fd_runtime.storage.store import Store

_ROW_BYTES = 32
EX_NOINPUT = 66


class NotKeptError(FedistillError):
    """The quarantine does not hold that one, or no longer."""

    exit_code = EX_NOINPUT


def add_quarantine_command(commands: Any) -> None:
    parser = commands.add_parser("quarantine", help="list messages and bodies that could not be read")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="one of them: what it is, how it is built")
    parser.add_argument("--bytes", action="store_true", help="with --show: also its bytes; they may be soft labels")
    with_config(parser, _quarantine, as_json=False)


def _quarantine(arguments: argparse.Namespace) -> int:
    config = load_toml(arguments.config, Config)
    with blame(arguments.config, "state.folder"):
        if not config.state.store.is_file():
            raise MissingArtifactError(config.state.store)
        with Store.view(config.state.store) as store:
            kept = list(Quarantine(store, config.federation).kept())
    lines = _list(kept) if arguments.show is None else _show(kept, arguments.show, with_bytes=arguments.bytes)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _list(kept: list[Quarantined]) -> Iterator[str]:
    for each in kept:
        yield f"{each.number:>6}  {_when(each)}  {each.reason:<16}{each.size:>9} B  {each.topic}"


def _show(kept: list[Quarantined], number: int, *, with_bytes: bool) -> Iterator[str]:
    each = next((each for each in kept if each.number == number), None)
    if each is None:
        raise NotKeptError(f"number {number} is not kept")
    facts = {
        "came": _when(each),
        "on": each.topic,
        "reason": each.reason,
        "bytes": f"{each.size}, of which {len(each.head)} are kept",
        "sha256": each.sha256.hex(),
        "built as": outline(each.head),
    }
    yield from (f"{name:<10}{value}" for name, value in facts.items())
    if with_bytes:
        yield from (each.head[start : start + _ROW_BYTES].hex(" ", 4) for start in range(0, len(each.head), _ROW_BYTES))


def _when(each: Quarantined) -> str:
    return datetime.fromtimestamp(each.at_ms / 1000, timezone.utc).isoformat(timespec="seconds")
