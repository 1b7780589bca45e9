"""A device as a process tree: this supervisor, which owns network and memory, and the worker, which owns the model.

Numpy and the runtimes are the worker's alone; the supervisor stays small, and outlives it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast

from edge_agent import presence
from edge_agent.agent import Agent, Inbox
from edge_agent.eligibility import Profile
from edge_agent.equipment import Equipment, load_equipment, private_epoch_of
from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.saying import NO_PRIVATE_STEP
from edge_agent.reservations import Reservations
from edge_agent.settings import AgentSettings
from edge_agent.training.conditions import Limits
from edge_agent.training.data_use import DataUse
from edge_agent.training.sensors import Sensors
from edge_agent.training.settings import TrainingSettings
from edge_agent.worker import ProcessWorker
from fd_protocol import codec
from fd_protocol.topics import Topics
from fd_runtime.link import LinkSettings, Will
from fd_runtime.mqtt_link import MqttLink
from fd_runtime.starting import blame, close_soon, exclusive, until_signalled
from fd_runtime.store import Store

_PUMP_S = 5.0
"""Longest wait: how late an overdue payload may be noticed."""


def run(path: Path, *, version: str) -> None:
    """Be the device that the settings file at `path` describes, until SIGINT or SIGTERM.

    Raises:
        ConfigError, StartError: it cannot start; says the key.
        WorkerRefusedError: the worker cannot; it has said why.
    """
    equipment = load_equipment(path)
    settings = equipment.settings
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            settings.state.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(settings.state.folder / "agent.lock"))
            store = stack.enter_context(closing(Store.open(settings.state.store)))
            profile = equipment.profile(private_epoch_of(store, settings.data.private))
            boot = presence.begin_life(store)
        with blame(path, "broker.tls"):
            link = MqttLink(_link_settings(settings, boot))
        stack.callback(close_soon, link)
        worker = ProcessWorker(
            _worker_command(path),
            cast("Inbox", link.events).put,
            environment=_environment(settings),
            settings=settings.process,
        )
        stack.callback(worker.close)
        data_use = DataUse(store, settings.training.data_mb_per_month, lambda: link.traffic)
        stack.callback(data_use.keep)
        with blame(path, "state.folder"):
            agent = Agent(
                profile,
                store,
                link,
                worker,
                _monotonic_ms,
                version=version,
                reserve=_reservations(equipment, profile, data_use),
                obstacle=_obstacle(settings.training),
            )
        stack.callback(agent.leave)

        def turn() -> None:
            agent.pump(_PUMP_S)
            data_use.look()

        until_signalled(turn, agent.wake)


def _reservations(equipment: Equipment, profile: Profile, data_use: DataUse) -> Reservations:
    settings = equipment.settings
    return Reservations(
        profile,
        settings.privacy,
        Ledger(settings.state.privacy) if equipment.has_private_rows else None,
        problem="" if equipment.trains_privately else NO_PRIVATE_STEP,
        is_data_spent=lambda: data_use.is_spent,
    )


def _obstacle(settings: TrainingSettings) -> Callable[[str], str]:
    limits, sensors = Limits.of(settings), Sensors()
    return lambda before: limits.obstacle(sensors.read(), before)


def _link_settings(settings: AgentSettings, boot: int) -> LinkSettings:
    device, broker = settings.device, settings.broker
    topics = Topics(device.federation)
    return LinkSettings(
        client_id=device.id,
        host=broker.host,
        port=broker.port,
        username=broker.username,
        tls=broker.tls,
        subscriptions=topics.device_filters(device.id),
        will=Will(topics.state(device.id), codec.encode(presence.will(boot))),
        manual_ack=True,
    )


def _worker_command(path: Path) -> list[str]:
    return [sys.executable, "-m", "edge_agent.worker_process", str(path)]


def _environment(settings: AgentSettings) -> dict[str, str]:
    """Numpy's own threads buy nothing at the size of a tail; glibc's arenas and heap keep what large arrays leave."""
    threads = str(settings.model.threads)
    allocator = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    return {**os.environ, **allocator, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
