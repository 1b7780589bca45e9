"""From a float model to an int8 backbone and the float tail that reads its codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx

from fd_protocol.manifest import FeatureSpec
from fd_runtime.models.model import I64
from model_export.forward import FEATURES, ForwardModel
from model_export.graph import GraphError
from model_export.quantisation.quantisable import Quantisable
from model_export.quantisation.rewriting import FLOAT_FEATURES
from model_export.quantisation.sensitivity import Judge, SensitivityReport, layers_within, measure_sensitivity
from model_export.quantisation.tail import tail_of_codes
from model_export.quantisation.terms import QuantisationTerms
from model_export.surgery import cut, open_graph

_MIN_MAX = QuantisationTerms()


@dataclass(frozen=True, slots=True)
class QuantisedModel:
    """A model in two parts.

    Attributes:
        backbone: `input` -> `features` uint8 [N, ...], or float32 if the terms asked for it.
        tail: `features` -> `logits` float32, with the forward model's parameters.
        scale, zero_point: a feature is (code - zero_point) * scale.
        float_layers: layers that could be int8 but stayed float to hold the tolerance, in the graph's order.
        report: how much each layer costs; None without a tolerance.
    """

    backbone: onnx.ModelProto
    tail: onnx.ModelProto
    scale: float = 1.0
    zero_point: int = 0
    float_layers: tuple[str, ...] = ()
    report: SensitivityReport | None = None

    @property
    def features(self) -> FeatureSpec:
        """What crosses from one part to the other."""
        kind = open_graph(self.backbone).type_of(FEATURES)
        shape = tuple(int(extent) for extent in kind.shape[1:])
        is_coded = kind.dtype == onnx.TensorProto.UINT8
        return FeatureSpec(shape, "uint8" if is_coded else "float32", self.scale, self.zero_point)


def quantise(
    forward: ForwardModel,
    samples: npt.NDArray[Any],
    terms: QuantisationTerms = _MIN_MAX,
    labels: I64 | None = None,
    *,
    judged: npt.NDArray[Any] | None = None,
) -> QuantisedModel:
    """Return the int8 backbone of `forward` and its float tail.

    Args:
        forward: a trained model with a backbone.
        samples: preprocessed calibration samples [n, *sample_shape], like those to come.
        terms: how.
        labels: [n], for a tolerance in accuracy; None = a tolerance is about changed answers.
        judged: what a tolerance holds on, and whose labels these are; None = the samples.

    Raises:
        GraphError: the model has no backbone, or one that a graph of integers cannot be made of.
        ToleranceError: the terms' tolerance does not hold even with every layer in float.
    """
    if not forward.features:
        raise GraphError("every layer of this model trains: there is no backbone to quantise")
    if terms.method == "none":
        return QuantisedModel(forward.backbone(), forward.tail())
    backbone, report = _calibrated(forward, samples, terms), None
    layers = frozenset(backbone.layers)
    if terms.tolerance is not None:
        judge = _judge(forward, backbone, samples if judged is None else judged, labels)
        report = measure_sensitivity(backbone, judge)
        layers = layers_within(terms.tolerance, report, judge)
    model, scaling = backbone.with_codes(layers)
    return QuantisedModel(
        backbone=model,
        tail=tail_of_codes(forward, scaling),
        scale=scaling.scale,
        zero_point=scaling.zero_point,
        float_layers=tuple(layer for layer in backbone.layers if layer not in layers),
        report=report,
    )


def layer_sensitivity(
    forward: ForwardModel,
    samples: npt.NDArray[Any],
    terms: QuantisationTerms = _MIN_MAX,
    labels: I64 | None = None,
    *,
    judged: npt.NDArray[Any] | None = None,
) -> SensitivityReport:
    """Return what each layer of the backbone costs in int8; the arguments are those of `quantise`."""
    backbone = _calibrated(forward, samples, terms)
    return measure_sensitivity(backbone, _judge(forward, backbone, samples if judged is None else judged, labels))


def _calibrated(forward: ForwardModel, samples: npt.NDArray[Any], terms: QuantisationTerms) -> Quantisable:
    part = cut(forward.model, {forward.input_name: "input"}, {forward.features: FLOAT_FEATURES})
    return Quantisable.of(part, samples[: terms.calibration_rows], terms)


def _judge(forward: ForwardModel, backbone: Quantisable, samples: npt.NDArray[Any], labels: I64 | None) -> Judge:
    rows = backbone.terms.calibration_rows
    return Judge(backbone, forward.tail(), samples[:rows], None if labels is None else labels[:rows])
