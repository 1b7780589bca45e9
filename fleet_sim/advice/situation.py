"""Everything about a planned fleet that can be computed before it exists."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from broker_server.core.coverage import Coverage, coverage, is_far
from broker_server.rules.voice import DISTANCE_CODES
from edge_agent.learning.clustering import MIN_ROWS, centroids_of, nearest_distances
from fd_protocol.competence import quantise_distances
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Role, Task
from fd_runtime.artifacts import Bundle, PublicSet, load_bundle, load_public_set
from fd_runtime.models.model import I64
from fd_runtime.space import preprocessed
from fleet_sim.advice.measured import CANARY_LABELS, HOMOGENEOUS_TV, SKEWED_TV
from fleet_sim.advice.plan import FleetPlan, ModelSize, counts_of
from fleet_sim.advice.wire import Coding, codings, consensus_bytes, map_bytes
from fleet_sim.partitions import Skew, measure_skew
from model_export.probes_check import ProbeCheck, check_probes
from model_export.samples import Samples, read_samples


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """A plan and what follows from it.

    Attributes:
        plan: as it was read.
        counts: rows per device and class [devices, classes].
        names: of the classes.
        skew: of the counts.
        chance: mean total variation that devices of these sizes would have, were all drawn alike.
        models: an entry an architecture.
        probes: how many.
        codings: what each codec costs, the truest first.
        down_bytes: what a device hears a round.
        map_bytes: of a competence map.
        set_bytes: of the public set's files; None = not there yet.
        check: what the samples say of the probes; None = no samples.
        guard: what the server would say of coverage; None = no device with samples enough for a map.
    """

    plan: FleetPlan
    counts: I64
    names: tuple[str, ...]
    skew: Skew
    chance: float
    models: tuple[ModelSize, ...]
    probes: int
    codings: tuple[Coding, ...]
    down_bytes: int
    map_bytes: int
    set_bytes: int | None
    check: ProbeCheck | None
    guard: Coverage | None

    @property
    def excess(self) -> float:
        """Mean total variation beyond chance; the two add up in squares, nearly."""
        return math.sqrt(max(0.0, self.skew.total_variation**2 - self.chance**2))

    @property
    def is_homogeneous(self) -> bool:
        return self.excess < HOMOGENEOUS_TV

    @property
    def is_skewed(self) -> bool:
        return self.excess >= SKEWED_TV

    @property
    def mapless(self) -> int:
        """Devices with rows, but too few for a competence map."""
        rows = self.counts.sum(axis=1)
        return int(((rows > 0) & (rows < MIN_ROWS)).sum())

    @property
    def is_mostly_mapless(self) -> bool:
        return 2 * self.mapless > len(self.counts) - self.skew.empty

    @property
    def coding(self) -> Coding:
        """The truest codec whose every contribution the link bears, else the shortest."""
        limit = self.plan.link.up_bytes
        return next((each for each in self.codings if each.first_bytes <= limit), self.codings[-1])

    @property
    def has_canaries(self) -> bool:
        return self.server_has(CANARY_LABELS)

    def server_has(self, labels: int) -> bool:
        """Whether the server has so many labels of every class that there is."""
        known = np.array(self.plan.server_labels or (0,))
        return bool((known >= labels).all())


def survey(plan: FleetPlan) -> Situation:
    """Read what the plan names, and compute.

    Raises:
        MissingArtifactError, DigestError, DataError: a bundle, the public set or a file is not there or wrong.
        InvalidValueError: they do not go together.
    """
    bundles = tuple(load_bundle(folder) for folder in plan.bundles)
    task = _common_task(bundles)
    counts = counts_of(plan, len(task.classes) if task else 0)
    public = load_public_set(plan.public_set) if plan.public_set else None
    probes, classes = public.spec.count if public else plan.probes, counts.shape[1]
    parts = [read_samples(path, task) for path in plan.samples] if task else []
    return Situation(
        plan=plan,
        counts=counts,
        names=task.classes if task else tuple(map(str, range(classes))),
        skew=skew_of(counts),
        chance=chance_of(counts),
        models=plan.models or tuple(map(_size_of, bundles)),
        probes=probes,
        codings=codings(probes, classes),
        down_bytes=consensus_bytes(probes, classes),
        map_bytes=map_bytes(probes),
        set_bytes=sum(entry.size_bytes for entry in public.spec.files.values()) if public else None,
        check=check_probes(public, task, parts) if public and task and parts else None,
        guard=_guard(public, task, parts) if public and task else None,
    )


def skew_of(counts: I64) -> Skew:
    """Return the skew of rows per device and class [devices, classes]."""
    devices, classes = counts.shape
    labels = np.repeat(np.tile(np.arange(classes), devices), counts.ravel())
    ends = np.cumsum(counts.sum(axis=1))
    return measure_skew(labels, np.split(np.arange(len(labels)), ends[:-1]), classes)


def chance_of(counts: I64) -> float:
    """Return the mean total variation that devices of these sizes would have, were rows drawn from the overall mix.

    E |x - np| = 2 v C(n, v) p^v (1 - p)^(n - v + 1) for x of Binomial(n, p), v = floor(np) + 1 (de Moivre 1730).
    """
    mix = counts.sum(axis=0) / counts.sum()
    rows = [int(size) for size in counts.sum(axis=1) if size]
    return float(np.mean([sum(_mean_deviation(n, p) for p in mix.tolist()) / (2 * n) for n in rows]))


def _mean_deviation(n: int, p: float) -> float:
    v = math.floor(n * p) + 1
    if p == 0 or v > n:
        return 0.0
    log_choices = math.lgamma(n + 1) - math.lgamma(v + 1) - math.lgamma(n - v + 1)
    return 2 * v * math.exp(log_choices + v * math.log(p) + (n - v + 1) * math.log1p(-p))


def _common_task(bundles: tuple[Bundle, ...]) -> Task | None:
    tasks = {bundle.manifest.task for bundle in bundles}
    if len(tasks) > 1:
        raise InvalidValueError("the bundles are of different tasks")
    return next(iter(tasks), None)


def _size_of(bundle: Bundle) -> ModelSize:
    trainable = bundle.manifest.layout.size
    files = bundle.manifest.files
    role = next((role for role in (Role.BACKBONE_FLOAT, Role.BACKBONE) if role in files), None)
    if role is None:
        return ModelSize(trainable, trainable)
    weights = onnx.load_from_string(bundle.read(role)).graph.initializer
    return ModelSize(trainable, trainable + sum(math.prod(weight.dims) for weight in weights))


def _guard(public: PublicSet, task: Task, parts: list[Samples]) -> Coverage | None:
    """What `broker_server.core.coverage` would report of devices with these rows."""
    space = public.space()
    points = space.locate(preprocessed(public.probes(), task))
    rows = [space.locate(preprocessed(part.values, task)) for part in parts if len(part) >= MIN_ROWS]
    if not rows:
        return None
    maps = [quantise_distances(nearest_distances(points, centroids_of(each))) for each in rows]
    counts = np.stack([(np.stack(maps) == code).sum(axis=0) for code in range(DISTANCE_CODES)])
    return coverage(counts, sum(map(is_far, maps)))
