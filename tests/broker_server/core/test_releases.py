"""Releases of the student: what the fleet should run, told as rules, on the shelf, and through a whole server."""

import json
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.config import ReleaseSettings
from broker_server.core.delivery import Standing
from broker_server.core.events import (
    ClockTicked,
    EpochBegun,
    MakeRelease,
    OpenRound,
    Order,
    Ordered,
    PublishBundle,
    PublishConsensus,
    PublishRelease,
    Release,
    ReleaseFailed,
    ReleaseMade,
    RolloutHeard,
    Schedule,
    StudentTrained,
    TrainStudent,
)
from broker_server.core.federation import Federation, from_snapshot, named_blobs, outstanding, step, to_snapshot
from broker_server.core.release_gate import ReleaseGate
from broker_server.core.releases import Candidate, Releases, propose
from broker_server.core.rollouts import Rollout
from broker_server.deliveries import find
from broker_server.orders import Spool
from broker_server.settings import MethodSettings
from broker_server.shelf import Shelf
from broker_server.student import Student, StudentTerms, StudentWeights
from fd_protocol import codec, messages
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Role
from fd_protocol.messages import CommandState
from fd_runtime.artifacts import load_bundle
from fd_runtime.packages import unpack
from fd_runtime.space import preprocessed
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.broker_server.artifacts import TASK, three_kinds
from tests.broker_server.builders import EPOCH, FED, made, opened, round_id, stored
from tests.broker_server.world import TOPICS, World, fleet

TEACHING = Schedule(has_student=True, auto_release=True)
CLOSED = (EpochBegun(EPOCH, 0), opened(), *(stored(device) for device in "abc"), made())
THETA, OTHER = sha256(b"theta"), sha256(b"other")


def told(*events, schedule=TEACHING):
    return reduce(step, events, Federation(schedule=schedule))


def effects(state, kind):
    return [effect for effect in outstanding(state) if isinstance(effect, kind)]


def taught(weights=THETA, number=1, **more):
    return StudentTrained(round_id(number), weights, **more)


def released(weights=THETA, number=1, **more):
    known = {"bundle": sha256(b"b" + weights), "version": f"1.r{number}", "package": sha256(b"p"), "package_bytes": 9}
    return ReleaseMade(Release(number, round_id(), weights, **{**known, "is_verified": True, "at_ms": 0, **more}))


def ordered(command, name="one", **said):
    return Ordered(Order(name, 0, "ann", "operator", command, said), 0)


# The rules.


def test_a_student_that_is_better_becomes_a_candidate_and_then_current():
    state = told(*CLOSED, taught(is_better=True))
    assert effects(state, MakeRelease) == [MakeRelease(1, round_id(), THETA, is_verified=True)]
    assert not effects(state, PublishRelease)
    state = step(state, released())
    assert not effects(state, MakeRelease)
    assert effects(state, PublishRelease) == [PublishRelease(released().release)]


def test_a_student_that_is_no_better_is_released_by_order_alone_and_says_that_it_is_not_verified():
    state = told(*CLOSED, taught())
    assert not effects(state, MakeRelease)
    state = step(state, ordered("release"))
    assert state.answers[-1].is_obeyed
    assert effects(state, MakeRelease) == [MakeRelease(1, round_id(), THETA, is_verified=False)]


def test_where_releases_are_not_automatic_a_better_student_waits_for_an_order_and_is_verified():
    state = told(*CLOSED, taught(is_better=True), schedule=Schedule(has_student=True))
    assert not effects(state, MakeRelease)
    (making,) = effects(step(state, ordered("release")), MakeRelease)
    assert making.is_verified


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((), "learnt nothing"),
        ((taught(is_better=True),), "on its way"),
        ((taught(is_better=True), released()), "current already"),
    ],
)
def test_an_order_to_release_what_cannot_be_is_refused(events, words):
    state = told(*CLOSED, *events, ordered("release"))
    assert not state.answers[-1].is_obeyed
    assert words in state.answers[-1].outcome


