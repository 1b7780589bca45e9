"""A bundle for some devices first: how far it is, what halts it, and what devices hear of it."""

import json
from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.core.delivery import Standing
from broker_server.core.events import ClockTicked, Order, Ordered, PublishBundle, RolloutHeard
from broker_server.core.federation import Federation, from_snapshot, outstanding, step, to_snapshot
from broker_server.core.rollouts import Rollout, heard, resume, started_by, ticked, widen
from broker_server.deliveries import Deliveries, find, lost
from broker_server.orders import Spool
from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Command, CommandState, DeviceState, Release
from fd_runtime.links.link import LinkDown, LinkUp
from tests.broker_server.builders import FED, TASK
from tests.broker_server.test_publishing import effects, order, told
from tests.broker_server.world import TOPICS, World, fleet

FAMILY = "cnn-m"
BUNDLE = sha256(b"bundle 2")


def started(**said):
    return started_by(said, FAMILY, BUNDLE, at_ms=1000)


def ordered(command, number=50, **said):
    return Ordered(Order(f"{command}-{number}", 0, "ann", "operator", command, said), 9000)


STAGED = {"percent": "5", "tags": "canary", "stages": "25 100", "soak_s": "60"}


@pytest.fixture
def state():
    """One bundle is for all; the next begins with a few."""
    return told(order(1), order(2, **STAGED))


def rollout(state):
    return state.releases.rollout_of(FAMILY)


def nudge(state):
    (effect,) = effects(state, PublishBundle)
    return effect


# The rules.


def test_without_a_word_all_devices_are_meant():
    assert started().is_for_all
    assert nudge(told(order(1))) == PublishBundle(nudge(told(order(1))).published)


def test_a_bundle_begins_with_some_and_the_others_run_what_was_before(state):
    effect = nudge(state)
    assert (effect.published.version, effect.before.version) == ("2", "1")
    assert (effect.share, effect.tags, effect.is_halted) == (0.05, ("canary",), False)
    assert "5 % of devices and tag canary, then 25 %, 100 %" in state.answers[-1].outcome
    assert from_snapshot(to_snapshot(state)) == state


@pytest.mark.parametrize(
    "said",
    [
        {"percent": "101"},
        {"percent": "-1"},
        {"percent": "many"},
        {"percent": "50", "stages": "25"},
        {"stages": "100 100"},
        {"most_failed": "200"},
        {"soak_s": "-1"},
        {"tags": "NO TAG"},
    ],
)
def test_a_rollout_that_cannot_be_is_none(said):
    with pytest.raises((ValueError, InvalidValueError)):
        started(**said)


def test_it_widens_by_itself_once_it_has_soaked_and_somebody_runs_it():
    first = started(**STAGED)
    assert ticked(first, 10_000_000) is first  # nobody runs it yet
    runs = heard(first, 1, 0)
    assert ticked(runs, 60_999) is runs
    second = ticked(runs, 61_000)
    assert (second.share, second.stages, second.since_ms) == (0.25, (1.0,), 61_000)
    assert ticked(second, 61_001) is second
    assert ticked(second, 121_000).is_for_all


def test_the_clock_widens_it_in_the_state(state):
    state = step(state, RolloutHeard(FAMILY, BUNDLE, 3, 0))
    state = step(state, ClockTicked(10_000_000))
    assert rollout(state).share == 0.25
    assert nudge(state).share == 0.25
    last = step(state, ClockTicked(20_000_000))
    assert nudge(last) == PublishBundle(nudge(last).published)


@pytest.mark.parametrize(
    ("succeeded", "failed", "is_halted"), [(0, 1, True), (8, 1, True), (9, 1, False), (18, 2, False), (17, 2, True)]
)
def test_too_many_that_refuse_it_halt_it(state, succeeded, failed, is_halted):
    state = step(state, RolloutHeard(FAMILY, BUNDLE, succeeded, failed))
    assert bool(rollout(state).halted) is is_halted
    assert nudge(state).is_halted is is_halted


