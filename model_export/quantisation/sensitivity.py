"""Which layers bear int8 badly, and which must stay float for a stated loss.

Each layer is turned alone, all others staying float: its row shows the error that it brings by itself. The other way
about, all but one, hides a bad layer behind another: as long as one of two stays, sparing either seems to gain nothing.
The features stay float here. They become codes whatever the layers do, so no layer answers for that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx

from fd_protocol.errors import FedistillError
from fd_runtime.models.model import F32, I64
from model_export.quantisation.differences import Difference
from model_export.quantisation.quantisable import Quantisable
from model_export.quantisation.running import run


class ToleranceError(FedistillError):
    """Int8 costs more than the terms allow, and no layer is left to spare."""

    def __init__(self, what: str, loss: float, tolerance: float) -> None:
        super().__init__(f"{what} loses {loss:.4f} of the answers or the accuracy, {tolerance:.4f} is allowed")
        self.loss, self.tolerance = loss, tolerance


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """What a model loses if this layer alone is int8."""

    layer: str
    op: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class SensitivityReport:
    """All layers that can be int8, the most harmful first, and what they cost together, features in codes."""

    rows: tuple[LayerSensitivity, ...]
    together: Difference

    def table(self) -> str:
        """The report as text, a line for each layer."""
        width = max(len(name) for name in ("all layers", *(row.layer for row in self.rows)))
        lines = [f"{'int8':{width}}  {'op':8}  {'rmse':>9}  {'agreement':>9}  {'kl':>9}  accuracy"]
        entries = [*((row.layer, row.op, row.difference) for row in self.rows), ("all layers", "", self.together)]
        for name, op, difference in entries:
            lost = "" if difference.accuracy_loss is None else f"{0.0 - 100 * difference.accuracy_loss:+8.2f}"
            numbers = f"{difference.rmse:9.4f}  {difference.agreement:9.4f}  {difference.kl:9.2g}"
            lines.append(f"{name:{width}}  {op:8}  {numbers}  {lost}".rstrip())
        return "\n".join(lines)


class Judge:
    """Knows the float model's answers to the calibration samples."""

    def __init__(
        self, backbone: Quantisable, tail: onnx.ModelProto, samples: npt.NDArray[Any], labels: I64 | None
    ) -> None:
        """Compute the float answers.

        Args:
            backbone: `input` -> features.
            tail: float features -> logits.
            samples: [n, *sample_shape].
            labels: [n], or None.
        """
        self._backbone, self._tail, self._samples, self._labels = backbone, tail, samples, labels
        self._exact = run(tail, run(backbone.model, samples))

    def alone(self, layer: str) -> Difference:
        """What one layer in int8 changes."""
        return self._difference(run(self._backbone.with_numbers([layer]), self._samples))

    def together(self, layers: Collection[str]) -> Difference:
        """What these layers in int8 and features in codes change: the backbone as it will be."""
        model, scaling = self._backbone.with_codes(layers)
        return self._difference(scaling.numbers(run(model, self._samples)))

    def _difference(self, features: F32) -> Difference:
        return Difference.between(self._exact, run(self._tail, features), self._labels)


def measure_sensitivity(backbone: Quantisable, judge: Judge) -> SensitivityReport:
    """Return how much each layer of a backbone costs in int8."""
    operators = {node.name: node.op_type for node in backbone.model.graph.node}
    rows = [LayerSensitivity(layer, operators[layer], judge.alone(layer)) for layer in backbone.layers]
    rows.sort(key=lambda row: -row.difference.rmse)  # stable: equals stay in the graph's order
    return SensitivityReport(tuple(rows), judge.together(backbone.layers))


def layers_within(tolerance: float, report: SensitivityReport, judge: Judge) -> frozenset[str]:
    """Return the layers that can be int8: the most harmful go back to float until the loss is within `tolerance`.

    Raises:
        ToleranceError: even the float layers lose more, by their features in codes.
    """
    kept = [row.layer for row in report.rows]
    loss = report.together.loss
    while loss > tolerance:
        if not kept:
            raise ToleranceError("a backbone with every layer in float and features in codes", loss, tolerance)
        kept.pop(0)
        loss = judge.together(kept).loss
    return frozenset(kept)
