"""What of a model trains on a device: named outright, or the most that fits a budget.

    "head"                  the last block
    "last 3"                the last three blocks
    "biases of last 3"      the head, and of the two blocks before it the biases alone
    "biases"                the head, and the biases of all other blocks
    "everything"            every parameter; the model has no backbone then
    {memory_bytes, milliseconds, profile}    a budget for one train step

Biases alone are TinyTL's choice (Cai et al. 2020, section 3.2), which trains the head with them. They cost less time
than whole blocks, but hardly less memory on onnxruntime, which keeps the activations that their activations' gradients
read. The search takes the most parameters that the budget allows, as more of them bring more accuracy (PockEngine, Zhu
et al. 2023, section 3.1); it compiles each candidate and counts, where they measure accuracy too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fd_protocol.errors import FedistillError, InvalidValueError
from model_export.forward import ForwardModel
from model_export.planning.blocks import Block, Parameter, blocks_of
from model_export.planning.plan import Plan, Terms, compile_plan
from model_export.planning.profiles import profile_of
from model_export.trainstep import UnsupportedOpError
from model_export.trainstep.optimizers import OptimizerName

_GRAMMAR = re.compile(r"(?P<biases>biases)(?: of last (?P<some>\d+))?|last (?P<last>\d+)|(?P<head>head)|everything")


@dataclass(frozen=True, slots=True)
class Layers:
    """The last blocks of a model.

    Attributes:
        last: how many; None = all.
        biases_only: of all but the head.
    """

    last: int | None
    biases_only: bool = False

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise InvalidValueError(f"the last {self.last} blocks cannot train: at least 1 does")

    def __str__(self) -> str:
        if self.last is None:
            return "biases" if self.biases_only else "everything"
        last = f"last {self.last}"
        return f"biases of {last}" if self.biases_only else "head" if self.last == 1 else last


@dataclass(frozen=True, slots=True)
class Budget:
    """What one train step may take.

    Attributes:
        memory_bytes: of graph, batch, state and activations; the runtime itself takes some 44 MB more.
        milliseconds: estimated.
        profile: name of the device.
    """

    memory_bytes: int
    milliseconds: float
    profile: str

    def __post_init__(self) -> None:
        device = profile_of(self.profile)
        if not 0 < self.memory_bytes <= device.memory_bytes or self.milliseconds <= 0:
            raise InvalidValueError(
                f"a budget is positive, and {device.name} has {device.memory_bytes} bytes of memory"
            )

    def holds(self, plan: Plan) -> bool:
        return plan.peak_bytes <= self.memory_bytes and plan.milliseconds[self.profile] <= self.milliseconds


Selection: TypeAlias = Layers | Budget


class OverBudgetError(FedistillError):
    """Not even the cheapest choice fits a budget.

    Attributes:
        least: the choice that needs the least memory.
    """

    def __init__(self, budget: Budget, least: Plan) -> None:
        self.least = least
        rows = least.rows_within(budget.memory_bytes)
        advice = f"; {rows} rows at a time would fit the memory" if 0 < rows < least.batch_rows else ""
        super().__init__(
            f"nothing fits {budget.memory_bytes} bytes and {budget.milliseconds:g} ms on {budget.profile}: the least, "
            f"{least.what!r} at {least.batch_rows} rows, takes {least.peak_bytes} bytes and "
            f"{least.milliseconds[budget.profile]:.3g} ms{advice}"
        )


def parse_layers(text: str) -> Layers:
    """Read a selection as a recipe writes it.

    Raises:
        InvalidValueError: the text is none.
    """
    match = _GRAMMAR.fullmatch(" ".join(text.split()))
    if match is None:
        raise InvalidValueError(f"what trains is head, last K, biases, biases of last K or everything, not {text!r}")
    count = match["some"] or match["last"] or (match["head"] and "1")
    return Layers(int(count) if count else None, biases_only=match["biases"] is not None)


def select(
    forward: ForwardModel,
    what: Selection,
    *,
    batch_rows: int,
    optimizer: OptimizerName,
    int8: bool = True,
    weight_decay: float = 0.0,
) -> Plan:
    """Return what trains and what that costs, compiled and counted.

    Args:
        forward: a float model; where it ends its features now does not matter.
        what: see above.
        batch_rows: of a train step.
        optimizer: its slots take memory.
        int8: the backbone will be quantised and hands over uint8 features.
        weight_decay: of the step; with it more of theta is in memory at once.

    Raises:
        InvalidValueError: the model has fewer blocks, or no rows are asked for.
        OverBudgetError: nothing fits the budget.
        UnsupportedOpError: an op in what should train has no gradient rule; the search passes over such choices.
    """
    blocks, terms = blocks_of(forward), Terms(batch_rows, optimizer, int8, weight_decay)
    if isinstance(what, Budget):
        return _search(forward, blocks, what, terms)
    return _compile(forward, blocks, what, terms)


def _search(forward: ForwardModel, blocks: Sequence[Block], budget: Budget, terms: Terms) -> Plan:
    """Return the plan within the budget that trains the most numbers; of equals the one that takes less memory."""
    plans = list(_candidates(forward, blocks, terms))
    fitting = [plan for plan in plans if budget.holds(plan)]
    if not fitting:
        raise OverBudgetError(budget, min(plans, key=lambda plan: plan.peak_bytes))
    return max(fitting, key=lambda plan: (plan.trainable_bytes, -plan.peak_bytes))


def _candidates(forward: ForwardModel, blocks: Sequence[Block], terms: Terms) -> Iterator[Plan]:
    """Every number of last blocks, whole and by their biases, as far back as gradients are known."""
    for biases_only in (False, True):
        for last in range(1 + biases_only, len(blocks) + 1):
            try:
                yield _compile(forward, blocks, Layers(last if last < len(blocks) else None, biases_only), terms)
            except UnsupportedOpError:
                if last == 1:
                    raise
                break


def _compile(forward: ForwardModel, blocks: Sequence[Block], layers: Layers, terms: Terms) -> Plan:
    count = len(blocks) if layers.last is None else layers.last
    if not 0 < count <= len(blocks):
        raise InvalidValueError(f"{str(layers)!r} cannot train: the model has {len(blocks)} blocks")
    *body, head = blocks[-count:]
    trainable = [parameter.name for block in body for parameter in block.parameters if _trains(parameter, layers)] + [
        parameter.name for parameter in head.parameters
    ]
    begin = "" if layers.last is None else blocks[-count].begin
    return compile_plan(ForwardModel(forward.model, begin), blocks, str(layers), tuple(trainable), terms)


def _trains(parameter: Parameter, layers: Layers) -> bool:
    return not layers.biases_only or parameter.role == "bias"
