"""`edge-agent run`: be the device."""

from __future__ import annotations

import argparse
import os

from edge_agent import service
from edge_agent.cli.place import config_path
from edge_agent.configuration import load_settings
from edge_agent.worker import WorkerRefusedError
from fd_runtime.config import ENVIRONMENT_PREFIX
from fd_runtime.logs import set_up_logs
from fd_runtime.version import VERSION


def run(arguments: argparse.Namespace) -> int:
    for name, value in (("LEVEL", arguments.log_level), ("FORMAT", arguments.log_format)):
        if value is not None:  # as an override, so that the worker hears of it too
            os.environ[f"{ENVIRONMENT_PREFIX}LOG__{name}"] = value
    path = config_path(arguments)
    tail = set_up_logs(load_settings(path).log)
    try:
        service.run(path, version=VERSION, tail=tail)
    except WorkerRefusedError as error:  # the worker has said why
        return error.exit_code
    return 0
