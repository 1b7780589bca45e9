"""Worlds: who holds which samples before a federation starts. Frozen, and the same for the same seed.

    factory     labelled, at the workstation: what the factory model learns from
    probes      the public set; nobody in the federation knows their labels, but for
    canaries      the positions of those that the server may check a device's answers with
    validation  labelled, at the server: the release gate, and the choice of a baseline's settings
    test        labelled, with nobody: what the tables report
    private     labelled, one part per device, never on the wire
    own         labelled, of each device's kind, kept from it: what a device makes of its own data

No sample lies in two of them (canaries excepted, which are probes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import I64
from fleet_sim.data import Dataset
from fleet_sim.data.terms import DataTerms
from fleet_sim.partitions import Census, Dirichlet, FeatureShift, LabelNoise, Partition

_PUBLIC_STREAM, _NOISE_STREAM = 8, 9
"""Keep these draws apart from others of the same seed."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled samples as they were recorded: `values` [n, *sample_shape], `labels` int64 [n]. Read-only."""

    values: npt.NDArray[np.generic]
    labels: I64

    def __post_init__(self) -> None:
        if len(self.values) != len(self.labels):
            raise InvalidValueError(f"{len(self.values)} samples have {len(self.labels)} labels")
        self.values.flags.writeable = self.labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: Samples) -> Samples:
        return Samples(np.concatenate([self.values, other.values]), np.concatenate([self.labels, other.labels]))

    def take(self, rows: I64) -> Samples:
        """Return these rows, in this order."""
        return Samples(self.values[rows], self.labels[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How many rows go where; devices get the rest.

    Attributes:
        factory: rows for the factory.
        new_classes: so many classes, drawn from the seed, are kept from the factory.
        probes: rows of the public set.
        canaries: so many of them the server knows the label of.
        validation: rows for choosing settings.
        test: rows; 0 = the test set that was published with the data.
        own_fraction: share of each device's rows that is kept from it.
        unseen_groups: so many users, sites or speakers are kept from everyone else: their rows are the test.
    """

    factory: int = 0
    new_classes: int = 0
    probes: int = 600
    canaries: int = 0
    validation: int = 0
    test: int = 400
    own_fraction: float = 0.0
    unseen_groups: int = 0

    def __post_init__(self) -> None:
        counts = (self.factory, self.new_classes, self.canaries, self.validation, self.test, self.unseen_groups)
        if min(counts) < 0 or self.probes < 1 or self.canaries > self.probes or not 0 <= self.own_fraction < 1:
            raise InvalidValueError("there are probes, no more canaries than these, and own_fraction lies in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One cut of a data set.

    Attributes:
        name: of the data set.
        new_classes: that the factory never saw: only devices know them.
        unseen: users, sites or speakers whose rows are the test.
        are_probes_labelled: whether the labels of `probes` are classes of the task; the server never sees them.
    """

    name: str
    task: Task
    factory: Samples
    probes: Samples
    canaries: I64
    validation: Samples
    test: Samples
    private: tuple[Samples, ...]
    own: tuple[Samples, ...]
    new_classes: tuple[int, ...] = ()
    unseen: tuple[str, ...] = ()
    are_probes_labelled: bool = True

    @property
    def pooled(self) -> Samples:
        """What the centralised baseline sees: every device's rows, and the factory's."""
        parts = [self.factory, *self.private]
        return Samples(np.concatenate([p.values for p in parts]), np.concatenate([p.labels for p in parts]))


def cut_world(
    dataset: Dataset,
    cut: Cut,
    partition: Partition,
    devices: int,
    seed: int,
    *,
    lacking: Sequence[int] = (),
    public: Dataset | None = None,
    public_teaches: bool = False,
) -> World:
    """Return the world of `seed`.

    Args:
        dataset: what is cut.
        cut: how many rows go where.
        partition: hands out the rest.
        devices: how many share it.
        seed: of every draw.
        lacking: classes that no probe has.
        public: where probes come from; None = `dataset`.
        public_teaches: the factory's rows are of `public` too, and none of them is a probe.

    Raises:
        InvalidValueError: there are too few rows, or the rest cannot be handed out so.
    """
    rng = np.random.default_rng([seed, 0])
    new = _new_classes(dataset.task, cut, rng)
    rows, unseen = _seen_and_unseen(dataset, cut, rng)
    order = rng.permutation(rows)
    factory = order[~np.isin(dataset.labels[order], new)][: 0 if public_teaches else cut.factory]
    order = order[~np.isin(order, factory)]
    own_probes = order[~np.isin(dataset.labels[order], lacking)][: 0 if public else cut.probes]
    order = order[~np.isin(order, own_probes)]
    test, held, rest = np.split(order, np.cumsum([0 if len(unseen) else cut.test, cut.validation]))
    probes, lessons = _samples(dataset, own_probes), _samples(dataset, factory)
    if public is not None:
        probes, rest_of_public = _probes_of(public, dataset.task, cut, lacking, seed)
        if public_teaches:
            lessons = _lessons_of(public, dataset.task, rest_of_public, cut, new)
    _check_sizes(cut, factory=lessons, probes=probes, validation=held, test=unseen if len(unseen) else test)
    parts = _hand_out(dataset, rest, partition, devices, seed)
    kept = [round(cut.own_fraction * len(part)) for part in parts]
    return World(
        name=dataset.name,
        task=dataset.task,
        factory=lessons,
        probes=probes,
        canaries=np.sort(rng.permutation(len(probes))[: cut.canaries]) if cut.canaries else order[:0],
        validation=_samples(dataset, held),
        test=_samples(dataset, unseen if len(unseen) else test),
        private=tuple(_samples(dataset, part[count:]) for part, count in zip(parts, kept, strict=True)),
        own=tuple(_samples(dataset, part[:count]) for part, count in zip(parts, kept, strict=True)),
        new_classes=tuple(new.tolist()),
        unseen=_names_of(dataset, unseen) if cut.unseen_groups else (),
        are_probes_labelled=public is None or public.task == dataset.task,
    )


def disturbed(
    world: World, shift: FeatureShift | None, noise: LabelNoise, seed: int, *, strength: float = 1.0
) -> World:
    """Return `world` with devices that record differently, by `strength` in 0..1, and owners who label wrongly.

    What is kept from a device was recorded by it too, but is labelled right. Probes and test stay as they are.

    Raises:
        InvalidValueError: samples of this task cannot be shifted so.
    """
    private, own = world.private, world.own
    if shift is not None:
        distort = shift.over(world.pooled.values, world.task)
        recorded = partial(distort, seed=seed, strength=strength)
        private, own = (
            tuple(Samples(recorded(p.values, device=n), p.labels) for n, p in enumerate(parts))
            for parts in (private, own)
        )
    if noise.share:
        classes = len(world.task.classes)
        dice = [np.random.default_rng([seed, _NOISE_STREAM, number]) for number in range(len(private))]
        private = tuple(
            Samples(p.values, noise.apply(p.labels, classes, rng)) for p, rng in zip(private, dice, strict=True)
        )
    return replace(world, private=private, own=own)


def digits(
    seed: int, *, devices: int = 10, alpha: float = 0.1, validation: int = 0, own_fraction: float = 0.0
) -> World:
    """Return the world of the preset `digits`, 8x8 images: no factory, 600 probes, 400 test, the rest on devices.

    Args:
        seed: of every draw.
        devices: how many share the rest.
        alpha: concentration of the Dirichlet split; small = skewed.
        validation: rows taken off the devices, for choosing settings.
        own_fraction: share of each device's rows that is kept from it.
    """
    cut = Cut(validation=validation, own_fraction=own_fraction)
    return cut_world(DataTerms("digits").load(), cut, Dirichlet(alpha), devices, seed)


NEW_CLASS = Cut(factory=100, new_classes=3, probes=1000, canaries=200, test=800, validation=200, own_fraction=0.1)


def new_class(seed: int, *, devices: int = 10, alpha: float = 0.1, canaries: int = 200) -> World:
    """Return the demo's world, 5000 MNIST images: three of ten digits exist on devices alone."""
    cut = replace(NEW_CLASS, canaries=canaries)
    return cut_world(DataTerms("mnist-5k").load(), cut, Dirichlet(alpha), devices, seed)


def _samples(dataset: Dataset, rows: I64) -> Samples:
    return Samples(dataset.samples[rows], dataset.labels[rows])


def _new_classes(task: Task, cut: Cut, rng: np.random.Generator) -> I64:
    if not cut.new_classes:
        return np.empty(0, np.int64)
    return np.sort(rng.permutation(len(task.classes))[: cut.new_classes])


def _seen_and_unseen(dataset: Dataset, cut: Cut, rng: np.random.Generator) -> tuple[I64, I64]:
    """Return rows for everyone, and rows for the test alone: of whole users, or the published test set."""
    everyone = np.arange(len(dataset))
    if cut.unseen_groups:
        if dataset.groups is None:
            raise InvalidValueError(f"{dataset.name} names no users, sites or speakers: unseen_groups must be 0")
        chosen = rng.permutation(len(dataset.group_names))[: cut.unseen_groups]
        is_unseen = np.isin(dataset.groups, chosen)
        return everyone[~is_unseen], everyone[is_unseen]
    if cut.test == 0:
        first_of_test = len(everyone) - dataset.published_test
        return everyone[:first_of_test], everyone[first_of_test:]
    return everyone, everyone[:0]


def _names_of(dataset: Dataset, rows: I64) -> tuple[str, ...]:
    assert dataset.groups is not None
    return tuple(dataset.group_names[place] for place in np.unique(dataset.groups[rows]))


def _probes_of(public: Dataset, task: Task, cut: Cut, lacking: Sequence[int], seed: int) -> tuple[Samples, I64]:
    """Return probes from another data set, and its other rows.

    Where its classes are not the task's, the labels of its rows mean nothing.
    """
    if replace(public.task, classes=task.classes) != task:
        raise InvalidValueError(f"samples of {public.name} are no samples of the task: probes need such")
    if public.task != task and (cut.canaries or lacking):
        raise InvalidValueError(f"{public.name} has other classes: canaries must be 0, and lacking empty")
    rows = np.random.default_rng([seed, _PUBLIC_STREAM]).permutation(len(public))
    chosen = rows[~np.isin(public.labels[rows], lacking)][: cut.probes]
    return _samples(public, chosen), rows[~np.isin(rows, chosen)]


def _lessons_of(public: Dataset, task: Task, rows: I64, cut: Cut, new: I64) -> Samples:
    """Return the factory's rows from another data set."""
    if public.task != task:
        raise InvalidValueError(f"{public.name} has other classes, and cannot teach the factory")
    return _samples(public, rows[~np.isin(public.labels[rows], new)][: cut.factory])


def _check_sizes(cut: Cut, **found: I64 | Samples) -> None:
    """Raise InvalidValueError where there is less than the cut asks for."""
    for name, part in found.items():
        wanted: int = getattr(cut, name)
        if len(part) < wanted and not (name == "test" and cut.unseen_groups):
            raise InvalidValueError(f"the cut asks for {wanted} rows for {name}, and {len(part)} are left")
    if not len(found["test"]):
        raise InvalidValueError("no rows to test with: the data set has no published test set, so test is above 0")


def _hand_out(dataset: Dataset, rest: I64, partition: Partition, devices: int, seed: int) -> list[I64]:
    """Return the rows of each device, in random order."""
    rng = np.random.default_rng([seed, 1])
    groups = None if dataset.groups is None else dataset.groups[rest]
    return [
        rng.permutation(rest[part]) for part in partition.assign(Census(dataset.labels[rest], groups), devices, rng)
    ]