def test_the_student_is_compared_with_what_the_fleet_runs():
    state = told(*CLOSED)
    assert effects(state, TrainStudent)[0].released == b""
    state = told(*CLOSED, taught(is_better=True), released(), *after(2))
    (training,) = effects(state, TrainStudent)
    assert (training.weights, training.released) == (THETA, THETA)


def after(number):
    """A further round, up to its consensus."""
    return (opened(number), *(stored(device, number) for device in "abc"), made(number))


def test_a_release_that_cannot_be_made_leaves_the_fleet_as_it_was():
    state = told(*CLOSED, taught(is_better=True), ReleaseFailed(THETA, "disk"))
    assert state.releases == Releases()
    foreign = told(*CLOSED, taught(is_better=True), ReleaseFailed(OTHER, "disk"), released(OTHER))
    assert foreign.releases.candidate is not None
    assert not foreign.releases.made


def test_withdrawing_goes_back_one_release_at_a_time_and_at_last_to_the_first_bundle():
    two = told(*CLOSED, taught(is_better=True), released(), *after(2), taught(OTHER, 2, is_better=True))
    two = step(two, released(OTHER, 2))
    one = step(two, ordered("withdraw", "x"))
    assert effects(one, PublishRelease) == [PublishRelease(released().release)]
    none = step(one, ordered("withdraw", "y"))
    assert effects(none, PublishRelease) == [PublishRelease(None)]
    refused = step(none, ordered("withdraw", "z"))
    assert not refused.answers[-1].is_obeyed
    assert refused.releases == none.releases


def test_numbers_of_releases_never_come_back_and_few_are_remembered():
    state = told(*CLOSED)
    for number in range(1, 9):
        weights = sha256(b"%d" % number)
        state = step(step(step(state, taught(weights, is_better=True)), released(weights, number)), ClockTicked(0))
    assert state.releases.count == 8
    assert len(state.releases.made) == 4
    state = step(state, ordered("withdraw"))
    (making,) = effects(step(state, taught(OTHER, is_better=True)), MakeRelease)
    assert making.number == 9
    weights = {release.weights for release in state.releases.made}
    assert weights <= named_blobs(state)
    assert from_snapshot(to_snapshot(state)) == state


def test_one_candidate_at_a_time():
    state = propose(Releases(), Candidate(round_id(), THETA))
    assert propose(state, Candidate(round_id(2), OTHER)) is state


# Some devices first.

FAMILY = "mlp-s"
STAGED = Schedule(has_student=True, auto_release=True, staging={"percent": "10", "stages": "50 100", "soak_s": "60"})


def staged(*events, schedule=STAGED):
    """A first release for all, then one that begins with a tenth."""
    first = told(*CLOSED, taught(is_better=True), released(family=FAMILY), schedule=schedule)
    first = step(first, ordered("rollout-widen", "all", family=FAMILY, percent="100"))
    more = (*after(2), taught(OTHER, 2, is_better=True), released(OTHER, 2, family=FAMILY))
    return reduce(step, (*more, *events), first)


def nudge_of(state):
    (effect,) = effects(state, PublishRelease)
    return effect


def heard(succeeded, failed, weights=OTHER, **more):
    return RolloutHeard(FAMILY, sha256(b"b" + weights), succeeded, failed, **more)


def test_a_release_of_the_student_begins_with_some_and_the_others_run_the_one_before():
    state = staged()
    effect = nudge_of(state)
    assert (effect.release.version, effect.before.version) == ("1.r2", "1.r1")
    assert (effect.share, effect.is_halted) == (0.1, False)
    assert from_snapshot(to_snapshot(state)) == state


def test_it_widens_by_itself_as_anything_else_does():
    state = staged(heard(3, 0), ClockTicked(60_000))
    assert nudge_of(state).share == 0.5
    assert nudge_of(step(state, ClockTicked(120_000))) == PublishRelease(released(OTHER, 2, family=FAMILY).release)


