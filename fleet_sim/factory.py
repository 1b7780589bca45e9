"""What leaves the factory before a federation starts: a bundle per family, the public set, the server's canaries."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from broker_server.canaries import read_canaries
from broker_server.settings import ProbeSet
from fd_protocol.canaries import CANARIES_NAME, Canaries
from fd_protocol.manifest import Task
from fd_runtime.artifacts import Bundle, PublicSet, load_bundle, load_public_set
from fleet_sim.scenario import ModelTerms
from fleet_sim.worlds import Samples, World
from model_export.building import build
from model_export.public_set import build_public_set
from model_export.quantisation import QuantisationTerms
from model_export.recipe import TAIL, FactoryData, Recipe
from model_export.samples import Samples as Hidden


@dataclass(frozen=True, slots=True)
class Equipment:
    """Artifacts of one world.

    Attributes:
        public: the public set.
        public_probes: its probes, with the labels that nobody in the federation knows.
        bundles: by family.
        canaries: what the server knows of the public set, if the scenario lets it.
    """

    task: Task
    public: PublicSet
    public_probes: Samples
    bundles: Mapping[str, Bundle]
    canaries: Canaries

    @property
    def probes(self) -> ProbeSet:
        return ProbeSet(self.public.digest, self.public.spec.count, len(self.task.classes), self.task.digest)


_PUBLIC_SET, _ORDER = "public-set", "probe-order.npy"
"""Probe i of the public set is probe `order[i]` of the world. The labels' side of it: never shipped."""


def equip(world: World, models: ModelTerms, seed: int, folder: Path, *, tflite: bool = False) -> Equipment:
    """Build everything that the devices and the server of `world` start from, into the new `folder`."""
    _draw_public_set(world, seed, folder)
    build_bundles(world, models, seed, folder, tflite=tflite)
    return load_equipment(world, models, folder)


def public_set_bytes(world: World, seed: int) -> int:
    """Return the bytes of the public set's files, deflated: what everybody must get once."""
    with TemporaryDirectory() as folder:
        _draw_public_set(world, seed, Path(folder))
        return sum(len(zlib.compress(path.read_bytes(), 9)) for path in (Path(folder) / _PUBLIC_SET).iterdir())


def load_equipment(world: World, models: ModelTerms, folder: Path) -> Equipment:
    """Return what `equip` built for the same world and models."""
    order = np.load(folder / _ORDER, allow_pickle=False)
    probes = world.probes.take(order)
    return Equipment(
        world.task,
        load_public_set(folder / _PUBLIC_SET),
        probes,
        {family: load_bundle(folder / family) for family in _families(models)},
        read_canaries(folder / CANARIES_NAME),
    )


def build_bundles(world: World, models: ModelTerms, seed: int, folder: Path, *, tflite: bool) -> dict[str, Bundle]:
    """Return a bundle for each family that a device or the student has; a family's seed is its own and no other's."""
    data = FactoryData(world.factory.values, world.factory.labels, calibration=world.probes.values)
    return {
        family: build(_recipe(models, family, seed, tflite=tflite), world.task, data, folder / family)
        for family in _families(models)
    }


def _draw_public_set(world: World, seed: int, folder: Path) -> None:
    """Write the public set, the server's canaries and the order of its probes, which is nobody's."""
    probes, known = world.probes, world.canaries
    rows = np.concatenate([np.delete(np.arange(len(probes)), known), known])
    hidden = Hidden(probes.values[known], probes.labels[known])
    unlabelled = probes.values[rows[: len(rows) - len(known)]]
    built = build_public_set(folder / _PUBLIC_SET, unlabelled, world.task, seed=seed, canaries=hidden)
    np.save(folder / _ORDER, rows[built.order], allow_pickle=False)
    (folder / CANARIES_NAME).write_bytes(built.canaries.to_json())


def _families(models: ModelTerms) -> list[str]:
    return sorted({*models.families, models.student})


def _recipe(models: ModelTerms, family: str, seed: int, *, tflite: bool) -> Recipe:
    return Recipe(
        name=family,
        family=family,
        seed=1000 * seed + zlib.crc32(family.encode()) % 1000,
        pretraining=models.pretraining,
        augmentation=models.augmentation,
        trains="everything" if models.every_layer_trains else TAIL,
        quantisation=QuantisationTerms(method="minmax" if models.int8 else "none"),
        private=models.private,
        tflite="where-possible" if tflite else "none",
    )
