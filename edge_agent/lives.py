"""The lives of a device in one process: it begins anew where its settings have changed, and goes back where it must.

    live --RestartWanted--> live        with the settings of then
    live --it cannot start--> live      with the settings of before, where others were on trial

So settings that a server has changed cannot keep a device down, not even ones that kill its supervisor: a life with
values on trial is counted before it begins, and after `remote_config.MAX_STARTS` of them the values are rolled back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from edge_agent import remote_config
from edge_agent.agent import RestartWantedError
from edge_agent.settings import AgentSettings
from edge_agent.worker import WorkerRefusedError
from fd_protocol.documents import InvalidDocumentError
from fd_protocol.errors import FedistillError
from fd_runtime.config import ConfigError, load_toml
from fd_runtime.starting import StartError

log = logging.getLogger("edge-agent")


def live_on(path: Path, live: Callable[[], None]) -> None:
    """Call `live` until it returns: the device was told to stop.

    Raises:
        ConfigError, StartError, WorkerRefusedError: it cannot start with the owner's settings.
    """
    while True:
        try:
            _count_start(path)
            live()
        except RestartWantedError:
            log.info("beginning anew")
        except (ConfigError, StartError, WorkerRefusedError) as error:
            if not _roll_back(path, error):
                raise
        else:
            return


def _count_start(path: Path) -> None:
    """Raises: StartError: it cannot be written down, and no life may go uncounted."""
    folder = load_toml(path, AgentSettings).state.folder
    try:
        config = remote_config.load(folder)
        if config.trial:
            remote_config.save(folder, remote_config.count_start(config))
    except InvalidDocumentError as error:
        log.warning("what the server has changed is passed over: %s", error)
    except OSError as error:
        raise StartError(path, "state.folder", error) from error


def _roll_back(path: Path, error: FedistillError) -> bool:
    """Return whether there was something to go back from: values on trial, and a file in which to say so."""
    try:
        folder = load_toml(path, AgentSettings).state.folder
        config = remote_config.load(folder)
        if not config.trial:
            return False
        log.warning("settings changed from afar are rolled back: %s", error)
        remote_config.save(folder, remote_config.roll_back(config, _why(error)))
    except (FedistillError, OSError):
        return False
    return True


def _why(error: FedistillError) -> str:
    """A word for the wire: the error's own text names files of this device."""
    return f"it does not start ({type(error).__name__.removesuffix('Error')})"
