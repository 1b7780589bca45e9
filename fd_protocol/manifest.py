"""What a bundle holds and for which task: the value of a bundle's `manifest.json`.

A bundle is a folder of plain files; its manifest names each with its SHA-256, and the SHA-256 of the manifest is the
bundle's identity. Nothing of a bundle is used before its digest was checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from fd_protocol.documents import LINES, InvalidDocumentError, Place, from_json, to_json
from fd_protocol.errors import DigestError, InvalidValueError, shown
from fd_protocol.identity import check_name, sha256
from fd_protocol.layout import ThetaLayout
from fd_protocol.reference import Reference

MANIFEST_NAME = "manifest.json"
FORMAT = 1

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")


class InvalidManifestError(InvalidDocumentError):
    """A manifest or the description of a public set is wrong at a key."""


class Role(str, Enum):
    """What a file of a bundle is for."""

    BACKBONE = "backbone"
    BACKBONE_FLOAT = "backbone_float"
    TAIL = "tail"
    TAIL_INT8 = "tail_int8"
    TRAIN_STEP = "train_step"
    TRAIN_STEP_PRIVATE = "train_step_private"
    THETA = "theta"
    BACKBONE_TFLITE = "backbone_tflite"
    TAIL_TFLITE = "tail_tflite"
    TRAIN_STEP_TFLITE = "train_step_tflite"
    GOLDEN = "golden"


def check_version(version: str) -> str:
    """Return `version` if it may stand in a manifest.

    Raises:
        InvalidValueError: it may not.
    """
    if not _VERSION.fullmatch(version):
        raise InvalidValueError(f"version {shown(version)} must be 1 to 64 of a-z, A-Z, 0-9, '.', '+', '-'")
    return version


def check_hex_digest(digest: str, what: str) -> str:
    """Return `digest` if it is a SHA-256 in lower-case hexadecimal.

    Raises:
        InvalidValueError: it is not.
    """
    if not _HEX_DIGEST.fullmatch(digest):
        raise InvalidValueError(f"{what} must be a SHA-256 of 64 hexadecimal digits")
    return digest


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file beside its manifest. Its name has no folder in it, so no manifest can point outside."""

    path: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        if not _FILE_NAME.fullmatch(self.path):
            raise InvalidValueError(f"{shown(self.path)} is not a plain file name")
        check_hex_digest(self.sha256, "sha256")
        if self.size_bytes < 1:
            raise InvalidValueError("a file has at least 1 byte")

    @classmethod
    def of(cls, path: str, content: bytes) -> FileEntry:
        """The entry of a file with this content."""
        return cls(path, sha256(content).hex(), len(content))

    def check(self, content: bytes, name: object = None) -> bytes:
        """Return `content` if it is this file's.

        Args:
            content: of the file.
            name: of the file in the error; its path if None.

        Raises:
            DigestError: it is not.
            InvalidManifestError: it is, but has not `size_bytes`, by which readers plan and allocate.
        """
        if (actual := sha256(content)).hex() != self.sha256:
            raise DigestError(str(name or self.path), bytes.fromhex(self.sha256), actual)
        if len(content) != self.size_bytes:
            said = f"{shown(self.size_bytes)}, it has {len(content)}"
            raise InvalidManifestError(name or self.path, "size_bytes", said)
        return content


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model reads of a recording: an image is brought into the sample's shape; then sample * scale + offset.

    In float32. Workstation and device do it by the same functions: `fd_runtime.images`, `fd_runtime.space`.

    Attributes:
        scale, offset: see above.
        fit: how an image of other proportions gets into the shape: `crop` cuts off what stands over, `pad` adds black,
            None stretches it.
    """

    scale: float = 1.0
    offset: float = 0.0
    fit: Literal["crop", "pad"] | None = None

    def __post_init__(self) -> None:
        if self.scale == 0.0:
            raise InvalidValueError("a scale of 0 leaves nothing of a sample")


@dataclass(frozen=True, slots=True)
class Task:
    """What every model of a federation agrees on: the classes in order, and what a sample is.

    With a `vocabulary` samples are token numbers below it (int32, and nothing preprocesses them), else quantities.

    Attributes:
        classes: in the order of a model's scores; a TOML file may name a text file with a class a line instead.
        time_axis: the axis of `sample_shape` along which time runs, where a sample is a window of readings.
        columns: names of the numbers of a sample, or of a reading where there is a `time_axis`, in their order. With
            them a table, or a sensor's message, cannot be read in another order than the model was trained in.
        tokens: how a text becomes tokens. `words`: as `fd_runtime.words` says; the classes are the words, and the
            vocabulary has two tokens more. None: samples come as numbers.
    """

    classes: tuple[str, ...] = field(metadata=LINES)
    sample_shape: tuple[int, ...]
    sample_dtype: Literal["uint8", "float32", "int32"]
    preprocessing: Preprocessing = Preprocessing()
    vocabulary: int | None = None
    time_axis: int | None = None
    columns: tuple[str, ...] | None = None
    tokens: Literal["words"] | None = field(default=None, repr=False)  # kept plays are named without

    def __post_init__(self) -> None:
        self._check_tokens()
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise InvalidValueError("a task has at least 2 classes, each once")
        if not all(0 < len(name) <= 64 for name in self.classes):
            raise InvalidValueError("a class name has 1 to 64 characters")
        check_shape(self.sample_shape, "sample_shape")
        self._check_columns()

    @property
    def reading_shape(self) -> tuple[int, ...]:
        """Shape of a sample, or of one reading where it is a window of them."""
        if self.time_axis is None:
            return self.sample_shape
        return self.sample_shape[: self.time_axis] + self.sample_shape[self.time_axis + 1 :]

    def _check_columns(self) -> None:
        if self.time_axis is not None and not 0 <= self.time_axis < len(self.sample_shape):
            axis, shape = shown(self.time_axis), list(self.sample_shape)
            raise InvalidValueError(f"time_axis {axis} is no axis of a sample of {shape}")
        if self.columns is None:
            return
        if len(set(self.columns)) < len(self.columns) or not all(0 < len(name) <= 64 for name in self.columns):
            raise InvalidValueError("columns have names of 1 to 64 characters, each once")
        if len(self.columns) != math.prod(self.reading_shape):
            count = math.prod(self.reading_shape)
            raise InvalidValueError(f"{len(self.columns)} columns are named, {count} numbers make a reading")

    def _check_tokens(self) -> None:
        if (self.sample_dtype == "int32") != (self.vocabulary is not None):
            raise InvalidValueError("int32 samples are token numbers, and these alone have a vocabulary")
        if self.vocabulary is not None and (self.vocabulary < 2 or self.preprocessing != Preprocessing()):
            raise InvalidValueError("a vocabulary has at least 2 tokens, and nothing preprocesses them")
        if self.tokens == "words" and (len(self.sample_shape) != 1 or self.vocabulary != len(self.classes) + 2):
            shape, vocabulary = shown(list(self.sample_shape)), shown(self.vocabulary)
            found = f"samples {shape} below {vocabulary}, {len(self.classes)} classes"
            raise InvalidValueError(f"words are read as [length] of 2 tokens more than there are classes, not {found}")

    @property
    def digest(self) -> bytes:
        """Identity of the task; a device joins no round of another."""
        return sha256(to_json(self))


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What leaves the backbone: feature = (code - zero_point) * scale for uint8, the code itself for float32."""

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    scale: float = 1.0
    zero_point: int = 0

    def __post_init__(self) -> None:
        check_shape(self.shape, "shape")
        if self.scale <= 0.0 or not 0 <= self.zero_point <= 255:
            raise InvalidValueError("a feature scale is positive and its zero point lies in 0..255")


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """How the train step is called: rows of its static batch (LiteRT), optimizer, and the optimizer's slots."""

    batch: int
    optimizer: Literal["adam", "momentum", "sgd"]
    slots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidValueError("a batch has at least 1 row")


