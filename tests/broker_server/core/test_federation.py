"""A federation, told as rules and as invariants under any events."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from broker_server.core.events import (
    Aggregate,
    AggregationFailed,
    ClockTicked,
    DeviceGone,
    DeviceSeen,
    EpochBegun,
    FindTime,
    OpenRound,
    Order,
    Ordered,
    PublishConsensus,
    PublishOffer,
    PublishPresence,
    Release,
    ReleaseFailed,
    ReleaseMade,
    Schedule,
    Scheduled,
    StudentTrained,
    TimeFound,
    Timetable,
    TrainStudent,
    from_journal,
    to_journal,
)
from broker_server.core.federation import (
    Federation,
    from_snapshot,
    named_blobs,
    outstanding,
    step,
    to_snapshot,
    wake_at_ms,
    was_set_back,
)
from broker_server.core.round import Phase
from fd_protocol.identity import sha256
from tests.broker_server.builders import EPOCH, made, opened, round_id, stored

BEGUN = EpochBegun(EPOCH, 0)
ALL = (stored("a"), stored("b"), stored("c"))


def told(*events, schedule=None):
    return reduce(step, events, Federation(schedule=schedule or Schedule(pause_ms=1_000)))


def effects(state, kind):
    return [effect for effect in outstanding(state) if isinstance(effect, kind)]


def test_the_server_always_makes_its_presence_known():
    assert outstanding(told(BEGUN)) == (PublishPresence(EPOCH),)


def test_a_round_is_opened_when_it_is_due_and_enough_devices_are_online():
    state = told(BEGUN, ClockTicked(0))
    assert not effects(state, OpenRound)
    assert effects(step(state, DeviceSeen("a", 1)), OpenRound) == [OpenRound(1, EPOCH)]


def test_without_a_minimum_a_round_does_not_wait_for_anyone():
    assert effects(told(BEGUN, ClockTicked(0), schedule=Schedule(minimum_online=0)), OpenRound) == [OpenRound(1, EPOCH)]


def test_a_round_on_offer_is_published_and_no_other_is_opened():
    state = told(BEGUN, DeviceSeen("a", 1), ClockTicked(0), opened())
    assert effects(state, PublishOffer) == [PublishOffer(round_id())]
    assert not effects(state, OpenRound)
    assert step(state, opened(2)) is state


def test_a_round_opens_with_the_next_number_only():
    state = told(BEGUN)
    assert step(state, opened(2)) is state
    assert step(state, opened(1)).number == 1


def test_a_full_round_is_aggregated_from_its_contributions_in_the_order_of_devices():
    state = told(BEGUN, opened(), *reversed(ALL))
    expected = tuple((device, sha256(device.encode())) for device in "abc")
    assert effects(state, Aggregate) == [Aggregate(round_id(), expected)]
    assert not effects(state, PublishOffer)


def test_a_consensus_is_outstanding_until_the_next_one():
    state = told(BEGUN, opened(), *ALL, made(), ClockTicked(80_000), opened(2))
    assert effects(state, PublishConsensus) == [PublishConsensus(round_id(), made().blocks)]
    assert named_blobs(state) == {*made().blocks, made().trust}


def test_the_pause_begins_when_a_round_ends():
    state = told(BEGUN, DeviceSeen("a", 1), ClockTicked(0), opened(), *ALL, made(at_ms=70_000))
    assert wake_at_ms(state) == 71_000
    assert not effects(step(state, ClockTicked(70_999)), OpenRound)
    assert effects(step(state, ClockTicked(71_000)), OpenRound) == [OpenRound(2, EPOCH)]


def test_a_pause_is_over_when_the_clock_was_set_back():
    state = told(BEGUN, DeviceSeen("a", 1), ClockTicked(0), opened(), *ALL, made(at_ms=70_000_000))
    assert not was_set_back(state, 69_940_000)
    assert not effects(step(state, ClockTicked(69_940_000)), OpenRound)
    assert was_set_back(state, 69_939_999)
    assert effects(step(state, ClockTicked(69_939_999)), OpenRound) == [OpenRound(2, EPOCH)]


def test_a_time_of_a_timetable_stays_when_the_clock_is_set_back():
    state = told(BEGUN, DeviceSeen("a", 1), Scheduled(Schedule(timetable=NIGHTLY), 10))
    state = step(state, TimeFound(NIGHTLY, state.next_round_ms, 70_000_000))
    assert wake_at_ms(state) == 70_000_000
    assert not was_set_back(state, 5)
    assert step(state, ClockTicked(5)) is state


def test_the_server_wakes_for_the_deadline_of_an_offer():
    assert wake_at_ms(told(BEGUN, opened(at_ms=5_000))) == 65_000
    assert wake_at_ms(told(BEGUN, opened(), *ALL)) is None


def test_after_the_last_scheduled_round_nothing_opens():
    state = told(BEGUN, opened(), *ALL, made(), ClockTicked(90_000), schedule=Schedule(rounds=1, minimum_online=0))
    assert state.is_complete
    assert not effects(state, OpenRound)
    assert wake_at_ms(state) is None


def test_a_new_schedule_takes_effect_at_once():
    state = told(BEGUN, ClockTicked(0), Scheduled(Schedule(minimum_online=0)))
    assert effects(state, OpenRound)


def test_a_late_will_of_an_earlier_life_does_not_end_the_new_one():
    state = told(DeviceSeen("a", 1), DeviceSeen("a", 2, ("u8-sqrt",)))
    assert step(state, DeviceGone("a", 1)) is state
    assert step(state, DeviceSeen("a", 1)) is state
    assert step(state, DeviceGone("a", 2)).online == {}


def test_a_will_of_a_device_never_seen_changes_nothing():
    state = told(DeviceSeen("a", 1))
    assert step(state, DeviceGone("b", 1)) is state


def test_a_new_epoch_ends_round_and_consensus_and_keeps_trust_and_student():
    closed = told(BEGUN, opened(), *ALL, made(), StudentTrained(round_id(), sha256(b"theta")))
    state = reduce(step, [ClockTicked(80_000), opened(2), EpochBegun(9, 90_000)], closed)
    assert (state.round.phase, state.round.reason, state.consensus) == (Phase.ABORTED, "epoch", None)
    assert (state.epoch, state.number, state.trust) == (9, 2, made().trust)
    assert state.student == closed.student


def test_the_student_is_trained_once_on_every_consensus_going_on_from_its_weights():
    state = told(BEGUN, opened(), *ALL, made(), schedule=Schedule(has_student=True))
    assert effects(state, TrainStudent) == [TrainStudent(round_id(), made().blocks, b"")]
    state = step(state, StudentTrained(round_id(), sha256(b"theta"), {"loss": 0.5}))
    assert not effects(state, TrainStudent)
    assert named_blobs(state) >= {sha256(b"theta")}
    state = reduce(step, [ClockTicked(80_000), opened(2), *(stored(d, 2) for d in "abc"), made(2)], state)
    assert effects(state, TrainStudent) == [TrainStudent(round_id(2), made().blocks, sha256(b"theta"))]


def test_a_student_that_failed_keeps_its_weights_and_waits_for_the_next_consensus():
    state = told(BEGUN, opened(), *ALL, made(), schedule=Schedule(has_student=True))
    state = step(step(state, StudentTrained(round_id(), sha256(b"theta"))), StudentTrained(round_id()))
    assert state.student.weights == sha256(b"theta")
    assert not effects(state, TrainStudent)


NIGHTLY = Timetable("0 3 * * *")


def test_a_timetable_is_asked_for_the_time_after_the_last_round_and_that_time_is_waited_for():
    state = told(BEGUN, Scheduled(Schedule(timetable=NIGHTLY, minimum_online=0), 500))
    assert (effects(state, FindTime), wake_at_ms(state)) == ([FindTime(NIGHTLY, 500)], None)
    assert step(state, ClockTicked(600_000)) is state
    state = step(state, TimeFound(NIGHTLY, 500, 9_000))
    assert (effects(state, FindTime), wake_at_ms(state)) == ([], 9_000)
    state = reduce(step, [ClockTicked(9_000), opened(), *ALL, made(at_ms=70_000)], state)
    assert (effects(state, FindTime), effects(state, OpenRound)) == ([FindTime(NIGHTLY, 70_000)], [])


def test_a_time_that_was_found_for_something_else_changes_nothing():
    state = told(BEGUN, Scheduled(Schedule(timetable=NIGHTLY), 500))
    assert step(state, TimeFound(NIGHTLY, 499, 9_000)) is state
    assert step(state, TimeFound(Timetable("0 4 * * *"), 500, 9_000)) is state


def test_on_demand_nothing_opens_but_by_order():
    state = told(BEGUN, DeviceSeen("a", 1), ClockTicked(0), Scheduled(Schedule(on_demand=True), 10))
    assert (effects(state, OpenRound), wake_at_ms(state)) == ([], None)
    assert effects(step(state, ordered("round-now")), OpenRound) == [OpenRound(1, EPOCH)]


def test_a_schedule_of_another_kind_does_not_inherit_the_old_time():
    state = told(BEGUN, Scheduled(Schedule(timetable=NIGHTLY), 0), TimeFound(NIGHTLY, 0, 99_000))
    assert wake_at_ms(step(state, Scheduled(Schedule(pause_ms=1), 700))) == 700


def test_the_first_consensus_of_a_warm_up_is_not_published_and_earns_trust():
    rule = Schedule(warm_up=True, has_student=True, minimum_online=0)
    state = told(BEGUN, opened(), *ALL, made(), schedule=rule)
    assert (state.round.phase, state.trust, state.consensus.sha256) == (Phase.CLOSED, made().trust, made().sha256)
    assert not effects(state, PublishConsensus)
    assert not effects(state, TrainStudent)
    state = reduce(step, [opened(2), *(stored(d, 2) for d in "abc"), made(2)], state)
    assert not state.round.is_warm_up
    assert effects(state, PublishConsensus) == [PublishConsensus(round_id(2), made().blocks)]


def test_a_warm_up_without_quorum_is_tried_again():
    state = told(BEGUN, opened(), ClockTicked(60_000), opened(2), schedule=Schedule(warm_up=True))
    assert state.round.is_warm_up


def ordered(command, order="1", at_ms=0):
    return Ordered(Order(order, 0, "ada", "operator", command), at_ms)


def test_an_order_is_obeyed_once():
    state = told(BEGUN, ordered("pause"))
    assert state.is_paused
    assert step(state, ordered("resume")) is state, "it has the same id"
    assert not step(state, ordered("resume", "2")).is_paused


def test_a_paused_federation_opens_what_is_ordered_and_nothing_else():
    state = told(BEGUN, DeviceSeen("a", 1), ClockTicked(0), ordered("pause"))
    assert not effects(state, OpenRound)
    state = step(state, ordered("round-now", "2"))
    assert effects(state, OpenRound) == [OpenRound(1, EPOCH)]
    assert not effects(reduce(step, [opened(), *ALL, made(), ClockTicked(90_000)], state), OpenRound)


def test_a_consensus_that_comes_after_its_round_was_aborted_changes_nothing():
    state = told(BEGUN, opened(), *ALL, ordered("abort", at_ms=50_000))
    assert state.round.phase is Phase.ABORTED
    assert step(state, made()) is state
    assert wake_at_ms(state) == 51_000


def test_the_answers_to_the_last_orders_are_remembered_and_no_more():
    state = told(BEGUN, *(ordered("pause", str(k)) for k in range(200)))
    assert len(state.answers) == 64
    assert state.answer_to("199").is_obeyed
    assert state.answer_to("0") is None


devices, numbers = st.sampled_from("abc"), st.sampled_from([1, 2, 3])
events = st.one_of(
    st.builds(DeviceSeen, devices, st.sampled_from([1, 2])),
    st.builds(DeviceGone, devices, st.sampled_from([1, 2])),
    st.builds(ClockTicked, st.integers(0, 200_000)),
    st.builds(opened, numbers, st.lists(devices, unique=True)),
    st.builds(stored, devices, numbers, st.just(EPOCH), st.sampled_from(["x", "y"])),
    st.builds(made, numbers),
    st.builds(AggregationFailed, st.builds(round_id, numbers), st.just("rows"), st.just(0)),
    st.builds(
        StudentTrained,
        st.builds(round_id, numbers),
        st.sampled_from([b"", sha256(b"theta"), sha256(b"other")]),
        blocks=st.sampled_from([(), (sha256(b"spoken"),)]),
        is_better=st.booleans(),
    ),
    st.builds(ReleaseFailed, st.just(sha256(b"theta")), st.just("disk")),
    st.builds(
        lambda number, weights: ReleaseMade(
            Release(number, round_id(), weights, sha256(b"b"), "1", sha256(b"p"), 9, is_verified=True, at_ms=0)
        ),
        numbers,
        st.sampled_from([sha256(b"theta"), sha256(b"other")]),
    ),
    st.builds(
        Scheduled, st.builds(Schedule, rounds=st.sampled_from([0, 2]), has_student=st.booleans(), warm_up=st.booleans())
    ),
    st.builds(Scheduled, st.builds(Schedule, st.just(0), student_speaks=st.booleans(), auto_release=st.booleans())),
    st.builds(Scheduled, st.builds(Schedule, timetable=st.just(NIGHTLY), on_demand=st.booleans()), st.just(5)),
    st.builds(TimeFound, st.just(NIGHTLY), st.sampled_from([0, 5]), st.integers(0, 200_000)),
    st.builds(EpochBegun, st.sampled_from([8, 9]), st.just(0)),
    st.builds(
        ordered,
        st.sampled_from(["pause", "resume", "abort", "round-now", "release", "withdraw"]),
        st.sampled_from("123"),
    ),
)


@given(st.lists(events, max_size=25), st.data())
def test_a_crash_at_any_point_changes_nothing(history, data):
    """Replay of snapshot and journal, both through their bytes, equals the run that was never interrupted."""
    cut = data.draw(st.integers(0, len(history)))
    snapshot = to_snapshot(reduce(step, history[:cut], Federation()))
    journal = [to_journal(event) for event in history[cut:]]
    replayed = reduce(step, (from_journal(*entry) for entry in journal), from_snapshot(snapshot))
    uninterrupted = reduce(step, history, Federation())
    assert replayed == uninterrupted
    assert outstanding(replayed) == outstanding(uninterrupted)


@given(st.lists(events, max_size=25))
def test_numbers_and_epochs_never_go_back_and_a_closed_round_stays_closed(history):
    state, closed = Federation(), set()
    for event in history:
        after = step(state, event)
        assert after.number in (state.number, state.number + 1)
        if after.round is not None:
            if after.round.has_ended:
                closed.add(after.round.id)
            else:
                assert after.round.id not in closed
        state = after


@given(st.lists(events, max_size=25))
def test_a_round_is_aggregated_from_one_set_of_contributions_only(history):
    state, seen = Federation(), {}
    for event in history:
        state = step(state, event)
        for effect in effects(state, Aggregate):
            assert seen.setdefault(effect.round, effect.contributions) == effect.contributions


@given(st.lists(events, max_size=25))
def test_the_state_remembers_no_device_beyond_the_open_round_and_the_roster(history):
    state = reduce(step, history, Federation())
    if not state.has_open_round:
        assert not state.round or not state.round.devices


@given(st.lists(events, max_size=25))
def test_waking_at_the_named_time_changes_the_state_and_no_earlier_time_does(history):
    state = reduce(step, history, Federation())
    wake = wake_at_ms(state)
    if wake is not None:
        assert step(state, ClockTicked(wake)) != state
        assert step(state, ClockTicked(wake - 1)) is state


@given(st.permutations([*ALL, stored("a", payload="x"), DeviceSeen("a", 1), DeviceSeen("b", 1), DeviceGone("c", 1)]))
def test_any_order_of_arrivals_gives_the_same_aggregate(arrivals):
    # Device "a" may count with either of its payloads, whichever came first; nothing else may differ.
    state = told(BEGUN, opened(), *arrivals)
    (effect,) = effects(state, Aggregate)
    assert [device for device, _ in effect.contributions] == ["a", "b", "c"]
    assert dict(effect.contributions)["b"] == sha256(b"b")


def test_an_offer_that_was_made_before_a_new_epoch_began_opens_nothing_and_another_is_asked_for():
    state = told(BEGUN, ClockTicked(0), DeviceSeen("a", 1))
    (before,) = effects(state, OpenRound)
    state = step(step(state, EpochBegun(9, 0)), opened())
    assert not state.has_open_round
    (after,) = effects(state, OpenRound)
    assert (after.number, after.epoch) == (before.number, 9)
    assert after != before  # so that it is performed anew
