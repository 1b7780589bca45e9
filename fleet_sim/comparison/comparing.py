"""Every rule and every baseline on the same worlds: cells of (seed, method), each played alone and kept as one file.

    with pool(2) as mapped:
        compared = compare(Comparison(world, scenario, methods, seeds), folder, mapped=mapped)

    folder/factory/    bundles and public sets, one folder a seed
    folder/tuning/     scores of settings, one file a baseline
    folder/cells/      where a method ended, one file a seed and method

A name ends with a digest of all that its content follows from, so a comparison that is cut short or changed goes on
with what still holds. A cell draws from its seed alone: the order, and how many play at a time, change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np

from broker_server.methods import names
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Role
from fleet_sim.baselines.catalogue import BASELINES, Part
from fleet_sim.baselines.standings import Bench
from fleet_sim.baselines.tuning import BUDGET, Axes, Knobs, tuned, validated
from fleet_sim.comparison.cells import Cell, read_cell
from fleet_sim.comparison.rule_cells import play_rule
from fleet_sim.factory import Equipment, equip, load_equipment
from fleet_sim.lab import Lab
from fleet_sim.pool import Map
from fleet_sim.rules import PLAYED
from fleet_sim.scenario import PRESETS, ModelTerms, Scenario
from fleet_sim.worlds import Samples, World, digits

MakeWorld: TypeAlias = Callable[[int], World]
"""The world of a seed; a function of a module or a `partial` of one, so that other processes can call it."""

METHODS: tuple[str, ...] = (*PLAYED, *BASELINES)
"""All that are built in."""
DEFAULT_METHODS: tuple[str, ...] = (
    *PLAYED,  # the first is ours
    *("factory-model", "local-only", "server-only", "centralised"),
    *("fedavg/tail", "fedavg/tail/int8", "fedavg/tail/int4", "fedavg/tail/fine-tuned"),
    *("fedprox/tail", "fedavgm/tail", "feddf/tail"),
    *("fedavg/whole", "fedavg/whole/int8", "fedavg/whole/int4", "fedavg/whole/fine-tuned"),
    *("fedprox/whole", "fedavgm/whole", "feddf/whole"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to compare.

    Attributes:
        world: of each seed.
        scenario: of the federations, with each rule in turn. Rounds and models hold for baselines, too; in them
            nobody lies and nothing fails.
        methods: by name, see `METHODS`, or rules of other distributions; differences are taken to the first.
        seeds: fresh ones.
        tuning_seeds: whose worlds' validation rows choose the settings of baselines; none of `seeds`.
        budget: settings that are tried for each baseline, at most.
        settings: of baselines that were tuned before, and are not again.
        target: accuracy on test that costs are asked for; None = 95 % of what the best of those with rounds ends at.
        chosen_by: the one of `scenario.scores` that settings of baselines are chosen by; "" = accuracy.
        grids: of baselines that are tuned on another grid than their own, by name.
    """

    world: MakeWorld
    scenario: Scenario
    methods: tuple[str, ...] = DEFAULT_METHODS
    seeds: tuple[int, ...] = (100, 101, 102, 103, 104)
    tuning_seeds: tuple[int, ...] = (0, 1)
    budget: int = BUDGET
    settings: Mapping[str, Knobs] = field(default_factory=dict)
    target: float | None = None
    chosen_by: str = ""
    grids: Mapping[str, Axes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.methods, *self.settings, *self.grids):
            if name not in BASELINES and name not in names():
                raise InvalidValueError(f"no method {name!r}; there are {', '.join((*names(), *BASELINES))}")
            if name not in BASELINES:
                playing(self.scenario, name)  # refuses to exist where it cannot be played
        if not (self.methods and self.seeds and self.tuning_seeds) or self.budget < 1:
            raise InvalidValueError("a comparison needs methods, seeds, and seeds and a budget for tuning")
        if shared := {*self.seeds} & {*self.tuning_seeds}:
            raise InvalidValueError(f"seed {min(shared)} chooses settings and is compared on")
        if self.chosen_by:
            self.scenario.scores.check_choice(self.chosen_by)


@dataclass(frozen=True, slots=True)
class Compared:
    """What it came to: cells by seed and method, and the settings of baselines, chosen here or before."""

    comparison: Comparison
    cells: tuple[Cell, ...]
    chosen: Mapping[str, Knobs]


def short() -> Comparison:
    """Return a comparison of seconds: digits, four devices, three rounds, two methods a kind, two settings each."""
    scenario = replace(PRESETS["digits"], rounds=3, devices=4)
    methods = ("competence", "mean-probabilities", "local-only", "fedavg/tail", "fedavg/tail/int8", "centralised")
    world = partial(digits, devices=4, validation=100, own_fraction=0.2)
    return Comparison(world, scenario, methods, seeds=(100, 101), tuning_seeds=(0,), budget=2)


