"""A bundle for some devices first: how far it is, what halts it, and what devices hear of it."""

import json
from dataclasses import replace
from functools import reduce

import pytest

from broker_server.deliveries import Deliveries, find
from broker_server.events import ClockTicked, Order, Ordered, PublishBundle, RolloutHeard
from broker_server.federation import Federation, from_snapshot, outstanding, step, to_snapshot
from broker_server.orders import Spool, new_order, place_order
from broker_server.rollouts import Rollout, heard, resume, started_by, ticked, widen
from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Command, CommandState, Release
from tests.broker_server.builders import FED
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


def give(world, command, **said):
    placed = new_order(command, who="ada", at_ms=world.now_ms, arguments=said)
    place_order(world.server._spool.folder, placed)
    world.settle()
    return world.state.answer_to(placed.id)


def publish(world, number, **said):
    return give(world, "publish", **order(number, **said).order.arguments)


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
    give(world, "rollout-halt", family=FAMILY)
    assert (heard_by_devices(world).staged.share, heard_by_devices(world).staged.named) == (0.0, ())
    give(world, "rollout-resume", family=FAMILY)
    give(world, "rollout-widen", family=FAMILY, percent="100")
    assert (heard_by_devices(world).version, heard_by_devices(world).staged) == ("2", None)


def test_a_device_that_gets_the_tag_later_is_among_the_first(world):
    publish(world, 1)
    publish(world, 2, **STAGED)
    assert heard_by_devices(world).staged.named == ()
    give(world, "tag", device="b", tags="canary")
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
    give(world, "forget", device="a")
    assert find(world.store, FED, "a") is None
    assert Deliveries(world.store, FED).outcomes(BUNDLE) == {}


def test_other_commands_are_no_deliveries(world):
    publish(world, 2, percent="50")
    world.arrive(TOPICS.command("a", "diag"), codec.encode(Command("7", "diag", CommandState.FAILED, 1, reason="no")))
    world.settle()
    assert find(world.store, FED, "a") is None
    assert [one for one in outstanding(world.state) if isinstance(one, PublishBundle)]
