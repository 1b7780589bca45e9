"""What the commands on records share: `--config` and `--json`, the chronicle, tables and lines for people."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from broker_server.commands.place import PLACE
from broker_server.config import Config
from broker_server.records.chronicle import Chronicle
from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import EX_NOINPUT, MissingArtifactError
from fd_runtime.config import load_toml
from fd_runtime.pages import Section, print_sections
from fd_runtime.starting import blame
from fd_runtime.storage.store import Store

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no other name

_FOR_PROGRAMS = ("offer", "terms")
_PIPE_COLUMNS = 160
"""Width of a table that no terminal shows."""


class UnknownRecordError(FedistillError):
    """There is no record of what was asked for."""

    exit_code = EX_NOINPUT


def with_config(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    *,
    nested: bool = False,
    as_json: bool = True,
) -> argparse.ArgumentParser:
    """Give a command `--config`, whose file is found before `run`, and `--json`; nested, it has them on either side."""
    absent = argparse.SUPPRESS if nested else None
    text = f"settings of the server; {PLACE.told}"
    parser.add_argument("--config", type=Path, default=absent, metavar="FILE", help=text)
    if as_json:
        parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS if nested else False, help="print JSON"
        )

    def run_there(arguments: argparse.Namespace) -> int:
        arguments.config = PLACE.find(arguments.config)
        return run(arguments)

    parser.set_defaults(run=run_there)
    return parser


@contextmanager
def chronicle_of(path: Path) -> Iterator[Chronicle]:
    """Yield the chronicle of the server of the settings file at `path`, running or not.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: the server has never run, or its database cannot be opened.
    """
    config = load_toml(path, Config)
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            store = stack.enter_context(Store.view(existing_store(config)))
        yield Chronicle(store, config.federation)


def existing_store(config: Config) -> Path:
    """Return where the database is.

    Raises:
        MissingArtifactError: the server has never run.
    """
    if not config.state.store.is_file():
        raise MissingArtifactError(config.state.store)
    return config.state.store


def plain(record: Any) -> dict[str, Any]:
    """Return a record as JSON has it: digests in hexadecimal, an epoch too: many readers' numbers end at 2^53."""
    return {name: _plain(name, value) for name, value in asdict(record).items()}


def _plain(name: str, value: Any) -> Any:
    if name == "epoch":
        return f"{value:016x}"
    return value.hex() if isinstance(value, bytes) else value


def tell(arguments: argparse.Namespace, told: Any, title: str, sections: Sequence[Section]) -> None:
    """Print JSON where it is asked for, else tables."""
    if arguments.json:
        print(json.dumps(told, indent=1))  # noqa: T201 - what the command is for
    else:
        print_sections(title, (), sections, console())


def say(arguments: argparse.Namespace, told: Any, line: str) -> None:
    """Print JSON where it is asked for, else a line."""
    print(json.dumps(told, indent=1) if arguments.json else line)  # noqa: T201 - what the command is for


def console() -> Console:
    """Return the terminal, or a wide page where the words go elsewhere."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def facts_of(record: Any) -> Section:
    facts = {name: value for name, value in plain(record).items() if name not in _FOR_PROGRAMS}
    rows = [(name, _word(name, value)) for name, value in facts.items() if value not in ("", None, {}, ())]
    return Section("", ("", ""), tuple(rows))


def _word(name: str, value: Any) -> str:
    if name.endswith("_ms"):
        return utc(value)
    if isinstance(value, dict):
        return "\n".join(f"{key} {number:.4g}" for key, number in sorted(value.items()))
    return " ".join(value) if isinstance(value, tuple) else str(value)


def utc(at_ms: int) -> str:
    """Return a time to the second, empty for 0."""
    return f"{datetime.fromtimestamp(at_ms // 1000, timezone.utc):%Y-%m-%d %H:%M:%S}" if at_ms else ""


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def kilobytes(count: int) -> str:
    return f"{count / 1000:,.1f}"
