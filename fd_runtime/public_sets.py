"""A folder of public sets, each under the hexadecimal digest of its description.

    {folder}/{digest}/public_set.json, probes.npy, ...

The server names sets by digest and says nothing of where they are (`fd_protocol.messages.ProbeNotice`). A set counts
once every file of it is what its description says, and if it was made for the task.

What is deliberately absent: how a set gets here (the update channel's matter, or a person's with a memory stick).
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.public_set import PUBLIC_SET_NAME
from fd_runtime.artifacts import PublicSet, load_public_set

log = logging.getLogger("fedistill.public_sets")


@dataclass(frozen=True, slots=True)
class PublicSets:
    """The sets of one task in a folder, which may be missing; `task` is the digest of the task."""

    folder: Path
    task: bytes

    def load(self, digest: bytes) -> PublicSet:
        """Return a set, every file of it checked.

        Raises:
            MissingArtifactError: it is not here.
            InvalidManifestError, DigestError, InvalidValueError: it is not what its name says, or of another task.
        """
        return self._checked(load_public_set(self.folder / digest.hex()), digest)

    def find(self, digest: bytes) -> PublicSet | None:
        """Return a set as `load` does; None: it is not here, or not what it should be: the log says so."""
        if not (self.folder / digest.hex() / PUBLIC_SET_NAME).is_file():
            return None
        try:
            return self.load(digest)
        except (FedistillError, OSError) as error:
            log.warning("public set %s is passed over: %s", digest.hex()[:16], error)
            return None

    def count(self, digest: bytes) -> int:
        """Return the number of samples in a set; 0: it is not here."""
        found = self.find(digest)
        return 0 if found is None else found.spec.count

    def held(self) -> dict[bytes, int]:
        """Return the number of samples in each set that is here, by digest, in the order of digests."""
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        counts = {digest: self.count(digest) for digest in map(_digest_of, names) if digest}
        return {digest: count for digest, count in counts.items() if count}

    def add(self, source: Path) -> PublicSet:
        """Copy the set in the folder `source` to where it is found, whole or not at all, and return it.

        Raises:
            MissingArtifactError, InvalidManifestError, DigestError: it is no whole set.
            InvalidValueError: it was made for another task.
            OSError: the folder cannot be written.
        """
        public = load_public_set(source)
        self._checked(public, public.digest)
        if self.find(public.digest) is None:
            self._copy(public)
        return self.load(public.digest)

    def _copy(self, public: PublicSet) -> None:
        place = self.folder / public.digest.hex()
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder, prefix=".") as making:
            copy = Path(making, "set")
            copy.mkdir()
            for name in (PUBLIC_SET_NAME, *(entry.path for entry in public.spec.files.values())):
                shutil.copyfile(public.folder / name, copy / name)
            load_public_set(copy)
            shutil.rmtree(place, ignore_errors=True)  # what `find` would not have
            copy.rename(place)

    def _checked(self, public: PublicSet, digest: bytes) -> PublicSet:
        if public.digest != digest:
            raise InvalidValueError(f"it is another public set: {public.digest.hex()}")
        if public.spec.task_sha256 != self.task.hex():
            raise InvalidValueError(f"public set {digest.hex()[:16]} was made for another task")
        return public


def _digest_of(name: str) -> bytes:
    """Return the digest that a folder is called by; empty: it is called otherwise."""
    try:
        digest = bytes.fromhex(name)
    except ValueError:
        return b""
    return digest if len(name) == 64 and name == digest.hex() else b""
