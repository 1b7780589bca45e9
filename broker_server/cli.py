"""`broker-server`: the fleet operator's program. Exit codes are those of sysexits.h."""

from __future__ import annotations

import argparse
import json
import logging
import secrets
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from broker_server import service
from broker_server.commands.ca import add_ca_commands
from broker_server.commands.commanding import with_config
from broker_server.commands.doctor import add_doctor_command
from broker_server.commands.methods import add_methods_command
from broker_server.commands.mosquitto import add_mosquitto_command
from broker_server.commands.orders import add_order_commands
from broker_server.commands.place import CONFIG_NAME, PLACE, SYSTEM_CONFIG, SYSTEM_STATE
from broker_server.commands.probes import add_probe_commands
from broker_server.commands.publish import add_publish_command
from broker_server.commands.quarantine import add_quarantine_command
from broker_server.commands.records import add_record_commands
from broker_server.commands.releases import add_releases_command
from broker_server.commands.replay import add_replay_commands
from broker_server.commands.rollouts import add_rollout_commands
from broker_server.commands.status import Status
from broker_server.commands.transfer import add_transfer_commands
from broker_server.config import Config
from broker_server.several import end_with_parent, run_several, settings_files
from fd_protocol.errors import FedistillError
from fd_protocol.identity import check_name
from fd_runtime.command_line import Parser, run_program, write_settings
from fd_runtime.config import load_toml
from fd_runtime.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run_program(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="broker-server", description="The server of a federation: rounds, consensus, student."
    )
    parser.add_argument("--version", action="version", version=f"broker-server {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="command")
    init = commands.add_parser("init", help=f"write {CONFIG_NAME} with every setting at its default")
    init.add_argument("folder", type=Path)
    init.add_argument("--federation", default="fleet", help="name of the federation: a-z, 0-9, '-'")
    init.add_argument("--trust", choices=("canaries", "none"), default="canaries", help="what devices are weighed by")
    init.set_defaults(run=_init)
    _add_run(commands)
    for name, run, text in (
        (
            "dashboard",
            partial(_site, "broker_server.dashboard.serving"),
            "show the federation to browsers and to Prometheus, until stopped",
        ),
        (
            "packages",
            partial(_site, "broker_server.sites.packages"),
            "serve bundles to devices and let them enrol, until stopped",
        ),
        ("status", _status, "say where the federation stands"),
        ("restore", _restore, "bring back a backup, in a new epoch; the server is stopped"),
    ):
        with_config(commands.add_parser(name, help=text), run, as_json=name in {"status", "restore"})
    text = "what `backup` wrote; without it the database is in its place already"
    commands.choices["restore"].add_argument("--from", type=Path, dest="backup", metavar="FILE", help=text)
    for name in ("dashboard", "packages"):
        commands.choices[name].add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    add_order_commands(commands)
    add_rollout_commands(commands)
    add_publish_command(commands)
    add_releases_command(commands)
    add_record_commands(commands)
    add_probe_commands(commands)
    add_quarantine_command(commands)
    add_replay_commands(commands)
    add_transfer_commands(commands)
    add_doctor_command(commands)
    add_methods_command(commands)
    add_ca_commands(commands)
    add_mosquitto_command(commands)
    return parser


def _init(arguments: argparse.Namespace) -> int:
    federation = check_name(arguments.federation, "federation")
    path = arguments.folder / CONFIG_NAME
    state = str(SYSTEM_STATE) if path.absolute() == SYSTEM_CONFIG else "state"
    write_settings(path, "broker_server", federation=federation, trust=arguments.trust, state=state)
    return 0


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="be the server, until stopped; of several federations, a process each")
    text = f"settings of a server, or a folder of them; may be given more than once; {PLACE.told}"
    parser.add_argument("--config", type=Path, action="append", metavar="FILE", help=text)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if arguments.child:
        end_with_parent()
    named = arguments.config or [PLACE.find(None)]
    files = settings_files(named)
    if len(files) > 1:
        run_several(files)
    else:
        service.run(files[0] if files else named[0] / CONFIG_NAME, version=VERSION)
    return 0


def _site(module: str, arguments: argparse.Namespace) -> int:
    """Serve pages or packages; the aggregator runs without what they need."""
    try:
        serve = import_module(module).serve
    except ImportError as error:
        raise FedistillError(f"{error}: pip install 'fedistill[dashboard]'") from error
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if arguments.child:
        end_with_parent()
    serve(arguments.config)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    status = Status.read(arguments.config)
    print(json.dumps(status.facts, indent=1) if arguments.json else status.lines())
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    epoch, config = secrets.randbits(63) | 1, load_toml(arguments.config, Config)
    aside = service.restore(config, arguments.config, epoch=epoch, backup=arguments.backup)
    if arguments.json:
        print(json.dumps({"epoch": f"{epoch:016x}", "database_before": str(aside) if aside else None}))
        return 0
    if aside is not None:
        print(f"the database before: {aside}")
    print(f"epoch {epoch:016x}")
    return 0