def compare(
    comparison: Comparison, folder: Path, *, mapped: Map = map, on_done: Callable[[str], None] = lambda _: None
) -> Compared:
    """Play what `folder` does not hold yet, and return everything.

    Args:
        comparison: what to compare.
        folder: for all that is made; a comparison that was cut short goes on there.
        mapped: plays the parts, several at a time where it is a `pool`'s.
        on_done: told in words what has been done.

    Raises:
        InvalidValueError: a world lacks validation rows.
    """
    return compare_all([comparison], folder, mapped=mapped, on_done=on_done)[0]


def compare_all(
    comparisons: Sequence[Comparison],
    folder: Path,
    *,
    mapped: Map = map,
    on_done: Callable[[str], None] = lambda _: None,
) -> list[Compared]:
    """Do what `compare` does for each, the cells of all side by side: none waits for the last one of another."""
    prepared = [_prepared(comparison, folder, mapped, on_done) for comparison in comparisons]
    cells: list[list[Cell]] = [[] for _ in prepared]
    turns = [(index, place) for index, (stage, _) in enumerate(prepared) for place in stage.places()]
    jobs = [(*prepared[index], place) for index, place in turns]
    for (index, _), cell in zip(turns, mapped(_play, jobs), strict=True):
        cells[index].append(cell)
        on_done(f"seed {cell.seed}: {cell.method} played")
    return [
        Compared(stage.comparison, tuple(those), chosen) for (stage, chosen), those in zip(prepared, cells, strict=True)
    ]


def _prepared(
    comparison: Comparison, folder: Path, mapped: Map, on_done: Callable[[str], None]
) -> tuple[_Stage, Mapping[str, Knobs]]:
    """Build the models of a comparison, and choose the settings of its baselines."""
    stage = _Stage(comparison, folder)
    tunable = stage.tunable()
    if any(tunable):
        validated(comparison.world(comparison.tuning_seeds[0]))  # refused now, not after all models are built
    seeds = [*comparison.seeds, *(comparison.tuning_seeds if any(tunable) else ())]
    for seed, has_built in zip(seeds, mapped(stage.build, seeds), strict=True):
        if has_built:
            on_done(f"seed {seed}: models built")
    stage = stage.without_twins()
    tunable = stage.tunable()
    chosen = {name: knobs for name, knobs in comparison.settings.items() if name in stage.needed()}
    for those in tunable:
        for name, knobs in mapped(partial(stage.tune, chosen=dict(chosen)), those):
            chosen[name] = knobs
            on_done(f"{name}: settings chosen")
    return stage, chosen


def _play(job: tuple[_Stage, Mapping[str, Knobs], tuple[int, str]]) -> Cell:
    stage, chosen, place = job
    return stage.play(place, chosen)


