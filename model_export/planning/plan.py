"""What training a part of a model costs: its train step compiled, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from fd_protocol.manifest import Costs
from model_export.forward import FEATURES, ForwardModel
from model_export.planning import flops, liveness
from model_export.planning.blocks import Block
from model_export.planning.flops import Work
from model_export.planning.liveness import MemoryPlan
from model_export.planning.profiles import PROFILES
from model_export.quantisation.codes import Scaling
from model_export.quantisation.tail import tail_of_codes
from model_export.trainstep import TrainStep, compile_train_step
from model_export.trainstep.optimizers import OptimizerName

_ANY_SCALING = Scaling(1.0, 0)
"""Which numbers the codes of features stand for changes no cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A choice of what trains, and what it costs.

    Attributes:
        what: the choice, in the words of a recipe.
        forward: the model, cut where the frozen part ends.
        trainable: names of the parameters that train, in the order of theta.
        blocks: of the whole model, the one near the input first.
        batch_rows: of one train step.
        step: the train step, compiled for features as the backbone will hand them over.
        memory: of one train step.
        feature_bytes: what a device keeps of a sample; 0 if there is no backbone.
        train_work: of one train step.
        inference_work: of one sample through the whole model, in float.
    """

    what: str
    forward: ForwardModel = field(repr=False)
    trainable: tuple[str, ...]
    blocks: tuple[Block, ...] = field(repr=False)
    batch_rows: int
    step: TrainStep = field(repr=False)
    memory: MemoryPlan = field(repr=False)
    feature_bytes: int
    train_work: Work
    inference_work: Work

    @property
    def trainable_bytes(self) -> int:
        return 4 * self.step.layout.size

    @property
    def peak_bytes(self) -> int:
        """Graph, batch, state and activations of a train step, at the worst moment."""
        return self.memory.peak_bytes

    @property
    def train_flops(self) -> int:
        return self.train_work.flops

    @property
    def inference_flops(self) -> int:
        return self.inference_work.flops

    @property
    def milliseconds(self) -> Mapping[str, float]:
        """Estimated time of a train step, by device profile."""
        return {name: profile.milliseconds(self.train_work) for name, profile in PROFILES.items()}

    @property
    def inference_milliseconds(self) -> Mapping[str, float]:
        """Estimated time of one sample through the whole model in float, by device profile."""
        return {name: profile.milliseconds(self.inference_work) for name, profile in PROFILES.items()}

    @property
    def costs(self) -> Costs:
        """What a manifest says of it."""
        return Costs(self.inference_flops, -(-self.train_flops // self.batch_rows), self.peak_bytes)

    def rows_within(self, memory_bytes: int) -> int:
        """Return into how many rows at a time to halve the batch so that a step fits; 0 if none does."""
        rows = self.batch_rows
        while rows and liveness.plan(self.step.model, rows).peak_bytes > memory_bytes:
            rows //= 2
        return rows

    def table(self) -> str:
        """Return the plan for people to read."""
        trains = set(self.trainable)
        lines = [f"what trains: {self.what} ({len(self.trainable)} parameters), {self.batch_rows} rows a step", ""]
        lines += _columns(
            [("block", "numbers", "train"), *((b.name, f"{b.count:,}", f"{_count(b, trains):,}") for b in self.blocks)]
        )
        lines += ["", *_columns(self._totals()), ""]
        lines += _columns([("estimated ms", "sample", "step"), *self._estimates()])
        return "\n".join(lines)

    def _totals(self) -> list[tuple[str, ...]]:
        return [
            ("trainable", _size(self.trainable_bytes)),
            ("features, each sample", _size(self.feature_bytes)),
            ("step: peak memory", _size(self.peak_bytes)),
            ("step: FLOPs", f"{self.train_flops:,}"),
            ("sample: FLOPs", f"{self.inference_flops:,}"),
        ]

    def _estimates(self) -> list[tuple[str, ...]]:
        sample, step = self.inference_milliseconds, self.milliseconds
        return [(name, f"{sample[name]:.2f}", f"{step[name]:.2f}") for name in PROFILES]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a train step is compiled for.

    Attributes:
        batch_rows: of one step.
        optimizer: its slots take memory.
        int8: the backbone will be quantised, so features are uint8 codes.
        weight_decay: a step with it keeps more of theta at once.
    """

    batch_rows: int
    optimizer: OptimizerName
    int8: bool = True
    weight_decay: float = 0.0


def compile_plan(
    forward: ForwardModel, blocks: Sequence[Block], what: str, trainable: tuple[str, ...], terms: Terms
) -> Plan:
    """Return the plan of training `trainable` in `forward`.

    Raises:
        GraphError: a parameter does not matter to the logits.
        UnsupportedOpError: an op between a parameter and the logits has no gradient rule.
    """
    has_codes = bool(forward.features) and terms.int8
    tail = tail_of_codes(forward, _ANY_SCALING) if has_codes else forward.tail()
    step = compile_train_step(
        tail,
        input_name=FEATURES,
        logits_name="logits",
        trainable=trainable,
        optimizer=terms.optimizer,
        batch_rows=terms.batch_rows,
        weight_decay=terms.weight_decay,
    )
    shape = [dimension.dim_value for dimension in tail.graph.input[0].type.tensor_type.shape.dim[1:]]
    return Plan(
        what=what,
        forward=forward,
        trainable=tuple(slot.name for slot in step.layout.slots),
        blocks=tuple(blocks),
        batch_rows=terms.batch_rows,
        step=step,
        memory=liveness.plan(step.model, terms.batch_rows),
        feature_bytes=prod(shape) * (1 if has_codes else 4) if forward.features else 0,
        train_work=flops.total(step.model, terms.batch_rows),
        inference_work=flops.total(forward.model, 1),
    )


def _count(block: Block, chosen: set[str]) -> int:
    return sum(parameter.count for parameter in block.parameters if parameter.name in chosen)


def _size(count: int) -> str:
    return f"{count:,} B" if count < 10_000 else f"{count / 1e3:,.1f} kB" if count < 1e7 else f"{count / 1e6:,.1f} MB"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