def test_what_is_halted_does_not_widen(state):
    state = reduce(step, [RolloutHeard(FAMILY, BUNDLE, 5, 5), ClockTicked(10**9)], state)
    assert rollout(state).share == 0.05
    assert "5 of 10 devices refused it" in rollout(state).halted


def test_a_bundle_that_all_run_is_halted_as_well():
    state = step(told(order(1), order(2)), RolloutHeard(FAMILY, BUNDLE, 1, 3))
    effect = nudge(state)
    assert (effect.is_halted, effect.before.version) == (True, "1")


def test_what_is_told_of_another_bundle_changes_nothing(state):
    assert step(state, RolloutHeard(FAMILY, sha256(b"other"), 0, 9)) is state
    assert step(state, RolloutHeard("mlp-s", BUNDLE, 0, 9)) is state


def test_an_operator_halts_resumes_and_widens(state):
    halted = step(state, ordered("rollout-halt", family=FAMILY, reason="a smell of smoke"))
    assert "a smell of smoke" in halted.answers[-1].outcome
    resumed = step(halted, ordered("rollout-resume", family=FAMILY))
    assert not rollout(resumed).halted
    wider = step(resumed, ordered("rollout-widen", family=FAMILY, percent="30"))
    assert (rollout(wider).share, rollout(wider).stages) == (0.3, (1.0,))
    assert not step(resumed, ordered("rollout-resume", 51, family=FAMILY)).answers[-1].is_obeyed


def test_what_failed_before_it_was_resumed_is_forgiven(state):
    bad = heard(rollout(state), 1, 2)
    assert bad.halted
    again = heard(resume(bad, 5), 2, 2)
    assert not again.halted
    assert heard(again, 2, 3).halted


@pytest.mark.parametrize("said", [{"percent": "4"}, {"percent": "x"}, {}])
def test_it_gets_no_narrower(state, said):
    after = step(state, ordered("rollout-widen", family=FAMILY, **said))
    assert not after.answers[-1].is_obeyed
    assert rollout(after) == rollout(state)


def test_devices_that_are_lost_count_as_those_that_went_back():
    assert not heard(started(), 9, 0, lost=1).halted
    halted = heard(started(), 8, 0, lost=1)
    assert halted.halted == "1 of 9 devices refused it, went back or fell silent"
    assert "1 fell silent" in halted.words
    assert heard(started(), 8, 1, lost=1).halted.startswith("2 of 10")


def test_silence_alone_halts_nothing_but_no_stage_begins_while_too_many_are_silent():
    staged = started(**STAGED)
    assert not heard(staged, 1, 0, silent=5).halted
    assert ticked(heard(staged, 9, 0, silent=2), 10_000_000).share == 0.05
    assert ticked(heard(staged, 9, 0, silent=1), 10_000_000).share == 0.25


def test_who_was_lost_before_it_was_resumed_is_forgiven_and_may_come_back():
    again = resume(heard(started(), 1, 0, lost=2), 5)
    assert not heard(again, 1, 0, lost=2).halted
    back = heard(again, 2, 0, lost=1)
    assert (back.forgiven, back.bad) == (1, 0)
    assert heard(back, 2, 1, lost=1).halted


COUNTS = st.integers(0, 40)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.floats(0.0, 1.0))
def test_it_halts_where_the_bad_are_more_than_their_share_of_the_judged_and_only_there(
    succeeded, failed, lost, silent, most_failed
):
    before = replace(started(**STAGED), most_failed=most_failed)
    after = heard(before, succeeded, failed, lost, silent)
    bad, judged = failed + lost, succeeded + failed + lost
    assert bool(after.halted) is (bad > 0 and bad > most_failed * judged)
    assert heard(after, succeeded, failed, lost, silent) == after
    assert not heard(resume(after, 5), succeeded, failed, lost, silent).halted
    if ticked(after, 10**9) is not after:  # whoever is silent now may be lost later: the next stage could bear it
        assert not heard(before, succeeded, failed, lost + silent).halted


