"""A device as a process tree: this supervisor, which owns network and memory, and the worker, which owns the model.

Numpy and the runtimes are the worker's alone; the supervisor stays small, and outlives it. systemd, where it is there,
hears from the loop alone how things stand (`process.herald`). A device may live several times in a process (`lives`):
to change settings, or to switch to another bundle, is to begin anew, as after a power cut.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, cast

from edge_agent import presence, remote_config
from edge_agent.agent import Agent, Inbox, RestartWantedError, SwitchWantedError
from edge_agent.care import logs
from edge_agent.care.diagnosis import Seen, summary, waiting
from edge_agent.care.log_level import LogLevels
from edge_agent.commands.assembly import Tools, make_desk
from edge_agent.configuration import load_settings, reload_settings
from edge_agent.enrolment.keeper import IdentityKeeper, errand_command
from edge_agent.equipment import Equipment, load_equipment, private_epoch_of
from edge_agent.inference.settings import STDOUT_VARIABLE
from edge_agent.lives import live_on
from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.saying import NO_PRIVATE_STEP
from edge_agent.process.herald import Herald
from edge_agent.process.remedies import remedy
from edge_agent.process.sd_notify import SYSTEMD_VARIABLES, Notifier
from edge_agent.process.standing import Standing
from edge_agent.reservations import Reservations
from edge_agent.round.eligibility import Profile
from edge_agent.settings import AgentSettings
from edge_agent.slots.keeper import Health, Helpers, Keeper, begin, trial_command, verify_command
from edge_agent.slots.machine import Phase, Slots, Unhealthy
from edge_agent.slots.reaching import trust
from edge_agent.slots.shelf import Shelf
from edge_agent.slots.telling import command_of
from edge_agent.spool import Spool
from edge_agent.training.data_use import DataUse
from edge_agent.training.sensors import Sensors
from edge_agent.training.settings import TrainingSettings
from edge_agent.worker import ProcessWorker, WorkerRefusedError
from fd_protocol import codec
from fd_protocol.topics import Topics
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml
from fd_runtime.links.link import LinkDown, LinkSettings, Traffic, Will
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.logs import Tail
from fd_runtime.starting import Stop, blame, close_soon, exclusive
from fd_runtime.storage.store import Store

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
    faulthandler.enable()  # a watchdog that ends us shall see where we stood
    stop = Stop()  # here, once: what comes between two lives, or before the first, is heard as well
    settings = load_toml(path, AgentSettings)
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            settings.state.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(settings.state.lock))
            spool = Spool(settings.state.outbox, settings.outbox)
            store = stack.enter_context(closing(Store.open(settings.state.store)))
        herald = Herald(Notifier.of(), settings.state.standing)
        stack.callback(herald.stop)
        house = _House(path, store, spool, herald, stop, version, tail or Tail())
        live_on(path, lambda: _live(house))


@dataclass(frozen=True, slots=True)
class _House:
    """What outlives the lives of a device in this process."""

    path: Path
    store: Store
    spool: Spool
    herald: Herald
    stop: Stop
    version: str
    tail: Tail


def _live(house: _House) -> None:
    """Be the device for one life; raises as `run`, and RestartWantedError where another is to begin."""
    path, store = house.path, house.store
    with blame(path, "model.bundle"):
        settings = load_settings(path)
        shelf = Shelf(settings.state.slots)
        begin(shelf, load_bundle(settings.model.bundle).digest.hex())
    equipment, folder = load_equipment(path), settings.state.folder
    with ExitStack() as stack:
        with blame(path, "state.folder"):
            profile = equipment.profile(private_epoch_of(store, settings.data.private))
            boot = presence.begin_life(store)
        identity = _identity(path, settings)
        with blame(path, "broker"):
            link = MqttLink(_link_settings(settings, boot, identity))
        stack.callback(close_soon, link)
        if identity is not None:
            identity.start(link.hurry)
            stack.callback(identity.close)
        inbox = cast("Inbox", link.events)
        with blame(path, "releases.ca"):
            if identity is None:
                trust(settings)  # the owner's mistake shows here, not at the first release
        worker = _start_worker(path, settings, inbox, stack)
        logs.write_at_signal(house.tail, folder / logs.TAIL, lambda: worker.signal(signal.SIGUSR2))
        levels = _levels(path, settings, worker)
        keeper = _keeper(path, settings, shelf, worker, inbox)
        stack.callback(keeper.close)
        data_use = DataUse(
            store,
            settings.training.data_mb_per_month,
            lambda: link.traffic + Traffic(received_bytes=keeper.received_bytes),
        )
        stack.callback(data_use.keep)
        with blame(path, "state.folder"):
            agent = _agent(house, equipment, profile, link, worker, keeper=keeper, data_use=data_use)
            tools = Tools(
                path,
                levels,
                lambda: summary(_seen(equipment, agent, store, house.version, house.tail)),
                time.time,
                time.monotonic,
            )
            agent.obey(make_desk(agent, settings, store, link, tools))
        stack.push(_farewell(agent))
        _go_round(house, settings, agent, worker, keeper=keeper, data_use=data_use, identity=identity)


def _start_worker(path: Path, settings: AgentSettings, inbox: Inbox, stack: ExitStack) -> ProcessWorker:
    """Start the worker, which ends with `stack`; it writes to our standard output where predictions go there."""
    inherited = (os.dup(1),) if settings.outputs.stdout else ()
    for descriptor in inherited:
        stack.callback(os.close, descriptor)
    worker = ProcessWorker(
        _worker_command(path),
        inbox.put,
        environment=lambda: _environment(reload_settings(path, settings), *inherited),
        settings=settings.process,
        inherited=inherited,
    )
    stack.callback(worker.close)
    return worker


def _agent(
    house: _House,
    equipment: Equipment,
    profile: Profile,
    link: MqttLink,
    worker: ProcessWorker,
    *,
    keeper: Keeper,
    data_use: DataUse,
) -> Agent:
    """Return the loop, which has taken up what this device remembers."""
    return Agent(
        profile,
        house.store,
        link,
        worker,
        _monotonic_ms,
        version=house.version,
        spool=house.spool,
        find_set=equipment.find_set,
        on_release=keeper.nudge,
        on_round_end=keeper.took_part,
        pid=os.getpid(),
        since_utc_s=int(time.time()),
        restart_worker=worker.restart,
        reserve=_reservations(equipment, profile, data_use),
        obstacle=_obstacle(equipment.settings.training),
    )


def _keeper(path: Path, settings: AgentSettings, shelf: Shelf, worker: ProcessWorker, inbox: Inbox) -> Keeper:
    """Return who goes the way to another bundle."""
    return Keeper(
        shelf,
        settings.releases,
        lambda: trust(settings),
        Helpers(trial_command(path), verify_command(path)),
        lambda: _health(worker),
        device=settings.device.id,
        environment=_environment(settings),
        on_change=lambda _: inbox.put(None),  # the loop looks
    )


def _levels(path: Path, settings: AgentSettings, worker: ProcessWorker) -> LogLevels:
    """Return the log's level, of this process and of the worker, which is in force from now on."""
    return LogLevels(
        settings.state.folder,
        lambda: reload_settings(path, settings).log.level,
        time.time,
        time.monotonic,
        lambda: worker.signal(signal.SIGUSR1),
    )