@dataclass(frozen=True, slots=True)
class Costs:
    """What a device pays, as the exporter counts it: operations of one sample, bytes of a step's live tensors.

    Attributes:
        inference_flops, train_flops: of one sample; a multiplication and its addition count 2.
        train_peak_bytes: most bytes of tensors alive at once in a step of `TrainSpec.batch` rows; weights included,
            the runtime itself not.
    """

    inference_flops: int
    train_flops: int
    train_peak_bytes: int

    def __post_init__(self) -> None:
        if min(self.inference_flops, self.train_flops, self.train_peak_bytes) < 1:
            raise InvalidValueError("costs are positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A bundle. `features` is None where there is no backbone: the tail is the whole network and reads the sample.

    Attributes:
        verified_on: runtimes that gave the golden vectors when the bundle was built; a device refuses others.
        costs: None if nobody counted.
        licence: SPDX expression of the weights; None if nobody said.
        parent: digest of the bundle that this one is a new release of; None for a first one.
        reference: what devices compare their samples with; None if nobody measured.
        keeps_tail: whether a device goes on with the parameters that it has learnt with the bundle before, where tail
            and backbone are the same; None: it begins with `theta` and learns anew. There is no false: what was signed
            before there was such a key has the digest that it had.
    """

    format: int
    name: str
    family: str
    version: str
    task: Task
    files: Mapping[str, FileEntry]
    layout: ThetaLayout
    features: FeatureSpec | None = None
    training: TrainSpec
    verified_on: tuple[str, ...]
    costs: Costs | None = None
    licence: str | None = None
    parent: str | None = None
    reference: Reference | None = None
    keeps_tail: bool | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_format(self.format)
        if self.parent is not None:
            check_hex_digest(self.parent, "parent")
        check_name(self.name, "name")
        check_name(self.family, "family")
        check_version(self.version)
        if self.keeps_tail is False:
            raise InvalidValueError("keeps_tail is true, or it is not there")
        self._check_files()

    def _check_files(self) -> None:
        for role in (Role.TAIL, Role.TRAIN_STEP, Role.THETA):
            if role not in self.files:
                raise InvalidValueError(f"files lacks {role.value}")
        if (Role.BACKBONE in self.files) != (self.features is not None):
            raise InvalidValueError("a backbone, and nothing else, has features")
        if self.files[Role.THETA].size_bytes != 4 * self.layout.size:
            size_bytes = shown(self.files[Role.THETA].size_bytes)
            raise InvalidValueError(f"theta has {size_bytes} bytes, not 4 x {self.layout.size}")
        names = [entry.path for entry in self.files.values()]
        if len({*names, MANIFEST_NAME}) <= len(names):
            raise InvalidValueError("two files share a name")

    @property
    def digest(self) -> bytes:
        """Identity of the bundle: SHA-256 of the manifest's bytes, which hold the digest of every file."""
        return sha256(self.to_json())

    def to_json(self) -> bytes:
        """Return the bytes of `manifest.json`."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: bytes, source: object = MANIFEST_NAME) -> Manifest:
        """Return the manifest that `to_json` wrote.

        Raises:
            InvalidManifestError: it did not; names `source` and the key.
        """
        return from_json(cls, data, Place(source, InvalidManifestError))


def check_format(number: int) -> None:
    if number != FORMAT:
        raise InvalidValueError(f"format {shown(number)} is not known here, only {FORMAT}")


def check_shape(shape: tuple[int, ...], what: str) -> None:
    if not shape or len(shape) > 8 or min(shape) < 1 or math.prod(shape) > 1 << 28:
        raise InvalidValueError(f"{what} {shown(list(shape))} must have 1 to 8 positive extents")
