"""A device as a process tree: this supervisor, which owns network and memory, and the worker, which owns the model.

Numpy and the runtimes are the worker's alone; the supervisor stays small, and outlives it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, cast

from edge_agent import logs, presence, remote_config, vitals
from edge_agent.agent import Agent, Inbox, RestartWantedError
from edge_agent.commands.assembly import Tools, make_desk
from edge_agent.configuration import reload_settings
from edge_agent.diagnosis import Seen, summary, waiting
from edge_agent.equipment import Equipment, load_equipment, private_epoch_of
from edge_agent.lives import live_on
from edge_agent.log_level import LogLevels
from edge_agent.settings import AgentSettings
from edge_agent.worker import ProcessWorker
from fd_protocol import codec
from fd_protocol.topics import Topics
from fd_runtime.link import LinkSettings, Will
from fd_runtime.logs import Tail
from fd_runtime.mqtt_link import MqttLink
from fd_runtime.starting import blame, close_soon, exclusive, until_signalled
from fd_runtime.store import Store

_PUMP_S = 5.0
"""Longest wait: how late an overdue payload may be noticed."""

log = logging.getLogger("edge-agent")


def run(path: Path, *, version: str, tail: Tail | None = None) -> None:
    """Be the device that the settings file at `path` describes, until SIGINT or SIGTERM.

    Args:
        path: of the settings.
        version: of this program.
        tail: keeps the last lines of the log; None = nobody does.

    Raises:
        ConfigError, StartError: it cannot start; says the key.
        WorkerRefusedError: the worker cannot; it has said why.
    """
    live_on(path, lambda: _live(path, version, tail or Tail()))


def _live(path: Path, version: str, tail: Tail) -> None:
    """Be the device for one life; raises as `run`, and RestartWantedError where another is to begin."""
    equipment = load_equipment(path)
    settings = equipment.settings
    folder = settings.state.folder
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(folder / "agent.lock"))
            store = stack.enter_context(closing(Store.open(settings.state.store)))
            profile = equipment.profile(private_epoch_of(store, settings.data.private))
            boot = presence.begin_life(store)
        with blame(path, "broker.tls"):
            link = MqttLink(_link_settings(settings, boot))
        stack.callback(close_soon, link)
        worker = ProcessWorker(
            _worker_command(path),
            cast("Inbox", link.events).put,
            environment=lambda: _environment(reload_settings(path, settings)),
        )
        stack.callback(worker.close)
        logs.write_at_signal(tail, folder / logs.TAIL, lambda: worker.signal(signal.SIGUSR2))
        levels = LogLevels(
            folder,
            lambda: reload_settings(path, settings).log.level,
            time.time,
            time.monotonic,
            lambda: worker.signal(signal.SIGUSR1),
        )
        with blame(path, "state.folder"):
            agent = Agent(
                profile,
                store,
                link,
                worker,
                _monotonic_ms,
                version=version,
                pid=os.getpid(),
                since_utc_s=int(time.time()),
                on_vitals=lambda told: vitals.write(folder, told),
                restart_worker=worker.restart,
            )
            tools = Tools(
                path,
                levels,
                lambda: summary(_seen(equipment, agent, store, version, tail)),
                time.time,
                time.monotonic,
            )
            agent.obey(make_desk(agent, settings, store, link, tools))
        vitals.write(folder, agent.vitals)
        stack.push(_farewell(agent))
        until_signalled(lambda: agent.pump(_PUMP_S), agent.wake)


def _seen(equipment: Equipment, agent: Agent, store: Store, version: str, tail: Tail) -> Seen:
    settings = equipment.settings
    blobs = {send.payload: len(store.blob(send.payload)) for send in waiting(agent.state)}
    return Seen(
        version=version,
        state=agent.state,
        vitals=agent.vitals,
        runtime=settings.model.runtime,
        bundle=equipment.bundle.digest,
        public_set=equipment.public.digest if equipment.public is not None else b"",
        store=settings.state.store,
        now_utc_s=time.time(),
        blob_bytes=blobs,
        remote=remote_config.load(settings.state.folder).values,
        log_level=logging.getLevelName(logging.getLogger().level).lower(),
        log_counts=tail.counts,
    )


Farewell: TypeAlias = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]


def _farewell(agent: Agent) -> Farewell:
    """Say goodbye to the fleet when the device is stopped, and nothing where it goes on with another life."""

    def leave(kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is not RestartWantedError:
            agent.leave()

    return leave


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
