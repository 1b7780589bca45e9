"""Which server a command is about: the settings file that is named, or that lies where one looks for it."""

from __future__ import annotations

from pathlib import Path

from fd_runtime.settings_place import SettingsPlace

CONFIG_NAME = "federation.toml"
# Of the server that systemd runs (deploy/systemd/broker-server.service).
SYSTEM_CONFIG = Path("/etc/fedistill-server") / CONFIG_NAME
SYSTEM_STATE = Path("/var/lib/fedistill-server")
PLACE = SettingsPlace(CONFIG_NAME, "FEDISTILL_SERVER_CONFIG", SYSTEM_CONFIG, writer="broker-server init .")
