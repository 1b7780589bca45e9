"""What a server runs on, loaded and checked before anything starts. An error names the settings file and the key."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from broker_server.canaries import load_canaries
from broker_server.config import Config
from broker_server.core.events import Edition
from broker_server.kits import Kit, Kits
from broker_server.methods import rule_named
from broker_server.probe_shelf import ProbeShelf
from broker_server.rules import Need
from broker_server.settings import MethodSettings, ProbeSet
from broker_server.student import Student
from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.label_set import label_set
from fd_protocol.prototypes import STATES, PrototypeSpace
from fd_runtime.artifacts import Bundle, MissingArtifactError, PublicSet, load_bundle, load_public_set
from fd_runtime.config import load_toml
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import preprocessed
from fd_runtime.starting import blame

log = logging.getLogger("broker-server")


@dataclass(frozen=True, slots=True)
class Equipment:
    """Config, and the artifacts that it names. Use `load_equipment`."""

    path: Path
    config: Config
    bundle: Bundle
    public: PublicSet | None
    canaries: Canaries

    @property
    def trust_canaries(self) -> LabelledProbes:
        """What devices are weighed by; nothing where all are trusted."""
        return self.weighing(self.canaries)

    def weighing(self, canaries: Canaries) -> LabelledProbes:
        """Return those of some canaries that devices are weighed by; none where all devices are trusted."""
        return canaries.trust if self.config.trust == "canaries" else LabelledProbes()

    @property
    def canaries_sha256(self) -> bytes:
        """Digest of the canaries of the settings; empty where these name none."""
        return self.canaries.digest if self.config.artifacts.canaries is not None else b""

    @property
    def probes(self) -> ProbeSet:
        return probe_set(self.bundle, self.public, self.config.method)

    @property
    def probe_shelf(self) -> ProbeShelf:
        task = self.bundle.manifest.task
        return ProbeShelf(self.config.state.probes, task.digest, len(task.classes))


class Workshop:
    """Makes kits: of what the settings name, and of other editions of the public set. They share the student's model.

    Args:
        equipment: of the server.
        with_student: whether the kits shall have one where the settings say so.

    Raises:
        StartError: the student's runtime cannot run the bundle.
    """

    def __init__(self, equipment: Equipment, *, with_student: bool = True) -> None:
        self._equipment, settings = equipment, equipment.config.student
        self._model: LoadedModel | None = None
        if with_student and settings.enabled and equipment.public is not None:
            with blame(equipment.path, "student"):
                self._model = equipment.bundle.open(settings.runtime, threads=settings.threads)

    def first(self) -> Kit:
        """Return the kit of what the settings name."""
        with blame(self._equipment.path, "artifacts.public_set"):
            return self._kit(self._equipment.public, self._equipment.canaries)

    def other(self, edition: Edition) -> Kit:
        """Return the kit of another edition; its public set may be that of the settings.

        Raises:
            MissingArtifactError: its files are not on the shelf.
            FedistillError: they are not what they should be, or it has no canaries where devices are weighed by them.
        """
        equipment = self._equipment
        public = public_set_of(edition, equipment)
        canaries = _canaries_of(edition, public, equipment)
        check_trust(equipment.config.trust, canaries)
        return self._kit(public, canaries)

    def _kit(self, public: PublicSet | None, canaries: Canaries) -> Kit:
        config = self._equipment.config
        return Kit(
            probe_set(self._equipment.bundle, public, config.method),
            self._equipment.weighing(canaries),
            self._student(public, canaries.release),
            config.release.gate if canaries.release.probes else None,
        )

    def _student(self, public: PublicSet | None, canaries: LabelledProbes) -> Student | None:
        if self._model is None or public is None:
            return None
        bundle, terms = self._equipment.bundle, self._equipment.config.student.terms
        return Student(self._model, bundle.digest, preprocessed(public.probes(), bundle.manifest.task), terms, canaries)


def plain_kits(equipment: Equipment) -> Kits:
    """Return the kits of a server without its student: enough to see whether the files of an edition are there."""
    workshop = Workshop(equipment, with_student=False)
    return Kits(workshop.first(), equipment.canaries_sha256, workshop.other)


def public_set_of(edition: Edition, equipment: Equipment) -> PublicSet:
    """Return the public set of an edition: that of the settings, or one from the shelf.

    Raises:
        MissingArtifactError: it is not there.
        FedistillError: it is damaged.
    """
    home = equipment.public
    if home is not None and home.digest == edition.public_set:
        return home
    return equipment.probe_shelf.sets.load(edition.public_set)


def canaries_before(editions: Iterable[Edition], public: PublicSet, equipment: Equipment) -> Iterator[Canaries]:
    """Yield the canaries that editions of a public set have, as far as they are still known."""
    for edition in editions:
        if edition.public_set == public.digest:
            try:
                yield _canaries_of(edition, public, equipment)
            except MissingArtifactError as error:
                log.warning("canaries of edition %d are not compared with: %s", edition.number, error)


def _canaries_of(edition: Edition, public: PublicSet, equipment: Equipment) -> Canaries:
    if edition.canaries == equipment.canaries_sha256:
        return equipment.canaries if edition.canaries else Canaries(public.digest.hex())
    if not edition.canaries:
        return Canaries(public.digest.hex())
    return equipment.probe_shelf.canaries(edition.canaries, public)


def probe_set(bundle: Bundle, public: PublicSet | None, method: MethodSettings) -> ProbeSet:
    """Return what the server must know of what rounds are about.

    Without a public set that is class prototypes in the bundle's features, or the labels of the task, by the method.

    Raises:
        InvalidValueError: the bundle has no features to make prototypes of.
    """
    task = bundle.manifest.task
    if public is not None:
        size_bytes = sum(entry.size_bytes for entry in public.spec.files.values())
        return ProbeSet(public.digest, public.spec.count, len(task.classes), task.digest, size_bytes)
    if Need.FEATURES in rule_named(method.name, method.terms).card.needs:
        space = PrototypeSpace.of(bundle.manifest)
        return ProbeSet(space.digest, space.count, STATES, task.digest)
    return ProbeSet(label_set(task.digest), len(task.classes), len(task.classes), task.digest)


def load_equipment(path: Path) -> Equipment:
    """Return what the settings file at `path` names.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: what a key names is missing, damaged, or does not fit the rest.
    """
    config = load_toml(path, Config)
    artifacts = config.artifacts
    with blame(path, "artifacts.bundle"):
        bundle = load_bundle(artifacts.bundle)
    with blame(path, "artifacts.public_set"):
        public = _public_set(artifacts.public_set, bundle, config.method)
    with blame(path, "artifacts.bundle"):
        probes = probe_set(bundle, public, config.method)
    with blame(path, "artifacts.canaries"):
        canaries = _canaries(artifacts.canaries, probes)
    with blame(path, "trust"):
        check_trust(config.trust, canaries)
    with blame(path, "rounds"):
        config.check_against(probes)
    return Equipment(path, config, bundle, public, canaries)


def check_trust(trust: str, canaries: Canaries) -> None:
    """Without canaries any device is believed: whoever wants that must say so.

    Raises:
        InvalidValueError: nobody has.
    """
    if trust == "canaries" and not canaries.trust.probes:
        raise InvalidValueError(
            'nothing to weigh devices by: set artifacts.canaries, or say trust = "none" if you trust all of them'
        )


def _public_set(path: Path | None, bundle: Bundle, method: MethodSettings) -> PublicSet | None:
    is_needed = Need.PUBLIC_SET in rule_named(method.name, method.terms).card.needs
    if path is None:
        if is_needed:
            raise InvalidValueError(f"method {method.name} needs a public set")
        return None
    if not is_needed:
        raise InvalidValueError(f"method {method.name} goes without a public set: leave this out")
    public = load_public_set(path)
    if public.spec.task_sha256 != bundle.manifest.task.digest.hex():
        raise InvalidValueError(f"{path} was made for another task than the bundle")
    return public


def _canaries(path: Path | None, probes: ProbeSet) -> Canaries:
    if path is None:
        return Canaries(probes.public_set.hex())
    return load_canaries(path, public_set=probes.public_set, count=probes.count, classes=probes.classes)