def test_devices_that_go_back_or_fall_silent_halt_it():
    for event in (heard(1, 1), heard(1, 0, lost=1)):
        effect = nudge_of(staged(event))
        assert effect.is_halted
        assert effect.before.version == "1.r1"


def test_while_one_is_on_its_way_no_other_is_made_and_after_a_halt_only_by_order():
    third = sha256(b"third")
    learnt = (*after(3), taught(third, 3, is_better=True))
    assert not effects(staged(*learnt), MakeRelease)
    busy = staged(*learnt, ordered("release"))
    assert "1.r2 is for 10 % of devices" in busy.answers[-1].outcome
    halted = staged(heard(0, 1), *learnt)
    assert not effects(halted, MakeRelease)
    (making,) = effects(step(halted, ordered("release", percent="20")), MakeRelease)
    assert (making.number, making.weights) == (3, third)


def test_what_follows_a_halted_release_takes_its_place_and_its_weights_never_come_back():
    third = sha256(b"third")
    state = staged(heard(0, 1), *after(3), taught(third, 3), ordered("release", percent="20"))
    state = step(state, released(third, 3, family=FAMILY))
    effect = nudge_of(state)
    assert (effect.release.version, effect.before.version, effect.share) == ("1.r3", "1.r1", 0.2)
    again = reduce(
        step, (*after(4), taught(OTHER, 4), ordered("rollout-widen", "w", family=FAMILY, percent="100")), state
    )
    refused = step(again, ordered("release", "again"))
    assert "halted before" in refused.answers[-1].outcome
    assert not effects(refused, MakeRelease)


def test_a_halted_release_is_resumed_or_withdrawn_and_withdrawn_it_is_known_bad():
    halted = staged(heard(0, 1))
    assert "is halted" in step(halted, ordered("release", "x")).answers[-1].outcome
    assert not nudge_of(step(halted, ordered("rollout-resume", "y", family=FAMILY))).is_halted
    for said in ({}, {"family": FAMILY}):
        back = step(halted, ordered("withdraw", "z", **said))
        assert back.answers[-1].outcome == "1.r2 withdrawn, 1.r1 is current"
        assert nudge_of(back) == PublishRelease(released(family=FAMILY).release)
        assert back.releases.bad == (OTHER,)
    assert staged(ordered("withdraw", "z")).releases.bad == ()  # nothing was wrong with it


def test_another_student_is_compared_with_what_most_of_the_fleet_runs():
    for event, runs in ((heard(1, 0), OTHER), (heard(0, 1), THETA)):
        (training,) = effects(staged(event, *after(3)), TrainStudent)
        assert training.released == runs


def test_an_order_says_as_a_whole_who_begins():
    state = told(*CLOSED, taught(), ordered("release", tags="canary", percent="0"), schedule=STAGED)
    assert state.releases.candidate.staging == {"percent": "0", "tags": "canary", "soak_s": "60"}


def test_what_is_published_for_its_family_waits_for_a_release_under_way_and_follows_a_halted_one():
    order = ordered("publish", "p", own="yes", **OWN)
    assert "under way" in step(staged(), order).answers[-1].outcome
    state = step(staged(heard(0, 1)), order)
    assert state.answers[-1].is_obeyed
    assert [one.version for one in state.releases.made] == ["1.r1"]
    assert state.releases.bad == (OTHER,)


BUNDLE = sha256(b"2")
OWN = {"family": FAMILY, "bundle": BUNDLE.hex(), "version": "2", "package": sha256(b"p2").hex(), "package_bytes": "9"}
START = ordered("publish", "p", own="yes", percent="5", **OWN)


def test_what_is_published_for_its_family_calls_off_a_release_that_is_being_made():
    state = told(*CLOSED, taught(is_better=True), START)
    assert not effects(state, MakeRelease)
    late = step(state, released(family=FAMILY))
    assert late.releases == state.releases
    (nudge,) = effects(step(late, RolloutHeard(FAMILY, BUNDLE, 1, 3)), PublishBundle)
    assert (nudge.published.bundle, nudge.share, nudge.is_halted) == (BUNDLE, 0.05, True)


