"""What a device runs on, loaded and checked before anything starts. An error names the settings file and the key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge_agent.eligibility import Profile
from edge_agent.settings import AgentSettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.label_set import label_set
from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle, MissingArtifactError, PublicSet, load_bundle, load_public_set
from fd_runtime.config import load_toml
from fd_runtime.starting import blame
from fd_runtime.store import Store

_PRIVATE_DATA, _PRIVATE_EPOCH = "private_data", "private_epoch"


@dataclass(frozen=True, slots=True)
class Equipment:
    """Settings, and the artifacts that they name. Use `load_equipment`."""

    path: Path
    settings: AgentSettings
    bundle: Bundle
    public: PublicSet | None

    def profile(self, private_epoch: int) -> Profile:
        """Return what the federation needs to know."""
        manifest, device = self.bundle.manifest, self.settings.device
        classes, public = len(manifest.task.classes), self.public
        return Profile(
            device=device.id,
            federation=device.federation,
            task=manifest.task.digest,
            classes=classes,
            bundle=self.bundle.digest,
            family=manifest.family,
            runtime=self.settings.model.runtime,
            public_set=label_set(manifest.task.digest) if public is None else public.digest,
            probes=classes if public is None else public.spec.count,
            private_epoch=private_epoch,
            trains_privately=self.trains_privately,
        )

    @property
    def has_private_rows(self) -> bool:
        """Whether there is anywhere for private rows to come from."""
        return self.settings.data.private is not None

    @property
    def trains_privately(self) -> bool:
        """Whether bundle and runtime have a clipping graph."""
        return Role.TRAIN_STEP_PRIVATE in self.bundle.manifest.files and self.settings.model.runtime == "onnxruntime"


def load_equipment(path: Path) -> Equipment:
    """Return what the settings file at `path` names.

    Raises:
        ConfigError: the file is wrong at a key.
        StartError: what a key names is missing, damaged, or does not fit the rest.
    """
    settings = load_toml(path, AgentSettings)
    with blame(path, "model.bundle"):
        bundle = load_bundle(settings.model.bundle)
    with blame(path, "model.public_set"):
        public = _public_set(settings.model.public_set, bundle)
    with blame(path, "data.private"):
        if settings.data.private is not None and not settings.data.private.is_file():
            raise MissingArtifactError(settings.data.private)
    return Equipment(path, settings, bundle, public)


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
