"""The programs of a federation and their files, as a person would lay them out by hand.

    programs/federation.toml  agents/device-0.toml ... data/device-0.npz ... state/  logs/

Started in order (broker, server, devices), stopped in the reverse; whatever happens, nothing is left running.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from broker_server.brokers.loopback import LOOPBACK, BrokerProcess
from broker_server.settings import MethodSettings
from edge_agent.learning.learned import private_path, spoke_privately
from fd_runtime.artifacts import Runtime
from fd_runtime.links.link import TlsFiles
from fleet_sim.factory import Equipment
from fleet_sim.real.broker import Broker, make_broker
from fleet_sim.real.processes import Program, ours, stop_all
from fleet_sim.real.wire_meter import WireMeter
from fleet_sim.rules import stated
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import World

FEDERATION, AGGREGATOR = "demo", "aggregator"


@dataclass(frozen=True, slots=True)
class Stage:
    """What is played, by whom, on what.

    Attributes:
        scenario: what nobody simulates is left out of it.
        world: who holds what.
        equipment: what left the factory.
        folder: new; takes everything that is written.
        litert_device: the one that runs its model and its training in LiteRT; the others run onnxruntime.
        round_s: how long a round waits for devices that do not answer.
        pause_s: between two rounds, for those who watch.
        further: more settings of a device, by its name.
        records: how many rounds the server can look back at; 0 = its own choice.
        quorum: contributions that make a consensus; 0 = of half of the devices.
        minimum_online: devices without which no round opens; 0 = all of them.
        environment: further variables of a program, by its name.
    """

    scenario: Scenario
    world: World
    equipment: Equipment
    folder: Path
    litert_device: int | None = None
    round_s: int = 120
    pause_s: float = 0.0
    further: Callable[[str], Mapping[str, Any]] = lambda _device: {}
    records: int = 0
    quorum: int = 0
    minimum_online: int = 0
    environment: Callable[[str], Mapping[str, str]] = lambda _name: {}

    def runtime_of(self, index: int) -> Runtime:
        return "litert" if index == self.litert_device else "onnxruntime"


@dataclass(slots=True)
class Fleet:
    """A federation of real processes.

    Attributes:
        folder: of everything it writes.
        devices: names, in the order of the world's private parts.
        meter: what has crossed each device's wire.
        broker: the running one.
        programs: running ones, the server first.
        notice: what broker it is, and what that means.
    """

    folder: Path
    devices: tuple[str, ...]
    meter: WireMeter
    broker: BrokerProcess
    notice: str
    programs: list[Program] = field(default_factory=list)

    @property
    def server_store(self) -> Path:
        return self.folder / "state" / AGGREGATOR / "server.db"

    def checkpoint(self, device: str) -> Path:
        """Return what the device speaks with: what it learned under privacy terms, where it was asked to."""
        path = self.folder / "state" / device / "checkpoint"
        return private_path(path) if spoke_privately(path) else path

    def method(self, scenario: Scenario, world: World) -> MethodSettings:
        """Return the method as the server has it."""
        return stated(scenario.method, dict(zip(self.devices, map(len, world.private), strict=True)))

    def check(self) -> None:
        """Raise ProgramEndedError if one of the programs does not run any more."""
        for program in self.programs:
            program.check()


@contextmanager
def running_fleet(stage: Stage, *, embedded_broker: bool) -> Iterator[Fleet]:
    """Write every file, start everything, and end it all on leaving.

    Raises:
        BrokerError: no broker could be started.
    """
    folder = stage.folder
    devices = tuple(f"device-{index}" for index in range(stage.scenario.devices))
    for name in ("agents", "data", "logs"):
        (folder / name).mkdir(parents=True)
    now = datetime.now(timezone.utc)
    broker = make_broker(folder / "broker", FEDERATION, AGGREGATOR, devices, now, embedded=embedded_broker)
    with ExitStack() as stack:
        stack.enter_context(broker.process)
        meter = stack.enter_context(WireMeter(broker.process.port))
        fleet = Fleet(folder, devices, meter, broker.process, broker.notice)
        stack.callback(lambda: stop_all(fleet.programs[::-1]))
        server = _write_server(fleet, stage, broker)
        fleet.programs.append(_start(fleet, stage, AGGREGATOR, "broker-server", server))
        for index, device in enumerate(devices):
            settings = _write_device(fleet, index, stage, broker.identities.get(device))
            fleet.programs.append(_start(fleet, stage, device, "edge-agent", settings))
        yield fleet


def _start(fleet: Fleet, stage: Stage, name: str, command: str, settings: Path) -> Program:
    log = fleet.folder / "logs" / f"{name}.log"
    return Program(name, [ours(command), "run", "--config", settings], log, stage.environment(name))


def _write_server(fleet: Fleet, stage: Stage, broker: Broker) -> Path:
    scenario, equipment = stage.scenario, stage.equipment
    artifacts = {
        "public_set": equipment.public.folder,
        "bundle": equipment.bundles[scenario.models.student].folder,
    }
    if scenario.canaries:
        artifacts["canaries"] = fleet.folder / "canaries.json"
        artifacts["canaries"].write_bytes(equipment.canaries.to_json())
    settings = {
        "federation": FEDERATION,
        "aggregator": AGGREGATOR,
        "trust": "canaries" if scenario.canaries else "none",
        "artifacts": artifacts,
        "state": {"folder": fleet.server_store.parent},
        "broker": _broker(broker.process.port, broker.identities.get(AGGREGATOR)),
        "rounds": {
            "quorum": stage.quorum or max(1, scenario.devices // 2),
            "duration_s": stage.round_s,
            "pause_s": stage.pause_s,
            "fraction": scenario.fraction,
            **asdict(scenario.ask),
            "minimum_online": stage.minimum_online or scenario.devices,
            "most_uncovered": 1.0,  # as in the simulation
            "count": scenario.rounds,
        },
        "method": asdict(fleet.method(stage.scenario, stage.world)),
        "training": asdict(scenario.training),
        "privacy": asdict(scenario.privacy),
        "student": {"terms": asdict(scenario.student)},
    }
    if stage.records:
        settings["records"] = {"rounds": stage.records}
    return _write_toml(fleet.folder / "federation.toml", settings)


def _write_device(fleet: Fleet, index: int, stage: Stage, identity: TlsFiles | None) -> Path:
    device, private, families = fleet.devices[index], stage.world.private[index], stage.scenario.models.families
    data = fleet.folder / "data" / f"{device}.npz"
    np.savez(data, x=private.values, y=private.labels)
    settings = {
        "device": {"id": device, "federation": FEDERATION},
        "broker": _broker(fleet.meter.add(device), identity),
        "model": {
            "bundle": stage.equipment.bundles[families[index % len(families)]].folder,
            "public_set": stage.equipment.public.folder,
            "runtime": stage.runtime_of(index),
        },
        "data": {"private": data},
        "state": {"folder": fleet.folder / "state" / device},
        "training": {"max_c": 0.0},  # ten devices on one machine are no measure of its heat
        **stage.further(device),
    }
    return _write_toml(fleet.folder / "agents" / f"{device}.toml", settings)


def _broker(port: int, identity: TlsFiles | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"host": LOOPBACK, "port": port}
    return settings | ({"tls": asdict(identity)} if identity else {})


def _write_toml(path: Path, settings: Mapping[str, Any]) -> Path:
    path.write_text("\n".join(_toml_lines("", settings)) + "\n")
    return path


def _toml_lines(prefix: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Plain keys first, then a table for each mapping: what these settings need of TOML."""
    tables = {key: value for key, value in settings.items() if isinstance(value, Mapping)}
    for key, value in settings.items():
        if key not in tables:
            yield f"{key} = {_toml_value(value)}"
    for key, table in tables.items():
        yield f"\n[{prefix}{key}]"
        yield from _toml_lines(f"{prefix}{key}.", table)


def _toml_value(value: object) -> str:
    """JSON's strings, numbers and booleans are TOML's."""
    return json.dumps(value.resolve().as_posix() if isinstance(value, Path) else value)