def test_what_is_published_for_another_family_calls_nothing_off():
    state = told(*CLOSED, taught(is_better=True), ordered("publish", "p", **{**OWN, "family": "cnn-m"}))
    assert effects(state, MakeRelease)


def test_a_candidate_of_an_earlier_server_is_no_release_while_something_is_published_for_its_family():
    """Its snapshot, written after the order: what was being made then goes on being made, and counts for nothing."""
    being_made = told(*CLOSED, taught(is_better=True)).releases.candidate
    state = told(*CLOSED, START)
    old = replace(state, releases=replace(state.releases, candidate=being_made))
    assert step(from_snapshot(to_snapshot(old)), released(family=FAMILY)) == state


def test_a_rollout_of_another_bundle_sends_what_is_published_to_nobody_more():
    """As an earlier server left it: the student's release took the place of the rollout of what was published."""
    state = told(*CLOSED, START)
    other = Rollout(FAMILY, released().release.bundle)
    old = replace(state, releases=replace(state.releases, made=(released().release,), rollouts=(other,)))
    (nudge,) = effects(old, PublishBundle)
    assert (nudge.published.bundle, nudge.share, nudge.tags, nudge.is_halted) == (BUNDLE, 0.0, (), True)
    assert (nudge.before, nudge.release) == (None, None)


def test_a_release_of_an_earlier_server_is_for_all():
    old = told(*CLOSED, taught(is_better=True), released())
    assert old.releases.rollouts == ()
    assert nudge_of(old).share == 1.0


# What goes out.

SPEAKING = Schedule(has_student=True, student_speaks=True)
SPOKEN = (sha256(b"spoken"),)


def test_where_the_student_speaks_its_word_goes_out_and_the_next_round_waits_for_it():
    owed = told(*CLOSED, ClockTicked(70_000), schedule=SPEAKING)
    assert not effects(owed, PublishConsensus)
    assert not effects(owed, OpenRound)
    assert effects(owed, TrainStudent)[0].speaks
    state = step(owed, taught(blocks=SPOKEN))
    assert effects(state, PublishConsensus) == [PublishConsensus(round_id(), SPOKEN)]
    assert set(SPOKEN) <= named_blobs(state)
    assert not effects(step(owed, ordered("round-now")), OpenRound)
    assert effects(step(state, ordered("round-now")), OpenRound)


def test_a_student_that_fails_lets_the_consensus_itself_go_out():
    state = told(*CLOSED, taught(b"", metrics={"failed_ValueError": 1.0}), schedule=SPEAKING)
    (publishing,) = effects(state, PublishConsensus)
    assert publishing.blocks == made().blocks


# The shelf, and a whole server, with a real bundle.

PROBES = 20


@pytest.fixture(scope="module")
def samples():
    return three_kinds(PROBES)


@pytest.fixture(scope="module")
def first(tmp_path_factory, samples):
    """A bundle whose factory took every class for the next one."""
    (pictures, labels), recipe = samples, Recipe("s", "mlp-s", trains="everything")
    wrong = FactoryData(pictures, (labels + 1) % 3, pictures)
    return build(recipe, TASK, wrong, tmp_path_factory.mktemp("first") / "bundle")


def student_of(bundle, samples, canaries=PROBES, **terms):
    known = LabelledProbes(tuple(range(canaries)), tuple(samples[1][:canaries].tolist()))
    terms = StudentTerms(**{"epochs": 60, "learning_rate": 0.02, **terms})
    return Student(bundle.open("onnxruntime"), bundle.digest, preprocessed(samples[0], TASK), terms, known)


def weights_of(bundle, seed=0):
    theta = np.frombuffer(bundle.read(Role.THETA), "<f4")
    return StudentWeights(bundle.digest, np.random.default_rng(seed).normal(size=theta.size).astype("<f4").tobytes())


