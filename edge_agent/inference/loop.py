"""Live inference: sources, the model, the private store and the outputs, joined.

    source threads --deliver--> queue --batches--> [one thread] predict -> store.add -> outputs.say
    the local API  --predict-------------------------------------------^

- A sample that cannot be used costs itself: it is counted, and the others of its batch go on.
- A source that fails is run again, after a pause that doubles, and its failure is an alarm until it delivers again.
- What the thread finds on its way (drift, other labelled rows, new weights) makes it calibrate anew, between batches.

What is deliberately absent: how samples are captured, kept and drawn (`sources`, `private`), and training.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.inference.calibration import Calibration
from edge_agent.inference.drift_watch import Drifted, DriftWatch
from edge_agent.inference.latency import Latency, Stage
from edge_agent.inference.predictor import Predictions, Predictor
from edge_agent.inference.sample_queue import SampleQueue
from edge_agent.inference.seams import Captured, LivePrediction, Output, Source, Store
from edge_agent.inference.settings import InferenceSettings
from edge_agent.inference.source_runner import SourceRunner
from edge_agent.process.notices import Alarm, Measured, Notice
from fd_protocol.errors import FedistillError
from fd_runtime.models.model import F32

_TURN_S = 0.5
_FAREWELL_S = 2.0
_MEASURE_EVERY_S = 60.0
DRIFT = "drift"

log = logging.getLogger("edge-agent")


@dataclass(slots=True)
class Counts:
    """What became of samples since the start."""

    predicted: int = 0
    refused: int = 0
    """Not what the task describes, or the runtime did not take it."""
    kept: int = 0
    not_kept: int = 0
    """The store had no use for it, or could not write."""
    labels: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A sample that came by the local API: a `Captured`."""

    sample: npt.NDArray[Any]
    sample_id: str
    at_ms: int
    label: str | int | None
    source: str
    can_wait: bool = False


