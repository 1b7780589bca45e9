"""Bundles and public sets on disk. Every digest is checked before anything is used, and again on the bytes that are.

Only bytes here, no arrays and no runtime: a supervisor that never touches a model reads manifests with this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fd_protocol.errors import FedistillError
from fd_protocol.manifest import MANIFEST_NAME, FileEntry, Manifest, Role
from fd_protocol.public_set import PUBLIC_SET_NAME, PublicSetSpec, SetFile
from fd_runtime.models.providers import ON_CPU, Placement

if TYPE_CHECKING:  # numpy and the runtimes come in where a model is opened, and not before
    import numpy as np
    import numpy.typing as npt

    from fd_runtime.models.model import PrivateTrainSession, Tail
    from fd_runtime.models.opening import LoadedModel
    from fd_runtime.space import Space

TfliteRuntime = Literal["litert", "tflite-runtime"]
Runtime = Literal["onnxruntime", TfliteRuntime, "numpy"]

EX_NOINPUT = 66  # sysexits.h


class MissingArtifactError(FedistillError):
    """A bundle, a public set or a file of one is not there."""

    exit_code = EX_NOINPUT

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"no such file: {path}")


class UnverifiedRuntimeError(FedistillError):
    """The bundle was not proven on this runtime, or the runtime cannot run it."""

    exit_code = 78  # EX_CONFIG: the runtime is a setting


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model: its folder and its manifest. Use `load_bundle`."""

    folder: Path
    manifest: Manifest

    @property
    def digest(self) -> bytes:
        return self.manifest.digest

    def read(self, role: Role) -> bytes:
        """Return the bytes of a file.

        Raises:
            MissingArtifactError: the bundle has no such file, or it is not there.
            DigestError: it is not the one that the manifest names.
        """
        if role not in self.manifest.files:
            raise MissingArtifactError(self.folder / role.value)
        return read_file(self.folder, self.manifest.files[role])

    def open(self, runtime: Runtime, *, threads: int = 1, placement: Placement = ON_CPU) -> LoadedModel:
        """Load backbone, tail and train step with the bundle's own theta.

        Args:
            runtime: of all three.
            threads: of one run.
            placement: where onnxruntime may run the backbone; the others stay on the processor.

        Raises:
            UnverifiedRuntimeError: the bundle was not proven on `runtime`.
            NoProviderError: nothing of `placement` works here, or the runtime has no providers.
            MissingArtifactError, DigestError: as `read`.
            ModelError: the runtime refuses a graph.
        """
        from fd_runtime.models.opening import open_model  # noqa: PLC0415 - brings numpy

        return open_model(self, runtime, threads, placement)

    def open_tail(self, runtime: Runtime, *, threads: int = 1) -> Tail:
        """Load one more tail with the bundle's own theta, to predict with while another trains; raises as `open`."""
        from fd_runtime.models.opening import open_tail  # noqa: PLC0415 - brings numpy

        return open_tail(self, runtime, threads)

    def open_private_step(self, *, threads: int = 1) -> PrivateTrainSession:
        """Load the train step of DP-SGD with the bundle's own theta, on onnxruntime.

        Raises:
            MissingArtifactError: the bundle has none; or as `read`.
            ModelError: onnxruntime refuses the graph.
        """
        from fd_runtime.models.opening import open_private_step  # noqa: PLC0415 - brings numpy

        return open_private_step(self, threads)


@dataclass(frozen=True, slots=True)
class PublicSet:
    """Probes and the space of competence: the folder and its description. Use `load_public_set`."""

    folder: Path
    spec: PublicSetSpec

    @property
    def digest(self) -> bytes:
        return self.spec.digest

    def read(self, part: SetFile) -> bytes:
        """Return the bytes of a file; raises as `Bundle.read`."""
        return read_file(self.folder, self.spec.files[part])

    def probes(self) -> npt.NDArray[np.generic]:
        """Return the samples [count, *sample_shape], before preprocessing.

        Raises:
            MissingArtifactError, DigestError: as `read`.
            DecodeError: the array is not what the description says.
        """
        from fd_runtime.models.opening import open_probes  # noqa: PLC0415 - brings numpy

        return open_probes(self)

    def space(self) -> Space:
        """Return the space in which everyone measures competence; raises as `probes`, also if it is not finite."""
        from fd_runtime.models.opening import open_space  # noqa: PLC0415 - brings numpy

        return open_space(self)


def load_bundle(folder: Path) -> Bundle:
    """Return the bundle in `folder`, every file of it checked.

    Raises:
        MissingArtifactError: the manifest or a file is not there.
        InvalidManifestError: the manifest is wrong at a key, or about the size of a file.
        DigestError: a file is not the one that the manifest names.
    """
    path = folder / MANIFEST_NAME
    manifest = Manifest.from_json(_bytes_of(path), path)
    _check(folder, manifest.files)
    return Bundle(folder, manifest)


def load_public_set(folder: Path) -> PublicSet:
    """Return the public set in `folder`, every file of it checked; raises as `load_bundle`."""
    path = folder / PUBLIC_SET_NAME
    spec = PublicSetSpec.from_json(_bytes_of(path), path)
    _check(folder, spec.files)
    return PublicSet(folder, spec)


def _check(folder: Path, files: Mapping[str, FileEntry]) -> None:
    for entry in files.values():
        read_file(folder, entry)


def read_file(folder: Path, entry: FileEntry) -> bytes:
    """Return the bytes of the file in `folder` that `entry` names; raises as `Bundle.read`."""
    return entry.check(_bytes_of(folder / entry.path), folder / entry.path)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise MissingArtifactError(path) from error
