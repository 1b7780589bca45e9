"""The public set in editions: staged, tried beside the current one, switched to; canaries that change under it."""

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from broker_server.core import editions
from broker_server.core.editions import FORGET_TRUST, UNTRIED, Editions
from broker_server.core.events import Command, Edition, EditionNamed, OpenRound, PublishProbes, from_journal, to_journal
from broker_server.core.federation import Federation, from_snapshot, outstanding, step, to_snapshot
from broker_server.core.round import Phase
from broker_server.core.trust import TrustTable
from broker_server.edition_views import views
from broker_server.kits import Kit
from broker_server.orders import Spool, new_order
from broker_server.records.chronicle import Chronicle
from broker_server.records.scribe import TRIAL_OF
from broker_server.replaying import remake
from broker_server.settings import ProbeSet, RoundSettings
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.competence import FAR
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Kind, ProbeNotice, PublicSetRef, Status
from tests.broker_server.builders import FED, PUBLIC_SET, TASK
from tests.broker_server.core.test_federation import ALL, BEGUN, made, opened, told
from tests.broker_server.world import PROBES, TOPICS, Tray, World, fleet

NEW_SET = sha256(b"new public set")
NEW = ProbeSet(NEW_SET, count=16, classes=3, task=TASK, size_bytes=900)
OLD_CANARIES, NEW_CANARIES, OTHER_CANARIES = sha256(b"old"), sha256(b"new"), sha256(b"other")
FIRST = Edition(1, PUBLIC_SET, 20, OLD_CANARIES)
KNOWN = {
    OLD_CANARIES: LabelledProbes(tuple(range(0, 20, 2)), (0,) * 10),
    NEW_CANARIES: LabelledProbes(tuple(range(16)), (1,) * 16),
    OTHER_CANARIES: LabelledProbes(tuple(range(1, 20, 2)), (2,) * 10),
    b"": LabelledProbes(),
}
SAID = {"public_set": NEW_SET.hex(), "count": "16", "size_bytes": "900", "canaries": NEW_CANARIES.hex()}
BOTH = (PUBLIC_SET, NEW_SET)


def order(command, **arguments):
    said = {name.replace("_", "-"): text for name, text in arguments.items()}
    return new_order(command.value, who="ada", at_ms=5, arguments=said)


def stage(**changes):
    return new_order(Command.PROBES_STAGE.value, who="ada", at_ms=5, arguments={**SAID, **changes})


def obeyed(state, given, lacking=0):
    done = editions.obey(state, given, 7, lacking=lacking)
    assert done.is_obeyed, done.outcome
    return done.editions


NAMED = Editions(current=FIRST, count=1)
STAGED = obeyed(NAMED, stage())
TRIED = editions.tried(STAGED, editions.Trial(2, made().round, b"z" * 32, b"", {"agreement": 0.5}))


# The fold.


def test_the_settings_name_the_first_edition_until_there_is_another():
    later = replace(FIRST, public_set=NEW_SET)
    assert editions.named(Editions(), FIRST) == NAMED
    assert editions.named(NAMED, later) == replace(NAMED, current=later)
    assert editions.named(STAGED, later) is STAGED


def test_one_edition_is_staged_at_a_time_and_not_the_set_in_use():
    assert STAGED.staged == Edition(2, NEW_SET, 16, NEW_CANARIES, 900, 7)
    again = editions.obey(STAGED, stage(public_set=sha256(b"third").hex()), 9, lacking=0)
    assert (again.is_obeyed, again.editions) == (False, STAGED)
    same = editions.obey(NAMED, stage(public_set=PUBLIC_SET.hex()), 9, lacking=0)
    assert (same.is_obeyed, same.editions) == (False, NAMED)


@pytest.mark.parametrize(
    "said", [{"public_set": "xy"}, {"public_set": "ab"}, {"count": "many"}, {"count": "0"}, {"canaries": "ab"}]
)
def test_an_order_that_makes_no_edition_changes_nothing(said):
    done = editions.obey(NAMED, stage(**said), 9, lacking=0)
    assert (done.is_obeyed, done.editions) == (False, NAMED)
    missing = editions.obey(NAMED, new_order(Command.PROBES_STAGE.value, who="ada", at_ms=5), 9, lacking=0)
    assert (missing.is_obeyed, missing.editions) == (False, NAMED)


