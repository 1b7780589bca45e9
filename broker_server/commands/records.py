"""`broker-server rounds` and `devices`: what an operator looks back at, as tables or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from broker_server.commands.commanding import (
    Subparsers,
    UnknownRecordError,
    chronicle_of,
    facts_of,
    kilobytes,
    percent,
    plain,
    tell,
    utc,
    with_config,
)
from broker_server.commands.devices import add_device_commands
from broker_server.records.chronicle import DeviceRecord, HearingRecord, RoundRecord
from fd_runtime.pages import Section

_ROUNDS = ("round", "opened (UTC)", "phase", "heard", "up kB", "down kB", "agreement", "canaries")
_HEARINGS = ("device", "kind", "arrived (UTC)", "bytes", "status", "share", "agreement")
_DEVICES = ("device", "online", "last seen (UTC)", "model", "rounds", "refused", "up kB", "trust", "problem", "tags")


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
    add_device_commands(inner, subparsers)


def _listing(
    subparsers: Subparsers, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = with_config(subparsers.add_parser(name, help=text), run)
    parser.add_argument("--limit", type=int, default=20, help="most rows; -1 = all of them")
    return parser


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
    tell(arguments, told, f"Round {record.number} of {chronicle.federation}", [facts_of(record), heard])
    return 0


def _round_row(one: RoundRecord) -> tuple[str, ...]:
    heard = f"{one.heard}/{one.invited}"
    agreement, canaries = one.metrics.get("agreement"), one.metrics.get("canary_accuracy")
    phase = f"{one.phase} ({one.reason})" if one.reason else one.phase
    sizes = kilobytes(one.up_bytes), kilobytes(one.down_bytes)
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
    tell(arguments, told, f"Device {record.device} of {chronicle.federation}", [facts_of(record), heard])
    return 0


def _device_row(one: DeviceRecord) -> tuple[str, ...]:
    counts = str(one.rounds), str(one.refused), kilobytes(one.up_bytes)
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
