"""`broker-server rounds` and `devices`: what an operator looks back at, as tables or JSON; tags on devices."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from broker_server.chronicle import Chronicle, DeviceRecord, HearingRecord, RoundRecord
from broker_server.config import Config
from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import EX_NOINPUT, MissingArtifactError
from fd_runtime.config import load_toml
from fd_runtime.pages import Section, print_sections
from fd_runtime.starting import blame
from fd_runtime.store import Store

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

_ROUNDS = ("round", "opened (UTC)", "phase", "heard", "up kB", "down kB", "agreement", "canaries")
_HEARINGS = ("device", "kind", "arrived (UTC)", "bytes", "status", "share", "agreement")
_DEVICES = ("device", "online", "last seen (UTC)", "model", "rounds", "refused", "up kB", "trust", "problem", "tags")
_FOR_PROGRAMS = ("offer", "terms")
_PIPE_COLUMNS = 160
"""Width of a table that no terminal shows."""


class UnknownRecordError(FedistillError):
    """There is no record of what was asked for."""

    exit_code = EX_NOINPUT


def add_record_commands(subparsers: Subparsers) -> None:
    """Add the commands; each leaves `run(arguments) -> exit code` in the namespace."""
    rounds = _listing(subparsers, "rounds", _list_rounds, "list the last rounds")
    rounds.add_argument("--before", type=int, metavar="NUMBER", help="only rounds with lower numbers")
    inner = rounds.add_subparsers(metavar="command")
    show = with_config(inner.add_parser("show", help="tell all of one round"), _show_round, nested=True)
    show.add_argument("number", type=int)
    devices = _listing(subparsers, "devices", _list_devices, "list the devices")
    devices.add_argument("--tag", help="only devices with this tag")
    inner = devices.add_subparsers(metavar="command")
    show = with_config(inner.add_parser("show", help="tell all of one device"), _show_device, nested=True)
    show.add_argument("device")


def with_config(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], *, nested: bool = False
) -> argparse.ArgumentParser:
    """Give a command `--config` and `--json`; a nested one may stand before or after them."""
    absent = argparse.SUPPRESS if nested else None
    parser.add_argument("--config", type=Path, default=absent, metavar="federation.toml", help="settings of the server")
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS if nested else False, help="print JSON"
    )

    def checked(arguments: argparse.Namespace) -> int:
        if arguments.config is None:
            parser.error("the following arguments are required: --config")
        return run(arguments)

    parser.set_defaults(run=checked)
    return parser


def _listing(
    subparsers: Subparsers, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = with_config(subparsers.add_parser(name, help=text), run)
    parser.add_argument("--limit", type=int, default=20, help="most rows; -1 = all of them")
    return parser


@contextmanager
def chronicle_of(path: Path) -> Iterator[Chronicle]:
    """Yield the chronicle of the server of the settings file at `path`, running or not.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: the server has never run, or its database cannot be read.
    """
    config = load_toml(path, Config)
    with blame(path, "state.folder"):
        if not config.state.store.is_file():
            raise MissingArtifactError(config.state.store)
        with Store.view(config.state.store) as store:
            yield Chronicle(store, config.federation)


# Rounds.


def _list_rounds(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle:
        rounds = chronicle.rounds(arguments.limit, arguments.before)
    table = Section("", _ROUNDS, tuple(map(_round_row, rounds)))
    tell(arguments, [plain(one) for one in rounds], f"Rounds of {chronicle.federation}", [table])
    return 0


def _show_round(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle:
        found = [one for one in chronicle.rounds(1, arguments.number + 1) if one.number == arguments.number]
        if not found:
            raise UnknownRecordError(f"no record of round {arguments.number}")
        (record,) = found
        hearings = chronicle.hearings(record.epoch, record.number)
    told = {**plain(record), "hearings": [plain(one) for one in hearings]}
    heard = Section("What it heard", _HEARINGS, tuple(map(_hearing_row, hearings)))
    tell(arguments, told, f"Round {record.number} of {chronicle.federation}", [_facts(record), heard])
    return 0


def _round_row(one: RoundRecord) -> tuple[str, ...]:
    heard = f"{one.heard}/{one.invited}"
    agreement, canaries = one.metrics.get("agreement"), one.metrics.get("canary_accuracy")
    phase = f"{one.phase} ({one.reason})" if one.reason else one.phase
    sizes = _kilobytes(one.up_bytes), _kilobytes(one.down_bytes)
    return str(one.number), utc(one.opened_ms), phase, heard, *sizes, percent(agreement), percent(canaries)


def _hearing_row(one: HearingRecord) -> tuple[str, ...]:
    status = f"{one.status} ({one.reason})" if one.reason else one.status
    shares = percent(one.share), percent(one.agreement)
    return one.device, one.kind, utc(one.arrived_ms), str(one.payload_bytes), status, *shares


# Devices.


def _list_devices(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle:
        devices = chronicle.devices()
    if arguments.tag is not None:
        devices = tuple(one for one in devices if arguments.tag in one.tags)
    devices = devices if arguments.limit < 0 else devices[: arguments.limit]
    table = Section("", _DEVICES, tuple(map(_device_row, devices)))
    tell(arguments, [plain(one) for one in devices], f"Devices of {chronicle.federation}", [table])
    return 0


def _show_device(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle:
        record = chronicle.device(arguments.device)
        if record is None:
            raise UnknownRecordError(f"no record of device {arguments.device}")
        hearings = chronicle.hearings_of(arguments.device)
    columns = ("round", *_HEARINGS[1:])
    rows = tuple((str(one.round), *_hearing_row(one)[1:]) for one in hearings)
    told = {**plain(record), "hearings": [plain(one) for one in hearings]}
    heard = Section("What it sent", columns, rows)
    tell(arguments, told, f"Device {record.device} of {chronicle.federation}", [_facts(record), heard])
    return 0


def _device_row(one: DeviceRecord) -> tuple[str, ...]:
    counts = str(one.rounds), str(one.refused), _kilobytes(one.up_bytes)
    problem = f"replaced by {one.replaced_by}" if one.replaced_by else one.problem
    online = "yes" if one.online else "no"
    return (
        one.device,
        online,
        utc(one.last_seen_ms),
        one.family,
        *counts,
        percent(one.trust),
        problem,
        " ".join(one.tags),
    )


# Words.


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


def console() -> Console:
    """Return the terminal, or a wide page where the words go elsewhere."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def _facts(record: Any) -> Section:
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


def _kilobytes(count: int) -> str:
    return f"{count / 1000:,.1f}"