def test_without_a_trial_nothing_is_switched_to_unless_the_operator_insists():
    refused = editions.obey(STAGED, order(Command.PROBES_SWITCH), 9, lacking=0)
    assert (refused.is_obeyed, refused.editions) == (False, STAGED)
    after = obeyed(STAGED, new_order(Command.PROBES_SWITCH.value, who="a", at_ms=5, arguments={UNTRIED: "yes"}))
    assert after.current == STAGED.staged
    assert obeyed(TRIED, order(Command.PROBES_SWITCH)) == replace(after, staged=None)


def test_who_switches_is_told_how_many_devices_lack_the_set():
    done = editions.obey(TRIED, order(Command.PROBES_SWITCH), 9, lacking=3)
    assert "3 devices online do not have it" in done.outcome


def test_the_edition_before_retires_and_a_few_are_remembered():
    after = obeyed(TRIED, order(Command.PROBES_SWITCH))
    assert (after.retired, after.staged, after.trial, after.count) == ((FIRST,), None, None, 2)
    for number in range(40):
        after = obeyed(after, order(Command.PROBES_ROTATE, canaries=sha256(b"%d" % number).hex()))
    assert (len(after.retired), after.count, after.current.number) == (16, 42, 42)


def test_other_canaries_are_current_at_once_and_never_those_of_before():
    given = order(Command.PROBES_ROTATE, canaries=OTHER_CANARIES.hex())
    done = editions.obey(NAMED, given, 9, lacking=0)
    assert done.editions.current == replace(FIRST, number=2, canaries=OTHER_CANARIES, at_ms=9)
    assert (done.editions.retired, done.forgets_trust) == ((FIRST,), False)
    again = editions.obey(done.editions, order(Command.PROBES_ROTATE, canaries=OLD_CANARIES.hex()), 9, lacking=0)
    assert (again.is_obeyed, again.editions) == (False, done.editions)


def test_where_the_old_canaries_have_leaked_trust_is_forgotten():
    said = {"canaries": OTHER_CANARIES.hex(), FORGET_TRUST: "yes"}
    given = new_order(Command.PROBES_ROTATE.value, who="ada", at_ms=5, arguments=said)
    assert editions.obey(NAMED, given, 9, lacking=0).forgets_trust


def test_a_federation_without_a_public_set_has_nothing_to_change():
    for command in (Command.PROBES_TRIAL, Command.PROBES_SWITCH, Command.PROBES_DROP):
        assert not editions.obey(Editions(), order(command), 9, lacking=0).is_obeyed
    given = order(Command.PROBES_ROTATE, canaries=OTHER_CANARIES.hex())
    assert not editions.obey(Editions(), given, 9, lacking=0).is_obeyed


def test_what_is_dropped_is_not_staged_any_more_and_its_number_never_comes_back():
    after = obeyed(TRIED, order(Command.PROBES_DROP))
    assert (after.staged, after.trial, after.is_trial_wanted) == (None, None, False)
    assert obeyed(after, stage()).staged.number == 3


def test_devices_are_told_of_sets_once_there_is_more_than_one_to_tell_of():
    assert editions.outstanding(NAMED) == ()
    new, old = PublicSetRef(NEW_SET, 16, 900), PublicSetRef(PUBLIC_SET, 20, 0)
    assert editions.outstanding(STAGED) == (PublishProbes(old, (new,)),)
    assert editions.outstanding(obeyed(STAGED, order(Command.PROBES_DROP))) == (PublishProbes(old, ()),)
    assert editions.outstanding(obeyed(TRIED, order(Command.PROBES_SWITCH))) == (PublishProbes(new, ()),)


def test_an_offer_of_another_edition_than_is_due_opens_no_round():
    state = reduce(step, [EditionNamed(FIRST)], told(BEGUN))
    assert step(state, opened()).round is None
    assert step(state, replace(opened(), edition=2)).round is None
    assert step(state, replace(opened(), edition=1)).round is not None


def test_a_state_with_editions_survives_the_journal():
    state = Federation(editions=TRIED)
    assert from_snapshot(to_snapshot(state)) == state
    for event in (EditionNamed(FIRST), replace(opened(), edition=2)):
        assert from_journal(*to_journal(event)) == event


def test_a_round_of_a_server_from_before_there_were_editions_goes_on():
    state = told(BEGUN, opened(), *ALL)
    assert outstanding(state)[-1].round == state.round.id
    after = reduce(step, [EditionNamed(FIRST), made()], state)
    assert (after.round.phase, after.consensus.round, after.editions) == (Phase.CLOSED, made().round, NAMED)