def _go_round(
    house: _House,
    settings: AgentSettings,
    agent: Agent,
    worker: ProcessWorker,
    *,
    keeper: Keeper,
    data_use: DataUse,
    identity: IdentityKeeper | None,
) -> None:
    """Turn after turn until somebody stops us; raises SwitchWantedError where another bundle is to run."""
    pump_s, told = min(_PUMP_S, house.herald.pause_s), Slots()

    def turn() -> None:
        nonlocal told
        house.herald.turn(_standing(agent, worker, identity))  # before the wait: of a life that has just begun, too
        agent.pump(pump_s)
        keeper.is_data_spent = data_use.is_spent  # which looks, too
        if keeper.state != told:
            told = keeper.state
            _tell(agent, settings, told)
        if keeper.state.awaits_restart and agent.is_quiet:
            raise SwitchWantedError("another bundle is to run")

    try:
        house.stop.loop(turn, agent.wake)
    except WorkerRefusedError as error:
        if keeper.state.phase is not Phase.COMMIT:
            raise
        keeper.take(Unhealthy(f"the worker refuses the bundle (status {error.exit_code})"))
        raise SwitchWantedError("the bundle before is to run") from error


def _reservations(equipment: Equipment, profile: Profile, data_use: DataUse) -> Reservations:
    settings = equipment.settings
    return Reservations(
        profile,
        settings.privacy,
        Ledger(settings.state.privacy) if equipment.has_private_rows else None,
        problem="" if equipment.trains_privately else NO_PRIVATE_STEP,
        has_public_set=equipment.public is not None,
        is_data_spent=lambda: data_use.is_spent,
    )


