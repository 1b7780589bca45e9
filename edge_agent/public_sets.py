"""The public sets that a device has: the one that it was set up with, and further ones by digest.

    [model] public_set                          the first
    [state] folder/public_sets/{digest}/        further ones; `add` puts them there, or whoever else delivers them

The server names sets by digest (`fd_protocol.messages.ProbeNotice`) and says nothing of where they are. A set counts
once every file of it is what its description says, and if it was made for the device's task.

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

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class FurtherSets:
    """The sets in a folder, each under the hexadecimal digest of its description.

    Attributes:
        folder: may be missing.
        task: digest of the device's task.
    """

    folder: Path
    task: bytes

    def find(self, digest: bytes) -> PublicSet | None:
        """Return a set, every file of it checked; None: it is not here, or not what it should be: the log says so."""
        folder = self.folder / digest.hex()
        if not (folder / PUBLIC_SET_NAME).is_file():
            return None
        try:
            return self._checked(load_public_set(folder), digest)
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
        place = self.folder / public.digest.hex()
        if self.find(public.digest) is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self.folder, prefix=".") as making:
                copy = Path(making, "set")
                copy.mkdir()
                for name in (PUBLIC_SET_NAME, *(entry.path for entry in public.spec.files.values())):
                    shutil.copyfile(source / name, copy / name)
                load_public_set(copy)
                shutil.rmtree(place, ignore_errors=True)  # what `find` would not have
                copy.rename(place)
        return load_public_set(place)

    def _checked(self, public: PublicSet, digest: bytes) -> PublicSet:
        if public.digest != digest:
            raise InvalidValueError(f"it is another set: {public.digest.hex()}")
        if public.spec.task_sha256 != self.task.hex():
            raise InvalidValueError("it was made for another task")
        return public


def _digest_of(name: str) -> bytes:
    """Return the digest that a folder is called by; empty: it is called otherwise."""
    try:
        digest = bytes.fromhex(name)
    except ValueError:
        return b""
    return digest if len(name) == 64 and name == digest.hex() else b""
