"""A whole federation in one process: the real aggregator, real agents, codecs and graphs, over the in-memory bus.

    for result in Simulation(scenario, world, equipment, seed).run(): ...

Time stands still while anything moves and jumps to what is due next when nothing does, so a round lasts as long as its
arithmetic. Everything random is drawn from the seed: equal arguments give equal consensuses, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from broker_server.federation import wake_at_ms
from broker_server.settings import RoundSettings, Settings
from broker_server.student import Student
from edge_agent.eligibility import Profile
from edge_agent.jobs import Answer, Job
from edge_agent.private_data import PrivateRows
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.messages import RoundOffer
from fd_protocol.soft_labels import soften
from fd_runtime.model import F32
from fd_runtime.space import preprocessed
from fleet_sim.attacks.knowledge import Sees
from fleet_sim.attacks.liar import Liar
from fleet_sim.attacks.ring import Ring
from fleet_sim.bus import InMemoryBroker
from fleet_sim.cores import CorePlan, Cores
from fleet_sim.factory import Equipment
from fleet_sim.lab import Lab
from fleet_sim.measuring import Observer, RoundResult
from fleet_sim.parties import Clock, Device, Server
from fleet_sim.scenario import Crashes, Scenario
from fleet_sim.shared_models import SharedModels
from fleet_sim.worlds import Samples, World

FEDERATION = "sim"
_PAUSE_S = 120.0
"""Between rounds: long enough for a device whose receipt was lost to send again, so that all come to rest."""
_IDLE_MS = 5_000
"""How far time jumps where no deadline is nearer; what is unanswered for that long is sent again."""
_TURNS_MAX = 5_000
_PATIENCE_MS = 24 * 3_600_000
"""How long a federation may go without a consensus before it counts as stuck."""


@contextmanager
def disk_for(scenario: Scenario) -> Iterator[Path | None]:
    """Yield a folder for databases and checkpoints; None: nobody starts again, so memory will do."""
    if scenario.crashes == Crashes() and scenario.drift is None:
        yield None
        return
    with TemporaryDirectory(prefix="fleet-sim-") as folder:
        yield Path(folder)


class StuckError(FedistillError):
    """The federation never comes to rest, or never moves: with these faults it cannot go on."""


class Simulation:
    """One federation being played: `run` to its end, or by hand with `turn`, `settle` and `advance`.

    Args:
        scenario: what to play.
        world: who holds what.
        equipment: what left the factory.
        seed: of everything that the world and the equipment have not drawn already.
        lab: of the world and the equipment, where somebody shares one.
        cores: where the devices' models live; None = in this process.
        folder: where database and checkpoints lie; None = in memory, and no device survives a crash.
    """

    def __init__(
        self,
        scenario: Scenario,
        world: World,
        equipment: Equipment,
        seed: int,
        *,
        lab: Lab | None = None,
        cores: Cores | None = None,
        folder: Path | None = None,
    ) -> None:
        if (scenario.crashes.device or scenario.drift) and folder is None:
            raise InvalidValueError("devices that crash or whose rows drift need a folder for their checkpoints")
        self.scenario, self._world, self._equipment, self._folder = scenario, world, equipment, folder
        self._lab = lab or Lab(world, equipment.bundles)
        self._cores = cores or SharedModels(equipment.public)
        self._bus_dice, self._entropy, self._crash_dice, lies = np.random.default_rng([seed, 2]).spawn(4)
        self.clock = Clock()
        self.broker = InMemoryBroker(self._bus_dice, scenario.faults, now_s=self.clock.now_s)
        self.server = self._make_server()
        self._ring = self._make_ring(lies, seed)
        self._holdings = scenario.holdings(seed)
        held = self._holdings.of(1) if self._holdings else world.private
        self.devices = [self._make_device(number, held[number]) for number in range(scenario.devices)]
        self.observer = Observer(self._lab, scenario, seed)

    @property
    def liars(self) -> list[Device]:
        """The first devices."""
        return self.devices[: self.scenario.attack.devices]

    @property
    def honest(self) -> list[Device]:
        """The devices that do not lie."""
        return self.devices[self.scenario.attack.devices :]

    def run(self) -> Iterator[RoundResult]:
        """Play to the last round, yielding after each that made a consensus.

        Raises:
            StuckError: no consensus for a day.
        """
        last, since_ms = 0, self.clock.now_ms
        while not self.server.aggregator.is_complete:
            self.settle()
            consensus = self.server.aggregator.state.consensus
            if consensus is not None and consensus.round.number != last:
                last, since_ms = consensus.round.number, self.clock.now_ms
                yield self.observer.look(self.server, self.honest)
                self._drift(last + 1)
            self.advance()
            if self.clock.now_ms - since_ms > _PATIENCE_MS:
                raise StuckError("no consensus for a day")

    def turn(self) -> bool:
        """Let every message move one step and every program act on what has come; False: nothing was due."""
        self._throw_crash_dice()
        moves = [self.broker.turn(), *(device.pump() for device in self.devices)]
        self._cores.settle()
        return self.server.aggregator.pump(0.0) or any(moves)

    def settle(self) -> None:
        """Turn until nothing is due at this time.

        Raises:
            StuckError: that never happens.
        """
        for _ in range(_TURNS_MAX):
            if not self.turn():
                return
        raise StuckError(f"still busy after {_TURNS_MAX} turns")

    def advance(self) -> None:
        """Let time pass until the server is due, a few seconds at most."""
        now_ms, wake_ms = self.clock.now_ms, wake_at_ms(self.server.aggregator.state)
        self.clock.now_ms = min(now_ms + _IDLE_MS, max(now_ms + 1, wake_ms or now_ms + _IDLE_MS))

    def _drift(self, number: int) -> None:
        """Let devices hold what they hold in round `number`."""
        if self._holdings is None:
            return
        for device, private in zip(self.devices, self._holdings.of(number), strict=True):
            device.renew(PrivateRows(private.values, private.labels))

    def _throw_crash_dice(self) -> None:
        crashes = self.scenario.crashes
        chances: list[tuple[Server | Device, float]] = [(device, crashes.device) for device in self.devices]
        for party, chance in [*chances, (self.server, crashes.server)]:
            if chance and self._crash_dice.random() < chance:
                party.crash()
                party.start()

    # Making the parties.

    def _make_server(self) -> Server:
        scenario, equipment = self.scenario, self._equipment
        settings = Settings(
            FEDERATION,
            rounds=RoundSettings(
                quorum=1,
                pause_s=_PAUSE_S,
                minimum_online=scenario.devices,
                count=scenario.rounds,
                fraction=scenario.fraction,
                **asdict(scenario.ask),
            ),
            method=scenario.method,
            training=scenario.training,
        )
        bundle = equipment.bundles[scenario.models.student]
        inputs = preprocessed(equipment.public.probes(), equipment.task)
        return Server(
            settings,
            self.broker,
            self.clock,
            equipment.probes,
            self._entropy.bytes,
            student=Student(bundle.open("onnxruntime"), bundle.digest, inputs, scenario.student, equipment.canaries),
            canaries=equipment.canaries if scenario.canaries else None,
            path=self._folder / "server.db" if self._folder else None,
        )

    def _make_device(self, number: int, held: Samples) -> Device:
        families = self.scenario.models.families
        bundle = self._equipment.bundles[families[number % len(families)]]
        profile = _profile(number, bundle.manifest.family, bundle.digest, self._equipment)
        path = self._folder / f"{profile.device}.checkpoint" if self._folder else None
        private = PrivateRows(held.values, held.labels)
        plan = CorePlan(profile.device, bundle, private, path)
        is_liar = number < self.scenario.attack.devices
        return Device(number, profile, self.broker, self.clock, self._cores, plan, self._falsify if is_liar else None)

    def _falsify(self, honest: Callable[[Job], Answer]) -> Callable[[Job], Answer]:
        return Liar(honest, self._ring).handle

    def _make_ring(self, lies: np.random.Generator, seed: int) -> Ring:
        surveys = {
            Sees.ACCOMPLICES: lambda offer: self._survey(self.liars, offer),
            Sees.HONEST: lambda offer: self._survey(self.honest, offer),
        }
        probes = self._equipment.probes
        return Ring(self.scenario.attack, surveys, probes.count, probes.classes, lies, seed)

    def _survey(self, devices: Sequence[Device], offer: RoundOffer) -> F32:
        """Return what the models of `devices` say now, float32 [devices, n, classes]."""
        rows = slice(offer.slice.start, offer.slice.start + offer.slice.count)
        features = [self._lab.rows(device.profile.family, self._equipment.public_probes).features for device in devices]
        logits = [device.core.logits(each[rows]) for device, each in zip(devices, features, strict=True)]
        return np.stack([soften(z, offer.temperature) for z in logits])


def _profile(number: int, family: str, bundle: bytes, equipment: Equipment) -> Profile:
    return Profile(
        device=f"device-{number}",
        federation=FEDERATION,
        task=equipment.task.digest,
        classes=len(equipment.task.classes),
        bundle=bundle,
        family=family,
        runtime="onnxruntime",
        public_set=equipment.public.digest,
        probes=equipment.public.spec.count,
    )