def test_an_order_about_no_rollout_is_refused(state):
    for command in ("rollout-widen", "rollout-halt", "rollout-resume"):
        assert not step(state, ordered(command, family="mlp-s")).answers[-1].is_obeyed
        assert not step(state, ordered(command)).answers[-1].is_obeyed


def test_a_tag_is_added():
    wider = widen(started(**STAGED), {"tags": "lab"}, 5)
    assert (wider.share, wider.tags) == (0.05, ("canary", "lab"))


def test_nothing_else_is_published_while_a_bundle_is_under_way(state):
    after = step(state, order(3))
    assert "under way" in after.answers[-1].outcome
    assert nudge(after).published.version == "2"


def test_what_follows_a_halted_bundle_does_not_fall_back_on_it(state):
    halted = step(state, ordered("rollout-halt", family=FAMILY))
    after = step(halted, order(3, percent="10"))
    assert (nudge(after).published.version, nudge(after).before.version) == ("3", "1")


def test_withdrawing_takes_it_back_from_those_that_run_it(state):
    after = step(state, order(9, "withdraw", family=FAMILY))
    assert nudge(after) == PublishBundle(nudge(told(order(1))).published)
    assert rollout(after) is None


def test_a_snapshot_of_before_has_no_rollouts():
    old = told(order(1))
    bare = replace(old, releases=replace(old.releases, rollouts=()))
    assert nudge(from_snapshot(to_snapshot(bare))).share == 1.0


def test_a_rollout_refuses_to_exist_where_it_makes_no_sense():
    for wrong in ({"share": 2.0}, {"stages": (0.5, 0.5)}, {"share": 0.5, "stages": (0.4,)}, {"stages": (0.5,)}):
        with pytest.raises(InvalidValueError):
            Rollout(FAMILY, BUNDLE, **wrong)
    assert Federation().releases.rollouts == ()


# The server.


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "server.db", spool=Spool(tmp_path / "orders"))
    fleet(world)
    return world


def publish(world, number, **said):
    return world.give("publish", **order(number, **said).order.arguments)


def heard_by_devices(world):
    return codec.decode(world.link.published(TOPICS.release(FAMILY))[-1], Release)


def say(world, device, state, bundle=BUNDLE, **said):
    command = Command(bundle.hex()[:32], "model", state, 1, **said)
    world.arrive(TOPICS.command(device, "model"), codec.encode(command))
    world.settle()


def test_devices_hear_of_both_bundles_and_who_is_first(world):
    world.store.merge("devices", {"fed": FED, "device": "a"}, {"tags": json.dumps(["canary"])})
    publish(world, 1)
    assert publish(world, 2, **STAGED).is_obeyed
    release = heard_by_devices(world)
    assert (release.version, release.staged.version, release.staged.share) == ("1", "2", 0.05)
    assert release.staged.named == (release.staged.mark("a"),)
    world.give("rollout-halt", family=FAMILY)
    assert (heard_by_devices(world).staged.share, heard_by_devices(world).staged.named) == (0.0, ())
    world.give("rollout-resume", family=FAMILY)
    world.give("rollout-widen", family=FAMILY, percent="100")
    assert (heard_by_devices(world).version, heard_by_devices(world).staged) == ("2", None)


def test_a_device_that_gets_the_tag_later_is_among_the_first(world):
    publish(world, 1)
    publish(world, 2, **STAGED)
    assert heard_by_devices(world).staged.named == ()
    world.give("tag", device="b", tags="canary")
    release = heard_by_devices(world)
    assert release.staged.named == (release.staged.mark("b"),)


def test_the_first_bundle_of_a_family_says_nothing_to_the_others(world):
    publish(world, 2, percent="5")
    release = heard_by_devices(world)
    assert (release.bundle, release.package) == (release.staged.bundle, b"")


