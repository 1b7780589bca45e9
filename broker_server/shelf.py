"""Bundles of the student, as files: what releases are made of, and what devices will be given.

    state/releases/1.2.r3/            the bundle: the first bundle's graphs with the student's parameters
    state/releases/web/v1/blobs/SHA256    its package, without what the first bundle has: kilobytes; and packages of
                                          bundles that were made elsewhere (`commands.publish`)
    state/releases/web/v1/tuf/            what is signed about them (`vouching`)

`web` is all that a web server needs to see, this program's (`sites.packages`) or another (deploy/nginx): a package is
asked for by its digest, nothing lists them.

Putting the same weights twice gives the same files, so a crash in between does no harm.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from broker_server.student import StudentWeights
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle, load_bundle
from fd_runtime.files import write_atomically
from fd_runtime.packages import pack
from fd_runtime.releases import release
from fd_runtime.tuf.online import OnlineTrust
from fd_runtime.tuf.target_facts import facts_of

log = logging.getLogger("broker-server")


@dataclass(frozen=True, slots=True)
class Shelved:
    """A release on the shelf; `package` is the SHA-256 of its package."""

    bundle: Bundle
    package: bytes
    package_bytes: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """Makes releases of one bundle.

    Attributes:
        first: the bundle that the fleet was born with, and the parent of every release.
        folder: where releases lie; made where it is missing.
        trust: signs them; None = nobody does, and no device takes one.
    """

    first: Bundle
    folder: Path
    trust: OnlineTrust | None = None

    @property
    def family(self) -> str:
        return self.first.manifest.family

    @property
    def blobs(self) -> Path:
        """Where packages lie, by digest."""
        return self.folder / "web" / "v1" / "blobs"

    def put(self, number: int, weights: StudentWeights, now_s: float = 0.0, beside: Collection[bytes] = ()) -> Shelved:
        """Return release `number` of these weights, from the shelf if it lies there.

        Args:
            number: of the release.
            weights: of the student.
            now_s: UTC, for the signature.
            beside: packages of releases that stay vouched for.

        Raises:
            InvalidValueError: they are of another bundle than the first.
            FedistillError: the release is not proven on onnxruntime.
            OSError: the folder cannot be written.
        """
        if weights.bundle != self.first.digest:
            raise InvalidValueError("these weights are of another bundle than the fleet's first")
        version = f"{self.first.manifest.version}.r{number}"
        bundle = self._known(self.folder / version, weights) or self._make(self.folder / version, weights, version)
        shelved = self.lay_down(bundle, self.first)
        self._vouch(shelved, now_s, [package.hex() for package in beside])
        return shelved

    def _vouch(self, shelved: Shelved, now_s: float, beside: Collection[str]) -> None:
        """Sign what devices are to believe; a server that may not says so, and its release lies here for nobody."""
        if self.trust is None or not self.trust.has_begun:
            log.warning("%s is not signed: no device takes it (docs/updates.md)", shelved.bundle.manifest.version)
            return
        package = (self.blobs / shelved.package.hex()).read_bytes()
        self.trust.vouch(package, facts_of(shelved.bundle, self.first), now_s, beside=beside)

    def lay_down(self, bundle: Bundle, parent: Bundle | None = None) -> Shelved:
        """Put the package of a bundle where devices fetch it; one that lies there is the same.

        Args:
            bundle: loaded, so every digest was checked.
            parent: a bundle that devices have: its files are left out.

        Raises:
            MissingArtifactError, DigestError: a file has changed since.
            OSError: the folder cannot be written.
        """
        package = pack(bundle, parent=parent)
        digest = sha256(package)
        self.blobs.mkdir(parents=True, exist_ok=True)
        write_atomically(self.blobs / digest.hex(), package)
        return Shelved(bundle, digest, len(package))

    def _known(self, folder: Path, weights: StudentWeights) -> Bundle | None:
        """Return the bundle in `folder` if it is whole and has these weights; anything else there goes."""
        if not folder.exists():
            return None
        try:
            bundle = load_bundle(folder)
            if bundle.read(Role.THETA) == weights.theta:
                return bundle
        except FedistillError as error:
            log.warning("%s is made anew: %s", folder, error)
        shutil.rmtree(folder)
        return None

    def _make(self, folder: Path, weights: StudentWeights, version: str) -> Bundle:
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder, prefix=".") as making:
            theta = np.frombuffer(weights.theta, "<f4").astype(np.float32)
            release(self.first, theta, Path(making, "bundle"), version=version)
            Path(making, "bundle").rename(folder)
        return load_bundle(folder)
