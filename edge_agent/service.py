"""A device as a process tree: this supervisor, which owns network and memory, and the worker, which owns the model.

Numpy and the runtimes are the worker's alone; the supervisor stays small, and outlives it. systemd, where it is there,
hears from the loop alone how things stand (`process.herald`).
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast

from edge_agent import presence
from edge_agent.agent import Agent, Inbox
from edge_agent.equipment import load_equipment, private_epoch_of
from edge_agent.inference.settings import STDOUT_VARIABLE
from edge_agent.process.herald import Herald
from edge_agent.process.sd_notify import SYSTEMD_VARIABLES, Notifier
from edge_agent.process.standing import standing_of
from edge_agent.settings import AgentSettings
from edge_agent.spool import Spool
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
    faulthandler.enable()  # a watchdog that ends us shall see where we stood
    notifier = Notifier.of()
    equipment = load_equipment(path)
    settings = equipment.settings
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            settings.state.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(settings.state.lock))
            spool = Spool(settings.state.outbox, settings.outbox)
            store = stack.enter_context(closing(Store.open(settings.state.store)))
            profile = equipment.profile(private_epoch_of(store, settings.data.private))
            boot = presence.begin_life(store)
        with blame(path, "broker"):
            link = MqttLink(_link_settings(settings, boot))
        stack.callback(close_soon, link)
        inherited = (os.dup(1),) if settings.outputs.stdout else ()
        worker = ProcessWorker(
            _worker_command(path),
            cast("Inbox", link.events).put,
            environment=_environment(settings, *inherited),
            settings=settings.process,
            inherited=inherited,
        )
        stack.callback(worker.close)
        with blame(path, "state.folder"):
            agent = Agent(profile, store, link, worker, _monotonic_ms, version=version, spool=spool)
        stack.callback(agent.leave)
        herald = Herald(notifier, settings.state.standing)
        stack.callback(herald.stop)
        pump_s = min(_PUMP_S, notifier.pause_s)

        def turn() -> None:
            agent.pump(pump_s)
            herald.turn(standing_of(agent, worker.standing, os.getpid()))

        until_signalled(turn, agent.wake)


def _link_settings(settings: AgentSettings, boot: int) -> LinkSettings:
    device, broker = settings.device, settings.broker
    topics = Topics(device.federation)
    return LinkSettings(
        client_id=device.id,
        host=broker.host,
        port=broker.port,
        username=broker.username,
        tls=broker.tls,
        proxy=broker.way,
        subscriptions=topics.device_filters(device.id),
        will=Will(topics.state(device.id), codec.encode(presence.will(boot))),
        manual_ack=True,
    )


def _worker_command(path: Path) -> list[str]:
    return [sys.executable, "-m", "edge_agent.worker_process", str(path)]


def _environment(settings: AgentSettings, stdout: int | None = None) -> dict[str, str]:
    """Numpy's own threads buy nothing at the size of a tail; glibc's arenas and heap keep what large arrays leave.

    `stdout`: descriptor of our standard output, where the worker writes to it: its own carries answers.
    """
    threads = str(settings.model.threads)
    allocator = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    # What systemd wants to hear it wants to hear from the supervisor.
    kept = {name: value for name, value in os.environ.items() if name not in SYSTEMD_VARIABLES}
    inherited = {} if stdout is None else {STDOUT_VARIABLE: str(stdout)}
    return {**kept, **allocator, **inherited, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
