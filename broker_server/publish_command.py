"""`broker-server publish BUNDLE`: put a bundle where devices fetch it, and have them told.

    BUNDLE, whole and of this task --> releases/web/v1/blobs/SHA256 --> order `publish` --> retained nudge of its family

The package is on the disk before anybody hears of it. A device tries what it is told of by itself, and goes back where
that is no good (docs/agent/releases.md).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from broker_server.config import Config
from broker_server.equipment import load_equipment
from broker_server.events import Command
from broker_server.giving import EX_REFUSED, have_done, order_of
from broker_server.order_commands import add_wait
from broker_server.shelf import Shelf, Shelved
from fd_protocol.errors import InvalidValueError
from fd_runtime.artifacts import Bundle, load_bundle
from fd_runtime.starting import blame


def add_publish_command(commands: Any) -> None:
    """Add `publish`."""
    parser = commands.add_parser(
        "publish", help="put a bundle where devices fetch it, and have those of its family told"
    )
    parser.add_argument("bundle", type=Path, help="folder that `model-export` wrote")
    parser.add_argument("--config", type=Path, required=True, metavar="federation.toml", help="of the server")
    text = "bundle that all those devices have, as they were born with it: its files are left out of the package"
    parser.add_argument("--parent", type=Path, help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_wait(parser)
    parser.set_defaults(run=_publish)


def _publish(arguments: argparse.Namespace) -> int:
    equipment = load_equipment(arguments.config)
    config, own = equipment.config, equipment.bundle
    bundle = load_bundle(arguments.bundle)
    parent = None if arguments.parent is None else load_bundle(arguments.parent)
    _check(bundle, own, parent)
    with blame(arguments.config, "state.folder"):
        shelved = Shelf(own, config.state.releases).lay_down(bundle, parent)
    said = {
        "family": bundle.manifest.family,
        "bundle": bundle.digest.hex(),
        "version": bundle.manifest.version,
        "package": shelved.package.hex(),
        "package_bytes": str(shelved.package_bytes),
        "parent": parent.digest.hex() if parent is not None else "",
        "own": "yes" if bundle.manifest.family == own.manifest.family else "",
    }
    answer = have_done(arguments.config, config, order_of(Command.PUBLISH.value, said), arguments.wait)
    if arguments.json:
        print(json.dumps({**said, "obeyed": answer.is_obeyed, "outcome": answer.outcome}))  # noqa: T201 - asked for
    else:
        print("\n".join(_lines(config, shelved, answer.outcome)))  # noqa: T201 - what the command was for
    return 0 if answer.is_obeyed else EX_REFUSED


def _check(bundle: Bundle, own: Bundle, parent: Bundle | None) -> None:
    """Raises: InvalidValueError: no device could run it, or unpack it."""
    for one in filter(None, (bundle, parent)):
        if one.manifest.task.digest != own.manifest.task.digest:
            raise InvalidValueError(f"{one.folder} was made for another task than this federation's")
    if parent is not None and parent.manifest.family != bundle.manifest.family:
        raise InvalidValueError(f"no device of family {bundle.manifest.family} was born with {parent.folder}")


def _lines(config: Config, shelved: Shelved, outcome: str) -> list[str]:
    where = f"{shelved.package_bytes:,} bytes: {config.state.releases}/web/v1/blobs/{shelved.package.hex()}"
    if config.packages.enabled:
        return [outcome, where]
    return [
        outcome,
        where,
        "this server does not serve packages: set packages.enabled, or see deploy/nginx/releases.conf",
    ]
