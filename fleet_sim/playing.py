"""Scenarios played with seeds: each in a process of its own, and kept as one file.

    folder/factory/    bundles and public sets, one folder a world
    folder/played/     what became of a scenario with a seed, one file each

A name ends with a digest of all settings that its content follows from, so what is cut short goes on with what still
holds. Data that change under the same path are not noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fd_runtime.files import write_atomically
from fleet_sim.boards.totals import BoardTotals
from fleet_sim.comparison.cells import numbers, plain, read_metrics
from fleet_sim.comparison.rule_cells import last_round
from fleet_sim.factory import equip, load_equipment
from fleet_sim.federation.lanes import Lanes
from fleet_sim.federation.simulation import Simulation, disk_for
from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.hearing import heard_rounds
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.partitions import Skew, measure_skew
from fleet_sim.processes import each_in_its_own
from fleet_sim.quiet import only_errors
from fleet_sim.real.playing import play_real
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import World


@dataclass(frozen=True, slots=True)
class Job:
    """A scenario to play with a seed, in a folder that keeps what is made; `is_real`: with real programs and broker."""

    scenario: Scenario
    seed: int
    folder: Path
    is_real: bool = False

    def __str__(self) -> str:
        return f"seed {self.seed}"

    @property
    def factory(self) -> Path:
        """Where what the parties start from lies; the same for scenarios that differ in what comes later alone."""
        s = self.scenario
        world = (s.data, s.cut, s.devices, s.partition, s.image_shift, s.sensor_shift, s.label_noise, s.probes)
        return self.folder / "factory" / f"{self.seed}-{_digest(world, s.models)}"

    @property
    def file(self) -> Path:
        """Where the result lies, once there is one."""
        return self.folder / "played" / f"{self._name}.json"

    @property
    def programs(self) -> Path:
        """Where real programs keep settings, logs and databases."""
        return self.folder / "programs" / self._name

    @property
    def _name(self) -> str:
        return f"{self.seed}-{_digest(self.scenario)}{'-real' if self.is_real else ''}"


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a scenario with a seed.

    Attributes:
        seed: of everything.
        rows: that devices hold.
        skew: of the private rows.
        rounds: those that made a consensus.
        last_round: whom the rule listened to; gains and classes only where probes have labels.
        boards: what became of each kind of board; () where nothing takes time.
    """

    seed: int
    rows: int
    skew: Skew
    rounds: tuple[RoundResult, ...]
    last_round: RoundMetrics
    boards: tuple[BoardTotals, ...] = ()

    @property
    def last(self) -> RoundResult:
        return self.rounds[-1]

    def write(self, path: Path) -> None:
        """Write it as JSON; NaN becomes null."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(plain(asdict(self)), indent=1).encode())


def read_played(path: Path) -> Played:
    """Return what `Played.write` wrote."""
    content = json.loads(path.read_text())
    return Played(
        content["seed"],
        content["rows"],
        Skew(**content["skew"]),
        tuple(map(_round, content["rounds"])),
        read_metrics(content["last_round"]),
        tuple(BoardTotals(**numbers(item)) for item in content["boards"]),
    )


def _round(item: dict[str, Any]) -> RoundResult:
    return RoundResult(**{**numbers(item), "consensus_sha256": bytes.fromhex(item["consensus_sha256"])})


def play_all(
    jobs: Sequence[Job], processes: int, on_round: Callable[[Job, RoundResult], None] = lambda _job, _result: None
) -> list[Played]:
    """Return what became of each job, and play what its folder does not hold yet.

    Args:
        jobs: what to play; real ones one after another, as each has all the processes that it needs.
        processes: how many work at a time; where there are fewer jobs, each trains its devices in several.
        on_round: told of every round.
    """
    open_jobs = [job for job in jobs if not job.file.exists()]
    unequipped = {job.factory: job for job in open_jobs if not job.factory.exists()}
    _each(_build, list(unequipped.values()), processes)
    lanes = max(1, processes // max(1, len(open_jobs)))
    _each(_play_real, [job for job in open_jobs if job.is_real], 1, on_round)
    _each(partial(_play, lanes=lanes), [job for job in open_jobs if not job.is_real], processes, on_round)
    return [read_played(job.file) for job in jobs]


def _each(
    work: Callable[[Job, Callable[[Any], None]], None],
    jobs: Sequence[Job],
    processes: int,
    on_news: Callable[[Job, Any], None] = lambda _job, _news: None,
) -> None:
    """Work on each job; one process is this one."""
    quietly = partial(_quietly, work)
    if processes > 1 and len(jobs) > 1:
        each_in_its_own(quietly, jobs, processes, on_news)
        return
    for job in jobs:
        quietly(job, partial(on_news, job))


def _quietly(work: Callable[[Job, Callable[[Any], None]], None], job: Job, tell: Callable[[Any], None]) -> None:
    with only_errors():
        work(job, tell)


def _build(job: Job, _tell: Callable[[Any], None]) -> None:
    job.factory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=job.factory.parent) as building:
        built = Path(building, "built")
        equip(job.scenario.world(job.seed), job.scenario.models, job.seed, built)
        built.rename(job.factory)


def _play(job: Job, tell: Callable[[RoundResult], None], *, lanes: int) -> None:
    scenario, world = job.scenario, job.scenario.world(job.seed)
    equipment = load_equipment(world, scenario.models, job.factory)
    with ExitStack() as stack:
        cores = stack.enter_context(Lanes(equipment.public, lanes)) if lanes > 1 else None
        folder = stack.enter_context(disk_for(scenario))
        simulation = Simulation(scenario, world, equipment, job.seed, cores=cores, folder=folder)
        heard = []
        for result, trust in heard_rounds(simulation):
            heard.append((result, trust))
            tell(result)
        metrics = last_round(simulation, world, equipment, heard[-1][1])
        boards = simulation.totals()
    _keep(job, world, [result for result, _ in heard], metrics, boards)


def _play_real(job: Job, tell: Callable[[RoundResult], None]) -> None:
    world = job.scenario.world(job.seed)
    equipment = load_equipment(world, job.scenario.models, job.factory)
    rounds, metrics = play_real(job.scenario, world, equipment, job.programs, tell)
    _keep(job, world, rounds, metrics)


def _keep(
    job: Job,
    world: World,
    rounds: Sequence[RoundResult],
    metrics: RoundMetrics,
    boards: tuple[BoardTotals, ...] = (),
) -> None:
    rows = sum(map(len, world.private))
    Played(job.seed, rows, _skew(world), tuple(rounds), metrics, boards).write(job.file)


def _skew(world: World) -> Skew:
    ends = np.cumsum([len(part) for part in world.private])
    labels = np.concatenate([part.labels for part in world.private])
    return measure_skew(labels, np.split(np.arange(len(labels)), ends[:-1]), len(world.task.classes))


def _digest(*origins: object) -> str:
    return sha256(repr(origins).encode()).hexdigest()[:12]
