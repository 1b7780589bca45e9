"""A worker trains on the rows of its file and of its store, taken anew when enough have changed."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.jobs import CompetenceJob, WarmUpJob
from edge_agent.keeping import kept
from edge_agent.learning.seen import SeenProbes
from edge_agent.private.data import PrivateRows, load_private_rows
from edge_agent.private.renewal import JoinedRows, Renewal
from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from edge_agent.process.notices import PrivateRowsChanged
from edge_agent.round.events import Task as Kind
from edge_agent.round.events import Work
from edge_agent.settings import AgentSettings
from edge_agent.worker_core import WorkerCore
from fd_protocol import codec
from fd_protocol.competence import FAR, decode_map
from fd_protocol.messages import CompetenceMap, TrainingTerms
from fd_runtime.artifacts import load_bundle, load_public_set
from fd_runtime.config import load_toml
from fd_runtime.space import preprocessed
from fd_runtime.storage.store import StoreError
from tests.edge_agent.artifacts import CLASSES, SIZE, TASK, clouds, write_bundle, write_private, write_public_set
from tests.edge_agent.builders import round_id
from tests.edge_agent.private.artifacts import Clock
from tests.support.patience import wait_until

TERMS = TrainingTerms(epochs=2, learning_rate=2e-2, warm_up_epochs=30)


class Bench:
    def __init__(self, folder, file_rows=40):
        self.bundle = load_bundle(write_bundle(folder / "bundle"))
        self.public = load_public_set(write_public_set(folder / "public"))
        self.fixed = load_private_rows(write_private(folder / "x.npz", file_rows, classes=[0]), (SIZE,), CLASSES)
        self.store = PrivateStore.open(
            folder / "private.db", StoreSettings(), self.bundle.manifest, clock=Clock(), rng=random.Random(0)
        )
        self.model = self.bundle.open("numpy")
        self.renewal = Renewal(self.store, self.fixed, self.model)

    def fill(self, count, seed=0, classes=range(CLASSES)):
        samples, labels = clouds(count, seed, classes)
        for number, (sample, label) in enumerate(zip(samples, labels, strict=True)):
            self.store.add(
                sample, sample_id=f"{seed}/{number}", label=int(label), confidence=None,
                at_ms=Clock.now_ms, source="s",
            )  # fmt: skip
        return self

    def core(self, private=None):
        seen = SeenProbes(self.public, self.model)
        return WorkerCore(self.model, seen, private or self.renewal.rows(), None, device="dev-1")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_rows_of_file_and_store_stand_side_by_side(bench):
    bench.fill(50)
    rows, stored = bench.renewal.rows(), bench.store.rows()
    assert len(rows) == len(rows.labels) == 90
    np.testing.assert_array_equal(rows.labels, np.concatenate([bench.fixed.labels, stored.labels]))
    expected = preprocessed(np.concatenate([bench.fixed.samples, stored.samples]), TASK)
    np.testing.assert_array_equal(rows.features(bench.model), expected)
    space = bench.public.space()
    np.testing.assert_array_equal(rows.located(space, TASK), space.locate(expected))
    training, hold_out = rows.split()
    np.testing.assert_array_equal(training, ~hold_out)
    np.testing.assert_array_equal(hold_out[40:], stored.is_held_out)
    assert not hold_out[:40].any()  # too few rows in the file for a hold-out


def test_without_any_rows_there_are_none(tmp_path):
    bench = Bench(tmp_path)
    rows = JoinedRows(
        [PrivateRows(np.zeros((0, SIZE), np.uint8), np.zeros(0, np.int64)), bench.store.seen_by(bench.model)]
    )
    assert (len(rows), rows.features(bench.model).shape) == (0, (0, SIZE))
    assert rows.located(bench.public.space(), TASK).shape[0] == 0


def test_rows_are_taken_anew_when_the_epoch_changes_and_not_before(bench):
    taken = []
    bench.fill(19)
    bench.renewal.rows()
    bench.renewal.renew(taken.append)
    assert taken == []
    bench.fill(1, seed=1)
    bench.renewal.renew(taken.append)
    bench.renewal.renew(taken.append)
    assert [len(rows) for rows in taken] == [60]


def test_rows_that_cannot_be_read_leave_those_before_for_now(bench, monkeypatch, caplog):
    bench.fill(25)
    taken = []

    def fail(*_):
        raise StoreError(None, "disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(bench.store, "seen_by", fail)
        bench.renewal.renew(taken.append)
    assert taken == []
    assert "stay as they were" in caplog.text
    bench.renewal.renew(taken.append)
    assert len(taken) == 1


def test_a_core_learns_rows_that_came_after_it_was_made(bench):
    core = bench.core()
    bench.fill(300)
    bench.renewal.renew(core.renew)
    core.handle(WarmUpJob(Work(Kind.WARM_UP, round_id()), TERMS))
    samples, labels = clouds(300, seed=77)
    assert (core.logits(preprocessed(samples, TASK)).argmax(axis=1) == labels).mean() > 0.9


def test_a_renewed_core_keeps_what_it_has_learned_and_judges_the_release_anew(bench):
    core = bench.core(bench.fixed)
    core.handle(WarmUpJob(Work(Kind.WARM_UP, round_id()), TERMS))
    probe = preprocessed(clouds(20, seed=5)[0], TASK)
    before = core.logits(probe)
    bench.fill(300)
    core.renew(bench.renewal.rows())
    np.testing.assert_array_equal(core.logits(probe), before)
    fresh = bench.bundle.open("numpy")
    rows = bench.renewal.rows()
    _, hold_out = rows.split()
    release = (fresh.tail.logits(rows.features(bench.model)[hold_out]).argmax(axis=1) == rows.labels[hold_out]).sum()
    assert (core._learner._release.correct, core._learner._release.rows) == (release, hold_out.sum())


def standing(core, bench):
    answer = core.handle(CompetenceJob(Work(Kind.MAP_COMPETENCE, round_id()), 1, bench.public.digest))
    message = codec.decode(answer.blobs[0], CompetenceMap)
    return decode_map(message.body, message.count)


def test_a_competence_map_tells_of_the_new_rows(bench):
    core = bench.core(bench.fixed)
    before = standing(core, bench)
    bench.fill(200, classes=[1])
    core.renew(bench.renewal.rows())
    after = standing(core, bench)
    truth = bench.public.probes().reshape(60, CLASSES, 2).sum(axis=2).argmax(axis=1)
    assert after[truth == 1].mean() + 1 < before[truth == 1].mean()
    assert (after < FAR).any()


def test_features_are_made_with_a_sign_of_life(bench):
    bench.fill(300)
    signs = []
    Renewal(bench.store, bench.fixed, bench.model, lambda: signs.append(1)).rows()
    assert len(signs) == 3


# As the worker opens it.


def settings(tmp_path, text=""):
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "agent.toml").write_text(
        f'[device]\nid = "dev-1"\nfederation = "f"\n[model]\nbundle = "b"\n[state]\nfolder = "state"\n{text}'
    )
    return load_toml(tmp_path / "agent.toml", AgentSettings, {})


def test_a_device_keeps_nothing_unless_it_is_asked_to(tmp_path, bench):
    with kept(settings(tmp_path), bench.bundle.manifest, print) as store:
        assert store is None
    assert list((tmp_path / "state").iterdir()) == []


def test_a_store_that_is_opened_tells_of_its_rows_at_once_and_when_they_change(tmp_path, bench):
    told = []
    known = settings(tmp_path, "[store]\nrows = 300\n")
    for life in range(2):
        with kept(known, bench.bundle.manifest, told.append) as store:
            for number in range(20):
                store.add(
                    np.zeros(SIZE, np.uint8), sample_id=f"{life}/{number}", label=0, confidence=None,
                    at_ms=2_000_000_000_000, source="s",
                )  # fmt: skip
    assert told == [
        PrivateRowsChanged(0, 0), PrivateRowsChanged(1, 20), PrivateRowsChanged(1, 20), PrivateRowsChanged(2, 40),
    ]  # fmt: skip


def test_its_threads_end_with_it(tmp_path, bench):
    text = '[store]\nawaiting = 10\n[store.late_labels]\ntopic = "labels"\n[store.late_labels.broker]\nport = 1\n'
    names = lambda: {thread.name for thread in threading.enumerate()}  # noqa: E731
    with kept(settings(tmp_path, text), bench.bundle.manifest, lambda _: None):
        assert {"private tend", "private listen", "link dev-1-labels"} <= names()
    wait_until(lambda: not any(name.startswith("private ") for name in names()))


def test_the_masks_of_a_store_are_its_own():
    labels = np.zeros(20, np.int64)
    held_out = np.arange(20) == 3
    rows = PrivateRows(np.zeros((20, SIZE), np.uint8), labels, held_out)
    np.testing.assert_array_equal(rows.split()[1], held_out)
    assert replace(rows, is_held_out=None).split()[1].sum() == 0