class Loop:
    """See the module. `start` it, and `close` it.

    Args:
        predictor: answers.
        settings: of [inference].
        sources: by name.
        outputs: hear of every prediction on a live sample.
        store: keeps samples; None: nobody does.
        watch: of drift; the predictor shows it what it predicts on. None: nobody watches.
        calibrate: finds how sure the model may be; called by the loop's thread.
        refresh: what else is due after a drift: the store lets go of what is no longer so.
        tell: takes notices.
        alive: called at least every second by the loop's thread.
    """

    def __init__(
        self,
        predictor: Predictor,
        settings: InferenceSettings,
        *,
        sources: Mapping[str, Source] | None = None,
        outputs: Sequence[Output] = (),
        store: Store | None = None,
        watch: DriftWatch | None = None,
        calibrate: Callable[[], Calibration | None] = lambda: None,
        refresh: Callable[[], None] = lambda: None,
        tell: Callable[[Notice], None] = lambda notice: None,  # noqa: ARG005 - names what it is given
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._predictor, self._settings, self.store, self.outputs = predictor, settings, store, list(outputs)
        self._sources = [SourceRunner(name, source, self.deliver, tell) for name, source in (sources or {}).items()]
        self._watch, self._calibrate, self._refresh, self._tell, self._alive = watch, calibrate, refresh, tell, alive
        self._classes = {name: number for number, name in enumerate(predictor.task.classes)}
        self._queue: SampleQueue[tuple[Captured, float]] = SampleQueue(settings.queue)
        self._counting, self._calibrating = threading.Lock(), threading.Lock()
        self.counts = Counts()
        self.listeners: list[Callable[[str], None]] = []
        """Hear the id of each sample that somebody has labelled or skipped: a question about it is over."""
        self._stop = threading.Event()
        self._calibration: Calibration | None = None
        self._is_calibration_due, self._epoch = True, -1
        self._measure_s = 0.0
        self._last_problem = ""
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    @property
    def latency(self) -> Latency:
        return self._predictor.latency

    def add_output(self, output: Output) -> None:
        """Let one more hear of predictions; before `start`."""
        self.outputs.append(output)

    def start(self) -> None:
        self._keep_up()  # the first answer is as personal as the next
        self._thread.start()
        for runner in self._sources:
            runner.start(self._stop)

    def close(self) -> None:
        """End sources, thread and outputs; what waits in the queue is dropped."""
        self._stop.set()
        self._queue.wake()
        if self._thread.is_alive():
            self._thread.join(_FAREWELL_S)
        for runner in self._sources:
            runner.join(_FAREWELL_S)
        for output in self.outputs:
            output.close()

    # For sources and the local API.

    def deliver(self, captured: Captured) -> None:
        """Take a sample. If too many wait: in the place of the oldest one, or once there is room if it `can_wait`."""
        if captured.can_wait:
            self._queue.put_when_room((captured, time.perf_counter()), self._stop)
        else:
            self._queue.put((captured, time.perf_counter()))

    def predict(
        self,
        samples: npt.NDArray[Any],
        *,
        sample_ids: Sequence[str] | None = None,
        labels: Sequence[str | int | None] | None = None,
        source: str = "api",
        is_live: bool = True,
    ) -> Predictions:
        """Predict at once, in the calling thread.

        Args:
            samples: [n, *sample_shape] in the task's type.
            sample_ids: their names; None: new ones.
            labels: what they are, where somebody knows.
            source: who captured them.
            is_live: whether they are of this device's life: kept, told, watched for drift. A test file is not.

        Raises:
            SampleError: they are not what the task describes.
            ModelError: the runtime refuses them.
        """
        predictions = self._predictor.predict(samples, sample_ids=sample_ids, is_observed=is_live)
        if is_live:
            begin_s, now_ms = time.perf_counter(), _now_ms()
            known = labels or [None] * len(predictions)
            for row, (name, label) in enumerate(zip(predictions.sample_ids, known, strict=True)):
                self._pass_on(Given(samples[row], name, now_ms, label, source), predictions, row)
            self._predictor.latency.record(Stage.OUTPUT, len(predictions), time.perf_counter() - begin_s)
        return predictions

    def label(self, sample_id: str, label: str, by: str) -> bool:
        """Say what a sample is; return False where there is no such sample (any more), or nobody keeps any.

        Raises:
            KeyError: the task has no such class.
            FedistillError, OSError: it could not be written down.
        """
        number = self._classes[label]
        if self.store is None or not self.store.label(sample_id, number, by=by):
            return False
        with self._counting:
            self.counts.labels += 1
        self._settle(sample_id)
        return True

    def skip(self, sample_id: str) -> bool:
        """Nobody can tell what the sample is; return False where it was not asked (any more)."""
        is_known = self.store is not None and self.store.skip(sample_id)
        self._settle(sample_id)
        return is_known

    def _settle(self, sample_id: str) -> None:
        for listener in self.listeners:
            listener(sample_id)

    def take_weights(self, theta: F32) -> None:
        """Answer with these parameters from now on; called by whoever trains, once they are accepted."""
        self._predictor.load(theta)
        if self._watch is not None:
            self._watch.forget_confidence()
        self._calibrate_now()  # a temperature belongs to its weights

    def facts(self) -> dict[str, Any]:
        """Return how live inference stands, as plain data."""
        counts = self.counts
        return {
            "predictions": counts.predicted,
            "refused": counts.refused,
            "kept": counts.kept,
            "not_kept": counts.not_kept,
            "labels": counts.labels,
            "queue": {"waiting": len(self._queue), "most": self._settings.queue, "dropped": self._queue.dropped},
            "latency_ms": self._latencies(),
            "sources": {runner.name: runner.facts() for runner in self._sources},
            "outputs": {output.name: output.facts() for output in self.outputs},
            "personal": self._personal(),
            "drift": self._watch.facts() if self._watch is not None else None,
        }

    @property
    def dropped(self) -> int:
        """Samples that waited too long."""
        return self._queue.dropped

    # The thread.

    def _run(self) -> None:
        while not self._stop.is_set():
            batch = self._queue.take(self._settings.batch, _TURN_S)
            if batch:
                self._answer(batch)
            self._keep_up()
            self._alive()

    def _answer(self, batch: Sequence[tuple[Captured, float]]) -> None:
        now_s = time.perf_counter()
        for _, arrived_s in batch:
            self._predictor.latency.record(Stage.WAIT, 1, now_s - arrived_s)
        together = [captured for captured, _ in batch]
        if len(together) > 1 and not self._try(together):
            for captured in together:  # one of them is to blame: each for itself
                self._try([captured])
        elif len(together) == 1:
            self._try(together)

    def _try(self, together: Sequence[Captured]) -> bool:
        """Predict on some samples; False: not all can be used, and nothing has happened if there were several."""
        try:
            samples = together[0].sample[None] if len(together) == 1 else np.stack([one.sample for one in together])
            predictions = self._predictor.predict(samples, sample_ids=[one.sample_id for one in together])
        except (FedistillError, ValueError) as error:  # ValueError: samples of different shapes do not stack
            if len(together) == 1:
                self._refuse(together[0], error)
            return False
        begin_s = time.perf_counter()
        for row, one in enumerate(together):
            self._pass_on(one, predictions, row)
        self._predictor.latency.record(Stage.OUTPUT, len(together), time.perf_counter() - begin_s)
        return True

    def _pass_on(self, captured: Captured, predictions: Predictions, row: int) -> None:
        guess, confidence = predictions.best[row]
        is_kept = self.store is not None and self._keep(self.store, captured, predictions, row)
        with self._counting:
            self.counts.predicted += 1
            if self.store is not None:
                self.counts.kept += is_kept
                self.counts.not_kept += not is_kept
        if self.outputs:
            label = self._predictor.task.classes[guess]
            said = LivePrediction(captured.sample_id, label, confidence, captured.at_ms, captured.source)
            for output in self.outputs:
                output.say(said)

    def _keep(self, store: Store, captured: Captured, predictions: Predictions, row: int) -> bool:
        guess, confidence = predictions.best[row]
        try:
            return store.add(
                captured.sample,
                sample_id=captured.sample_id,
                label=self._number_of(captured.label, captured.source),
                confidence=confidence,
                at_ms=captured.at_ms,
                source=captured.source,
                guess=guess,
                margin=float(predictions.margins[row]),
            )
        except (FedistillError, OSError) as error:
            self._complain(f"samples are not kept: {error}")
            return False

    def _number_of(self, label: str | int | None, source: str) -> int | None:
        """Return the class that a source gave; one that the task does not have is no label."""
        if label is None:
            return None
        number = self._classes.get(label) if isinstance(label, str) else label
        if number is None or not 0 <= number < len(self._classes):
            self._complain(f"source {source}: {label!r} is no class of the task")
            return None
        return number

    def _refuse(self, captured: Captured, error: Exception) -> None:
        with self._counting:
            self.counts.refused += 1
        self._complain(f"source {captured.source}: a sample is of no use: {error}")

    def _complain(self, problem: str) -> None:
        """Say it once, until something else is wrong: a source says the same a thousand times."""
        if problem != self._last_problem:
            self._last_problem = problem
            log.warning("%s", problem)

    def _keep_up(self) -> None:
        if self._watch is not None:
            for news in self._watch.news():
                self._hear(news)
        if self.store is not None and self.store.epoch != self._epoch:
            self._epoch, self._is_calibration_due = self.store.epoch, True
        if self._is_calibration_due:
            self._is_calibration_due = False
            self._calibrate_now()
        if time.monotonic() >= self._measure_s:
            self._measure_s = time.monotonic() + _MEASURE_EVERY_S
            self._tell(Measured(self._measures()))

    def _hear(self, news: object) -> None:
        if not isinstance(news, Drifted):
            log.info("drift: samples stay as they have become")
            self._tell(Alarm(DRIFT, ""))
            return
        log.warning("drift: %s", news)
        self._tell(Alarm(DRIFT, str(news)))
        self._is_calibration_due = True
        self._guarded(self._refresh, "the store was not refreshed")

    def _calibrate_now(self) -> None:
        def calibrate() -> None:
            with self._calibrating:  # by this thread, or by the one that trains
                self._calibration = self._calibrate()
                if self._calibration is not None:
                    self._predictor.adjustment = self._calibration.adjustment

        self._guarded(calibrate, "not calibrated")

    def _guarded(self, do: Callable[[], None], problem: str) -> None:
        try:
            do()
        except (FedistillError, OSError, ValueError, MemoryError) as error:
            self._complain(f"{problem}: {error}")

    # What is told.

    def _latencies(self) -> dict[str, dict[str, float]]:
        told = {}
        for stage in Stage:
            histogram = self._predictor.latency.histogram(stage)
            if histogram.count:
                p50, p99 = (1e3 * min(histogram.quantile_s(share), 1e6) for share in (0.5, 0.99))
                told[stage.name.lower()] = {"p50": round(p50, 3), "p99": round(p99, 3)}
        return told

    def _measures(self) -> dict[str, float]:
        values = {"predictions": float(self.counts.predicted), "dropped": float(self._queue.dropped)}
        values |= {f"{stage}_p99_ms": told["p99"] for stage, told in self._latencies().items()}
        return values | (self._watch.measures() if self._watch is not None else {})

    def _personal(self) -> dict[str, Any]:
        adjustment, found = self._predictor.adjustment, self._calibration
        prior = adjustment.log_prior
        return {
            "corrects_by_class_prior": prior is not None,
            "class_prior": None
            if prior is None
            else {name: round(float(share), 4) for name, share in zip(self._classes, np.exp(prior), strict=True)},
            "temperature": round(adjustment.temperature, 4),
            "labelled_rows": 0 if found is None else found.labelled,
            "held_out_rows": 0 if found is None else found.held_out,
        }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
