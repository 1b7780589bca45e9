"""What a server runs on, loaded and checked before anything starts. An error names the settings file and the key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker_server.canaries import load_canaries
from broker_server.config import Config
from broker_server.methods import rule_named
from broker_server.release_gate import ReleaseGate
from broker_server.rules import Need
from broker_server.settings import MethodSettings, ProbeSet
from broker_server.student import Student
from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.label_set import label_set
from fd_protocol.prototypes import STATES, PrototypeSpace
from fd_runtime.artifacts import Bundle, PublicSet, load_bundle, load_public_set
from fd_runtime.config import load_toml
from fd_runtime.space import preprocessed
from fd_runtime.starting import blame


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
        return self.canaries.trust if self.config.trust == "canaries" else LabelledProbes()

    @property
    def probes(self) -> ProbeSet:
        return probe_set(self.bundle, self.public, self.config.method)

    @property
    def gate(self) -> ReleaseGate | None:
        """What judges the student; None: there are no canaries to judge it by."""
        return self.config.release.gate if self.canaries.release.probes else None

    def student(self) -> Student | None:
        """Return the student with its model opened, where there is to be one.

        Raises:
            StartError: its runtime cannot run the bundle.
        """
        settings = self.config.student
        if not settings.enabled or self.public is None:
            return None
        with blame(self.path, "student"):
            model = self.bundle.open(settings.runtime, threads=settings.threads)
            inputs = preprocessed(self.public.probes(), self.bundle.manifest.task)
        return Student(model, self.bundle.digest, inputs, settings.terms, self.canaries.release)


def probe_set(bundle: Bundle, public: PublicSet | None, method: MethodSettings) -> ProbeSet:
    """Return what the server must know of what rounds are about.

    Without a public set that is class prototypes in the bundle's features, or the labels of the task, by the method.

    Raises:
        InvalidValueError: the bundle has no features to make prototypes of.
    """
    task = bundle.manifest.task
    if public is not None:
        return ProbeSet(public.digest, public.spec.count, len(task.classes), task.digest)
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
        _check_trust(config.trust, canaries)
    with blame(path, "rounds"):
        config.check_against(probes)
    return Equipment(path, config, bundle, public, canaries)


def _check_trust(trust: str, canaries: Canaries) -> None:
    """Without canaries any device is believed: whoever wants that must say so."""
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