def test_a_package_makes_the_students_bundle_of_the_first_one(first, samples, tmp_path):
    weights = weights_of(first)
    shelved = Shelf(first, tmp_path / "shelf").put(3, weights)
    package = (tmp_path / "shelf" / "web" / "v1" / "blobs" / shelved.package.hex()).read_bytes()
    assert (sha256(package), len(package)) == (shelved.package, shelved.package_bytes)
    bundle = unpack(package, tmp_path / "device", parent=first.folder)
    assert bundle.digest == shelved.bundle.digest
    assert bundle.manifest.parent == first.digest.hex()
    inputs = preprocessed(samples[0], TASK)
    theirs, mine = bundle.open("onnxruntime").tail, first.open("onnxruntime").tail
    mine.load(np.frombuffer(weights.theta, "<f4").astype(np.float32))
    np.testing.assert_array_equal(theirs.logits(inputs), mine.logits(inputs))


def test_the_same_weights_twice_are_the_same_files_and_half_a_release_is_made_anew(first, tmp_path):
    shelf = Shelf(first, tmp_path)
    once = shelf.put(1, weights_of(first))
    (once.bundle.folder / once.bundle.manifest.files[Role.TAIL].path).unlink()
    again = shelf.put(1, weights_of(first))
    assert (again.bundle.digest, again.package) == (once.bundle.digest, once.package)
    assert load_bundle(again.bundle.folder).digest == once.bundle.digest
    other = shelf.put(1, weights_of(first, seed=1))  # a database that was restored counts from an earlier number
    assert other.bundle.digest != once.bundle.digest


def test_weights_of_another_bundle_are_no_release(first, tmp_path):
    with pytest.raises(InvalidValueError, match="another bundle"):
        Shelf(first, tmp_path).put(1, StudentWeights(b"x" * 32, weights_of(first).theta))


def truth_of(samples):
    return (0.05 + 0.85 * np.eye(3, dtype=np.float32))[samples[1]]


def play_round(world, samples):
    for device in fleet(world):
        device.contribute(probabilities=truth_of(samples))


def nudge(world, family):
    return codec.decode(world.link.retained[TOPICS.release(family)], messages.Release)


def test_a_server_releases_a_student_that_has_become_better_and_takes_it_back_when_told(first, samples, tmp_path):
    shelf, family = Shelf(first, tmp_path / "shelf"), first.manifest.family
    world = World(
        tmp_path / "s.db", student=student_of(first, samples), shelf=shelf, gate=ReleaseGate(), auto_release=True
    )
    play_round(world, samples)
    metrics = world.state.student.metrics
    assert metrics["accuracy"] == 1.0
    assert metrics["release_gain"] > 0.3
    assert metrics["release_p"] < 0.05
    told = nudge(world, family)
    assert told.is_verified
    assert told.parent == first.digest
    assert load_bundle(shelf.folder / told.version).digest == told.bundle
    world.drop()  # the broker forgot everything
    assert nudge(world, family) == told
    world.restart()
    assert nudge(world, family) == told
    world.server._reconciler.submit([ordered("withdraw")])
    assert nudge(world, family).bundle == first.digest
    assert not nudge(world, family).package


def test_a_student_is_staged_through_a_whole_server_and_halted_by_devices(first, samples, tmp_path):
    """One device of three is a canary; it goes back, and the others never begin. The operator withdraws it."""
    shelf, family = Shelf(first, tmp_path / "shelf"), first.manifest.family
    world = World(
        tmp_path / "s.db",
        student=student_of(first, samples),
        shelf=shelf,
        gate=ReleaseGate(),
        auto_release=True,
        staging={"percent": "0", "tags": "canary"},
        spool=Spool(tmp_path / "orders"),
    )
    follows = {"family": family, "bundle": first.digest, "capabilities": ("u8-sqrt", "commands", "releases")}
    devices = [world.device(name, **follows) for name in "abc"]
    world.give("tag", device="a", tags="canary")
    for device in devices:
        device.contribute(probabilities=truth_of(samples))
    told = nudge(world, family)
    assert (told.bundle, told.package) == (first.digest, b"")
    assert told.staged.bundle == world.state.releases.current.bundle
    assert [told.staged.is_for(name) for name in "abc"] == [True, False, False]
    assert find(world.store, FED, "a").standing is Standing.ASKED
    assert find(world.store, FED, "b") is None
    back = messages.Command(told.staged.bundle.hex()[:32], "model", CommandState.FAILED, 1, reason="a clear loss")
    world.arrive(TOPICS.command("a", "model"), codec.encode(back))
    world.settle()
    halted = nudge(world, family)
    assert (halted.staged.share, halted.staged.named) == (0.0, ())
    world.restart()
    assert nudge(world, family) == halted
    assert world.give("withdraw", family=family).is_obeyed
    assert nudge(world, family).staged is None
    assert nudge(world, family).bundle == first.digest


