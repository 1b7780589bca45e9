"""A new release of a bundle: the same graphs with other parameters, which is what learning changes.

Three small files are new (tail, theta, golden vectors) and a manifest that names its parent; a package of it without
what the parent has (`packages.pack`) is kilobytes. No `onnx` package is needed: theta is written over the floats in the
tail's file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import FedistillError
from fd_protocol.manifest import MANIFEST_NAME, FileEntry, Role
from fd_protocol.reference import Reference
from fd_runtime.artifacts import Bundle, Runtime, load_bundle
from fd_runtime.files import claim, write_atomically
from fd_runtime.models import golden
from fd_runtime.models.golden import Golden
from fd_runtime.models.model import F32, I64, check_theta
from fd_runtime.models.onnx_parameters import with_parameters
from fd_runtime.models.proof import check_on

GOLDEN_NAME = "golden.npz"

log = logging.getLogger("fedistill.releases")

Prove = Callable[[Bundle, Runtime], None]
"""Raises a `FedistillError` unless the bundle gives its golden vectors on a runtime."""


def release(
    parent: Bundle, theta: F32, folder: Path, *, version: str, keeps_tail: bool = False, prove: Prove = check_on
) -> Bundle:
    """Write the next release of `parent` into `folder` and return it loaded.

    An int8 twin of the tail is left out, for its weights are those of the parent. A runtime that cannot be proven here
    is left out too, with a warning.

    Args:
        parent: loaded, so every digest was checked.
        theta: float32 [P], in the parent's layout.
        folder: created; must not exist, or be empty.
        version: for people.
        keeps_tail: devices that have learnt go on with their own parameters; for those alone that have not, `theta` is
            where they begin.
        prove: how a runtime is tried; in this process, unless somebody knows other interpreters (`model-export` does).

    Raises:
        ThetaError: theta does not fit, or is not finite.
        InvalidValueError: no version is called so.
        FileExistsError: something is in the folder.
        OSError: the folder cannot be written.
    """
    check_theta(theta, parent.manifest.layout.size)
    contents = {Role(role): parent.read(Role(role)) for role in parent.manifest.files if role != Role.TAIL_INT8}
    contents[Role.TAIL] = with_parameters(contents[Role.TAIL], parent.manifest.layout, theta)
    contents[Role.THETA] = theta.astype("<f4").tobytes()
    paths = {role: parent.manifest.files[role].path for role in contents}
    manifest = replace(
        parent.manifest,
        version=version,
        parent=parent.digest.hex(),
        keeps_tail=keeps_tail or None,  # the parent's word was about the parent
        reference=_without_confidence(parent.manifest.reference),
        files={role.value: FileEntry.of(paths[role], content) for role, content in contents.items()},
    )
    claim(folder)  # not before the manifest has checked itself
    for role, content in contents.items():
        write_atomically(folder / paths[role], content)
    known = Golden.from_bytes(contents[Role.GOLDEN], parent.manifest.task)
    return seal(Bundle(folder, manifest), known.samples, known.labels, prove)


def _without_confidence(reference: Reference | None) -> Reference | None:
    """The backbone and its features stay; how sure the old parameters were says nothing of the new ones."""
    return None if reference is None else replace(reference, confidence=None)


def seal(
    draft: Bundle, samples: npt.NDArray[np.generic], labels: I64, prove: Prove, *, required: Collection[Runtime] = ()
) -> Bundle:
    """Record golden vectors, prove the draft on the runtimes that its manifest proposes, sign it, and load it.

    Args:
        draft: its files are written, but for the golden vectors and the manifest.
        samples: a few, as recorded, for the golden vectors: [n, *sample_shape].
        labels: theirs.
        prove: how a runtime is tried.
        required: runtimes that must be proven, besides onnxruntime, which always must.

    Raises:
        FedistillError: a required runtime is not proven; as `prove` says.
        ModelError: onnxruntime, the reference, refuses a graph.
        OSError: the folder cannot be written.
    """
    recorded = golden.record(draft.open("onnxruntime"), samples, labels).to_bytes()
    entry = FileEntry.of(GOLDEN_NAME, recorded)
    write_atomically(draft.folder / entry.path, recorded)
    files = {**draft.manifest.files, Role.GOLDEN.value: entry}
    draft = replace(draft, manifest=replace(draft.manifest, files=files))
    proven = [cast("Runtime", runtime) for runtime in draft.manifest.verified_on]
    for runtime in tuple(proven):
        try:
            prove(draft, runtime)
        except FedistillError as error:
            if runtime in {"onnxruntime", *required}:
                raise
            proven.remove(runtime)
            level = logging.INFO if runtime == "numpy" else logging.WARNING  # few models are NumPy's
            log.log(level, "%s is not proven on %s: %s", draft.manifest.name, runtime, error)
    write_atomically(draft.folder / MANIFEST_NAME, replace(draft.manifest, verified_on=tuple(proven)).to_json())
    return load_bundle(draft.folder)
