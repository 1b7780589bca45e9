"""The private store: a bounded number of samples on disk, chosen well, with what is known of their labels.

    sources, API --add--> pools --seen_by, batches--> worker core --> learner
                           |  ^
                   uncertain  label, skip
                           v  |
                          people

What is kept, and why, is `pools`; this is their one door. Any thread may call anything: sources, the API and the
trainer are threads of one worker. Every change is on the disk when the call returns. A full disk costs samples, and the
device no more than that. News of a new epoch is told outside of the lock.

What is deliberately absent: anything that could send. See `edge_agent.private`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.private.capacity import capacity_of
from edge_agent.private.data import PrivateRows
from edge_agent.private.facts import Asked, Facts, Pool, Summary, is_held_out
from edge_agent.private.keys import KeyFileError, key_path, make_key, read_key
from edge_agent.private.pools import Pools, known
from edge_agent.private.questions import in_order
from edge_agent.private.settings import StoreSettings
from edge_agent.private.table import RowTable, is_sealed
from edge_agent.process.notices import Notice, PrivateRowsChanged
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Manifest, Task
from fd_runtime.models.model import F32, I64, Features
from fd_runtime.models.opening import LoadedModel
from fd_runtime.space import Space, preprocessed
from fd_runtime.storage.store import StoreUnwritableError

_DAY_MS = 86_400_000
_ROWS_AT_ONCE = 128

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True, eq=False)
class StoredRows:
    """The store's labelled rows of one moment, seen by a model: `Private`. Their samples stay on the disk."""

    store: PrivateStore
    bundle: bytes
    codes: Features
    labels: I64
    is_held_out: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def split(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        return ~self.is_held_out, self.is_held_out

    def features(self, model: LoadedModel, went_on: Callable[[], object] = lambda: None) -> Features:  # noqa: ARG002
        """Raises: InvalidValueError: another model has seen them."""
        if model.manifest.digest != self.bundle:
            raise InvalidValueError("these rows were seen by another bundle")
        return self.codes

    def located(self, space: Space, task: Task) -> F32:
        parts = [space.locate(preprocessed(batch.samples, task)) for batch in self.store.batches()]
        return np.concatenate([np.empty((0, len(space.components)), np.float32), *parts])


class PrivateStore:
    """See the module. Use `PrivateStore.open`.

    Args:
        table: the rows on disk; nobody else writes to it.
        task: of the samples.
        settings: what is kept.
        pools: the rules over the table.
        clock: Unix time in milliseconds.
        tell: takes the news that the epoch has changed.
    """

    def __init__(
        self,
        table: RowTable,
        task: Task,
        settings: StoreSettings,
        pools: Pools,
        *,
        clock: Callable[[], int],
        tell: Callable[[Notice], None],
    ) -> None:
        self._table, self._task, self._settings, self._pools = table, task, settings, pools
        self._clock, self._tell = clock, tell
        self._lock = threading.RLock()
        self._is_disk_full = self._is_fitted = self._has_traces = False

    @classmethod
    def open(
        cls,
        path: Path | None,
        settings: StoreSettings,
        manifest: Manifest,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
        tell: Callable[[Notice], None] = lambda _: None,
    ) -> PrivateStore:
        """Open or create the store at `path` for samples of the bundle's task; None keeps it in memory.

        A disk that takes nothing stops nobody from opening a store that is there: what is to go then waits (`tidy`).

        Raises:
            PrivateStoreError: another key, none where one is needed, or rows of another task.
            KeyFileError: the key is none, open to others, or gone.
            StoreTooSmallError: nothing is left for labelled rows.
            StoreError, OSError: the file cannot be opened.
            MissingExtraError: there is a key, and `cryptography` is not installed.
        """
        capacity = capacity_of(settings, manifest.task, manifest.features)
        table = RowTable.open(path, _key_for(path, settings), manifest.task, log_bytes=capacity.log_bytes)
        try:
            pools = Pools(table, settings, capacity, rng or random.SystemRandom())
            store = cls(table, manifest.task, settings, pools, clock=clock, tell=tell)
            store.tidy()
        except BaseException:
            table.close()
            raise
        return store

    def close(self) -> None:
        with self._lock:
            self._pools.settle()
            self._table.close()

    def __len__(self) -> int:
        """Return how many rows have a label."""
        with self._lock:
            return self._pools.labelled

    # Coming in.

    def add(
        self,
        sample: npt.NDArray[np.generic],
        *,
        sample_id: str,
        label: int | None,
        confidence: float | None,
        at_ms: int,
        source: str,
        guess: int | None = None,
        margin: float | None = None,
    ) -> bool:
        """Consider a sample; return whether it is here now.

        Args:
            sample: of the task's shape and type, before preprocessing.
            sample_id: names it on this device.
            label: its class, where the source knows it.
            confidence: the probability that the model gives its likeliest class; None = it was not asked.
            at_ms: when it was captured, in Unix time.
            source: which one captured it.
            guess: the likeliest class.
            margin: how much likelier it is than the next.

        Raises:
            InvalidValueError: it is no sample of the task, or a class is none of its.
        """
        self._check(sample, label, guess)
        facts = Facts(
            sample_id, at_ms, source, Pool.AWAITING, is_held_out(sample_id),
            guess=guess, confidence=_float(confidence), margin=_float(margin),
        )  # fmt: skip
        try:
            with self._changing() as pools:
                pools.take_in(sample, facts, label)
                is_here = sample_id in pools.numbers
        except StoreUnwritableError as error:
            self._note_disk(error)
            return False
        self._note_disk(None)
        return is_here

    def label(self, sample_id: str, label: int, *, by: str) -> bool:
        """Say what a sample is; return False if there is no such sample (any more).

        Args:
            sample_id: of a row in any pool.
            label: its class.
            by: who says so.

        Raises:
            InvalidValueError: the task has no such class.
            StoreError: it was not written down.
        """
        self._check_class(label)
        with self._changing() as pools:
            number = pools.numbers.get(sample_id)
            if number is not None:
                pools.settle_label(number, label, by)
        return number is not None

    def skip(self, sample_id: str) -> bool:
        """A person cannot tell what it is: it is not asked again. Return whether it was in question.

        Raises:
            StoreError: it was not written down.
        """
        with self._changing() as pools:
            number = pools.numbers.get(sample_id)
            if number is None or pools.facts[number].pool is not Pool.ASKED:
                return False
            pools.retire([number])
        return True

    # Going out.

    @property
    def epoch(self) -> int:
        """A number that is another one when enough labelled rows have come, gone or been relabelled (`epochs`)."""
        with self._lock:
            return self._pools.epoch.number

    def uncertain(self, count: int = 50) -> Sequence[Asked]:
        """Return the questions to ask a person, the most pressing first, and note that they have been shown.

        Raises:
            StoreError: it was not written down.
        """
        with self._changing() as pools:
            numbers = in_order(pools.candidates())[:count]
            for number in numbers:
                if pools.facts[number].asked_ms is None:
                    pools.put(number, replace(pools.facts[number], asked_ms=self._clock()))
            return [_question(pools.facts[number]) for number in numbers]

    def sample(self, sample_id: str) -> npt.NDArray[Any] | None:
        """Return a sample as it was recorded; None: it is not here (any more)."""
        with self._lock:
            number = self._pools.numbers.get(sample_id)
            return None if number is None else self._table.sample(number)

    def rows(self) -> PrivateRows:
        """Return all labelled rows, in the order in which they came. Mind the memory: `batches` has them by and by."""
        parts = list(self.batches())
        if not parts:
            empty = np.empty((0, *self._task.sample_shape), self._task.sample_dtype)
            return PrivateRows(empty, *_sides([]))
        samples, labels, held_out = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("samples", "labels", "is_held_out")
        )
        return PrivateRows(samples, labels, held_out)

    def batches(self, size: int = _ROWS_AT_ONCE) -> Iterator[PrivateRows]:
        """Yield all labelled rows, at most `size` at a time; what leaves meanwhile is left out."""
        for numbers in _in_parts(self._labelled(), size):
            with self._lock:
                here = [number for number in numbers if number in self._pools.facts]
                samples = [self._table.sample(number) for number in here]
                facts = [self._pools.facts[number] for number in here]
            if here:
                yield PrivateRows(np.stack(samples), *_sides(facts))

    def seen_by(self, model: LoadedModel, went_on: Callable[[], None] = lambda: None) -> StoredRows:
        """Return all labelled rows as the tail of `model` reads them.

        A sample goes through a bundle's frozen part once; what comes out is kept beside it. `went_on` is called after
        every few samples: they may take minutes.
        """
        return self._seen(self._labelled(), model, went_on)

    def held_out(self, model: LoadedModel, most: int) -> StoredRows:
        """Return the newest held-out rows, at most so many; as `seen_by`."""
        with self._lock:
            numbers = [number for number in self._labelled() if self._pools.facts[number].is_held_out]
        return self._seen(numbers[-most:], model, lambda: None)

    def training_labels(self) -> I64:
        """Return int64 [n], what somebody has said of the rows that are trained on."""
        with self._lock:
            rows = self._pools.pools[Pool.LABELLED].values()
            return _sides([facts for facts in rows if not facts.is_held_out])[0]

    def met(self) -> dict[int, float]:
        """Return how many labelled samples of each class came by, as far as those that are here can tell.

        See `Pools.met`.
        """
        with self._lock:
            return self._pools.met()

    def _seen(self, numbers: Sequence[int], model: LoadedModel, went_on: Callable[[], None]) -> StoredRows:
        bundle, task = model.manifest.digest, self._task
        # No runtime promises to bear a batch of no rows; one of zeros tells the features' shape.
        parts = [model.features(preprocessed(np.zeros((1, *task.sample_shape), task.sample_dtype), task))[:0]]
        rows: list[Facts] = []
        for some in _in_parts(numbers, _ROWS_AT_ONCE):
            for codes, facts in self._features_of(some, model, bundle):
                parts.append(codes[None])
                rows.append(facts)
            went_on()
        labels, held_out = _sides(rows)
        return StoredRows(self, bundle, np.concatenate(parts), labels, held_out)  # type: ignore[arg-type]

    def summary(self) -> Summary:
        """Return what is in the store, in numbers."""
        with self._lock:
            everything = list(self._pools.facts.values())
            return Summary(
                rows={pool.value: len(rows) for pool, rows in self._pools.pools.items()},
                classes=dict(sorted(Counter(facts.label for facts in everything if facts.label is not None).items())),
                held_out=sum(facts.is_held_out and facts.label is not None for facts in everything),
                capacity={pool.value: most for pool, most in self._pools.capacity.rows.items()},
                disk_bytes=self._table.disk_bytes(),
                oldest_ms=min((facts.at_ms for facts in everything), default=None),
                epoch=self._pools.epoch.number,
                is_encrypted=self._table.is_encrypted,
            )

    # Going away.

    def tidy(self) -> int:
        """Let go of what no longer fits the settings, and of what is too old; what the disk refuses, the next time.

        Return how many rows went because of their age.

        Raises:
            StoreError: the file is damaged, say.
        """
        try:
            self._fit()
        except StoreUnwritableError as error:
            log.warning("rows that no longer fit the settings stay for now: %s", error)
        try:
            return self.expire()
        except StoreUnwritableError as error:
            log.warning("old rows stay for now: %s", error)
            return 0

    def _fit(self) -> None:
        """Once, for settings do not change while a store is open."""
        if not self._is_fitted:
            with self._telling():
                self._pools.fit()
            with self._lock:
                self._pools.shrink()
            self._is_fitted = True

    def expire(self) -> int:
        """Delete rows that are too old, leaving nothing of them in any file; end questions that nobody answered.

        Return how many rows went because of their age.

        Raises:
            StoreError: it was not written down.
        """
        now_ms, settings = self._clock(), self._settings
        with self._changing() as pools:
            old = pools.older_than(now_ms - settings.age_days * _DAY_MS)
            pools.delete(old)
            pools.retire(pools.shown_before(now_ms - settings.question_days * _DAY_MS))
        self._has_traces = self._has_traces or bool(old)
        if self._has_traces:
            with self._lock:
                self._table.flush()
            self._has_traces = False
        return len(old)

    def refresh(self) -> None:
        """What comes from now on is not like what came (a drift): labelled rows make room for it sooner.

        None goes at once. Of the rows that are here and the next n labelled ones all are as likely to be here then.

        Raises:
            StoreError: it was not written down.
        """
        with self._changing() as pools:
            pools.begin_anew()

    @contextmanager
    def _changing(self) -> Iterator[Pools]:
        """Everything inside happens, durably, or nothing does; as `_telling`."""
        with self._telling(), self._pools.change():
            yield self._pools

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile; afterwards a new epoch is told of, without the lock."""
        with self._lock:
            before = self._pools.epoch.number
            yield
            epoch, rows = self._pools.epoch.number, self._pools.labelled
        if epoch != before:
            self._tell(PrivateRowsChanged(epoch, rows))

    def _note_disk(self, error: StoreUnwritableError | None) -> None:
        """Say once that the disk is full, not for every sample."""
        if error is not None and not self._is_disk_full:
            log.warning("samples are not kept: %s", error)
        self._is_disk_full = error is not None

    # Labelled rows by and by.

    def _labelled(self) -> list[int]:
        """Return the numbers of all rows that have a label now, in order."""
        with self._lock:
            return sorted(number for number, facts in self._pools.facts.items() if facts.label is not None)

    def _features_of(
        self, numbers: Sequence[int], model: LoadedModel, bundle: bytes
    ) -> Iterator[tuple[npt.NDArray[Any], Facts]]:
        """Yield features and facts of those rows that are still here."""
        spec, found = model.manifest.features, {}
        with self._lock:
            facts = {number: self._pools.facts[number] for number in numbers if number in self._pools.facts}
            if spec is not None:
                kept = {number: self._table.features(number, bundle, spec) for number in facts}
                found = {number: codes for number, codes in kept.items() if codes is not None}
            unseen = {number: self._table.sample(number) for number in facts if number not in found}
        if unseen:
            codes = model.features(preprocessed(np.stack(list(unseen.values())), self._task))
            made = dict(zip(unseen, codes, strict=True))
            found |= made
            if spec is not None:
                self._remember(made, bundle)
        yield from ((found[number], facts[number]) for number in facts)

    def _remember(self, features: Mapping[int, npt.NDArray[Any]], bundle: bytes) -> None:
        """Keep features beside their samples. Where that fails they are made again next time."""
        try:
            with self._lock, self._pools.change():
                for number, codes in features.items():
                    if number in self._pools.facts:
                        self._table.put_features(number, bundle, codes)
        except StoreUnwritableError as error:
            log.warning("features are not kept: %s", error)

    # What may come in.

    def _check(self, sample: npt.NDArray[np.generic], label: int | None, guess: int | None) -> None:
        task = self._task
        if sample.shape != task.sample_shape or sample.dtype != np.dtype(task.sample_dtype):
            raise InvalidValueError(
                f"a sample is {task.sample_dtype} {list(task.sample_shape)}, not {sample.dtype} {list(sample.shape)}"
            )
        for number in (label, guess):
            if number is not None:
                self._check_class(number)

    def _check_class(self, number: int) -> None:
        if not 0 <= number < len(self._task.classes):
            raise InvalidValueError(f"class {number} is none of 0 to {len(self._task.classes) - 1}")


def _key_for(path: Path | None, settings: StoreSettings) -> bytes | None:
    """Return the key that the settings ask for; it is made where nothing depends on an older one."""
    where = key_path(settings)
    if where is None:
        return None
    key = read_key(where)
    if key is not None:
        return key
    if settings.credential is not None or (path is not None and is_sealed(path)):
        raise KeyFileError(where, "no such file; what was encrypted with it cannot be read without it")
    return make_key(where)


def _in_parts(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _sides(rows: Sequence[Facts]) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Return the labels of rows, and which of them are held out."""
    labels = np.array([known(facts.label) for facts in rows], np.int64)
    return labels, np.array([facts.is_held_out for facts in rows], np.bool_)


def _question(facts: Facts) -> Asked:
    return Asked(facts.sample_id, facts.confidence or 0.0, facts.guess, facts.at_ms, facts.source)


def _float(number: float | None) -> float | None:
    return None if number is None else float(number)
