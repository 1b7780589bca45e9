"""Writing and verifying bundles: a folder of plain files, and the manifest that vouches for each.

    manifest.json   backbone.int8.onnx   backbone.float.onnx   tail.onnx   train_step.onnx   theta.bin   golden.npz
                    backbone.int8.tflite   tail.tflite   train_step.tflite
                    train_step.private.onnx   tail.int8.onnx

A bundle is proven before it is signed: each runtime that can open it must give the golden vectors, and the manifest
names those that did. It is written last, so a folder with a manifest is a whole bundle.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import (
    FORMAT,
    Costs,
    FeatureSpec,
    FileEntry,
    Manifest,
    Role,
    Task,
    TrainSpec,
)
from fd_protocol.reference import Reference
from fd_protocol.succession import unfit
from fd_runtime.artifacts import Bundle, Runtime, TfliteRuntime, load_bundle
from fd_runtime.files import claim, write_atomically
from fd_runtime.models.model import F32, I64, RuntimeMissingError
from fd_runtime.releases import seal
from model_export.proving import InterpreterError, prove_anywhere

_FILE_NAMES: Mapping[Role, str] = {
    Role.BACKBONE: "backbone.int8.onnx",
    Role.BACKBONE_FLOAT: "backbone.float.onnx",
    Role.TAIL: "tail.onnx",
    Role.TAIL_INT8: "tail.int8.onnx",
    Role.TRAIN_STEP: "train_step.onnx",
    Role.TRAIN_STEP_PRIVATE: "train_step.private.onnx",
    Role.THETA: "theta.bin",
    Role.BACKBONE_TFLITE: "backbone.int8.tflite",
    Role.TAIL_TFLITE: "tail.tflite",
    Role.TRAIN_STEP_TFLITE: "train_step.tflite",
}
_RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "litert", "tflite-runtime", "numpy")

log = logging.getLogger("model-export")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything of a bundle but its golden vectors; fields as in `Manifest`.

    Attributes:
        graphs: serialized graphs by role.
        theta: float32 [P] in the layout's order.
        keeps_tail_of: the parent's manifest, where devices shall go on with what they have learnt with the parent.
    """

    name: str
    family: str
    version: str
    task: Task
    graphs: Mapping[Role, bytes]
    layout: ThetaLayout
    theta: F32
    features: FeatureSpec | None
    training: TrainSpec
    costs: Costs | None = None
    licence: str | None = None
    parent: str | None = None
    keeps_tail_of: Manifest | None = None
    reference: Reference | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


class Proof(str, Enum):
    """What became of a runtime that the manifest lists, on this machine."""

    MET = "golden vectors met"
    NOT_TRIED = "not tried: not installed here"


def write_bundle(
    folder: Path,
    model: Model,
    samples: npt.NDArray[np.generic],
    labels: I64,
    *,
    required: Collection[Runtime] = (),
) -> Bundle:
    """Write `model` into the new folder, prove it, sign it, and return it loaded.

    Args:
        folder: created; must not exist, or be empty.
        model: what to write.
        samples: a few, as recorded, for the golden vectors: [n, *sample_shape].
        labels: theirs.
        required: runtimes that the bundle must be proven on, besides onnxruntime.

    Raises:
        FileExistsError: something is in the folder.
        GoldenMismatchError, ModelError, UnprovenError, InterpreterError: a required runtime is not proven.
        OSError: the folder cannot be written.
    """
    contents = {**model.graphs, Role.THETA: model.theta.astype("<f4").tobytes()}
    files = {role.value: FileEntry.of(_FILE_NAMES[role], content) for role, content in contents.items()}
    draft = Bundle(folder, _manifest(model, files))  # which checks the model, before anything is written
    claim(folder)
    for role, content in contents.items():
        write_atomically(folder / _FILE_NAMES[role], content)
    return seal(draft, samples, labels, prove_anywhere, required=required)


def verify_bundle(folder: Path) -> tuple[Bundle, Mapping[Runtime, Proof]]:
    """Return the bundle in `folder` after every digest was checked, and how its runtimes did here.

    Raises:
        MissingArtifactError, InvalidManifestError, DigestError: as `load_bundle`.
        GoldenMismatchError, UnprovenError: a runtime that is installed here answers otherwise.
        ModelError: a runtime refuses a graph.
    """
    bundle = load_bundle(folder)
    listed = [runtime for runtime in _RUNTIMES if runtime in bundle.manifest.verified_on]
    return bundle, {runtime: _prove_here(bundle, runtime) for runtime in listed}


def _prove_here(bundle: Bundle, runtime: Runtime) -> Proof:
    try:
        prove_anywhere(bundle, runtime)
    except (InterpreterError, RuntimeMissingError) as error:
        log.info("%s on %s: %s", bundle.manifest.name, runtime, error)
        return Proof.NOT_TRIED
    return Proof.MET


def _manifest(model: Model, files: Mapping[str, FileEntry]) -> Manifest:
    """Raises: InvalidValueError: a tail is to be kept that does not fit."""
    manifest = Manifest(
        format=FORMAT,
        name=model.name,
        family=model.family,
        version=model.version,
        task=model.task,
        files=files,
        layout=model.layout,
        features=model.features,
        training=model.training,
        costs=model.costs,
        licence=model.licence,
        parent=model.parent,
        keeps_tail=True if model.keeps_tail_of is not None else None,
        reference=model.reference,
        verified_on=_candidates(files),
        provenance=model.provenance,
    )
    if model.keeps_tail_of is not None and (problem := unfit(model.keeps_tail_of, manifest)):
        raise InvalidValueError(f"{model.name} cannot keep the tail of its parent: {problem}")
    return manifest


def _candidates(files: Mapping[str, FileEntry]) -> tuple[Runtime, ...]:
    """The runtimes that may be able to run these files."""
    has_twins = Role.TAIL_TFLITE.value in files
    return tuple(runtime for runtime in _RUNTIMES if has_twins or runtime not in get_args(TfliteRuntime))