def test_devices_that_go_back_halt_it_and_a_restart_changes_nothing(world):
    publish(world, 1)
    publish(world, 2, percent="50")
    say(world, "a", CommandState.EXECUTING, step="install")
    assert not rollout(world.state).halted
    say(world, "a", CommandState.FAILED, reason="2 refused: a clear loss")
    say(world, "b", CommandState.SUCCESSFUL)
    assert rollout(world.state).halted
    assert (rollout(world.state).succeeded, rollout(world.state).failed) == (1, 1)
    assert heard_by_devices(world).staged.share == 0.0
    world.restart()
    assert rollout(world.state).failed == 1
    say(world, "c", CommandState.FAILED, reason="2 taken back: the worker died")
    assert rollout(world.state).failed == 2


def test_a_device_counts_once_and_with_its_last_word(world):
    publish(world, 1)
    publish(world, 2, percent="50", most_failed="100")
    for _ in range(3):
        say(world, "a", CommandState.FAILED, reason="no")
    say(world, "a", CommandState.SUCCESSFUL)
    assert (rollout(world.state).succeeded, rollout(world.state).failed) == (1, 0)
    assert find(world.store, FED, "a").state is CommandState.SUCCESSFUL


def test_a_forgotten_device_is_forgotten_here_too(world):
    publish(world, 1)
    publish(world, 2, percent="50")
    say(world, "a", CommandState.SUCCESSFUL)
    world.give("forget", device="a")
    assert find(world.store, FED, "a") is None
    assert Deliveries(world.store, FED).outcomes(BUNDLE) == {}


# Devices that fall silent.

FOLLOWING = {"family": FAMILY, "bundle": sha256(b"bundle 1"), "capabilities": ("u8-sqrt", "commands", "releases")}
PATIENT = {"percent": "100", "patience_s": "60"}


@pytest.fixture
def following(tmp_path):
    """Three devices that follow releases, and bundle 1 for all; all that the broker kept was heard."""
    world = World(tmp_path / "server.db", spool=Spool(tmp_path / "orders"))
    for name in "abc":
        world.device(name, **FOLLOWING)
    publish(world, 1)
    world.wait(3)
    return world


def gone(world, device, boot=1, **how):
    world.arrive(TOPICS.state(device), codec.encode(DeviceState(boot, online=False)), **how)
    world.settle()


def standing(world, device):
    found = find(world.store, FED, device)
    return found and found.standing


def counts(world):
    found = rollout(world.state)
    return found.succeeded, found.failed, found.lost, found.silent


def test_a_device_that_dies_in_its_trial_halts_the_rollout(following, caplog):
    publish(following, 2, **PATIENT)
    assert [standing(following, name) for name in "abc"] == [Standing.ASKED] * 3
    say(following, "a", CommandState.EXECUTING, step="commit")
    gone(following, "a")
    assert counts(following) == (0, 0, 0, 1)
    following.wait(59)
    assert not rollout(following.state).halted
    with caplog.at_level("WARNING"):
        following.wait(1)
    assert counts(following) == (0, 0, 1, 0)
    assert "1 of 1 devices" in rollout(following.state).halted
    assert heard_by_devices(following).staged.share == 0.0
    assert "a is lost on its way" in caplog.text
    assert [one.device for one in lost(following.store, FED, BUNDLE)] == ["a"]


def test_a_device_that_was_away_already_counts_neither_way(following):
    gone(following, "c")
    publish(following, 2, **PATIENT)
    following.wait(10_000)
    assert standing(following, "c") is None
    assert counts(following) == (0, 0, 0, 0)
    following.device("c", **FOLLOWING)  # it comes, and is asked
    assert standing(following, "c") is Standing.ASKED
    gone(following, "c")
    following.wait(60)
    assert counts(following) == (0, 0, 1, 0)


def test_whom_nobody_asked_is_not_missed(following):
    following.device("older", family=FAMILY, bundle=sha256(b"bundle 1"))
    following.device("stranger", **{**FOLLOWING, "family": "mlp-s"})
    publish(following, 2, **PATIENT)
    following.device("done", **{**FOLLOWING, "bundle": BUNDLE})
    assert [standing(following, name) for name in ("older", "stranger", "done")] == [None] * 3
    say(following, "older", CommandState.EXECUTING, step="download")  # its first word is enough
    gone(following, "older")
    following.wait(60)
    assert standing(following, "older") is Standing.LOST


