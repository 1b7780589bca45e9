"""Are these the right probes? Asked of a few private-like samples, before anything is deployed.

Nothing trains or predicts here, and nothing leaves the workstation. The thresholds were measured on rows that devices
hold in the two worlds of `fleet_sim.worlds` (digits, MNIST), against probes of the same world, mirrored, inverted, with
shuffled pixels, of white noise, and without some of the classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fd_protocol.competence import EDGES
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_protocol.quantisers import quantiser
from fd_protocol.terms import Codec
from fd_runtime.artifacts import PublicSet
from fd_runtime.models.model import F32, I64
from fd_runtime.space import preprocessed
from model_export.nearness import F64, Nearness, farthest_first, measure_nearness, nearest_distances
from model_export.samples import Samples

WARN_DISTANCE = 1.5
"""In units: 0.9 to 1.0 in domain, 1.2 to 1.6 for mirrored pictures, 2.7 to 3.2 for inverted ones."""
WARN_ISOLATION = 1.5
"""1.0 to 1.2 in domain, for a device of few classes too; 2.1 to 2.5 for noise and 2.7 to 4.5 for shuffled pixels, whose
distances are as small as 0.8 and 1.0."""
WARN_LIKENESS = 0.4
"""0.7 and more for classes that the probes have, at most 0.36 for those that they lack."""
TWIN = 0.1
"""Probes nearer to each other than this, in units, say the same twice."""

_MIN_CLASS_SAMPLES = 5
_SURE = 0.01
_WASTE = 0.05
_ENOUGH = 0.05
"""So much smaller a share of near samples is not worth the bytes."""
_THINNED = 4000
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line for a person: what was found and why it matters; what to do, where something should be done."""

    finding: str
    remedy: str = ""
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{'WARNING: ' if self.is_warning else ''}{self.finding}{f' -> {self.remedy}' if self.remedy else ''}"


@dataclass(frozen=True, slots=True)
class Leak:
    """Private sample `row` of part `part` is, value by value, probe `probe`."""

    part: int
    row: int
    probe: int


@dataclass(frozen=True, slots=True)
class Thinning:
    """What is left with `probes` of them, kept in farthest-point order.

    Attributes:
        radius: distance of the remotest probe left out to the nearest kept one, in units.
        near: share of private samples within the first edge of a kept probe.
        near_by_chance: the same for the first so many probes, a random draw, as `rounds.probes` takes them.
        code_bytes: of a contribution in u8-sqrt before it is deflated.
    """

    probes: int
    radius: float
    near: float
    near_by_chance: float
    code_bytes: int


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """What a few private-like samples say of a public set.

    Attributes:
        probes, samples: how many there were.
        leaks: private samples that are probes.
        likeness: of each class that enough labelled samples show: how often a probe's nearest one of them is of this
            class, over its even share; empty without labels.
        twins: probes that say nothing new, of the first 4000.
        thinning: from few probes to all, at most 4000.
    """

    probes: int
    samples: int
    nearness: Nearness
    leaks: tuple[Leak, ...]
    likeness: Mapping[str, float]
    twins: int
    thinning: tuple[Thinning, ...]

    @property
    def is_out_of_domain(self) -> bool:
        return self.nearness.distance > WARN_DISTANCE or self.nearness.isolation > WARN_ISOLATION

    @property
    def enough(self) -> Thinning:
        """The fewest probes that are near to as many private samples as all are, or nearly."""
        return next(cut for cut in self.thinning if cut.near >= self.thinning[-1].near - _ENOUGH)

    def verdicts(self) -> tuple[Verdict, ...]:
        """Return what to tell whoever chose the probes, the gravest first."""
        return tuple(sorted(_verdicts(self), key=lambda verdict: not verdict.is_warning))

    def lines(self) -> tuple[str, ...]:
        """Return everything as text."""
        return *map(str, self.verdicts()), *_curve(self.thinning)


def check_probes(public: PublicSet, task: Task, parts: Sequence[Samples], *, seed: int = 0) -> ProbeCheck:
    """Return what the samples say of the public set.

    Args:
        public: the probes and their space.
        task: that the set was built for; says how samples are preprocessed.
        parts: private-like samples, one part a device, or all in one. Labels are used where every part has them.
        seed: of the draws and permutations; the same arguments give the same answer.

    Raises:
        InvalidValueError: the task is another, or there are fewer than 10 samples.
    """
    if public.spec.task_sha256 != task.digest.hex():
        raise InvalidValueError("the public set was built for another task")
    space, probes = public.space(), public.probes()
    values = np.concatenate([probes[:0], *(part.values for part in parts)])
    points, rows = (space.locate(preprocessed(samples, task)) for samples in (probes, values))
    found = measure_nearness(points, rows, np.random.default_rng(seed))
    order, radii = farthest_first(points[:_THINNED])
    labels = _joined_labels(parts)
    return ProbeCheck(
        probes=len(points),
        samples=len(rows),
        nearness=found,
        leaks=_leaks(probes, parts),
        likeness={} if labels is None else _likeness(points, rows, labels, task.classes),
        twins=int((radii < TWIN).sum()),
        thinning=_thinning(points, rows, order, radii, len(task.classes)),
    )


def _joined_labels(parts: Sequence[Samples]) -> I64 | None:
    labels = [part.labels for part in parts if part.labels is not None]
    return np.concatenate(labels) if len(labels) == len(parts) else None


