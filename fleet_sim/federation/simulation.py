"""A whole federation in one process: the real aggregator, real agents, codecs and graphs, over the in-memory bus.

    for result in Simulation(scenario, world, equipment, seed).run(): ...

Time stands still while anything moves and jumps to what is due next when nothing does, so a round lasts as long as its
arithmetic. Where the scenario says what devices are made of, jobs and messages take the time of boards and links, and
devices come and go (`fleet_sim.boards`); what the server does takes none. Everything random is drawn from the seed:
equal arguments give equal consensuses, byte for byte.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from broker_server.core.federation import wake_at_ms
from broker_server.equipment import probe_set
from broker_server.settings import ProbeSet, RoundSettings, Settings
from broker_server.student import Student
from edge_agent.jobs import Answer, Job
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.private.data import PrivateRows
from edge_agent.round.eligibility import Profile
from fd_protocol.canaries import Canaries
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.messages import Kind, RoundOffer
from fd_protocol.prototypes import PrototypeSpace
from fd_protocol.soft_labels import soften
from fd_runtime.artifacts import Bundle
from fd_runtime.models.model import F32
from fd_runtime.space import preprocessed
from fleet_sim.attacks.knowledge import Sees
from fleet_sim.attacks.liar import Liar
from fleet_sim.attacks.ring import Ring
from fleet_sim.boards.fleet import BoardFleet, Place
from fleet_sim.boards.terms import BoardTerms
from fleet_sim.boards.totals import BoardTotals, totals
from fleet_sim.boards.workload import workload
from fleet_sim.bus.bus import InMemoryBroker
from fleet_sim.factory import Equipment
from fleet_sim.federation.cores import CorePlan, Cores, PursePlan
from fleet_sim.federation.parties import REST_S, Clock, Device, Server
from fleet_sim.federation.shared_models import SharedModels
from fleet_sim.lab import Lab
from fleet_sim.measuring import Observer, RoundResult
from fleet_sim.rules import stated
from fleet_sim.scenario import Crashes, Scenario
from fleet_sim.worlds import Samples, World

FEDERATION = "sim"
_PAUSE_S = 120.0
"""Between rounds: long enough for a device whose receipt was lost to send again, so that all come to rest."""
_IDLE_MS = round(1000 * REST_S)
"""How far time jumps where nothing is due before."""
_TURNS_MAX = 5_000
_PATIENCE_MS = 24 * 3_600_000
"""How long a federation may go without a consensus before it counts as stuck."""


@contextmanager
def disk_for(scenario: Scenario) -> Iterator[Path | None]:
    """Yield a folder for databases, checkpoints and ledgers; None: nobody starts again, so memory will do."""
    needs_none = scenario.crashes == Crashes() and not scenario.do_devices_restart and not scenario.privacy.is_asked
    if needs_none:
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
        if scenario.do_devices_restart and folder is None:
            raise InvalidValueError("devices that start again need a folder for their checkpoints")
        if scenario.privacy.is_asked and folder is None:
            raise InvalidValueError("devices under privacy terms need a folder for their ledgers")
        self.scenario, self._world, self._equipment, self._folder = scenario, world, equipment, folder
        self._lab = lab or Lab(world, equipment.bundles, scenario.scores.local_prior)
        self._cores = cores or SharedModels(equipment.public)
        public = equipment.public if scenario.has_public_set else None
        self._known = equipment.canaries if scenario.canaries else Canaries(equipment.public.digest.hex())
        self._probes = probe_set(equipment.bundles[scenario.models.families[0]], public, scenario.method)
        self._bus_dice, self._entropy, self._crash_dice, lies = np.random.default_rng([seed, 2]).spawn(4)
        self.clock = Clock()
        self.broker = InMemoryBroker(self._bus_dice, scenario.faults, now_s=self.clock.now_s)
        self._ring, self._seed = self._make_ring(lies, seed), seed
        self._holdings = scenario.holdings(seed)
        held = self._holdings.of(1) if self._holdings else world.private
        self.boards = self._make_boards(held, seed)
        self.devices = [self._make_device(number, held[number]) for number in range(scenario.devices)]
        self._consensuses, self._heard = 0, Counter[str]()
        self.observer = Observer(self._lab, scenario, seed)
        self._gather()
        self.server = self._make_server()

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
            StuckError: no consensus for a day or none at all, or every device has left.
        """
        last, since_ms = 0, self.clock.now_ms
        while not self.server.aggregator.is_complete:
            self.settle()
            consensus = self.server.aggregator.state.consensus
            if consensus is not None and consensus.round.number != last:
                last, since_ms = consensus.round.number, self.clock.now_ms
                yield self._look()
                self._drift(last + 1)
            self.advance()
            if self.clock.now_ms - since_ms > _PATIENCE_MS:
                raise StuckError("no consensus for a day")
        if not last:
            raise StuckError("no round made a consensus: nobody was heard before a deadline")

    def totals(self) -> tuple[BoardTotals, ...]:
        """Return what became of each kind of board up to now; () where the scenario has none."""
        if self.boards is None:
            return ()
        self.boards.spent()
        heard = [self._heard[device.id] for device in self.devices]
        return totals(self.boards.places, heard, self._consensuses)

    def _look(self) -> RoundResult:
        """Return where those stand who are there."""
        present = [device for device in self.honest if self.boards is None or self._place(device).is_present]
        result = self.observer.look(self.server, present)
        payloads = self.server.store.payloads(FEDERATION, Kind.CONTRIBUTION.value)
        heard = [row.device for row in payloads if row.round == result.number]
        self._consensuses += 1
        self._heard.update(heard)
        if self.boards is None:
            return replace(result, heard=len(heard))
        joules = [spent.total_j for spent in self.boards.spent()]
        return replace(result, heard=len(heard), seconds=self.boards.seconds(), joules=float(np.mean(joules)))

    def turn(self) -> bool:
        """Let every message move one step and every program act on what has come; False: nothing was due."""
        self._throw_crash_dice()
        moved = self._turn_devices()
        return self.server.aggregator.pump(0.0) or moved

    def _turn_devices(self) -> bool:
        moves = [self.broker.turn(), *(device.pump() for device in self.devices)]
        self._cores.settle()
        return any(moves)

    def settle(self) -> None:
        """Turn until nothing is due at this time.

        Raises:
            StuckError: that never happens.
        """
        _settle(self.turn)

    def advance(self) -> None:
        """Let time pass until something is due, a few seconds at most."""
        state = self.server.aggregator.state
        if self.boards is not None and not state.has_open_round and self.boards.round <= state.number:
            self.boards.begin_round(state.number + 1)
            if all(place.has_left for place in self.boards.places):
                raise StuckError(f"every device has left before round {state.number + 1}")
        self._pass_time_until(wake_at_ms(state))

    def _pass_time_until(self, wake_ms: int | None) -> None:
        now_ms = self.clock.now_ms
        due_ms = min(
            now_ms + _IDLE_MS if wake_ms is None else wake_ms,
            math.inf if self.boards is None else self.boards.next_ms(),
        )
        self.clock.now_ms = min(now_ms + _IDLE_MS, max(now_ms + 1, math.ceil(due_ms)))
        if self.boards is not None:
            self.boards.pass_time()
            self._switch()

    # Boards.

    def _place(self, device: Device) -> Place:
        assert self.boards is not None
        return self.boards.places[device.number]

    def _gather(self) -> None:
        """The fleet is there before its server: let it connect, for as long as there is between two rounds."""
        if self.boards is None:
            return
        self._switch()
        end_ms = self.clock.now_ms + round(1000 * self.scenario.attendance.pause_s)
        while self.clock.now_ms < end_ms:
            _settle(self._turn_devices)
            self._pass_time_until(end_ms)

    def _switch(self) -> None:
        """Let devices live that have power and are there, and no others."""
        for device in self.devices:
            place = self._place(device)
            if device.is_on and not place.is_on:
                device.crash()
            elif place.is_on and not device.is_on:
                place.restart()
                device.start()

    # What changes, and what goes wrong.

    def _drift(self, number: int) -> None:
        """Let devices hold what they hold in round `number`."""
        if self._holdings is None:
            return
        for device, private in zip(self.devices, self._holdings.of(number), strict=True):
            device.renew(PrivateRows(private.values, private.labels))

    def _throw_crash_dice(self) -> None:
        crashes = self.scenario.crashes
        living = [device for device in self.devices if device.is_on]
        chances: list[tuple[Server | Device, float]] = [(device, crashes.device) for device in living]
        for party, chance in [*chances, (self.server, crashes.server)]:
            if chance and self._crash_dice.random() < chance:
                party.crash()
                party.start()

    # Making the parties.

    def _make_server(self) -> Server:
        scenario = self.scenario
        rounds = RoundSettings(
            quorum=1,
            pause_s=_PAUSE_S,
            minimum_online=scenario.devices,
            count=scenario.rounds,
            fraction=scenario.fraction,
            most_uncovered=1.0,  # what comes of foreign probes is one of the things to be seen here
            **asdict(scenario.ask),
        )
        if scenario.is_timed:
            attendance = scenario.attendance
            rounds = replace(rounds, duration_s=attendance.round_s, pause_s=attendance.pause_s, minimum_online=1)
        settings = Settings(
            FEDERATION,
            rounds=rounds,
            method=stated(scenario.method, {device.id: len(device.plan.private) for device in self.devices}),
            training=scenario.training,
            privacy=scenario.privacy,
        )
        return Server(
            settings,
            self.broker,
            self.clock,
            self._probes,
            self._entropy.bytes,
            student=self._student() if scenario.has_public_set else None,
            canaries=self._known.trust,
            path=self._folder / "server.db" if self._folder else None,
        )

    def _student(self) -> Student:
        bundle, equipment = self._equipment.bundles[self.scenario.models.student], self._equipment
        inputs = preprocessed(equipment.public.probes(), equipment.task)
        return Student(bundle.open("onnxruntime"), bundle.digest, inputs, self.scenario.student, self._known.release)

    def _make_device(self, number: int, held: Samples) -> Device:
        bundle = self._bundle_of(number)
        profile = _profile(number, bundle.manifest.family, bundle.digest, self._probes)
        path = self._folder / f"{profile.device}.checkpoint" if self._folder else None
        private = PrivateRows(held.values, held.labels)
        space = PrototypeSpace.of(bundle.manifest) if self.scenario.tells_prototypes else None
        plan = CorePlan(
            profile.device,
            bundle,
            private,
            path,
            self._purse(profile.device),
            has_public_set=self.scenario.has_public_set,
            space=space,
        )
        device = partial(Device, number, profile, self.broker, self.clock, self._cores, plan)
        tamper = self._falsify if number < self.scenario.attack.devices else None
        if self.boards is None:
            return device(tamper)
        place = self.boards.places[number]
        return device(tamper, place.line, lambda job: place.done_at(job, self.clock.now_ms))

    def _purse(self, device: str) -> PursePlan | None:
        if not self.scenario.privacy.is_asked or self._folder is None:
            return None
        own = PrivacySettings(epsilon_max=1000.0)
        secret = f"{self._seed} {device}".encode()
        return PursePlan(self._folder / f"{device}.privacy", secret, own)

    def _make_boards(self, held: Sequence[Samples], seed: int) -> BoardFleet | None:
        scenario, equipment = self.scenario, self._equipment
        if not scenario.is_timed:
            return None
        probes = equipment.public.spec.count
        works = [workload(self._bundle_of(number), len(rows), probes) for number, rows in enumerate(held)]
        return BoardFleet(
            scenario.boards or (BoardTerms(),),
            scenario.attendance,
            works,
            rounds=scenario.rounds,
            seed=seed,
            now_ms=lambda: self.clock.now_ms,
        )

    def _bundle_of(self, number: int) -> Bundle:
        families = self.scenario.models.families
        return self._equipment.bundles[families[number % len(families)]]

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


def _settle(turn: Callable[[], bool]) -> None:
    for _ in range(_TURNS_MAX):
        if not turn():
            return
    raise StuckError(f"still busy after {_TURNS_MAX} turns")


def _profile(number: int, family: str, bundle: bytes, probes: ProbeSet) -> Profile:
    return Profile(
        device=f"device-{number}",
        federation=FEDERATION,
        task=probes.task,
        classes=probes.classes,
        bundle=bundle,
        family=family,
        runtime="onnxruntime",
        public_set=probes.public_set,
        probes=probes.count,
    )
