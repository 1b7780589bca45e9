"""Editions of the public set as files, with the canaries that no device may see.

    state/probes/sets/{digest}/            public sets, as `model-export` wrote them
    state/probes/canaries/{digest}.json    what the server knows of them; for its owner's eyes alone

The federation's state names both by digest. What the settings name lies where the settings say.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from broker_server.canaries import load_canaries
from fd_protocol.canaries import Canaries
from fd_protocol.errors import DigestError, InvalidValueError
from fd_runtime.artifacts import MissingArtifactError, PublicSet
from fd_runtime.files import write_atomically
from fd_runtime.public_sets import PublicSets


@dataclass(frozen=True, slots=True)
class ProbeShelf:
    """The files of one federation.

    Attributes:
        folder: made where it is missing.
        task: digest of the task.
        classes: of it.
    """

    folder: Path
    task: bytes
    classes: int

    @property
    def sets(self) -> PublicSets:
        return PublicSets(self.folder / "sets", self.task)

    def canaries(self, digest: bytes, public: PublicSet) -> Canaries:
        """Return canaries of a public set.

        Raises:
            MissingArtifactError: they are not here.
            InvalidCanariesError: they do not fit the set, or the file is no such thing.
            DigestError: they are others than their name says.
        """
        path = self._path(digest)
        if not path.is_file():
            raise MissingArtifactError(path)
        canaries = load_canaries(path, public_set=public.digest, count=public.spec.count, classes=self.classes)
        if canaries.digest != digest:
            raise DigestError(str(path), digest, canaries.digest)
        return canaries

    def put_canaries(self, canaries: Canaries) -> bytes:
        """Keep canaries and return their digest."""
        path = self._path(canaries.digest)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, canaries.to_json(), mode=0o600)
        return canaries.digest

    def remove_set(self, digest: bytes) -> None:
        """Remove a public set; the canaries in it stay, so that they are not used again."""
        shutil.rmtree(self.sets.folder / digest.hex(), ignore_errors=True)

    def _path(self, digest: bytes) -> Path:
        return self.folder / "canaries" / f"{digest.hex()}.json"


def check_unused(canaries: Canaries, before: Canaries) -> None:
    """Refuse new canaries that were canaries of the same public set before: whoever learnt those knows these.

    Raises:
        InvalidValueError: so.
    """
    if canaries.public_set_sha256 != before.public_set_sha256:
        return
    new = {*canaries.trust.probes, *canaries.release.probes}
    old = {*before.trust.probes, *before.release.probes}
    if again := new & old:
        raise InvalidValueError(f"{len(again)} of these {len(new)} probes were canaries before, {min(again)} the first")