def _leaks(probes: npt.NDArray[np.generic], parts: Sequence[Samples]) -> tuple[Leak, ...]:
    places = {probe.tobytes(): place for place, probe in enumerate(probes)}
    found = (
        (number, row, places.get(value.tobytes()))
        for number, part in enumerate(parts)
        for row, value in enumerate(part.values)
    )
    return tuple(Leak(part, row, place) for part, row, place in found if place is not None)


def _likeness(points: F32, rows: F32, labels: I64, classes: Sequence[str]) -> dict[str, float]:
    """Each probe takes the class of its nearest labelled sample, among equally many of every class."""
    counts = np.bincount(labels, minlength=len(classes))
    shown = np.flatnonzero(counts >= _MIN_CLASS_SAMPLES)
    if len(shown) < 2:
        return {}
    balanced = np.concatenate([np.flatnonzero(labels == label)[: counts[shown].min()] for label in shown])
    nearest = [np.square(rows[balanced] - point).sum(axis=1).argmin() for point in points]
    shares = np.bincount(labels[balanced[nearest]], minlength=len(classes)) * len(shown) / len(points)
    return {classes[int(label)]: float(shares[label]) for label in shown}


def _thinning(points: F32, rows: F32, order: I64, radii: F64, classes: int) -> tuple[Thinning, ...]:
    columns = quantiser(Codec.U8_SQRT, classes, 0).columns

    def near(kept: F32) -> float:
        return float((nearest_distances(rows, kept) < EDGES[0]).mean())

    return tuple(
        Thinning(
            probes=count,
            radius=float([*radii, 0.0][count]),
            near=near(points[order[:count]]),
            near_by_chance=near(points[:count]),
            code_bytes=count * columns,
        )
        for count in sorted({max(1, len(order) // parts) for parts in (32, 16, 8, 4, 2, 1)})
    )


def _verdicts(check: ProbeCheck) -> Iterator[Verdict]:
    yield _place(check)
    yield _difference(check.nearness)
    if check.leaks:
        yield _leaked(check)
    if check.is_out_of_domain:
        return  # what is left to say holds for probes that lie near
    yield from _classes(check.likeness)
    if check.twins > _WASTE * check.thinning[-1].probes:
        yield Verdict(f"{check.twins} probes have a twin within {TWIN} units: bytes that say nothing", "drop them")
    yield _size(check)


def _place(check: ProbeCheck) -> Verdict:
    near = check.nearness
    found = (
        f"private samples lie {near.distance:.2f} units from the nearest probe (probes from each other: 1) and "
        f"{near.isolation:.2f} times as far from probes as from each other; {near.beyond[-1]:.0%} are beyond "
        f"{EDGES[-1]} units"
    )
    if not check.is_out_of_domain:
        return Verdict(f"probes lie where private data lies: {found}")
    limits = f"at most {WARN_DISTANCE} and {WARN_ISOLATION} in domain"
    remedy = "collect probes as devices record their data: with probes from elsewhere distillation hurts, by any rule"
    return Verdict(f"probes lie elsewhere: {found} ({limits})", remedy, is_warning=True)


def _difference(near: Nearness) -> Verdict:
    odds = f"{near.same_set:.0%} of nearest neighbours are of the own set, p = {near.p_value:.3f}"
    reach = f"a probe has private data within {near.reach:.2f} units, {near.fair_reach:.2f} would be fair"
    if near.p_value > _SURE:
        return Verdict(f"samples and probes cannot be told apart ({odds}); {reach}")
    return Verdict(f"samples and probes can be told apart, by place or by their mix of classes ({odds}); {reach}")


def _classes(likeness: Mapping[str, float]) -> Iterator[Verdict]:
    lacking = [f"{name} ({share:.0%} of an even share)" for name, share in likeness.items() if share < WARN_LIKENESS]
    if lacking:
        remedy = "add unlabelled samples of their kind; what devices know of them cannot travel otherwise"
        yield Verdict(f"hardly a probe resembles class {', '.join(lacking)}", remedy, is_warning=True)


def _leaked(check: ProbeCheck) -> Verdict:
    named = ", ".join(f"row {leak.row} of part {leak.part} = probe {leak.probe}" for leak in check.leaks[:_NAMED])
    more = f" and {len(check.leaks) - _NAMED} more" if len(check.leaks) > _NAMED else ""
    finding = f"{len(check.leaks)} private samples are probes, which everyone gets: {named}{more}"
    return Verdict(finding, "build the public set without them", is_warning=True)


def _size(check: ProbeCheck) -> Verdict:
    full, enough = check.thinning[-1], check.enough
    if enough.probes == full.probes:
        return Verdict(f"all {full.probes} probes are needed: with half of them fewer private samples have one near")
    finding = f"{enough.probes} probes, farthest first, are within {EDGES[0]} units of {enough.near:.0%}"
    return Verdict(
        f"{finding} of the samples, all {full.probes} of {full.near:.0%}",
        "fewer bytes for little; try with `fleet-sim run`",
    )


def _curve(thinning: Sequence[Thinning]) -> Iterator[str]:
    yield f"{'probes':>8} {'radius':>8} {'near':>6} {'by chance':>10} {'u8 codes, B':>12}"
    for cut in thinning:
        shares = f"{cut.near:>6.0%} {cut.near_by_chance:>10.0%}"
        yield f"{cut.probes:>8} {cut.radius:>8.2f} {shares} {cut.code_bytes:>12,}"
