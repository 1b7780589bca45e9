"""`broker-server backup`, `export` and `import`: the memory of a federation as one file."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EEXIST
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from broker_server import transfer
from broker_server.commands.commanding import Subparsers, chronicle_of, say, with_config
from broker_server.config import Config
from broker_server.core.events import EpochBegun
from broker_server.service import utc_ms
from fd_runtime.config import load_toml
from fd_runtime.starting import blame, exclusive

_ROWS_BETWEEN_WORDS = 256


def add_transfer_commands(subparsers: Subparsers) -> None:
    """Add the commands; each leaves `run(arguments) -> exit code` in the namespace."""
    for name, run, text in (
        ("backup", _backup, "copy the database to a new file; the server may be running"),
        ("export", _export, "write the federation's memory to a new file, for another machine"),
        ("import", _import, "begin anew with an exported federation, in an empty state folder"),
    ):
        with_config(subparsers.add_parser(name, help=text), run).add_argument("file", type=Path)


def _backup(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle, _progress("backup", "pages") as bar:
        transfer.backup(chronicle.store, arguments.file, bar)
    return _done(arguments, {"file": str(arguments.file), "bytes": arguments.file.stat().st_size})


def _export(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle, _progress("export", "rows") as bar:
        rows = transfer.export_federation(
            chronicle.store, chronicle.federation, arguments.file, lambda done: bar(done, None)
        )
    size = arguments.file.stat().st_size
    return _done(arguments, {"file": str(arguments.file), "rows": rows, "bytes": size})


def _import(arguments: argparse.Namespace) -> int:
    config = load_toml(arguments.config, Config)
    epoch = EpochBegun(secrets.randbits(63) | 1, utc_ms())
    with blame(arguments.config, "state.folder"):
        config.state.folder.mkdir(parents=True, exist_ok=True)
        lock = exclusive(config.state.lock)
        with lock, _progress("import", "rows") as bar:
            for left in config.state.folder.glob(f".{config.state.store.name}.*"):
                left.unlink()  # of an import that was killed
            if any(path != config.state.lock for path in config.state.folder.iterdir()):
                raise FileExistsError(EEXIST, "is not empty", str(config.state.folder))
            rows = transfer.import_federation(
                arguments.file, config.federation, config.state.store, epoch, lambda done: bar(done, None)
            )
    return _done(arguments, {"database": str(config.state.store), "rows": rows, "epoch": f"{epoch.epoch:016x}"})


def _done(arguments: argparse.Namespace, facts: dict[str, Any]) -> int:
    say(arguments, facts, ", ".join(f"{name} {fact}" for name, fact in facts.items()))
    return 0


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that is told (done, in all), and shows it on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn(f"{{task.completed:.0f}} {unit}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)

        def tell(done: int, total: int | None) -> None:
            if total is not None or done % _ROWS_BETWEEN_WORDS == 0:
                progress.update(task, completed=done, total=total)

        yield tell
