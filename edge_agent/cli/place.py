"""Which device a command is about: the settings file that is named, or that lies where one looks for it."""

from __future__ import annotations

import argparse
from pathlib import Path

from fd_runtime.settings_place import SettingsPlace

CONFIG_NAME = "agent.toml"
# Of the device that systemd runs (deploy/systemd/edge-agent.service).
SYSTEM_CONFIG = Path("/etc/fedistill") / CONFIG_NAME
SYSTEM_STATE = Path("/var/lib/fedistill")
SYSTEM_RUNTIME = Path("/run/fedistill")
PLACE = SettingsPlace(
    CONFIG_NAME,
    "FEDISTILL_CONFIG",
    SYSTEM_CONFIG,
    writer="edge-agent init .",
    remedy="then change what is yours in it: device.id, device.federation, broker.host",
)


def config_path(arguments: argparse.Namespace) -> Path:
    """Return where the settings are.

    Raises:
        NoSettingsError: nowhere.
    """
    return PLACE.find(arguments.config)