# In a server.


def make_kit(edition):
    if edition.public_set not in (NEW_SET, PUBLIC_SET) or edition.canaries not in KNOWN:
        raise InvalidValueError("it is not on the shelf")
    probes = NEW if edition.public_set == NEW_SET else PROBES
    return Kit(probes, KNOWN[edition.canaries])


def make_world(folder, **arguments):
    rounds = arguments.pop("rounds", RoundSettings(quorum=2, duration_s=60, minimum_online=3, pause_s=10))
    return World(
        folder / "server.db",
        spool=Spool(folder / "orders"),
        canaries=KNOWN[OLD_CANARIES],
        canaries_sha256=OLD_CANARIES,
        make_kit=make_kit,
        rounds=rounds,
        **arguments,
    )


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


def right(world, label, seed=0):
    """What a device says that holds `label` likeliest everywhere, and a little of its own."""
    count = world.offer.slice.count
    p = np.random.default_rng(seed).uniform(0, 0.1, (count, 3))
    p[:, label] += 1
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def answer_all(world, devices, label=0):
    for number, device in enumerate(devices):
        device.contribute(probabilities=right(world, label, seed=number))


def three(world, **birth):
    return [world.device(name, public_sets=BOTH, **birth) for name in "abc"]


def notice(world):
    return codec.decode(world.link.retained[TOPICS.probes], ProbeNotice)


def test_old_and_new_go_side_by_side_and_the_operator_sees_both(world):
    """A trial between two rounds on the current set: its consensus goes to nobody, and nothing else changes."""
    devices = three(world)
    answer_all(world, devices)
    assert world.obey(stage()).is_obeyed
    assert [ref.public_set for ref in (notice(world).current, *notice(world).coming)] == list(BOTH)
    before = world.state
    assert world.obey(order(Command.PROBES_TRIAL)).outcome == "the next round is a trial of edition 2"
    assert (world.offer.slice.public_set, world.offer.slice.count) == (NEW_SET, 16)
    for device in devices:
        device.send_map([0] * 12 + [FAR] * 4, public_set=NEW_SET)
    answer_all(world, devices, label=1)
    assert (world.state.round.phase, world.state.round.trial_of) == (Phase.CLOSED, 2)
    assert (world.state.consensus, world.state.trust) == (before.consensus, before.trust)
    assert world.consensus()[0][0].slice.public_set == PUBLIC_SET
    old, new = views(world.state, Chronicle(world.store, FED))
    assert (old.edition.number, old.place, old.round, old.metrics["canary_accuracy"]) == (1, "current", 1, 1.0)
    assert (new.edition.number, new.place, new.round, new.metrics["canary_accuracy"]) == (2, "staged", 2, 1.0)
    assert (new.metrics["uncovered_probes"], new.metrics["agreement"], new.have) == (0.25, 1.0, 3)
    world.wait(10)
    assert (world.offer.slice.public_set, world.state.round.trial_of) == (PUBLIC_SET, 0)


def test_a_trial_is_for_those_alone_that_say_they_have_the_set_and_ends_when_they_are_in(world):
    devices = [world.device(name, public_sets=BOTH) for name in "ab"]
    silent, other = world.device("c"), world.device("d", public_sets=(PUBLIC_SET,))
    answer_all(world, [*devices, silent])
    world.obey(stage())
    assert views(world.state, Chronicle(world.store, FED))[1].lacking == ("c", "d")
    world.obey(order(Command.PROBES_TRIAL))
    assert world.state.round.invited == 2
    answer_all(world, devices, label=1)
    assert world.state.round.phase is Phase.CLOSED
    world.wait(10)
    assert world.state.round.invited == 4
    answer_all(world, [*devices, silent, other])
    assert world.state.round.phase is Phase.CLOSED


def test_after_the_switch_rounds_are_about_the_new_set_and_its_canaries_judge(world):
    devices = three(world)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    answer_all(world, devices, label=1)
    answer = world.obey(order(Command.PROBES_SWITCH))
    assert answer.outcome == "edition 2 is current from the next round on"
    assert (notice(world).current.public_set, notice(world).coming) == (NEW_SET, ())
    world.wait(10)
    answer_all(world, devices[:2], label=1)
    devices[2].contribute(probabilities=right(world, 0))
    assert world.consensus()[0][0].slice.public_set == NEW_SET
    trust = TrustTable.from_bytes(world.store.blob(world.state.trust), 3)
    assert trust.of("a")[1] > 4 * trust.of("c")[0]
    record = Chronicle(world.store, FED).round(world.state.epoch, world.state.number)
    assert record.metrics["canary_accuracy"] == 1.0
    assert remake(Chronicle(world.store, FED), record).sha256 == record.consensus_sha256


