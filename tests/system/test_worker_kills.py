"""The real worker process, killed in the middle of trainings, and short of memory. Jobs come from the test.

FEDISTILL_KILLS=12 pytest tests/system/test_worker_kills.py      the whole; without the variable a few kills
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.jobs import TrainJob, WarmUpJob, decode_answer, encode_job, read_frame, write_frame
from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.checkpoint import Progress
from edge_agent.privacy.ledger import Ledger
from edge_agent.process.notices import KINDS
from edge_agent.process.pipe import READY
from edge_agent.round.events import Task, Trained, WarmedUp, Work, WorkFailed
from fd_protocol import cbor, codec
from fd_protocol.identity import sha256
from fd_protocol.messages import Codec, ConsensusBlock, PrivacyTerms, Slice, TrainingTerms
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.artifacts import load_public_set
from tests.edge_agent.artifacts import CLASSES, clouds, write_bundle, write_private, write_public_set
from tests.edge_agent.builders import round_id
from tests.edge_agent.privacy.private_device import bundle_folder
from tests.edge_agent.processes import settings_text
from tests.support.patience import wait_until
from tests.support.programs import patient

pytestmark = pytest.mark.system

TERMS = TrainingTerms(epochs=25, learning_rate=5e-3, warm_up_epochs=25)
PRIVACY = PrivacyTerms(epsilon=8.0, steps=250, sampling_rate=0.5, learning_rate=1e-2, rows=600)
KILLS = int(os.environ.get("FEDISTILL_KILLS", "3"))
"""Of each training."""
_ANSWER_S = 300.0
"""A whole training, on a slow machine."""


class Worker:
    """A worker process of its own in a folder, and whoever asks it."""

    def __init__(self, folder, bundle=None, rows=600):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if bundle is None:
            write_bundle(folder / "bundle")
        else:
            shutil.copytree(bundle, folder / "bundle")
        self.public = load_public_set(write_public_set(folder / "public"))
        write_private(folder / "private.npz", rows)
        (folder / "state").mkdir()
        runtime = "numpy" if bundle is None else "onnxruntime"
        self.config = folder / "agent.toml"
        text = settings_text(1883, model__runtime=runtime)
        self.config.write_text(f"{text}\n[training]\ncheckpoint_s = 1e-6\nflash_mb_per_day = 0.0\nmax_c = 0.0\n")
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "edge_agent.worker_process", str(self.config)]
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        assert self.hear() == READY, (self.folder / "log").read_text()
        return self

    def hear(self):
        """The next frame that is no notice; None: the worker is gone."""
        with patient(self.process, _ANSWER_S):
            while (data := read_frame(self.process.stdout)) is not None:
                if data == READY or cbor.decode(data)[0] not in KINDS:
                    return data
        return None

    def ask(self, job):
        write_frame(self.process.stdin, encode_job(job))

    def answer(self):
        return decode_answer(self.hear()).event

    def do(self, job):
        self.ask(job)
        return self.answer()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        with patient(self.process):
            self.process.wait()

    def steps_done(self, name):
        """How many steps of the training under way are on the disk."""
        found = checkpoints.load_record(self.folder / "state" / f"{name}.progress", Progress)
        return 0 if found is None else found.done

    def checkpoint(self, name="checkpoint"):
        return (self.folder / "state" / name).read_bytes()

    def ledger_entries(self):
        return Ledger(self.folder / "state" / "privacy").entries()

    def train_job(self):
        labels = np.arange(60) % CLASSES
        body = encode_body(quantise(SoftLabels.of(np.eye(CLASSES, dtype=np.float32)[labels] * 4, 2.0), Codec.U8_SQRT))
        part = Slice(self.public.digest, 0, 60, CLASSES)
        block = ConsensusBlock(round_id(), sha256(body), 0, 1, part, 2.0, Codec.U8_SQRT, body)
        return TrainJob(Work(Task.TRAIN, round_id()), sha256(body), (codec.encode(block),), TERMS)


def warm_up(privacy=PrivacyTerms()):  # noqa: B008 - frozen
    return WarmUpJob(Work(Task.WARM_UP, round_id()), TERMS, privacy)


@pytest.fixture
def workers(tmp_path):
    made = []

    def make(name, **options):
        made.append(Worker(tmp_path / name, **options))
        return made[-1]

    yield make
    for worker in made:
        if worker.process is not None and worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def kill_at_random_steps(worker, job, name, dice):
    """Kill it again and again, each time some steps further on, and let it finish in the end."""
    done = 0
    for _ in range(KILLS):
        worker.start()
        worker.ask(job)
        aim = done + dice.randint(1, 35)
        wait_until(lambda aim=aim: worker.steps_done(name) >= aim or worker.process.poll() is not None)
        worker.kill()
        assert worker.steps_done(name) >= done, "what was saved stays saved"
        done = worker.steps_done(name)
    assert done >= KILLS
    return worker.start().do(job)


def test_trainings_killed_at_random_steps_end_in_the_very_bits_of_undisturbed_ones(workers, says):
    seed = int.from_bytes(os.urandom(2), "big")
    dice = random.Random(seed)
    twin, worker = workers("twin").start(), workers("killed")
    assert twin.do(warm_up()) == WarmedUp()
    assert kill_at_random_steps(worker, warm_up(), "checkpoint", dice) == WarmedUp()
    assert worker.checkpoint() == twin.checkpoint(), f"seed {seed}"
    worker.kill()
    expected = twin.do(twin.train_job())
    assert isinstance(expected, Trained)
    assert kill_at_random_steps(worker, worker.train_job(), "checkpoint", dice) == expected
    assert worker.checkpoint() == twin.checkpoint(), f"seed {seed}"
    says(f"{2 * KILLS} kills of a training worker, seed {seed}: the same bits")


def test_a_private_training_killed_at_random_steps_is_charged_once_and_has_the_very_same_noise(workers, says):
    seed = int.from_bytes(os.urandom(2), "big")
    dice = random.Random(seed)
    worker, twin = (workers(name, bundle=bundle_folder()) for name in ("killed", "twin"))
    worker.start()
    worker.ask(warm_up(PRIVACY))
    wait_until(worker.ledger_entries)
    worker.kill()  # charged, and perhaps a few steps taken
    shutil.copytree(worker.folder / "state" / "privacy", twin.folder / "state" / "privacy")
    assert kill_at_random_steps(worker, warm_up(PRIVACY), "checkpoint-private", dice) == WarmedUp(is_private=True)
    assert twin.start().do(warm_up(PRIVACY)) == WarmedUp(is_private=True)
    assert worker.checkpoint("checkpoint-private") == twin.checkpoint("checkpoint-private"), f"seed {seed}"
    for each in (worker, twin):
        (entry,) = each.ledger_entries()
        assert not entry.is_open
        assert not (each.folder / "state" / "privacy" / "noise.key").exists()
    says(f"{KILLS + 1} kills between charge and publication, seed {seed}: one charge, the same bits")


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
def test_a_training_that_runs_out_of_memory_fails_with_a_reason_and_costs_nothing_else(workers, runtime):
    worker = workers("device", bundle=None if runtime == "numpy" else bundle_folder())
    samples, labels = clouds(1_000_000, seed=1)
    np.savez(worker.folder / "private.npz", x=samples, y=labels)
    worker.start()
    soft, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_AS)
    used = int(_status(worker.process.pid, "VmSize")) * 1024
    resource.prlimit(worker.process.pid, resource.RLIMIT_AS, (used + (24 << 20), hard))
    failed = worker.do(worker.train_job())
    assert isinstance(failed, WorkFailed)
    assert "memory" in failed.reason.lower() or "alloc" in failed.reason.lower()
    assert worker.process.poll() is None, "the worker lives, and the model with it"
    assert not (worker.folder / "state" / "checkpoint").exists()
    resource.prlimit(worker.process.pid, resource.RLIMIT_AS, (soft, hard))
    few = TrainingTerms(epochs=1, warm_up_epochs=0)
    assert worker.do(WarmUpJob(Work(Task.WARM_UP, round_id()), few)) == WarmedUp()


def _status(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_what_the_worker_writes_is_counted(workers):
    worker = workers("device").start()
    worker.do(warm_up())
    worker.kill()
    counted = json.loads((worker.folder / "state" / "wear.json").read_text())
    assert counted["written_bytes"] >= 0
    assert str(worker.process.pid) in " ".join(counted["seen"])
