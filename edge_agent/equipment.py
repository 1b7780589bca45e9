"""What a device runs on, loaded and checked before anything starts. An error names the settings file and the key."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from edge_agent.configuration import load_settings
from edge_agent.round.eligibility import Profile
from edge_agent.settings import AgentSettings
from edge_agent.slots.shelf import Shelf
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.label_set import label_set
from fd_protocol.manifest import Role
from fd_protocol.prototypes import STATES, PrototypeSpace
from fd_runtime.artifacts import Bundle, MissingArtifactError, PublicSet, load_bundle, load_public_set
from fd_runtime.public_sets import PublicSets
from fd_runtime.starting import blame
from fd_runtime.storage.store import Store

_PRIVATE_DATA, _PRIVATE_EPOCH = "private_data", "private_epoch"

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A bundle that ran before, and the checkpoint of what was learnt with it."""

    bundle: Bundle
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class Equipment:
    """Settings, and the artifacts that they name. Use `load_equipment`.

    Attributes:
        path: of the settings file.
        settings: what stands in it.
        bundle: what runs: the settings' own, or one that came over the air.
        public: the probes; None = the labels are.
        checkpoint: of what is learnt with this bundle.
        space: of the prototypes that may leave the device; None = none may.
        before: whose learning this bundle may go on with (`slots.personal`); None = it begins with its own.
    """

    path: Path
    settings: AgentSettings
    bundle: Bundle
    public: PublicSet | None
    checkpoint: Path
    space: PrototypeSpace | None = None
    before: Predecessor | None = None

    @property
    def further(self) -> PublicSets:
        """The public sets beside that of the settings."""
        return PublicSets(self.settings.state.public_sets, self.bundle.manifest.task.digest)

    def find_set(self, digest: bytes) -> int:
        """Look for a further public set and return the number of its samples; 0: it is not there, or of no use here."""
        return 0 if self.public is None else self.further.count(digest)

    def profile(self, private_epoch: int) -> Profile:
        """Return what the federation needs to know."""
        manifest, device = self.bundle.manifest, self.settings.device
        subject = self._subject()
        return Profile(
            device=device.id,
            federation=device.federation,
            task=manifest.task.digest,
            classes=subject.classes,
            bundle=self.bundle.digest,
            family=manifest.family,
            runtime=self.settings.model.runtime,
            public_set=subject.digest,
            probes=subject.count,
            private_epoch=private_epoch,
            further=self._further(),
            has_store=self.settings.store is not None,
            trains_privately=self.trains_privately,
            is_private=self.is_private,
            follows_releases=self.settings.releases.are_followed,
        )

    @property
    def has_private_rows(self) -> bool:
        """Whether there is anywhere for private rows to come from."""
        return self.settings.data.private is not None or self.settings.store is not None

    @property
    def is_private(self) -> bool:
        """Whether the owner asks for privacy terms, and has anything that they are about."""
        return self.settings.privacy.epsilon > 0 and self.has_private_rows

    @property
    def trains_privately(self) -> bool:
        """Whether bundle and runtime have a clipping graph."""
        return Role.TRAIN_STEP_PRIVATE in self.bundle.manifest.files and self.settings.model.runtime == "onnxruntime"

    def _further(self) -> dict[bytes, int]:
        if self.public is None:
            return {}
        return {digest: count for digest, count in self.further.held().items() if digest != self.public.digest}

    def _subject(self) -> Subject:
        """Return what rounds are about that this device takes part in."""
        task = self.bundle.manifest.task
        classes = len(task.classes)
        if self.public is not None:
            return Subject(self.public.digest, self.public.spec.count, classes)
        if self.space is not None:
            return Subject(self.space.digest, self.space.count, STATES)
        return Subject(label_set(task.digest), classes, classes)


@dataclass(frozen=True, slots=True)
class Subject:
    """A public set, or what stands in its place: its identity, its probes, and the classes of a probe."""

    digest: bytes
    count: int
    classes: int


def load_equipment(path: Path) -> Equipment:
    """Return what the settings file at `path` names.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: what a key names is missing, damaged, or does not fit the rest.
    """
    settings = load_settings(path)
    shelf = Shelf(settings.state.slots)
    slots = shelf.load()
    active = slots.active
    with blame(path, "model.bundle"):
        bundle = load_bundle(shelf.slot(active) if active else settings.model.bundle)
    with blame(path, "model.public_set"):
        public = _public_set(settings.model.public_set, bundle)
    with blame(path, "data.private"):
        if settings.data.private is not None and not settings.data.private.is_file():
            raise MissingArtifactError(settings.data.private)
    with blame(path, "data.prototypes"):
        space = PrototypeSpace.of(bundle.manifest) if settings.data.prototypes else None
    checkpoint = _checkpoint(shelf, settings, active)
    before = _before(shelf, settings, slots.previous) if slots.inherits and slots.previous is not None else None
    return Equipment(path, settings, bundle, public, checkpoint, space, before)


def _checkpoint(shelf: Shelf, settings: AgentSettings, slot: str) -> Path:
    return shelf.checkpoint(slot) if slot else settings.state.checkpoint


def _before(shelf: Shelf, settings: AgentSettings, slot: str) -> Predecessor | None:
    try:
        bundle = load_bundle(shelf.slot(slot) if slot else settings.model.bundle)
    except FedistillError as error:
        log.warning("nothing is carried over from %s: %s", slot[:12] or "the factory's bundle", error)
        return None
    return Predecessor(bundle, _checkpoint(shelf, settings, slot))


def _public_set(path: Path | None, bundle: Bundle) -> PublicSet | None:
    if path is None:
        return None
    public = load_public_set(path)
    if public.spec.task_sha256 != bundle.manifest.task.digest.hex():
        raise InvalidValueError(f"{path} was made for another task than the bundle")
    return public


def private_epoch_of(store: Store, private: Path | None) -> int:
    """Return the number of the private rows' present version; other bytes than last time make a new one."""
    digest = _file_digest(private) if private is not None else b""
    epoch = int.from_bytes(store.meta(_PRIVATE_EPOCH) or b"", "big")
    last = store.meta(_PRIVATE_DATA)
    if digest == last:
        return epoch
    with store.transaction():
        store.set_meta(_PRIVATE_DATA, digest)
        store.set_meta(_PRIVATE_EPOCH, (epoch := epoch + (last is not None)).to_bytes(8, "big"))
    return epoch


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