def test_a_device_that_lacks_the_new_set_is_not_waited_for(world):
    devices = [*three(world), world.device("d", public_sets=(PUBLIC_SET,))]
    answer_all(world, devices)
    world.obey(stage())
    insist = new_order(Command.PROBES_SWITCH.value, who="ada", at_ms=5, arguments={UNTRIED: "yes"})
    assert "1 devices online do not have it" in world.obey(insist).outcome
    world.wait(60)
    world.wait(10)
    assert world.state.round.invited == 3


def test_a_switch_while_a_round_is_open_counts_from_the_next_one_on(world):
    devices = three(world)
    world.obey(stage())
    insist = new_order(Command.PROBES_SWITCH.value, who="ada", at_ms=5, arguments={UNTRIED: "yes"})
    world.obey(insist)
    assert world.state.round.offer.slice.public_set == PUBLIC_SET
    answer_all(world, devices)
    assert world.consensus()[0][0].slice.public_set == PUBLIC_SET
    assert world.state.consensus.metrics["canary_accuracy"] == 1.0, "judged by the canaries of its own set"
    world.wait(10)
    assert world.offer.slice.public_set == NEW_SET


def test_an_order_about_a_set_that_is_not_there_is_refused_before_anything_changes(world):
    answer = world.obey(stage(canaries=sha256(b"nobody has these").hex()))
    assert (answer.is_obeyed, answer.outcome) == (False, "it is not on the shelf")
    assert world.state.editions == Editions(current=FIRST, count=1)


def test_an_edition_that_does_not_go_with_the_settings_is_refused(tmp_path):
    world = make_world(tmp_path, rounds=RoundSettings(minimum_online=3, probes=18))
    answer = world.obey(stage())
    assert (answer.is_obeyed, "the public set has 16" in answer.outcome) == (False, True)


def test_a_trial_round_that_is_open_keeps_its_edition(world):
    devices = three(world)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    refused = world.obey(order(Command.PROBES_DROP))
    assert (refused.is_obeyed, "must end first" in refused.outcome) == (False, True)
    answer_all(world, devices, label=1)
    assert world.obey(order(Command.PROBES_DROP)).is_obeyed
    assert world.state.editions.staged is None


def test_a_set_that_is_dropped_while_its_trial_is_wanted_is_not_tried(world):
    devices = three(world)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    assert world.state.editions.is_trial_wanted
    world.obey(order(Command.PROBES_DROP))
    answer_all(world, devices)
    world.wait(10)
    assert (world.offer.slice.public_set, world.state.round.trial_of) == (PUBLIC_SET, 0)


def test_a_trial_that_fails_says_nothing_and_is_not_repeated_by_itself(world):
    devices = three(world)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    world.wait(61)
    assert (world.state.round.phase, world.state.editions.trial) == (Phase.ABORTED, None)
    world.wait(10)
    assert world.state.round.trial_of == 0
    assert not world.obey(order(Command.PROBES_SWITCH)).is_obeyed


def test_a_trial_of_probes_that_nobody_knows_makes_no_consensus(world):
    devices = three(world)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    for device in devices:
        device.send_map([FAR] * 16, public_set=NEW_SET)
    answer_all(world, devices, label=1)
    assert (world.state.round.phase, world.state.round.reason.split(":")[0]) == (Phase.ABORTED, "uncovered")


def test_a_trial_is_on_record_as_one_and_is_not_what_the_fleet_got(world):
    devices = three(world)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    answer_all(world, devices, label=1)
    chronicle = Chronicle(world.store, FED)
    record = chronicle.round(world.state.epoch, 2)
    assert (record.consensus_sha256, record.metrics[TRIAL_OF], record.down_bytes) == (b"", 2.0, 0)
    assert remake(chronicle, record).sha256 == record.own_sha256 != b""
    assert {one.device for one in chronicle.hearings(record.epoch, 2) if one.share is not None} == {"a", "b", "c"}
    trust = chronicle.device("a").trust
    assert trust == pytest.approx(TrustTable.from_bytes(world.store.blob(world.state.trust), 3).means()["a"])
    assert world.give("replace", device="a", new="a-2").is_obeyed
    world.restart()
    again = Chronicle(world.store, FED).round(world.state.epoch, 2)
    assert again.trust == record.trust != world.state.editions.trial.trust
    assert remake(Chronicle(world.store, FED), again).sha256 == record.own_sha256


