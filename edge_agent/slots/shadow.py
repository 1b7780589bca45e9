"""Two bundles answer a device's private hold-out, the one on trial beside the one that runs.

    data.private, its held-out rows --+
    [store], its held-out rows -------+--batches--> voices --> how many each gets right --> `is_acceptable`

Asked as the guard asks (`acceptance`), of the newest rows, a batch at a time for all voices at once: the store goes on
changing meanwhile, and scores on other rows would be no comparison. With fewer rows than `MIN_HOLD_OUT_ROWS` nothing is
said: a bundle that is refused is refused for ever.

Which parameters speak is what would speak: those that the device has learnt on both sides where it is to keep them,
else those that each bundle came with, for what a device has learnt for itself it then learns again.

What is deliberately absent: writing. The store is another process's (`private.looking`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from edge_agent.equipment import Equipment
from edge_agent.learning.acceptance import Score, is_acceptable
from edge_agent.private.data import MIN_HOLD_OUT_ROWS, PrivateRows, load_private_rows
from edge_agent.private.looking import held_out
from fd_runtime.artifacts import Bundle
from fd_runtime.models.model import F32, Tail
from fd_runtime.models.opening import LoadedModel
from fd_runtime.models.placing import open_placed
from fd_runtime.space import preprocessed

MOST_ROWS = 1000
"""Of each place, the newest; more would only take longer."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Shadow:
    """How two bundles did on the same rows, each with the parameters that it came with, or both with those learnt."""

    new: Score
    now: Score

    @property
    def is_asked(self) -> bool:
        """Whether there were rows enough to say anything."""
        return self.new.rows >= MIN_HOLD_OUT_ROWS

    @property
    def is_clear_loss(self) -> bool:
        return self.is_asked and not is_acceptable(self.new, self.now)


def hold_out(equipment: Equipment) -> Iterator[PrivateRows]:
    """Yield the device's held-out rows, a batch at a time: those of the file, then those of the store.

    Raises:
        PrivateDataError: the file cannot be read.
        FedistillError, OSError: the store cannot; see `private.looking`.
    """
    settings, task = equipment.settings, equipment.bundle.manifest.task
    if settings.data.private is not None:
        rows = load_private_rows(settings.data.private, task.sample_shape, len(task.classes))
        places = np.flatnonzero(rows.split()[1])[-MOST_ROWS:]
        for start in range(0, len(places), _ROWS_AT_ONCE):
            some = places[start : start + _ROWS_AT_ONCE]
            yield PrivateRows(rows.samples[some], rows.labels[some])
    if settings.store is not None:
        yield from held_out(settings.state.private_store, settings.store, task, most=MOST_ROWS, at_once=_ROWS_AT_ONCE)


def shadows(new: LoadedModel, bundle: Bundle, equipment: Equipment, learnt: F32 | None) -> tuple[Shadow, Shadow | None]:
    """Return how the bundle on trial does beside the one that runs: as they came, and with what was learnt.

    Args:
        new: the bundle on trial, opened.
        bundle: the same.
        equipment: with what runs.
        learnt: parameters that both can have; None: there are none, and no second shadow.

    Raises:
        FedistillError, OSError: as `hold_out`.
        ModelError: a runtime refuses.
    """
    rows = hold_out(equipment)
    first = next(rows, None)
    if first is None:  # then the one that runs need not be opened
        nothing = Shadow(Score(0, 0), Score(0, 0))
        return nothing, None if learnt is None else nothing
    settings = equipment.settings
    now = open_placed(
        equipment.bundle, settings.model.runtime, threads=settings.model.threads, placement=settings.placement
    )
    sides = ((new, bundle), (now, equipment.bundle))
    voices = [(model, [model.tail, *_with(learnt, of, equipment)]) for model, of in sides]
    correct, count = np.zeros((2, 1 if learnt is None else 2), np.int64), 0
    for batch in chain([first], rows):
        count += len(batch)
        for side, (model, tails) in enumerate(voices):
            correct[side] += _right(model, tails, batch)
    found = [Shadow(*(Score(int(right), count) for right in column)) for column in correct.T]
    return found[0], found[1] if learnt is not None else None


def _with(learnt: F32 | None, bundle: Bundle, equipment: Equipment) -> list[Tail]:
    if learnt is None:
        return []
    settings = equipment.settings.model
    tail = bundle.open_tail(settings.runtime, threads=settings.threads)
    tail.load(learnt)
    return [tail]


def _right(model: LoadedModel, tails: Sequence[Tail], batch: PrivateRows) -> list[int]:
    features = model.features(preprocessed(batch.samples, model.manifest.task))
    return [int((tail.logits(features).argmax(axis=1) == batch.labels).sum()) for tail in tails]
