"""What a bundle is made of: a recipe, and the workstation's data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name, require
from fd_protocol.manifest import check_version
from fd_runtime.models.model import I64
from model_export.augment import Augmentation
from model_export.licences import check_licence
from model_export.planning.selection import Budget, parse_layers
from model_export.pretrain import PretrainTerms
from model_export.quantisation import QuantisationTerms
from model_export.trainstep.optimizers import OptimizerName

TAIL = "tail"
"""What trains by default: the tail that the family or the importer has chosen."""
GOLDEN_ROWS = 8
MAX_BATCH_ROWS = 1 << 16
"""A step of more rows than any device holds; beyond, planning alone takes gigabytes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a bundle is made of, but for the data.

    Attributes:
        name: of the bundle, and of its folder.
        family: see `model_export.families`; for a model of one's own, a name that releases of it share (None = `name`).
        model: an ONNX file in place of a family.
        logits: the tensor of that file that holds the scores, where it has several outputs.
        version: for people; devices go by digests.
        seed: of initial weights, views and batches.
        pretraining: of a family's fresh weights; None = they stay as they were drawn.
        augmentation: views of images for the pretraining; None = the samples as they are.
        retrains: pretrain a model of one's own too, which otherwise comes trained.
        trains: what devices train: `tail`, or a text of `planning.selection`.
        budget: in its place: the most that fits a device.
        quantisation: of the backbone.
        int8_tail: also an int8 twin of the tail for inference, if it keeps its answers.
        optimizer: of the train step.
        weight_decay: of the train step, decoupled from the gradient: `adam` with it is AdamW.
        batch_rows: static batch of the train step on TFLite; the costs are counted for it.
        private: also a train step of DP-SGD; the tail must be dense.
        tflite: write TFLite twins; `where-possible` says in a warning why there are none, or on which runtime they were
            not proven; `required` wants them proven on both.
        licence: SPDX expression of the weights.
        parent: folder of the bundle that this one is a new release of.
        keeps_tail: devices go on with what they have learnt with the parent: its backbone, and the shape of its tail,
            must come out of this recipe again.
    """

    name: str
    family: str | None = None
    model: Path | None = None
    logits: str | None = None
    version: str = "1"
    seed: int = 0
    pretraining: PretrainTerms | None = field(default_factory=PretrainTerms)
    augmentation: Augmentation | None = None
    retrains: bool = False
    trains: str = TAIL
    budget: Budget | None = None
    quantisation: QuantisationTerms = QuantisationTerms()
    int8_tail: bool = False
    optimizer: OptimizerName = "adam"
    weight_decay: float = 0.0
    batch_rows: int = 64
    private: bool = False
    tflite: Literal["where-possible", "required", "none"] = "where-possible"
    licence: str | None = None
    parent: Path | None = None
    keeps_tail: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        check_version(self.version)
        if self.family is not None:
            check_name(self.family, "family")
        if self.licence is not None:
            check_licence(self.licence)
        require(self.logits is None or self.model is not None, "`logits` names a tensor of `model`, and there is none")
        require(not self.keeps_tail or self.parent is not None, "`keeps_tail` is about the tail of a `parent`")
        self._check_training()

    def _check_training(self) -> None:
        require(self.seed >= 0, f"a seed is 0 or more, not {self.seed}")
        require(1 <= self.batch_rows <= MAX_BATCH_ROWS, f"batch_rows lies in 1..{MAX_BATCH_ROWS}: {self.batch_rows}")
        require(self.weight_decay >= 0, f"weight_decay is 0 or more, not {self.weight_decay}")
        require(self.budget is None or self.trains == TAIL, "what trains is said by `trains` or by `budget`, not both")
        if self.trains != TAIL:
            parse_layers(self.trains)


@dataclass(frozen=True, slots=True)
class FactoryData:
    """What the workstation has, samples as the task records them.

    Attributes:
        samples, labels: [n, *sample_shape] and int64 [n], to pretrain on; may be empty.
        calibration: unlabelled samples [n >= 8, *sample_shape], like those to come: the probes, say.
    """

    samples: npt.NDArray[np.generic]
    labels: I64
    calibration: npt.NDArray[np.generic]

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.labels):
            raise InvalidValueError(f"{len(self.samples)} samples but {len(self.labels)} labels")
        if len(self.calibration) < GOLDEN_ROWS:
            raise InvalidValueError(f"{len(self.calibration)} calibration samples, at least {GOLDEN_ROWS} are needed")

    @classmethod
    def unlabelled(cls, calibration: npt.NDArray[np.generic]) -> FactoryData:
        """What a model needs that comes trained."""
        return cls(calibration[:0], np.empty(0, np.int64), calibration)