def test_a_round_keeps_the_trust_that_it_was_made_with_though_it_is_forgotten(world):
    answer_all(world, three(world))
    made = Chronicle(world.store, FED).round(world.state.epoch, 1)
    said = {"canaries": OTHER_CANARIES.hex(), FORGET_TRUST: "yes"}
    assert world.give(Command.PROBES_ROTATE.value, **said).is_obeyed
    world.restart()
    record = Chronicle(world.store, FED).round(world.state.epoch, 1)
    assert (record.trust, world.state.trust) == (made.trust, b"")
    assert remake(Chronicle(world.store, FED), record).sha256 == record.own_sha256


def test_last_words_and_maps_about_both_sets_are_kept_while_both_may_be_asked_about(world):
    devices = three(world)
    for device in devices:
        device.send_map([0] * 20)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    for device in devices:
        device.send_map([0] * 16, public_set=NEW_SET)
    answer_all(world, devices, label=1)
    rows = {kind: world.store.payloads(FED, kind.value, "c") for kind in Kind}
    assert [(kind, len(found)) for kind, found in rows.items()] == [(Kind.CONTRIBUTION, 2), (Kind.COMPETENCE, 2)]
    world.wait(10)
    answer_all(world, devices[:2])
    world.wait(60)
    heard = [one for one in Chronicle(world.store, FED).hearings(world.state.epoch, 3) if one.weight]
    assert [(one.device, one.status, bool(one.map)) for one in heard] == [
        ("a", "stored", True),
        ("b", "stored", True),
        ("c", "absent", True),
    ]
    world.obey(order(Command.PROBES_SWITCH))
    world.wait(10)
    answer_all(world, devices, label=1)
    assert [row.round for row in world.store.payloads(FED, Kind.COMPETENCE.value, "c")] == [2], (
        "nobody asks about the old set any more"
    )


def test_a_map_of_a_set_that_is_not_offered_is_refused(world):
    devices = three(world)
    world.obey(stage())
    (receipt,) = devices[0].send_map([0] * 16, public_set=NEW_SET)
    assert (receipt.status, receipt.reason) == (Status.REFUSED, "foreign_public_set")


def test_a_restart_in_the_middle_of_a_trial_goes_on_with_it(world):
    devices = three(world)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    answer_all(world, devices[:2], label=1)
    world.restart()
    answer_all(world, devices[2:], label=1)
    assert (world.state.round.trial_of, world.state.editions.trial.round.number) == (2, 2)
    world.obey(order(Command.PROBES_SWITCH))
    world.restart()
    world.wait(10)
    assert world.offer.slice.public_set == NEW_SET
    assert notice(world).current.public_set == NEW_SET


def test_a_server_whose_set_is_gone_does_not_start(world):
    devices = three(world)
    answer_all(world, devices)
    world.obey(stage())
    world.obey(new_order(Command.PROBES_SWITCH.value, who="ada", at_ms=5, arguments={UNTRIED: "yes"}))
    world.arguments["make_kit"] = None
    with pytest.raises(InvalidValueError, match="no edition 2 of the public set here"):
        world.restart()


def test_an_operator_who_names_another_set_in_the_settings_has_it_his_way_while_nothing_was_staged(world):
    three(world)
    world.arguments |= {"probes": NEW, "canaries": KNOWN[NEW_CANARIES], "canaries_sha256": NEW_CANARIES}
    world.restart()
    assert world.state.editions == Editions(current=replace(FIRST, **NAMED_BY_HAND), count=1)
    world.wait(61)
    world.wait(10)
    assert world.offer.slice.public_set == NEW_SET


NAMED_BY_HAND = {"public_set": NEW_SET, "count": 16, "canaries": NEW_CANARIES, "size_bytes": 900}


def test_once_another_set_was_staged_the_settings_are_not_asked_any_more(world):
    three(world)
    world.obey(stage())
    world.obey(order(Command.PROBES_DROP))
    world.arguments |= {"probes": NEW, "canaries": KNOWN[NEW_CANARIES], "canaries_sha256": NEW_CANARIES}
    world.restart()
    assert world.state.editions.current == FIRST


