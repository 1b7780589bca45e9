"""`edge-agent flash`: make cards for devices. A workstation's command: the device's package is made without it."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_UNAVAILABLE

_MODULE = "edge_agent.flash"


class NotHereError(FedistillError):
    """This installation is a device's."""

    exit_code = EX_UNAVAILABLE


def run(arguments: argparse.Namespace) -> int:
    if find_spec(_MODULE) is None:
        raise NotHereError("cards are made on a workstation: pip install 'fedistill[flash]' there")
    return int(import_module(f"{_MODULE}.command").flash(arguments))