@dataclass(frozen=True, slots=True)
class _Stage:
    """The steps of a comparison; each looks for its result in the folder first."""

    comparison: Comparison
    folder: Path

    @property
    def models(self) -> ModelTerms:
        return self.comparison.scenario.models

    # Building.

    def build(self, seed: int) -> bool:
        """Build what the methods need in the world of `seed`; return whether any of it was not there."""
        world, has_built = self.comparison.world(seed), False
        for part in sorted({_part(name) for name in self.comparison.methods}):
            path = self._factory(world, seed, part)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with TemporaryDirectory(dir=path.parent) as building:
                    built = Path(building, "built")
                    equip(world, self._models_of(part), seed, built)
                    built.rename(path)
                has_built = True
        return has_built

    def without_twins(self) -> _Stage:
        """Leave out baselines of the whole model where the tail is the whole model; the models have been built."""
        comparison, seed = self.comparison, self.comparison.seeds[0]
        by_part = {part: [name for name in comparison.methods if _part(name) == part] for part in ("tail", "whole")}
        if not (by_part["tail"] and by_part["whole"]):
            return self
        bundle = self._equipment(comparison.world(seed), seed, "tail").bundles[self.models.student]
        if Role.BACKBONE in bundle.manifest.files:
            return self
        twins = {name for name in by_part["whole"] if {*_of_tail(name)} & {*by_part["tail"]}}
        kept = tuple(name for name in comparison.methods if name not in twins)
        return replace(self, comparison=replace(comparison, methods=kept))

    def _factory(self, world: World, seed: int, part: Part) -> Path:
        return self.folder / "factory" / f"{seed}-{part}-{_digest(_identity(world), self._models_of(part), seed)}"

    def _models_of(self, part: Part) -> ModelTerms:
        """`whole` is for baselines alone, which know one family and no privacy."""
        if part == "tail":
            return self.models
        return replace(self.models, families=(self.models.student,), every_layer_trains=True, private=False)

    def _equipment(self, world: World, seed: int, part: Part) -> Equipment:
        return load_equipment(world, self._models_of(part), self._factory(world, seed, part))

    def _bench(self, world: World, seed: int, part: Part, judged: World) -> Bench:
        """Return where baselines are played: in `world`, judged as in `judged`."""
        bundles, scenario = self._equipment(world, seed, part).bundles, self.comparison.scenario
        lab = Lab(judged, bundles, scenario.scores.local_prior)
        return Bench(lab, self.models.student, scenario.rounds, seed, scoring=scenario.scores)

    # Tuning.

    def needed(self) -> tuple[str, ...]:
        """Return the baselines that are played, each after the one whose settings it has."""
        return tuple(
            dict.fromkeys(chain.from_iterable(_lineage(name) for name in self._playable() if name in BASELINES))
        )

    def tunable(self) -> tuple[list[str], list[str]]:
        """Return the baselines that are tuned: first those of which others have their settings."""
        open_ones = [name for name in self.needed() if BASELINES[name].axes and name not in self.comparison.settings]
        return [n for n in open_ones if not BASELINES[n].base], [n for n in open_ones if BASELINES[n].base]

    def tune(self, name: str, chosen: Mapping[str, Knobs]) -> tuple[str, Knobs]:
        """Return the best settings of a baseline, and its name."""
        baseline, comparison = BASELINES[name], self.comparison
        start = _settings(baseline.base, chosen)
        worlds = [(comparison.world(seed), seed) for seed in comparison.tuning_seeds]
        benches = [self._bench(world, seed, baseline.part, validated(world)) for world, seed in worlds]
        identities = [(_identity(world), seed) for world, seed in worlds]
        by = comparison.chosen_by
        aims = (by, comparison.scenario.scores) if by else ()
        digest = _digest(name, start, self.models, comparison.scenario.rounds, identities, *aims)
        path = self.folder / "tuning" / f"{_file_name(name)}-{digest}.json"

        def score(knobs: Knobs) -> float:
            return float(np.mean([baseline.score(bench, knobs, by) for bench in benches]))

        axes = comparison.grids.get(name, baseline.axes)
        return name, tuned(start, axes, comparison.budget, score, path)

    # Playing.

    def places(self) -> list[tuple[int, str]]:
        """Return seed and method of every cell."""
        return [(seed, name) for seed in self.comparison.seeds for name in self._playable()]

    def play(self, place: tuple[int, str], chosen: Mapping[str, Knobs]) -> Cell:
        """Return a cell."""
        (seed, name), scenario = place, self.comparison.scenario
        world = self.comparison.world(seed)
        if name not in BASELINES:
            scenario = playing(scenario, name)
            path = self._cell(place, _identity(world), scenario)
            return _kept(path, lambda: play_rule(scenario, world, self._equipment(world, seed, "tail"), seed))
        baseline, knobs = BASELINES[name], _settings(name, chosen)
        path = self._cell(place, _identity(world), self.models, scenario.rounds, knobs, scenario.scores)

        def play() -> Cell:
            return Cell(seed, name, (baseline.standing(self._bench(world, seed, baseline.part, world), knobs),))

        return _kept(path, play)

    def _cell(self, place: tuple[int, str], *origins: object) -> Path:
        seed, name = place
        return self.folder / "cells" / f"{seed}-{_file_name(name)}-{_digest(place, *origins)}.json"

    def _playable(self) -> list[str]:
        """Return the methods, in order, but for those that need what the worlds lack."""
        world = self.comparison.world(self.comparison.seeds[0])
        return [name for name in self.comparison.methods if name not in BASELINES or BASELINES[name].is_possible(world)]


def playing(scenario: Scenario, rule: str) -> Scenario:
    """Return the scenario with this rule."""
    return replace(scenario, method=replace(scenario.method, name=rule))


def _part(method: str) -> Part:
    return BASELINES[method].part if method in BASELINES else "tail"


def _of_tail(whole: str) -> tuple[str, str]:
    """Return what a baseline of the whole model would be called if only the tail trained: `a/whole/b` a/tail/b or a."""
    return whole.replace("/whole", "/tail"), whole.removesuffix("/whole")


def _lineage(name: str) -> tuple[str, ...]:
    """Return a baseline after all those that it has settings of."""
    return (*_lineage(BASELINES[name].base), name) if name else ()


def _settings(name: str, chosen: Mapping[str, Knobs]) -> Knobs:
    """Return the settings of a baseline: its own, those of its base, or what it starts from where nothing is tuned."""
    if not name:
        return Knobs()
    return chosen[name] if name in chosen else _settings(BASELINES[name].base, chosen)


def _kept(path: Path, play: Callable[[], Cell]) -> Cell:
    if not path.exists():
        play().write(path)
    return read_cell(path)


def _digest(*origins: object) -> str:
    return sha256(repr(origins).encode()).hexdigest()[:12]


def _identity(world: World) -> str:
    """Return a digest of who holds what."""
    parts: Iterable[Samples] = (world.factory, world.probes, world.validation, world.test, *world.private, *world.own)
    content = sha256(repr((world.task, world.canaries.tolist())).encode())
    for part in parts:
        content.update(repr(part.values.shape).encode() + part.values.tobytes() + part.labels.tobytes())
    return content.hexdigest()


def _file_name(method: str) -> str:
    return method.replace("/", "-")
