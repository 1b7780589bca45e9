"""A device's desk with every command that there is; a new one needs a line here and a name in `fd_protocol.topics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.care.log_level import LogLevels
from edge_agent.commands.body import Body
from edge_agent.commands.config import ConfigPlace, config_handler
from edge_agent.commands.desk import CommandDesk
from edge_agent.commands.diag import diag_handler
from edge_agent.commands.doing import Handler
from edge_agent.commands.dry_run import dry_run_handler
from edge_agent.commands.log_level import log_level_handler
from edge_agent.commands.restart_worker import restart_worker_handler
from edge_agent.settings import AgentSettings
from fd_protocol.topics import Topics
from fd_runtime.links.link import Link
from fd_runtime.storage.store import Store


@dataclass(frozen=True, slots=True)
class Tools:
    """What handlers work with beside the device itself.

    Attributes:
        path: of the owner's settings.
        levels: of the logs.
        summary: how the device is (`diagnosis`).
        utc_s: seconds since 1970.
        monotonic_s: seconds that no clock change touches.
    """

    path: Path
    levels: LogLevels
    summary: Callable[[], Mapping[str, str]]
    utc_s: Callable[[], float]
    monotonic_s: Callable[[], float]


def make_desk(body: Body, settings: AgentSettings, store: Store, link: Link, tools: Tools) -> CommandDesk:
    """Return the desk of the device `body`."""
    return CommandDesk(
        settings.device.id,
        Topics(settings.device.federation),
        store,
        link,
        handlers(body, settings, tools),
        allowed=settings.commands.allow,
        life=body.vitals.boot,
        utc_s=tools.utc_s,
        monotonic_s=tools.monotonic_s,
        chores=(tools.levels.tick,),
    )


def handlers(body: Body, settings: AgentSettings, tools: Tools) -> dict[str, Handler]:
    """Return the handlers by name."""
    place = ConfigPlace(
        tools.path, settings.state.folder, settings.commands.health_window_s, tools.levels.refresh, tools.monotonic_s
    )
    return {
        "config": config_handler(body, place),
        "diag": diag_handler(body, tools.summary),
        "dry-run": dry_run_handler(body, tools.monotonic_s),
        "log-level": log_level_handler(tools.levels),
        "restart-worker": restart_worker_handler(body, tools.monotonic_s),
    }
