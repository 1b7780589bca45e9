"""A private store in memory, and sources that a test feeds: what inference asks of its neighbours, done plainly."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from edge_agent.private.data import PrivateRows


@dataclass(frozen=True)
class Sample:
    """A captured sample."""

    sample: np.ndarray
    sample_id: str = "s-1"
    at_ms: int = 1_700_000_000_000
    label: str | int | None = None
    source: str = "camera"
    can_wait: bool = False


@dataclass(frozen=True)
class Unsure:
    sample_id: str
    confidence: float | None
    guess: int | None
    at_ms: int


class MemoryStore:
    """Keeps the newest samples, at most `most`. Thread-safe."""

    def __init__(self, most=1000):
        self.lock, self.most = threading.Lock(), most
        self.samples, self.facts, self.labels, self.skipped = {}, {}, {}, set()
        self.epoch = 0
        self.error = None
        """Raised by every `add`."""

    def add(self, sample, *, sample_id, label, confidence, at_ms, source, guess=None, margin=None):
        if self.error is not None:
            raise self.error
        with self.lock:
            self.samples[sample_id] = np.array(sample)
            self.facts[sample_id] = {
                "confidence": confidence,
                "guess": guess,
                "margin": margin,
                "at_ms": at_ms,
                "source": source,
            }
            if label is not None:
                self.labels[sample_id] = (label, source)
                self.epoch += 1
            while len(self.samples) > self.most:
                gone = next(iter(self.samples))
                del self.samples[gone], self.facts[gone]
                self.labels.pop(gone, None)
        return True

    def label(self, sample_id, label, *, by):
        with self.lock:
            if sample_id not in self.samples:
                return False
            self.labels[sample_id] = (label, by)
            self.epoch += 1
        return True

    def skip(self, sample_id):
        with self.lock:
            is_asked = sample_id in self.samples and sample_id not in self.labels
            self.skipped.add(sample_id)
        return is_asked

    def uncertain(self, count=50):
        with self.lock:
            open_ids = [one for one in self.samples if one not in self.labels and one not in self.skipped]
            asked = [
                Unsure(one, self.facts[one]["confidence"], self.facts[one]["guess"], self.facts[one]["at_ms"])
                for one in open_ids
            ]
        return sorted(asked, key=lambda one: one.confidence)[:count]

    def sample(self, sample_id):
        with self.lock:
            return self.samples.get(sample_id)

    def rows(self, shape):
        with self.lock:
            ids = [one for one in self.samples if one in self.labels]
            samples = np.array([self.samples[one] for one in ids]) if ids else np.empty((0, *shape), np.uint8)
            return PrivateRows(samples, np.array([self.labels[one][0] for one in ids], np.int64))


class FedSource:
    """Delivers what a test puts in; an exception that is put in is raised."""

    def __init__(self):
        self.queue = SimpleQueue()
        self.runs = 0

    def put(self, *items):
        for item in items:
            self.queue.put(item)

    def run(self, deliver, stop):
        self.runs += 1
        while not stop.is_set():
            try:
                item = self.queue.get(timeout=0.02)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            deliver(item)


class Heard:
    """An output that remembers."""

    name = "heard"

    def __init__(self):
        self.said = []
        self.is_closed = False

    def say(self, prediction):
        self.said.append(prediction)

    def facts(self):
        return {"written": len(self.said)}

    def close(self):
        self.is_closed = True


def until(claim, patience_s=30.0):
    """Wait for a truthy claim; return it."""
    end_s = time.monotonic() + patience_s
    while not (value := claim()):
        assert time.monotonic() < end_s, "never came true"
        time.sleep(0.005)
    return value
