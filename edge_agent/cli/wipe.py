"""`edge-agent wipe`: destroy what the device has learned and remembers, and say what is left elsewhere."""

from __future__ import annotations

import argparse
import sys

from edge_agent.care.wiping import left_elsewhere, wipe
from edge_agent.cli.output import tell
from edge_agent.cli.place import config_path
from edge_agent.configuration import load_settings
from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_NOPERM


class NotConfirmedError(FedistillError):
    """Nobody said yes."""

    exit_code = EX_NOPERM


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    settings = load_settings(path)
    if not arguments.yes and not _is_confirmed(settings.device.id, str(settings.state.folder)):
        raise NotConfirmedError("nothing was destroyed")
    gone = wipe(path, settings, identity=arguments.identity)
    left = left_elsewhere(settings, identity=arguments.identity)
    told = {"destroyed": [str(one) for one in gone], "left": left}
    lines = [*(f"destroyed {one}" for one in gone), *(f"left: {one}" for one in left)]
    tell(arguments, told, "\n".join(lines))
    return 0


def _is_confirmed(device: str, folder: str) -> bool:
    if not sys.stdin.isatty():
        raise NotConfirmedError("say --yes: nobody is there to ask")
    print(f"Everything that {device} has learned and remembers in {folder} will be destroyed.", file=sys.stderr)
    print("Type the device's name to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == device