def _obstacle(settings: TrainingSettings) -> Callable[[str], str]:
    limits, sensors = settings.limits(), Sensors()
    return lambda before: limits.obstacle(sensors.read(), before)


def _tell(agent: Agent, settings: AgentSettings, slots: Slots) -> None:
    """Tell the federation how far the way to another bundle is."""
    command = command_of(slots, int(time.time()), is_under_terms=agent.is_under_terms)
    if command is not None:
        topic = Topics(settings.device.federation).command(settings.device.id, command.command)
        agent.say(topic, codec.encode(command), retain=True)


def _identity(path: Path, settings: AgentSettings) -> IdentityKeeper | None:
    """Return who keeps the device's certificate; None: its owner."""
    files = settings.identity
    if files is None:
        return None
    return IdentityKeeper(files, settings.device.id, errand_command(path), environment=_environment(settings))


def _standing(agent: Agent, worker: ProcessWorker, identity: IdentityKeeper | None) -> Standing:
    alarms = dict(agent.alarms)
    if identity is not None and identity.alarm:
        alarms["certificate"] = identity.alarm
    down = agent.connection if isinstance(agent.connection, LinkDown) else None
    return Standing(
        vitals=agent.vitals,
        phase=agent.state.phase.value,
        hindrance=down.kind.value if down is not None else "",
        advice=remedy(down) if down is not None else "",
        worker_pid=worker.standing.pid,
        last_death=worker.standing.last_death,
        alarms=alarms,
        waiting=agent.waiting,
        lost=agent.lost,
        measured=dict(agent.measured),
    )


def _health(worker: ProcessWorker) -> Health:
    standing = worker.standing
    return Health(standing.is_ready, standing.deaths, standing.last_death)


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
    """Say goodbye to the fleet when the device is stopped, and nothing where it goes on with another life.

    To another bundle it does: were that to end the device, the broker would hold it to be there for ever.
    """

    def leave(kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is not RestartWantedError:
            agent.leave()

    return leave


def _link_settings(settings: AgentSettings, boot: int, identity: IdentityKeeper | None) -> LinkSettings:
    device, broker = settings.device, settings.broker
    topics = Topics(device.federation)
    return LinkSettings(
        client_id=device.id,
        host=broker.host,
        port=broker.port,
        username=broker.username,
        tls=settings.tls,
        obstacle=None if identity is None else identity.obstacle,
        proxy=broker.way,
        subscriptions=topics.device_filters(device.id),
        will=Will(topics.state(device.id), codec.encode(presence.will(boot))),
        manual_ack=True,
        only_acknowledged=True,
        session_expiry_s=presence.SESSION_S,
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
    inherited = {name: value for name, value in os.environ.items() if name not in SYSTEMD_VARIABLES}
    if stdout is not None:
        inherited[STDOUT_VARIABLE] = str(stdout)
    return {**inherited, **allocator, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
