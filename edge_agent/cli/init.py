"""`edge-agent init`: a settings file in which every key is explained."""

from __future__ import annotations

import argparse

from edge_agent.cli.place import CONFIG_NAME
from edge_agent.settings import DeviceSettings
from fd_runtime.command_line import write_settings


def run(arguments: argparse.Namespace) -> int:
    device = DeviceSettings(arguments.device, arguments.federation)
    write_settings(arguments.folder / CONFIG_NAME, "edge_agent", device=device.id, federation=device.federation)
    return 0