def test_an_order_to_release_that_cannot_be_staged_is_refused_by_a_whole_server(first, samples, tmp_path):
    world = World(tmp_path / "s.db", student=student_of(first, samples), spool=Spool(tmp_path / "orders"))
    play_round(world, samples)
    refused = world.give("release", percent="50", stages="20")
    assert not refused.is_obeyed
    assert "each stage is wider" in refused.outcome
    assert world.state.releases.candidate is None


def test_a_student_that_is_as_good_as_the_current_release_is_not_released_again(first, samples, tmp_path):
    world = World(
        tmp_path / "s.db",
        student=student_of(first, samples),
        shelf=Shelf(first, tmp_path / "shelf"),
        gate=ReleaseGate(),
        auto_release=True,
    )
    for _ in range(3):
        play_round(world, samples)
        world.wait(10)
    assert world.state.releases.count == 1
    assert world.state.student.metrics["release_gain"] == 0


def test_where_the_student_speaks_devices_read_its_own_labels(first, samples, tmp_path):
    pupil = student_of(first, samples, epochs=2)
    world = World(tmp_path / "s.db", student=pupil, method=MethodSettings(downlink="student"))
    play_round(world, samples)
    blocks, read = world.consensus()
    spoken = pupil.speak(world.store.blob(world.state.student.weights), blocks[0].slice, blocks[0].temperature)
    np.testing.assert_allclose(read, spoken.probabilities, atol=0.01)
    assert np.abs(read - truth_of(samples)).max() > 0.1  # two epochs are not enough to say it after them
    assert blocks[0].round == world.state.consensus.round
    assert blocks[0].consensus_sha256 != world.state.consensus.sha256


def test_a_server_without_a_shelf_says_that_it_has_none(first, samples, tmp_path):
    world = World(tmp_path / "s.db", student=student_of(first, samples))
    play_round(world, samples)
    world.server._reconciler.submit([ordered("release")])
    world.settle()
    assert world.state.releases == Releases()


def test_settings_say_how_a_release_is_staged_and_nothing_where_all_is_usual():
    assert ReleaseSettings().staging == {}
    settings = ReleaseSettings(
        percent=5, tags=("canary",), stages=(25, 100), soak_s=86_400, most_failed=5, patience_s=60
    )
    assert settings.staging == {
        "percent": "5",
        "tags": "canary",
        "stages": "25 100",
        "soak_s": "86400",
        "most_failed": "5",
        "patience_s": "60",
    }
    with pytest.raises(InvalidValueError):
        ReleaseSettings(percent=50, stages=(20,))


def test_releases_are_listed(first, samples, tmp_path, capsys):
    assert main(["init", str(tmp_path), "--federation", "demo"]) == 0
    path = tmp_path / CONFIG_NAME
    (tmp_path / "state").mkdir()
    world = World(
        tmp_path / "state" / "server.db",
        student=student_of(first, samples),
        shelf=Shelf(first, tmp_path / "state" / "releases"),
        gate=ReleaseGate(),
        auto_release=True,
    )
    assert main(["releases", "--config", str(path)]) == 0
    assert "born with" in capsys.readouterr().out
    play_round(world, samples)
    assert main(["releases", "--config", str(path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["releases"]
    assert row["current"]
    assert row["verified"]
    assert row["bundle"] == nudge(world, first.manifest.family).bundle.hex()
