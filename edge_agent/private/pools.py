"""Rows with a reason to be kept: on disk, and in memory what is asked of them all the time. Rules, no threads.

    labelled   a class-balanced reservoir (`reservoir`)
    guessed    another, for what the model is sure of; never in the place of a labelled row
    asked      what the model is least sure of (`questions`)
    awaiting   the newest, where labels come late

Rules:
- A sample has one id for ever; a second of the same id is the first.
- Its side, to train on or held out, follows from the id. What is guessed is never held out: a row of that side is kept
  once somebody labels it, and not before.
- A label moves a row from any pool to the labelled ones, where the reservoir may refuse it: then it is gone. A later
  label corrects an earlier one.
- A reservoir's counts on disk may lag by `_COUNTS_EVERY` refusals; all else is there when a `change` ends.

What is deliberately absent: locks, clocks, and anything that could send.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from edge_agent.private.capacity import Capacity
from edge_agent.private.epochs import Epoch
from edge_agent.private.facts import Facts, Pool
from edge_agent.private.questions import Candidate, in_order, margin_of, places_for
from edge_agent.private.reservoir import BalancedReservoir, Counts
from edge_agent.private.settings import StoreSettings
from edge_agent.private.table import COUNTS, EPOCH, GUESSED_COUNTS, RowTable
from edge_agent.sources.topic_filters import matches

_COUNTS_EVERY = 100
_RESERVOIRS: Mapping[Pool, str] = {Pool.LABELLED: COUNTS, Pool.GUESSED: GUESSED_COUNTS}
"""Pools of rows with labels, and under which name the counts of each are kept."""


class Pools:
    """See the module. Whatever changes is part of a `change`.

    Args:
        table: the rows on disk; nobody else writes to it.
        settings: what is kept.
        capacity: most rows of each pool.
        rng: draws who goes.

    Attributes:
        facts: every row by number. To be read alone, as all of these.
        pools: the same by pool.
        numbers: the number of every row by the sample's id.
        epoch: of the rows with labels.
        capacity: most rows of each pool.
    """

    def __init__(self, table: RowTable, settings: StoreSettings, capacity: Capacity, rng: random.Random) -> None:
        self._table, self._settings, self.capacity, self._rng = table, settings, capacity, rng
        self._next = 1
        self.facts: dict[int, Facts] = {}
        self.numbers: dict[str, int] = {}
        self.pools: dict[Pool, dict[int, Facts]] = {}
        self.epoch = Epoch()
        self._reservoirs: dict[Pool, BalancedReservoir] = {}
        self._refused = self._changes = 0
        self._load()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Everything inside is on the disk at the end, or nothing is: then what is in memory is read anew."""
        try:
            with self._table.transaction():
                self._changes = 0
                yield
                self._close_change()
        except BaseException:
            self._load()
            raise

    def _close_change(self) -> None:
        """Write down what belongs to the rows with labels as a whole, if any of them have changed."""
        if self._changes or self._refused >= _COUNTS_EVERY:
            self._put_counts()
        if self._changes:
            self.epoch = self.epoch.after(self._changes, self.labelled)
            self._table.set_value(EPOCH, self.epoch)

    def settle(self) -> None:
        """Write down what may lag; at the end of the program."""
        if self._refused:
            with self.change():
                self._put_counts()

    def _load(self) -> None:
        table = self._table
        self.facts, self.numbers, self.pools = {}, {}, {pool: {} for pool in Pool}
        for number, facts in table.load().items():
            self._know(number, facts)
        self._next = max(self._next, max(self.facts, default=0) + 1)
        self.epoch = table.value(EPOCH, Epoch, Epoch())
        self._reservoirs = {
            pool: BalancedReservoir(
                self.capacity.rows[pool],
                self._rng,
                {number: known(facts.label) for number, facts in self.pools[pool].items()},
                table.value(name, Counts, Counts()),
            )
            for pool, name in _RESERVOIRS.items()
        }
        self._refused = self._changes = 0

    def fit(self) -> None:
        """Let go of what no longer fits the settings."""
        with self.change():
            surplus = [number for reservoir in self._reservoirs.values() for number in reservoir.thin()]
            self.delete(surplus)
            self._changes += len(surplus)
            self.retire(in_order(self.candidates())[self.capacity.rows[Pool.ASKED] :])
            self._make_room(0)

    def shrink(self) -> None:
        """Give room that is free within the file back to the disk, where it takes more than the settings say."""
        if self._table.disk_bytes() > self._settings.megabytes << 20:
            self._table.shrink()

    # Looking.

    def older_than(self, time_ms: float) -> list[int]:
        return [number for number, facts in self.facts.items() if facts.at_ms < time_ms]

    def shown_before(self, time_ms: float) -> list[int]:
        asked = {number: facts.asked_ms for number, facts in self.pools[Pool.ASKED].items()}
        return [number for number, asked_ms in asked.items() if asked_ms is not None and asked_ms < time_ms]

    def candidates(self) -> dict[int, Candidate]:
        """Return the rows that are in question."""
        return {
            number: Candidate(facts.margin or 0.0, facts.at_ms, facts.source, facts.asked_ms is not None)
            for number, facts in self.pools[Pool.ASKED].items()
        }

    @property
    def labelled(self) -> int:
        """How many rows have a label."""
        return sum(map(len, self._reservoirs.values()))

    def met(self) -> dict[int, float]:
        """Return how many labelled samples of each class came by, as far as those that are here can tell.

        A row stands for n_c / m_c of them (`reservoir`). One that somebody chose to label stands for none: it was
        chosen because the model was unsure, and classes that are hard are not therefore common.
        """
        reservoir = self._reservoirs[Pool.LABELLED]
        weights = {label: reservoir.passed(label) / rows for label, rows in reservoir.sizes().items()}
        met: dict[int, float] = {}
        for facts in self.pools[Pool.LABELLED].values():
            if self._is_as_it_came(facts):
                label = known(facts.label)
                met[label] = met.get(label, 0.0) + weights[label]
        return met

    def _is_as_it_came(self, facts: Facts) -> bool:
        """Whether the label came with the sample, or by the topic of late labels, which are about all samples."""
        late = self._settings.late_labels
        return facts.by == facts.source or (late is not None and matches(late.topic, facts.by))

    # What comes, and what is said of it.

    def take_in(self, sample: npt.NDArray[np.generic], facts: Facts, label: int | None) -> None:
        """Consider a sample for each pool in turn; one that none wants is not kept."""
        present = self.numbers.get(facts.sample_id)
        if present is not None:
            if label is not None and self.facts[present].pool is not Pool.LABELLED:
                self.settle_label(present, label, facts.source)
        elif label is not None:
            self._offer(replace(facts, pool=Pool.LABELLED, label=label, by=facts.source), sample)
        else:
            _ = self._guess(facts, sample) or self._wonder(facts, sample) or self._wait(facts, sample)

    def settle_label(self, number: int, label: int, by: str) -> None:
        """Somebody says what a row is."""
        before = self.facts[number]
        facts = replace(before, pool=Pool.LABELLED, label=label, by=by)
        if before.pool is not Pool.LABELLED:
            if not self._offer(facts, None, number):
                self.delete([number])
        elif before.label != label:
            self.put(number, facts)
            self._reservoirs[Pool.LABELLED].relabel(number, label)
            self._changes += 1

    def _guess(self, facts: Facts, sample: npt.NDArray[np.generic]) -> bool:
        if not self._is_sure(facts):
            return False
        return self._offer(replace(facts, pool=Pool.GUESSED, label=facts.guess, by="guess"), sample)

    def _is_sure(self, facts: Facts) -> bool:
        terms = self._settings.guesses
        if terms is None or facts.guess is None or facts.confidence is None or facts.is_held_out:
            return False
        return facts.confidence >= terms.confidence

    def _offer(self, facts: Facts, sample: npt.NDArray[np.generic] | None, number: int | None = None) -> bool:
        """Offer a row to the reservoir of its pool; return whether it was taken.

        Args:
            facts: of the row.
            sample: of a new row; None: `number` has it already.
            number: of a row that comes from another pool.
        """
        reservoir, label = self._reservoirs[facts.pool], known(facts.label)
        verdict = reservoir.judge(label)
        if not verdict.is_kept:
            self._refused += 1
            return False
        if number is not None:
            self._leave_reservoir(number)
        number = self._write(facts, sample, number)
        reservoir.keep(number, label, verdict)
        self._changes += 1
        if verdict.displaced is not None:
            self.delete([verdict.displaced])
            self._changes += 1
        return True

    def _wonder(self, facts: Facts, sample: npt.NDArray[np.generic]) -> bool:
        """Put the row in question, if the model is less sure of it than of others; return whether it is."""
        most = self.capacity.rows[Pool.ASKED]
        if facts.confidence is None or not most:
            return False
        margin = margin_of(facts.confidence, facts.margin)
        candidate = Candidate(margin, facts.at_ms, facts.source)
        places = places_for(candidate, self.candidates(), most, self._settings.question_every_s * 1000)
        if places is None:
            return False
        self.retire(places)
        self._write(replace(facts, pool=Pool.ASKED, margin=margin), sample, None)
        return True

    def _wait(self, facts: Facts, sample: npt.NDArray[np.generic]) -> bool:
        """Keep one of the newest, for a label that comes late."""
        if not self.capacity.rows[Pool.AWAITING]:
            return False
        self._make_room(1)
        self._write(facts, sample, None)
        return True

    def _make_room(self, rows: int) -> None:
        """Let those go that have waited longest, until so many more fit."""
        waiting = self.pools[Pool.AWAITING]
        surplus = max(0, len(waiting) + rows - self.capacity.rows[Pool.AWAITING])
        self.delete(list(islice(waiting, surplus)))

    def retire(self, numbers: Collection[int]) -> None:
        """Questions that end without an answer wait on among the newest rows, where any do."""
        if not self.capacity.rows[Pool.AWAITING]:
            self.delete(numbers)
            return
        for number in numbers:
            self.put(number, replace(self.facts[number], pool=Pool.AWAITING))
        self._make_room(0)

    def begin_anew(self) -> None:
        """The world has changed: see `BalancedReservoir.begin_anew`."""
        for reservoir in self._reservoirs.values():
            reservoir.begin_anew()
        self._put_counts()

    # Rows, on disk and in memory.

    def _write(self, facts: Facts, sample: npt.NDArray[np.generic] | None, number: int | None) -> int:
        """Write a row down, a new one where `number` is None; return its number."""
        if number is None:
            number, self._next = self._next, self._next + 1
        if sample is not None:
            self._table.put_sample(number, sample)
        self.put(number, facts)
        return number

    def put(self, number: int, facts: Facts) -> None:
        """Write down what is known of a row."""
        self._table.put(number, facts)
        self._know(number, facts)

    def _know(self, number: int, facts: Facts) -> None:
        before = self.facts.get(number)
        if before is not None and before.pool is not facts.pool:
            del self.pools[before.pool][number]
        self.facts[number] = self.pools[facts.pool][number] = facts
        self.numbers[facts.sample_id] = number

    def delete(self, numbers: Collection[int]) -> None:
        self._table.delete(numbers)
        for number in numbers:
            self._leave_reservoir(number)
            facts = self.facts.pop(number)
            del self.pools[facts.pool][number], self.numbers[facts.sample_id]

    def _leave_reservoir(self, number: int) -> None:
        for reservoir in self._reservoirs.values():
            if number in reservoir:
                reservoir.forget(number)
                self._changes += 1

    def _put_counts(self) -> None:
        for pool, name in _RESERVOIRS.items():
            self._table.set_value(name, self._reservoirs[pool].counts)
        self._refused = 0


def known(label: int | None) -> int:
    """Return the label of a row of which the pool says that it has one."""
    assert label is not None
    return label
