"""What a table is made of: cases, which are worlds with what is played in them, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fleet_sim.baselines.standings import Standing, asked
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.comparison.comparing import MakeWorld
from fleet_sim.metrics.estimates import Estimate, estimate, paired
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.pool import Map
from fleet_sim.scenario import Scenario
from fleet_sim.tables.choice import Axes, Choice, Judged

STUDENT, CLIENTS = "student", "mean device"
FIRST_SEED, TUNING_SEEDS = 100, (0, 1)
SHORT_SETTINGS = {name: Knobs(epochs=2, learning_rate=3e-2) for name in ("fedavg/tail", "local-only")}
"""Of the short form, which tunes nothing."""

Form = Literal["full", "short"]
Ends = dict[str, list[Standing]]
"""Where each method ended, one standing a seed, by its name in the table."""


@dataclass(frozen=True)
class Goal:
    """What we set out to reach, in percent: `name`, or how far it is ahead of `than`, at `least`.

    `of` is what `fleet_sim.baselines.standings.asked` is asked for.
    """

    name: str
    least: float
    because: str
    than: str = ""
    of: str = "all"

    def __str__(self) -> str:
        what = f"{self.name}, above {self.than}" if self.than else self.name
        what = what if self.of == "all" else f"{what}, {self.of}"
        least = f"{self.least:+g}" if self.than else f"{self.least:g}"
        return f"{what}: at least {least} ({self.because})"

    def measured(self, ends: Ends) -> Estimate:
        """Return what became of it, in 0..1."""
        ours = [asked(standing, self.of) for standing in ends[self.name]]
        return paired(ours, [asked(standing, self.of) for standing in ends[self.than]]) if self.than else estimate(ours)


@dataclass(frozen=True)
class Case:
    """A column: a world, and what is played in it.

    Attributes:
        name: of the column.
        world: of each seed.
        federations: scenarios by name; the first is ours, and differences are taken to it.
        axes: values to try for the settings of federations, see `choice`.
        baselines: by their names in `fleet_sim.baselines.catalogue`.
        settings: of baselines that are not tuned here.
        budget: settings that are tried for each federation and each baseline, at most.
        own_axes: of federations that have others, by name.
        is_tuned_once: whether the other federations have the settings that were chosen for the first.
        tuned_as: federations that have the settings that were chosen for another one, which stands before them.
        tuned_in: the case whose settings this one has, all of them, and which stands before it; "" = none.
        published: figures that others printed, in percent, by who printed them.
        goals: of ours.
        chosen_by: the score that settings are chosen by, of federations and of baselines; "" = accuracy.
        grids: of baselines that are tuned on another grid than their own, by name.
        judged: whose score chooses the settings of federations. A student may gain by devices that overfit.
    """

    name: str
    world: MakeWorld
    federations: Mapping[str, Scenario]
    axes: Axes
    baselines: tuple[str, ...]
    settings: Mapping[str, Knobs] = field(default_factory=dict)
    budget: int = 8
    own_axes: Mapping[str, Axes] = field(default_factory=dict)
    is_tuned_once: bool = False
    tuned_as: Mapping[str, str] = field(default_factory=dict)
    tuned_in: str = ""
    published: Mapping[str, str] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    chosen_by: str = ""
    grids: Mapping[str, Axes] = field(default_factory=dict)
    judged: Judged = "student"

    @property
    def scores(self) -> tuple[str, ...]:
        """What its scenarios ask besides accuracy."""
        return next((scenario.scores.names for scenario in self.federations.values()), ())

    @property
    def is_accuracy_telling(self) -> bool:
        """Whether accuracy says anything.

        Where a class is rare in the field, who never says it is nearly right; and who learns from rows that were
        balanced says it too often.
        """
        return not any(
            scenario.scores.prevalence is not None
            or (scenario.partition.natural is not None and scenario.partition.natural.balanced)
            for scenario in self.federations.values()
        )

    def axes_of(self, federation: str) -> Axes:
        """Return the values to try for the settings of a federation."""
        return self.own_axes.get(federation, self.axes)


@dataclass(frozen=True)
class Plan:
    """How much is played: seeds that are compared on, seeds that settings are chosen on; and how many at a time."""

    folder: Path
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS
    jobs: int = 1
    mapped: Map = map


@dataclass(frozen=True)
class Outcome:
    """A case that was played.

    Attributes:
        case: as it was played.
        ends: of all methods.
        choices: the settings that were chosen for federations, and `knobs`, for baselines.
        heard: whom federations listened to in the end.
        public_set_bytes: what everybody must get once, deflated, in the first seed; 0 = nothing, or it was not asked.
    """

    case: Case
    ends: Ends
    choices: Mapping[str, Choice]
    knobs: Mapping[str, Knobs]
    heard: Mapping[str, Sequence[RoundMetrics]]
    public_set_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a command plays and says.

    Attributes:
        section: of `page`, between whose marks it stands.
        page: Markdown.
        command: that plays it.
        cases: of the full form or of the short one, by where data lie.
        protocol: where ours differs from that of the published figures.
        has_own: whether it also says what devices make of their own kind of rows.
        say: what a table says that is not laid out like others.
        picture: PNG beside the page or below it, of what was found; None: there is none.
    """

    section: str
    page: Path
    command: str
    cases: Callable[[Mapping[str, Path], Form], Sequence[Case]]
    protocol: str
    has_own: bool = False
    say: Callable[[Table, Sequence[Outcome], Plan], str] | None = None
    picture: Path | None = None
