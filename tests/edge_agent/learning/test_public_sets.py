"""Several public sets on one device: found by digest, asked about one at a time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from edge_agent.care.status import facts
from edge_agent.equipment import load_equipment
from edge_agent.jobs import CompetenceJob, PredictJob, TrainJob
from edge_agent.learning.seen import SeenProbes, SeenSets
from edge_agent.private.data import PrivateRows
from edge_agent.round.events import ProbesNamed, Task, Work
from edge_agent.round.journal import Journal
from edge_agent.worker_core import WorkerCore
from fd_protocol import codec
from fd_protocol.errors import DecodeError
from fd_protocol.identity import sha256
from fd_protocol.messages import (
    CompetenceMap,
    Contribution,
    Kind,
    ProbeNotice,
    PublicSetRef,
    Slice,
)
from fd_runtime.artifacts import load_bundle, load_public_set
from fd_runtime.storage.store import Store
from model_export.public_set import build_public_set
from tests.edge_agent.artifacts import CLASSES, TASK, clouds, write_bundle, write_public_set
from tests.edge_agent.builders import PUBLIC_SET, offer, round_id
from tests.edge_agent.wire import TOPICS, Device, consensus_block

NEW = sha256(b"a new public set")
SLICE = Slice(NEW, 0, 4, 3)


def notice(*coming):
    sets = [PublicSetRef(digest, 8, 100) for digest in (PUBLIC_SET, *coming)]
    return ProbeNotice(sets[0], tuple(sets[1:]))


@pytest.fixture
def source(tmp_path):
    """The folder of a public set that is somewhere else."""
    return write_public_set(tmp_path / "stick")


@pytest.fixture
def config(tmp_path):
    """Settings of a device with a set of 40 probes."""
    write_bundle(tmp_path / "bundle")
    build_public_set(tmp_path / "home", clouds(40, seed=8)[0], TASK, seed=3, dimensions=3)
    settings = '[device]\nid = "d"\nfederation = "test"\n[model]\nbundle = "bundle"\npublic_set = "home"\n'
    (tmp_path / "agent.toml").write_text(f'{settings}[state]\nfolder = "state"\n')
    return tmp_path / "agent.toml"


def test_a_device_that_starts_knows_all_its_sets(config, source):
    equipment = load_equipment(config)
    assert equipment.profile(0).further == {}
    added = equipment.further.add(source)
    equipment.further.add(config.parent / "home")  # the same as in the settings
    assert equipment.find_set(added.digest) == 60
    profile = equipment.profile(0)
    assert profile.further == {added.digest: 60}
    assert [profile.probes_of(digest) for digest in (*profile.public_sets, NEW)] == [40, 60, 0]


def test_status_names_the_sets_that_are_lacking(config, source):
    equipment = load_equipment(config)
    home, digest = equipment.public.digest, load_public_set(source).digest
    equipment.settings.state.folder.mkdir()
    with closing(Store.open(equipment.settings.state.store)) as store:
        Journal(store, "test").write([ProbesNamed((home, digest))], [], 0)
    assert facts(config)["lacks"] == f"public set {digest.hex()}"
    equipment.further.add(source)
    assert "lacks" not in facts(config)


# At the agent.


def test_a_device_takes_part_in_rounds_about_each_set_that_it_has():
    device = Device(find_set=lambda digest: 8 * (digest == NEW))
    device.hear_offer(1)
    device.hear_receipt(device.parts()[-1])
    device.hear_offer(2, slice=SLICE, competence=True)
    assert device.state.objection == ""
    assert [job.public_set for job in device.model.jobs if isinstance(job, CompetenceJob)] == [NEW]
    assert len(device.parts()) == 2
    assert device.births()[-1].public_sets == (PUBLIC_SET, NEW)
    device.hear_offer(3, competence=True)
    assert device.state.objection == ""
    assert [part.round.number for part in device.parts(Kind.COMPETENCE)][-1] == 3


def test_a_consensus_on_a_further_set_is_learnt_and_on_an_unknown_one_dropped():
    for known, jobs in ((NEW, 1), (PUBLIC_SET, 0)):
        device = Device(find_set=lambda digest, known=known: 8 * (digest == known))
        device.hear_offer(1)
        device.hear_receipt(device.parts()[-1])
        device.hear(TOPICS.consensus(0), replace(consensus_block(), slice=replace(SLICE, count=8)))
        assert sum(isinstance(job, TrainJob) for job in device.model.jobs) == jobs


def test_a_slice_beyond_the_end_of_its_set_is_objected_to():
    device = Device(find_set=lambda digest: 3 * (digest == NEW))
    device.hear_offer(1, slice=SLICE)
    assert device.state.objection == "slice_out_of_range"


def test_a_device_that_lacks_a_set_says_so_and_looks_again_until_it_has_come(caplog):
    disk = {}
    device = Device(find_set=lambda digest: disk.get(digest, 0))
    device.hear(TOPICS.probes, notice(NEW))
    assert device.state.named_sets == (PUBLIC_SET, NEW)
    assert f"public set {NEW.hex()}, which is not here" in caplog.text
    assert device.births()[-1].public_sets == (PUBLIC_SET,)
    disk[NEW] = 8
    device.pump()
    assert device.births()[-1].public_sets == (PUBLIC_SET,)
    device.ms += 60_000
    device.pump()
    assert device.births()[-1].public_sets == (PUBLIC_SET, NEW)
    device.hear_offer(1, slice=SLICE)
    assert device.state.objection == ""


def test_a_device_that_lacks_nothing_does_not_look():
    asked = []
    device = Device(find_set=lambda digest: asked.append(digest) or 0)
    device.hear(TOPICS.probes, notice())
    device.ms += 600_000
    device.pump()
    assert asked == []


def test_what_the_server_said_of_its_sets_is_known_after_a_restart():
    device = Device()
    device.hear(TOPICS.probes, notice(NEW))
    device.restart()
    assert device.state.named_sets == (PUBLIC_SET, NEW)


# At the worker.


class Bench:
    """A core with two sets, and a count of how often one is opened."""

    def __init__(self, folder):
        write_bundle(folder / "bundle")
        model = load_bundle(folder / "bundle").open("numpy")
        self.home = load_public_set(write_public_set(folder / "home"))
        build_public_set(folder / "other", clouds(50, seed=6)[0], TASK, seed=4, dimensions=3)
        self.other, self.opened = load_public_set(folder / "other"), []
        samples, labels = clouds(120, seed=9)
        sets = SeenSets(SeenProbes(self.home, model), self.find, model)
        self.core = WorkerCore(model, sets, PrivateRows(samples, labels), None, device="d")

    def find(self, digest):
        self.opened.append(digest)
        return self.other if digest == self.other.digest else self.home if digest == self.home.digest else None

    def predict(self, digest, count):
        asked = offer(slice=Slice(digest, 0, count, CLASSES))
        answer = self.core.handle(PredictJob(Work(Task.PREDICT, round_id()), asked))
        return answer, codec.decode(answer.blobs[0], Contribution) if answer.blobs else None


def test_a_worker_answers_about_the_set_that_it_is_asked_about(tmp_path):
    bench = Bench(tmp_path)
    for public in (bench.home, bench.other):
        _, contribution = bench.predict(public.digest, 50)
        assert contribution.slice.public_set == public.digest
        answer = bench.core.handle(CompetenceJob(Work(Task.MAP_COMPETENCE, round_id()), 0, public.digest))
        mapped = codec.decode(answer.blobs[0], CompetenceMap)
        assert (mapped.public_set, mapped.count) == (public.digest, public.spec.count)


def test_two_sets_are_answered_about_differently(tmp_path):
    bench = Bench(tmp_path)
    first, second = (bench.predict(public.digest, 50)[1] for public in (bench.home, bench.other))
    assert first.body != second.body


def test_one_set_is_kept_at_a_time(tmp_path):
    bench = Bench(tmp_path)
    for public in (bench.home, bench.other, bench.other, bench.home):
        bench.predict(public.digest, 50)
    assert bench.opened == [bench.other.digest, bench.home.digest]


def test_a_job_about_a_set_that_is_not_there_fails(tmp_path):
    bench = Bench(tmp_path)
    answer, _ = bench.predict(NEW, 50)
    assert "unknown_public_set" in answer.event.reason
    with pytest.raises(DecodeError):
        SeenProbes(bench.home, load_bundle(tmp_path / "bundle").open("numpy")).seen(NEW)
    _, contribution = bench.predict(bench.home.digest, 50)
    assert contribution.slice.public_set == bench.home.digest
