"""From a recipe and data to a bundle: model -> what trains -> int8 backbone -> graphs and their TFLite twins.

The same recipe on the same data gives the same bytes on one machine and one set of library versions; both are written
into the manifest's provenance.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import cast, get_args

import numpy as np
import onnx

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Role, Task, TrainSpec
from fd_protocol.reference import Reference
from fd_runtime.artifacts import Bundle, Runtime, TfliteRuntime, load_bundle
from fd_runtime.models.model import I64, Inputs
from fd_runtime.models.onnx_model import OnnxBackbone
from fd_runtime.space import preprocessed
from model_export.bundle import Model, write_bundle
from model_export.factory import Weights, factory_model, weights_of
from model_export.forward import FEATURES, ForwardModel
from model_export.graph import GraphError
from model_export.measuring import MOST_ROWS, measure
from model_export.planning.blocks import blocks_of
from model_export.planning.plan import Plan, Terms, compile_plan
from model_export.planning.selection import parse_layers, select
from model_export.quantisation import QuantisedModel, quantise, quantise_tail
from model_export.quantisation.codes import U8
from model_export.recipe import GOLDEN_ROWS, TAIL, FactoryData, Recipe
from model_export.surgery import theta_of
from model_export.tflite import UnsupportedLoweringError, lower_backbone, lower_tail, lower_train_step
from model_export.trainstep import TrainStep, compile_private_step, compile_train_step

TFLITE_RUNTIMES: tuple[Runtime, ...] = get_args(TfliteRuntime)
_TOOLS = ("fedistill", "numpy", "onnx", "onnxruntime")

log = logging.getLogger("model-export")


def build(
    recipe: Recipe, task: Task, data: FactoryData, folder: Path | str, *, model: ForwardModel | None = None
) -> Bundle:
    """Write the bundle into the new folder and return it.

    Args:
        recipe: what to make.
        task: what the model is for.
        data: to pretrain on, to calibrate with.
        folder: created; must not exist, or be empty.
        model: of one's own, as `from_torch` or `from_onnx` give it, in place of the recipe's family or file.

    Raises:
        InvalidValueError: no model or two, no such family, or it does not fit the task.
        MissingArtifactError: there is no such file, or no such parent.
        UnreadableModelError, GraphError: the file holds no model that fedistill can read.
        UnsupportedOpError: an op in what should train has no gradient rule; says what to freeze instead.
        OverBudgetError: nothing fits the budget.
        ToleranceError: int8 loses more than it may.
        UnsupportedLoweringError: TFLite twins are required and impossible.
        GoldenMismatchError, ModelError, UnprovenError, InterpreterError: they are required and not proven here.
        FileExistsError: something is in the folder.
    """
    forward = factory_model(recipe, task, data, model=model)
    weights = weights_of(recipe, data, is_given=model is not None or recipe.model is not None)
    contents = _assemble(recipe, task, plan_of(recipe, forward), data, weights)
    golden_rows = min(GOLDEN_ROWS, recipe.batch_rows)  # LiteRT's step takes no more
    golden_labels = np.arange(golden_rows, dtype=np.int64) % len(task.classes)
    required = TFLITE_RUNTIMES if recipe.tflite == "required" else ()
    return write_bundle(Path(folder), contents, data.calibration[:golden_rows], golden_labels, required=required)


def plan_of(recipe: Recipe, forward: ForwardModel) -> Plan:
    """Return what of the model trains and what that costs; raises as `build`."""
    int8 = recipe.quantisation.method != "none"
    if recipe.budget is None and recipe.trains == TAIL:
        blocks = blocks_of(forward)
        read = {name for node in forward.tail().graph.node for name in node.input}
        chosen = tuple(each.name for block in blocks for each in block.parameters if each.name in read)
        terms = Terms(recipe.batch_rows, recipe.optimizer, int8, recipe.weight_decay)
        return compile_plan(forward, blocks, TAIL, chosen, terms)
    what = recipe.budget or parse_layers(recipe.trains)
    return select(
        forward,
        what,
        batch_rows=recipe.batch_rows,
        optimizer=recipe.optimizer,
        int8=int8,
        weight_decay=recipe.weight_decay,
    )


def _assemble(recipe: Recipe, task: Task, plan: Plan, data: FactoryData, weights: Weights) -> Model:
    parent = parent_of(recipe, task)
    rows = rows_of(recipe, task, data)
    parts = _divide(plan.forward, recipe, rows)
    step = compile_train_step(
        parts.tail,
        input_name=FEATURES,
        logits_name="logits",
        trainable=plan.trainable,
        optimizer=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        batch_rows=recipe.batch_rows,
    )
    graphs = _graphs(recipe, plan, parts, step) | _extras(recipe, plan, parts, rows)
    serialised = {role: graph.SerializeToString(deterministic=True) for role, graph in graphs.items()}
    return Model(
        name=recipe.name,
        family=recipe.family or recipe.name,
        version=recipe.version,
        task=task,
        graphs=serialised | _twins(recipe, plan, parts, step),
        layout=step.layout,
        theta=theta_of(parts.tail, step.layout),
        features=parts.features if plan.forward.features else None,
        training=TrainSpec(recipe.batch_rows, recipe.optimizer, step.slots),
        costs=plan.costs,
        licence=recipe.licence,
        parent=parent.digest.hex() if parent is not None else None,
        keeps_tail_of=parent.manifest if parent is not None and recipe.keeps_tail else None,
        reference=_reference(task, plan, parts, step, data),
        provenance={"weights": weights, **_provenance(recipe, plan, parts)},
    )


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a quantisation looks at, preprocessed.

    Attributes:
        calibration: [n, *sample_shape], for ranges: like the samples to come.
        judged: [m, *sample_shape], for what is lost: labelled ones where there are any, else the same.
        labels: of the judged ones [m], or None.
    """

    calibration: Inputs
    judged: Inputs
    labels: I64 | None


