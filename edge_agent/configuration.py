"""A device's settings as they count: the owner's file, what the server has changed, the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from edge_agent import remote_config
from edge_agent.settings import AgentSettings
from fd_protocol.documents import InvalidDocumentError
from fd_runtime.config import ConfigError, load_toml

log = logging.getLogger("edge-agent")


def load_settings(path: Path, environ: Mapping[str, str] = os.environ) -> AgentSettings:
    """Return the settings that the file at `path` describes.

    What the server has changed never keeps a device from starting: values that no longer fit, or that ask for more than
    the owner allows by now, are passed over.

    Raises:
        ConfigError: as `load_toml`.
    """
    own = load_own(path, environ)
    try:
        changed = remote_config.load(own.state.folder).overrides(own)
        return load_toml(path, AgentSettings, environ, changed) if changed else own
    except (InvalidDocumentError, ConfigError, OSError) as error:
        log.warning("what the server has changed is passed over: %s", error)
        return own


def reload_settings(path: Path, last: AgentSettings) -> AgentSettings:
    """Return the settings as they are now, or `last` where the owner is in the middle of writing them."""
    try:
        return load_settings(path)
    except ConfigError as error:
        log.warning("the settings stay as they were: %s", error)
        return last


def load_own(path: Path, environ: Mapping[str, str] = os.environ) -> AgentSettings:
    """Return the settings as they would count without a server.

    Raises:
        ConfigError: as `load_toml`.
    """
    return load_toml(path, AgentSettings, environ)


def load_changed(path: Path, values: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> AgentSettings:
    """Return the settings as they would count with these remote values.

    Raises:
        ConfigError: the device could not start with them.
    """
    changed = remote_config.RemoteConfig(values).overrides(load_own(path, environ))
    return load_toml(path, AgentSettings, environ, changed)
