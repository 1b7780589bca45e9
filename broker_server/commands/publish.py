"""`broker-server publish DELIVERY` and `signing-key`: what was signed elsewhere comes to where devices fetch it.

    DELIVERY (model-export publish) --signatures, packages, task--> releases/web/v1/{tuf, blobs}

Nobody is told of anything by it: which of these bundles devices should run, and which devices first, says
`broker-server release start` (`rollouts`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker_server.commands.commanding import with_config
from broker_server.config import Config
from broker_server.equipment import load_equipment
from broker_server.sites.vouching import endings, needed_trust
from fd_runtime.config import load_toml
from fd_runtime.starting import blame
from fd_runtime.tuf.signing_keys import make_key
from fd_runtime.tuf.targets import Target


def add_publish_command(commands: Any) -> None:
    """Add `publish` and `signing-key`."""
    text = "take in what `model-export publish` signed: bundles that devices may run from then on"
    parser = commands.add_parser("publish", help=text)
    parser.add_argument("delivery", type=Path, help="folder that `model-export publish` wrote")
    with_config(parser, _publish)
    text = "say where the public half of this server's signing key is; make the key where there is none"
    with_config(commands.add_parser("signing-key", help=text), _signing_key)


def _publish(arguments: argparse.Namespace) -> int:
    config = load_equipment(arguments.config).config
    trust, now_s = needed_trust(config), time.time()
    with blame(arguments.config, "state.folder"):
        taken = trust.take_in(arguments.delivery, now_s)
    if arguments.json:
        told = {"root": taken.root, "targets": taken.targets, "bundles": [_plain(one) for one in taken.listed]}
        print(json.dumps(told))  # noqa: T201 - asked for
        return 0
    print("\n".join(_lines(config, taken.root, taken.targets, taken.listed)))  # noqa: T201 - what the command was for
    for line in endings(trust, now_s):
        print(line)  # noqa: T201 - likewise
    return 0


def _plain(target: Target) -> dict[str, Any]:
    return {**target.facts.to_plain(), "package": target.package, "package_bytes": target.package_bytes}


def _lines(config: Config, root: int, targets: int, listed: Sequence[Target]) -> list[str]:
    lines = [f"root {root}, targets {targets}: devices may run"]
    lines += [
        f"  {one.facts.family} {one.facts.version}  {one.package_bytes:,} bytes  bundle {one.facts.bundle[:12]}"
        for one in listed
    ]
    if not listed:
        lines.append("  nothing but what they were born with")
    if not config.packages.enabled:
        lines.append("this server does not serve packages: set packages.enabled, or see deploy/nginx/releases.conf")
    return lines


def _signing_key(arguments: argparse.Namespace) -> int:
    config = load_toml(arguments.config, Config)
    path = config.state.signing_key
    with blame(arguments.config, "state.folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            make_key(path)
    public = path.with_name(f"{path.name}.pub")
    print(json.dumps({"public": str(public)}) if arguments.json else public)  # noqa: T201 - what it was for
    return 0