def rows_of(recipe: Recipe, task: Task, data: FactoryData) -> Rows:
    """Return what the quantisation of a recipe looks at, of either kind no more rows than it says."""
    most = recipe.quantisation.calibration_rows
    calibration = preprocessed(data.calibration[:most], task)
    if not len(data.labels):
        return Rows(calibration, calibration, None)
    # From the first to the last: rows may lie in the order of their classes.
    places = np.linspace(0, len(data.labels) - 1, min(most, len(data.labels))).astype(np.int64)
    return Rows(calibration, preprocessed(data.samples[places], task), data.labels[places])


def _divide(forward: ForwardModel, recipe: Recipe, rows: Rows) -> QuantisedModel:
    """The backbone, int8 as the recipe says, and the tail; a model without a backbone is all tail."""
    if not forward.features:
        return QuantisedModel(forward.model, forward.tail())
    return quantise(forward, rows.calibration, recipe.quantisation, rows.labels, judged=rows.judged)


def _reference(task: Task, plan: Plan, parts: QuantisedModel, step: TrainStep, data: FactoryData) -> Reference | None:
    inputs = preprocessed(data.calibration[:MOST_ROWS], task)
    return measure(inputs, task, parts.backbone if plan.forward.features else None, parts.tail, step.layout)


def _graphs(recipe: Recipe, plan: Plan, parts: QuantisedModel, step: TrainStep) -> dict[Role, onnx.ModelProto]:
    graphs = {Role.TAIL: parts.tail, Role.TRAIN_STEP: step.model}
    if plan.forward.features:
        graphs[Role.BACKBONE] = parts.backbone
        if recipe.quantisation.method != "none":
            graphs[Role.BACKBONE_FLOAT] = plan.forward.backbone()
    return graphs


def _extras(recipe: Recipe, plan: Plan, parts: QuantisedModel, rows: Rows) -> dict[Role, onnx.ModelProto]:
    """What only some recipes ask for."""
    extras = {}
    if recipe.private:
        extras[Role.TRAIN_STEP_PRIVATE] = compile_private_step(
            parts.tail,
            input_name=FEATURES,
            logits_name="logits",
            trainable=plan.trainable,
            optimizer=recipe.optimizer,
            weight_decay=recipe.weight_decay,
        ).model
    if recipe.int8_tail:
        if not plan.forward.features or parts.features.dtype != "uint8":
            raise InvalidValueError(
                "int8_tail: a tail in int8 reads the codes of an int8 backbone, which is not made here"
            )
        codes = cast("U8", OnnxBackbone(parts.backbone.SerializeToString()).extract(rows.judged))
        extras[Role.TAIL_INT8] = quantise_tail(parts.tail, codes, recipe.quantisation, rows.labels)
    return extras


def _twins(recipe: Recipe, plan: Plan, parts: QuantisedModel, step: TrainStep) -> dict[Role, bytes]:
    if recipe.tflite == "none":
        return {}
    try:
        twins = {
            Role.TAIL_TFLITE: lower_tail(parts.tail, step.layout),
            Role.TRAIN_STEP_TFLITE: lower_train_step(step.model, recipe.batch_rows),
        }
        if plan.forward.features:
            twins[Role.BACKBONE_TFLITE] = lower_backbone(parts.backbone)
    except (UnsupportedLoweringError, GraphError) as error:
        if recipe.tflite == "required":
            raise
        log.warning("bundle %s gets no TFLite twins: %s", recipe.name, error)
        return {}
    return twins


def parent_of(recipe: Recipe, task: Task) -> Bundle | None:
    """Return the bundle that the recipe's is a new release of; None for a first one.

    Raises:
        MissingArtifactError, InvalidManifestError, DigestError: as `load_bundle`.
        InvalidValueError: it was made for another task.
    """
    if recipe.parent is None:
        return None
    parent = load_bundle(recipe.parent)
    if parent.manifest.task.digest != task.digest:
        raise InvalidValueError(f"{recipe.parent} was made for another task and is no parent of {recipe.name!r}")
    return parent


def _provenance(recipe: Recipe, plan: Plan, parts: QuantisedModel) -> Mapping[str, str]:
    said = {tool: version(tool) for tool in _TOOLS}
    said |= {"seed": str(recipe.seed), "trains": plan.what, "quantisation": recipe.quantisation.method}
    if recipe.model is not None:
        said["model_sha256"] = sha256(recipe.model.read_bytes()).hex()
    if parts.float_layers:
        said["float_layers"] = " ".join(parts.float_layers)
    return said
