"""`edge-agent init`: a settings file in which every key is explained."""

from __future__ import annotations

import argparse

from edge_agent.cli.place import CONFIG_NAME, SYSTEM_CONFIG, SYSTEM_RUNTIME, SYSTEM_STATE
from edge_agent.settings import DeviceSettings
from fd_runtime.command_line import write_settings


def run(arguments: argparse.Namespace) -> int:
    device = DeviceSettings(arguments.device, arguments.federation)
    path = arguments.folder / CONFIG_NAME
    is_system = path.absolute() == SYSTEM_CONFIG
    write_settings(path, "edge_agent", device=device.id, federation=device.federation, **places(is_system=is_system))
    return 0


def places(*, is_system: bool) -> dict[str, str]:
    """Return what stands in the template for places: those of the package, or beside the file."""
    if is_system:
        return {"state": str(SYSTEM_STATE), "runtime": f'runtime = "{SYSTEM_RUNTIME}"    '}
    return {"state": "state", "runtime": '# runtime = "/run/fedistill"    '}
