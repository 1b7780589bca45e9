"""Which device a command is about: the settings file that is named, or that lies where one looks for it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_CONFIG

CONFIG_NAME = "agent.toml"
CONFIG_VARIABLE = "FEDISTILL_CONFIG"
# Of the device that systemd runs (deploy/systemd/edge-agent.service).
SYSTEM_CONFIG = Path("/etc/fedistill") / CONFIG_NAME
SYSTEM_STATE = Path("/var/lib/fedistill")
SYSTEM_RUNTIME = Path("/run/fedistill")


class NoDeviceError(FedistillError):
    """No settings file was named, and none lies where one looks."""

    exit_code = EX_CONFIG
    remedy = "then change what is yours in it: device.id, device.federation, broker.host"


def config_path(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the settings are: `--config`, $FEDISTILL_CONFIG, here, or the system's.

    Raises:
        NoDeviceError: nowhere.
    """
    if arguments.config is not None:
        return Path(arguments.config)
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    for path in (Path(CONFIG_NAME), SYSTEM_CONFIG):
        if path.is_file():
            return path
    raise NoDeviceError(
        f"no {CONFIG_NAME} here, none at {SYSTEM_CONFIG}: `edge-agent init .` writes one, --config FILE names one"
    )