def test_those_that_are_not_among_the_first_are_asked_when_it_widens(following):
    following.store.merge("devices", {"fed": FED, "device": "b"}, {"tags": json.dumps(["canary"])})
    publish(following, 2, tags="canary", percent="0")
    assert [standing(following, name) for name in "abc"] == [None, Standing.ASKED, None]
    following.give("tag", device="c", tags="canary")
    assert standing(following, "c") is Standing.ASKED
    following.give("rollout-widen", family=FAMILY, percent="100")
    assert standing(following, "a") is Standing.ASKED


def test_a_device_that_comes_back_is_missed_no_more(following):
    publish(following, 2, **PATIENT)
    gone(following, "a")
    following.wait(60)
    assert rollout(following.state).halted
    following.device("a", **FOLLOWING)
    assert counts(following) == (0, 0, 0, 0)
    say(following, "a", CommandState.SUCCESSFUL)
    assert counts(following) == (1, 0, 0, 0)
    assert rollout(following.state).halted  # somebody looks, and resumes


def test_patience_goes_on_over_a_restart_of_the_server(following):
    publish(following, 2, **PATIENT)
    say(following, "a", CommandState.EXECUTING, step="install")
    gone(following, "a")
    following.wait(40)
    following.restart()
    assert counts(following) == (0, 0, 0, 1)
    following.wait(19)
    assert counts(following) == (0, 0, 0, 1)
    following.wait(1)
    assert counts(following) == (0, 0, 1, 0)
    following.restart()
    assert counts(following) == (0, 0, 1, 0)
    assert rollout(following.state).halted


def test_a_server_that_was_away_hears_first_what_the_broker_kept(following):
    """`a` came back meanwhile, `b` went: the one is not missed, and patience with the other begins now."""
    publish(following, 2, **PATIENT)
    gone(following, "a")
    following.now_ms += 100_000_000
    following.restart()
    assert counts(following) == (0, 0, 0, 1)  # nothing was heard yet
    back = DeviceState(2, online=True, task=TASK, **FOLLOWING)
    following.arrive(TOPICS.state("a"), codec.encode(back), retained=True)
    gone(following, "b", retained=True)
    following.wait(3)
    assert counts(following) == (0, 0, 0, 1)
    assert standing(following, "b") is Standing.SILENT
    following.wait(60)
    assert [one.device for one in lost(following.store, FED, BUNDLE)] == ["b"]


def test_who_went_before_his_word_was_read_is_found_by_the_roll_call(following):
    publish(following, 2, percent="0", tags="none", patience_s="60")
    gone(following, "a")
    following.restart()
    command = Command(BUNDLE.hex()[:32], "model", CommandState.EXECUTING, 1, step="install")
    following.arrive(TOPICS.command("a", "model"), codec.encode(command), retained=True)
    following.settle()
    assert standing(following, "a") is Standing.UNDER_WAY
    following.wait(3)
    assert standing(following, "a") is Standing.SILENT


def test_while_the_broker_is_away_nobody_is_lost(following):
    publish(following, 2, **PATIENT)
    gone(following, "a")
    following.link.events.put(LinkDown("gone"))
    following.wait(1000)
    assert counts(following) == (0, 0, 0, 1)
    following.link.events.put(LinkUp(session_present=True, max_packet_bytes=1 << 16))
    following.settle()
    assert counts(following) == (0, 0, 0, 1)
    following.wait(3)
    assert counts(following) == (0, 0, 1, 0)


def test_other_commands_are_no_deliveries(world):
    publish(world, 2, percent="50")
    world.arrive(TOPICS.command("a", "diag"), codec.encode(Command("7", "diag", CommandState.FAILED, 1, reason="no")))
    world.settle()
    assert find(world.store, FED, "a") is None
    assert [one for one in outstanding(world.state) if isinstance(one, PublishBundle)]
