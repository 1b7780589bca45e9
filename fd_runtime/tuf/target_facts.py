"""What can be said of a bundle before it is fetched, read from the bundle itself."""

from __future__ import annotations

from fd_protocol.manifest import Role
from fd_protocol.targets import TargetFacts
from fd_runtime.artifacts import Bundle
from fd_runtime.models.onnx_parameters import opset_of

_GRAPHS = (Role.BACKBONE, Role.BACKBONE_FLOAT, Role.TAIL, Role.TAIL_INT8, Role.TRAIN_STEP, Role.TRAIN_STEP_PRIVATE)


def facts_of(bundle: Bundle, parent: Bundle | None = None) -> TargetFacts:
    """Return what is to be signed about a package of `bundle` without what `parent` has.

    Raises:
        MissingArtifactError, DigestError: a file has changed since it was loaded.
        ModelError: a graph is no ONNX file.
    """
    manifest = bundle.manifest
    graphs = [role for role in _GRAPHS if role in manifest.files]
    weights = sum(manifest.files[role].size_bytes for role in (Role.BACKBONE, Role.TAIL) if role in manifest.files)
    return TargetFacts(
        bundle=bundle.digest.hex(),
        family=manifest.family,
        version=manifest.version,
        runtimes=manifest.verified_on,
        opset=max(opset_of(bundle.read(role)) for role in graphs),
        memory_bytes=weights + (manifest.costs.train_peak_bytes if manifest.costs else 0),
        golden=manifest.files[Role.GOLDEN].sha256,
        parent=parent.digest.hex() if parent else None,
    )