def test_a_broker_that_lost_its_memory_is_told_of_the_sets_again(world):
    world.obey(stage())
    world.drop()
    assert notice(world).coming[0].public_set == NEW_SET


def test_an_ordered_trial_opens_though_the_federation_is_paused(world):
    three(world)
    world.wait(61)
    world.obey(order(Command.PAUSE))
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    assert (world.state.round.trial_of, world.state.is_paused) == (2, True)


def test_a_trial_is_no_warm_up_and_the_warm_up_is_still_to_come(tmp_path):
    world = make_world(tmp_path, rounds=RoundSettings(quorum=2, minimum_online=3, pause_s=10, warm_up_s=300))
    devices = three(world)
    assert world.state.round.is_warm_up
    world.wait(301)
    world.obey(stage())
    world.obey(order(Command.PROBES_TRIAL))
    assert (world.state.round.is_warm_up, world.state.round.trial_of) == (False, 2)
    answer_all(world, devices, label=1)
    world.wait(10)
    assert world.state.round.is_warm_up


# Canaries that change.


def guess(world, canaries, label, wrong):
    """What a device says that knows the canaries: right there, and wrong elsewhere."""
    p = right(world, wrong)
    p[list(canaries.probes)] = right(world, label)[list(canaries.probes)]
    return p


def trusts(world):
    return TrustTable.from_bytes(world.store.blob(world.state.trust), 3).means()


def play_with_guesser(world, devices, label, wrong=1):
    *honest, guesser = devices
    answer_all(world, honest, label=label)
    guesser.contribute(probabilities=guess(world, KNOWN[OLD_CANARIES], label, wrong))
    world.wait(10)


def test_other_canaries_catch_in_one_round_who_knew_the_old_ones(world):
    """Labels do not agree between the two sets of canaries here, so the honest are those who say 0, then 2."""
    devices = fleet(world)
    for _ in range(4):
        play_with_guesser(world, devices, label=0)
    assert trusts(world)["c"] == pytest.approx(trusts(world)["a"])
    said = len(world.link.history)
    given = order(Command.PROBES_ROTATE, canaries=OTHER_CANARIES.hex())
    assert "goes on" in world.obey(given).outcome
    assert len(world.link.history) == said, "nobody is told"
    play_with_guesser(world, devices, label=2)
    assert trusts(world)["c"] < trusts(world)["a"] / 4


def test_trust_that_is_forgotten_is_earned_anew(world):
    devices = fleet(world)
    answer_all(world, devices, label=0)
    said = {"canaries": OTHER_CANARIES.hex(), FORGET_TRUST: "yes"}
    world.obey(new_order(Command.PROBES_ROTATE.value, who="ada", at_ms=5, arguments=said))
    assert world.state.trust == b""
    world.wait(10)
    answer_all(world, devices, label=2)
    assert world.state.consensus.metrics["canary_accuracy"] == 1.0
    assert set(trusts(world)) == {"a", "b", "c"}


def test_what_is_forgotten_does_not_come_back_by_a_consensus_that_was_being_made(world):
    devices = fleet(world)
    answer_all(world, devices, label=0)
    world.wait(10)
    world.server._worker = Tray()
    answer_all(world, devices, label=0)
    assert world.state.round.phase is Phase.AGGREGATING
    said = {"canaries": OTHER_CANARIES.hex(), FORGET_TRUST: "yes"}
    assert world.give(Command.PROBES_ROTATE.value, **said) is None, "the order waits"
    world.server._worker.work()
    world.wait(2)
    assert (world.state.round.phase, world.state.trust) == (Phase.CLOSED, b"")
    record = Chronicle(world.store, FED).round(world.state.epoch, 2)
    assert remake(Chronicle(world.store, FED), record).sha256 == record.own_sha256


def test_an_effect_of_an_edition_that_is_not_due_any_more_is_asked_for_anew():
    state = told(BEGUN)
    state = reduce(step, [EditionNamed(FIRST)], state)
    state = replace(state, is_wanted=True)
    assert [one for one in outstanding(state) if isinstance(one, OpenRound)] == [OpenRound(1, state.epoch, 1)]
    later = replace(state, editions=replace(STAGED, is_trial_wanted=True))
    assert [one for one in outstanding(later) if isinstance(one, OpenRound)] == [OpenRound(1, state.epoch, 2)]
