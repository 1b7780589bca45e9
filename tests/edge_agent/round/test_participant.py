from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.round.events import (
    BundleChanged,
    ClockTicked,
    CompetenceMapped,
    ConditionsChanged,
    PrivateDataChanged,
    ProbesNamed,
    Refreshed,
    ReportSent,
    Send,
    SendReport,
    Task,
    Trained,
    WarmedUp,
    Work,
    WorkDeferred,
    WorkFailed,
    from_journal,
    to_journal,
)
from edge_agent.round.participant import (
    MAX_ATTEMPTS,
    MAX_BASES,
    NO_CONSENSUS,
    Base,
    Participant,
    Phase,
    named_blobs,
    outstanding,
    step,
    wake_at_ms,
    would_train,
)
from fd_protocol import cbor
from fd_protocol.identity import sha256
from fd_protocol.messages import Kind, PrivacyTerms, Slice, Status
from fd_protocol.schema import from_item, to_item
from tests.edge_agent.builders import (
    PUBLIC_SET,
    block,
    consensus_digest,
    offered,
    predicted,
    receipt,
    round_id,
    submission,
    trained,
)

MAP = sha256(b"map")


def after(*events, state=None):
    return reduce(step, events, state or Participant())


def warm(*events):
    return after(WarmedUp(), *events)


def stored(number=1, epoch=7, **options):
    return receipt(submission(f"{epoch}/{number}").payload, number, epoch, **options)


def work(state):
    return [effect for effect in outstanding(state) if isinstance(effect, Work)]


def sends(state):
    return [effect for effect in outstanding(state) if isinstance(effect, Send)]


# The path of one round.


def test_a_round_goes_from_offer_to_report():
    state = warm(offered())
    assert (state.phase, work(state)) == (Phase.PREDICTING, [Work(Task.PREDICT, round_id())])
    state = step(state, predicted())
    assert (state.phase, sends(state)) == (
        Phase.SUBMITTING,
        [Send(Kind.CONTRIBUTION, round_id(), submission("7/1").payload)],
    )
    state = step(state, stored())
    assert (state.phase, outstanding(state)) == (Phase.AWAITING, ())
    state = step(state, block())
    assert (state.phase, work(state)) == (Phase.TRAINING, [Work(Task.TRAIN, round_id())])
    state = step(state, trained())
    assert (state.phase, outstanding(state)) == (Phase.REPORTING, (SendReport(round_id()),))
    assert state.report.accepted
    assert state.report.consensus_sha256 == consensus_digest(1)
    state = step(state, ReportSent(round_id()))
    assert (state.phase, outstanding(state)) == (Phase.IDLE, ())


def test_a_device_with_an_objection_does_not_contribute_but_learns():
    state = warm(offered(objection="not_sampled"))
    assert (state.phase, state.objection) == (Phase.IDLE, "not_sampled")
    assert step(state, block()).phase is Phase.TRAINING


def test_an_offer_seen_again_changes_nothing():
    state = warm(offered(at_ms=5))
    assert step(state, offered(at_ms=50_000)) == state


# Before the first contribution.


def test_a_device_warms_up_before_its_first_contribution_and_only_then():
    state = after(offered())
    assert work(state) == [Work(Task.WARM_UP, round_id())]
    state = step(state, WarmedUp())
    assert work(state) == [Work(Task.PREDICT, round_id())]
    assert work(step(state, offered(2))) == [Work(Task.PREDICT, round_id(2))]


def test_a_device_that_trained_already_needs_no_warm_up():
    state = after(offered(objection="not_sampled"), block(), trained(), ReportSent(round_id()), offered(2))
    assert work(state) == [Work(Task.PREDICT, round_id(2))]


def test_a_warm_up_that_outlives_its_round_still_counts():
    state = after(offered(), ClockTicked(60_000), WarmedUp(), ReportSent(round_id()), offered(2))
    assert work(state) == [Work(Task.PREDICT, round_id(2))]


def test_competence_is_mapped_before_the_contribution_and_sent_with_it():
    state = warm(offered(competence=True))
    assert work(state) == [Work(Task.MAP_COMPETENCE, round_id())]
    state = after(CompetenceMapped(PUBLIC_SET, 0, MAP), predicted(), state=state)
    assert [send.kind for send in sends(state)] == [Kind.COMPETENCE, Kind.CONTRIBUTION]


def test_a_map_is_made_once_and_owed_until_it_is_answered():
    mapped = warm(offered(competence=True), CompetenceMapped(PUBLIC_SET, 0, MAP))
    owed = after(predicted(), stored(), offered(2, competence=True), state=mapped)
    assert work(owed) == [Work(Task.PREDICT, round_id(2))]
    assert sends(owed) == [Send(Kind.COMPETENCE, round_id(2), MAP)]
    assert sends(step(owed, receipt(MAP, 1, kind=Kind.COMPETENCE))) == []


def test_a_map_that_only_misses_parts_is_still_owed():
    state = warm(offered(competence=True), CompetenceMapped(PUBLIC_SET, 0, MAP))
    missing = receipt(MAP, kind=Kind.COMPETENCE, status=Status.MISSING, missing=(1,))
    assert sends(step(state, missing)) == [Send(Kind.COMPETENCE, round_id(), MAP)]


def test_a_refused_map_does_not_end_the_round():
    state = warm(offered(competence=True), CompetenceMapped(PUBLIC_SET, 0, MAP))
    state = step(state, receipt(MAP, kind=Kind.COMPETENCE, status=Status.REFUSED, reason="malformed_body"))
    assert (state.phase, sends(state)) == (Phase.PREDICTING, [])


def test_new_private_data_ask_for_a_new_map():
    state = warm(offered(competence=True), CompetenceMapped(PUBLIC_SET, 0, MAP), predicted(), stored())
    state = after(PrivateDataChanged(1), offered(2, competence=True), state=state)
    assert work(state) == [Work(Task.MAP_COMPETENCE, round_id(2), private_epoch=1)]
    assert step(state, CompetenceMapped(PUBLIC_SET, 0, MAP)) == state


def test_rows_that_change_while_they_are_mapped_ask_for_another_map():
    asked = warm(PrivateDataChanged(1), offered(competence=True))
    state = step(asked, PrivateDataChanged(2))
    assert work(state) != work(asked), "else nobody begins it"
    late = after(CompetenceMapped(PUBLIC_SET, 1, MAP), WorkFailed(work(asked)[0], "killed"), state=state)
    assert late == state
    assert work(step(state, CompetenceMapped(PUBLIC_SET, 2, MAP))) == [Work(Task.PREDICT, round_id())]


def test_a_failed_map_in_the_journal_of_an_agent_that_named_no_epoch_counts():
    state = warm(PrivateDataChanged(3), offered(competence=True))
    for attempt in range(MAX_ATTEMPTS):
        kind, body = to_journal(WorkFailed(Work(Task.MAP_COMPETENCE, round_id(), attempt), "killed"))
        state = step(state, from_journal(kind, body))
    assert state.report.reason == "map-competence: killed"


def test_only_a_map_names_the_rows_that_it_is_of():
    state = after(PrivateDataChanged(3), offered(competence=True))
    assert [one.private_epoch for one in work(state)] == [0]
    state = step(state, WarmedUp())
    assert [one.private_epoch for one in work(state)] == [3]
    state = step(state, CompetenceMapped(PUBLIC_SET, 3, MAP))
    assert [one.private_epoch for one in work(state)] == [0]


# Sending.


def test_a_retry_sends_the_same_bytes():
    state = warm(offered(), predicted())
    assert step(state, predicted(with_base=True)) == state


def test_missing_parts_leave_the_payload_owed():
    state = warm(offered(), predicted())
    assert step(state, stored(status=Status.MISSING, missing=(0,))) == state


def test_a_receipt_for_other_bytes_or_another_round_changes_nothing():
    state = warm(offered(), predicted())
    assert step(state, receipt(sha256(b"other"))) == state
    assert step(state, receipt(submission("7/1").payload, 2)) == state
    assert step(state, receipt(submission("7/1").payload, 1, kind=Kind.COMPETENCE)) == state


def test_a_duplicate_is_safe_on_the_server():
    state = warm(offered(), predicted(), stored(status=Status.DUPLICATE))
    assert state.phase is Phase.AWAITING


def test_a_stored_payload_is_the_base_of_the_next():
    state = warm(offered(), predicted(), stored())
    made, asked = submission("7/1"), state.offer.slice
    assert state.bases == (Base(made.payload, made.codes, asked),)
    assert state.base_of(asked) == state.bases[0]


def test_the_base_is_kept_until_another_takes_its_place():
    state = warm(offered(), predicted(), stored(), offered(2))
    assert {submission("7/1").payload, submission("7/1").codes} <= named_blobs(state)


def part(start):
    return Slice(PUBLIC_SET, start, 4, 3)


def contributed(state, number, start):
    """The state after a round about the slice that begins at `start`."""
    return after(offered(number, slice=part(start)), predicted(number), stored(number), state=state)


def test_each_slice_has_a_base_of_its_own():
    state = warm()
    for number, start in [(1, 0), (2, 4), (3, 0)]:
        state = contributed(state, number, start)
    assert [base.slice.start for base in state.bases] == [4, 0]
    assert state.base_of(part(0)).payload == submission("7/3").payload
    assert state.base_of(part(4)).payload == submission("7/2").payload
    assert submission("7/1").payload not in named_blobs(state)


def test_an_unknown_base_says_nothing_of_those_of_other_slices():
    state = contributed(contributed(warm(), 1, 0), 2, 4)
    state = after(offered(3, slice=part(0)), predicted(3, with_base=True), state=state)
    state = step(state, refused("unknown_base", submission("7/3", with_base=True).payload, 3))
    assert [base.slice for base in state.bases] == [part(4)]


def test_of_many_slices_the_oldest_base_gives_way():
    state = warm()
    for number in range(1, MAX_BASES + 2):
        state = contributed(state, number, 4 * number)
    assert len(state.bases) == MAX_BASES
    assert state.base_of(part(4)) is None
    assert state.base_of(part(8)) is not None
    assert len(cbor.encode(to_item(state))) < 10_000


def test_a_state_of_an_agent_that_kept_one_base_is_read_and_sends_in_full_once():
    state = contributed(warm(), 1, 0)
    item = to_item(state)
    (base,) = item.pop(19)
    item[12] = {key: base[key] for key in (1, 2)}
    assert from_item(Participant, item) == replace(state, bases=())


def test_the_public_sets_of_the_server_are_remembered():
    state = warm(ProbesNamed((PUBLIC_SET, MAP)))
    assert state.named_sets == (PUBLIC_SET, MAP)
    assert step(state, ProbesNamed((MAP,))).named_sets == (MAP,)


def refused(reason, payload, number=1):
    return receipt(payload, number, status=Status.REFUSED, reason=reason)


def test_an_unknown_base_permits_one_other_encoding_of_the_same_codes():
    made = submission("7/2", with_base=True)
    state = warm(offered(), predicted(), stored(), offered(2), predicted(2, with_base=True))
    state = step(state, refused("unknown_base", made.payload, 2))
    assert sends(state) == [Send(Kind.CONTRIBUTION, round_id(2), made.full)]
    assert (state.bases, state.submission.codes) == ((), made.codes)
    state = step(state, refused("unknown_base", made.full, 2))
    assert (state.phase, state.report.reason) == (Phase.REPORTING, "refused: unknown_base")


def test_any_other_refusal_ends_the_round_with_its_reason():
    state = warm(offered(), predicted(), refused("over_budget", submission("7/1").payload))
    assert (state.phase, state.submission) == (Phase.REPORTING, None)
    assert (state.report.reason, state.report.accepted) == ("refused: over_budget", False)
    assert state.report.consensus_sha256 == NO_CONSENSUS


def test_a_deadline_gives_a_contribution_up():
    for events in [(offered(),), (offered(), predicted())]:
        state = warm(*events)
        assert wake_at_ms(state) == 60_000
        assert step(state, ClockTicked(59_999)) == state
        state = step(state, ClockTicked(60_000))
        assert (state.phase, state.report.reason) == (Phase.REPORTING, "deadline")


def test_a_deadline_is_told_with_what_took_so_long_but_under_privacy_terms():
    why = "MemoryError: Unable to allocate an array with shape (300, 6)"
    for own, told in [(PrivacyTerms(), f"deadline: {why}"), (PrivacyTerms(epsilon=8.0), "deadline")]:
        assert after(offered(own=own), ClockTicked(60_000, why)).report.reason == told


def test_a_deadline_ends_no_training():
    state = warm(offered(), predicted(), stored(), block())
    assert wake_at_ms(state) is None
    assert step(state, ClockTicked(10**9)) == state


# Which round.


def test_a_newer_offer_ends_the_round_before_it():
    for events in [(), (predicted(),), (predicted(), stored())]:
        state = warm(offered(), *events, offered(2, at_ms=9))
        assert work(state) == [Work(Task.PREDICT, round_id(2))]
        assert (state.deadline_ms, sends(state)) == (60_009, [])


def test_an_older_offer_changes_nothing():
    state = warm(offered(2))
    assert step(state, offered(1)) == state


def test_an_offer_that_comes_while_training_waits():
    training = warm(offered(), predicted(), stored(), block(), offered(2))
    assert training.phase is Phase.TRAINING
    state = after(trained(), ReportSent(round_id()), state=training)
    assert work(state) == [Work(Task.PREDICT, round_id(2))]


def test_an_offer_that_waited_past_its_deadline_is_not_taken_up():
    state = warm(offered(), predicted(), stored(), block(), offered(2), ClockTicked(60_000))
    assert state.phase is Phase.TRAINING
    assert after(trained(), ReportSent(round_id()), state=state).phase is Phase.IDLE


def test_a_new_epoch_voids_the_base_and_the_answer_to_the_map_and_goes_on():
    state = warm(offered(5, competence=True), CompetenceMapped(PUBLIC_SET, 0, MAP), receipt(MAP, kind=Kind.COMPETENCE))
    state = after(predicted(5), stored(5), state=state)
    assert state.bases
    state = step(state, offered(1, epoch=8, competence=True))
    assert (state.phase, state.bases) == (Phase.PREDICTING, ())
    assert sends(state) == [Send(Kind.COMPETENCE, round_id(1, 8), MAP)]


def test_an_epoch_once_left_never_comes_back():
    state = warm(offered(5), offered(1, epoch=8))
    assert step(state, offered(6)) == state
    assert step(state, block(6)) == state


def test_a_block_of_a_foreign_epoch_changes_nothing():
    state = warm(offered(objection="not_sampled"))
    assert step(state, block(1, epoch=9)) == state


def test_a_consensus_of_an_epoch_that_ended_meanwhile_is_dropped():
    state = warm(block(3), offered(1, epoch=8, objection="not_sampled"))
    assert (state.phase, state.gathering) == (Phase.IDLE, None)


# Learning.


def test_a_device_predicts_an_open_round_before_it_trains():
    state = warm(block(1), offered(2))
    assert state.phase is Phase.PREDICTING
    state = after(predicted(2), stored(2), state=state)
    assert (state.phase, state.training.round) == (Phase.TRAINING, round_id(1))


def test_a_consensus_without_any_offer_waits_for_the_terms():
    assert after(block()).phase is Phase.IDLE
    assert after(block(), offered(2, objection="not_sampled")).phase is Phase.TRAINING


@given(st.permutations(range(5)), st.lists(st.integers(0, 4)))
def test_blocks_come_in_any_order_and_doubled(order, again):
    state = warm(
        offered(objection="not_sampled"), *(block(index=i, blocks=5) for i in [*again, *order] if i != order[-1])
    )
    assert state.phase is Phase.IDLE
    state = step(state, block(index=order[-1], blocks=5))
    assert state.training.messages == tuple(block(index=i).message for i in range(5))


def test_blocks_of_two_consensuses_are_never_mixed():
    state = warm(offered(2, objection="not_sampled"), block(1, index=0, blocks=2), block(2, index=1, blocks=2))
    assert state.phase is Phase.IDLE
    assert step(state, block(1, index=0, blocks=2)) == state
    state = step(state, block(2, index=0, blocks=2))
    assert state.training.messages == (block(2, index=0).message, block(2, index=1).message)


def test_a_consensus_said_to_have_other_blocks_begins_anew():
    state = warm(offered(objection="not_sampled"), block(index=1, blocks=3))
    assert step(state, block(index=0, blocks=1)).training.messages == (block().message,)


def test_before_any_offer_the_newest_to_come_is_kept_whatever_its_epoch():
    assert after(block(3, epoch=7), block(1, epoch=8)).gathering.round == round_id(1, 8)


def test_a_consensus_is_never_trained_twice():
    state = warm(offered(objection="not_sampled"), block())
    assert step(state, block()) == state
    state = after(trained(), ReportSent(round_id()), state=state)
    assert step(state, block()) == state


@pytest.mark.parametrize("later", [round_id(2), round_id(1, 8)])
def test_a_later_round_that_comes_to_the_very_same_consensus_ends_all_the_same(later):
    """As a federation does that has learned what there is; with a coarse codec that is soon."""
    state = warm(offered(), predicted(), stored(), block(), trained(), ReportSent(round_id()))
    where = (later.number, later.epoch)
    state = after(offered(*where), predicted(*where), stored(*where), state=state)
    assert state.phase is Phase.AWAITING
    state = after(replace(block(), round=later), state=state)
    assert (state.phase, state.training.round) == (Phase.TRAINING, later)
    assert step(state, trained()).report.round == later


def test_blocks_of_two_rounds_that_come_to_the_same_consensus_are_not_mixed():
    state = warm(offered(2, objection="not_sampled"), block(1, index=0, blocks=2))
    state = step(state, replace(block(1, index=1, blocks=2), round=round_id(2)))
    assert state.phase is Phase.IDLE
    state = step(state, replace(block(1, index=0, blocks=2), round=round_id(2)))
    assert state.training.round == round_id(2)


def test_an_earlier_consensus_is_not_trained_after_a_later_one():
    state = warm(offered(2, objection="not_sampled"), block(2), trained(2), ReportSent(round_id(2)))
    assert step(state, block(1)) == state


def test_a_consensus_that_comes_while_training_is_next():
    state = warm(offered(2, objection="not_sampled"), block(1), block(2))
    assert state.training.round == round_id(1)
    state = after(trained(1), ReportSent(round_id(1)), state=state)
    assert state.training.round == round_id(2)


def test_a_rolled_back_training_is_reported_with_its_reason():
    ended = Trained(consensus_digest(1), accepted=False, reason="guard", metrics={"loss": 1.5})
    state = warm(offered(objection="not_sampled"), block(), ended)
    assert (state.report.accepted, state.report.reason, state.report.metrics) == (False, "guard", {"loss": 1.5})


# Failures.


def failing(state):
    (effect,) = work(state)
    return step(state, WorkFailed(effect, "out of memory"))


def test_work_that_fails_is_due_again_as_a_new_effect():
    state = failing(warm(offered()))
    assert work(state) == [Work(Task.PREDICT, round_id(), attempt=1)]


def test_a_third_failure_ends_the_round_and_the_report_says_why():
    state = warm(offered())
    for _ in range(MAX_ATTEMPTS):
        state = failing(state)
    assert (state.phase, state.report.reason) == (Phase.REPORTING, "predict: out of memory")


def test_whatever_a_library_says_fits_the_report():
    state = warm(offered())
    for attempt in range(MAX_ATTEMPTS):
        state = step(state, WorkFailed(Work(Task.PREDICT, round_id(), attempt), "two\nlines\0" + "x" * 1000))
    assert state.report.reason.startswith("predict: two lines xxx")


def test_a_third_failed_training_is_reported_and_not_tried_again():
    state = warm(offered(objection="not_sampled"), block())
    for _ in range(MAX_ATTEMPTS):
        state = failing(state)
    assert (state.report.reason, state.report.consensus_sha256) == ("train: out of memory", consensus_digest(1))
    state = step(state, ReportSent(round_id()))
    assert step(state, block()) == state


def test_a_failure_of_work_that_is_no_longer_asked_for_changes_nothing():
    state = warm(offered(), offered(2))
    assert step(state, WorkFailed(Work(Task.PREDICT, round_id()), "killed")) == state


# Training waits for the machine.


def held_up(*events):
    return warm(ConditionsChanged("heat"), *events)


def deferred(state, reason="heat"):
    return step(state, WorkDeferred(work(state)[0], reason))


def test_a_machine_that_is_no_place_to_train_answers_rounds_all_the_same():
    state = held_up(offered(), predicted(), stored())
    assert state.phase is Phase.AWAITING
    state = step(state, block())
    assert (state.phase, outstanding(state)) == (Phase.AWAITING, ())
    assert would_train(state)
    state = step(state, ConditionsChanged(""))
    assert (state.phase, work(state)) == (Phase.TRAINING, [Work(Task.TRAIN, round_id())])


def test_a_training_laid_aside_goes_on_when_the_machine_allows_it_and_rounds_are_answered_meanwhile():
    state = deferred(warm(offered(), predicted(), stored(), block()))
    assert (state.phase, state.obstacle, outstanding(state)) == (Phase.IDLE, "heat", ())
    assert set(state.gathering.messages) <= named_blobs(state)
    state = after(offered(2), predicted(2), stored(2), state=state)
    assert state.phase is Phase.AWAITING
    state = step(state, ConditionsChanged(""))
    assert work(state) == [Work(Task.TRAIN, round_id(1))]
    state = after(trained(1), state=state)
    assert state.report.consensus_sha256 == consensus_digest(1)


def test_of_a_training_laid_aside_and_a_newer_consensus_the_newer_is_learned():
    state = deferred(warm(offered(objection="not_sampled"), block(), block(2, blocks=2)))
    state = after(block(2, index=1, blocks=2), ConditionsChanged(""), state=state)
    assert work(state) == [Work(Task.TRAIN, round_id(2))]


def test_a_block_of_a_consensus_laid_aside_may_come_again():
    laid = deferred(warm(offered(objection="not_sampled"), block()))
    assert step(laid, block()) == laid


def test_a_warm_up_waits_for_the_machine_and_its_round_ends_by_its_deadline():
    state = after(ConditionsChanged("window"), offered())
    assert (state.phase, outstanding(state)) == (Phase.PREDICTING, ())
    assert would_train(state)
    assert work(step(state, ConditionsChanged(""))) == [Work(Task.WARM_UP, round_id())]
    state = step(state, ClockTicked(60_000))
    assert (state.phase, state.report.reason) == (Phase.REPORTING, "deadline")


def test_a_warm_up_laid_aside_is_asked_for_again():
    state = deferred(after(offered()), "battery")
    assert (state.phase, outstanding(state), state.failures) == (Phase.PREDICTING, (), 0)
    assert work(step(state, ConditionsChanged(""))) == [Work(Task.WARM_UP, round_id())]


def test_a_deferral_of_work_that_is_no_longer_asked_for_changes_nothing():
    state = warm(offered())
    assert step(state, WorkDeferred(Work(Task.TRAIN, round_id()), "heat")) == state


# Private rows that have changed.


def learned(*events):
    """A device that has learned a consensus and lies idle."""
    return warm(offered(objection="not_sampled"), block(), trained(), ReportSent(round_id()), *events)


def test_changed_rows_are_learned_when_no_rounds_work_is_due():
    state = learned(PrivateDataChanged(3))
    assert (state.phase, work(state)) == (Phase.REFRESHING, [Work(Task.REFRESH, round_id())])
    assert state.lesson.sha256 == consensus_digest(1)
    assert set(state.lesson.messages) <= named_blobs(state)
    state = step(state, Refreshed(3, accepted=True))
    assert (state.phase, outstanding(state), state.report) == (Phase.IDLE, (), None)
    assert step(state, PrivateDataChanged(3)) == state
    assert work(step(state, PrivateDataChanged(4))) == [Work(Task.REFRESH, round_id())]


def test_a_rounds_work_comes_first():
    state = learned(offered(2), PrivateDataChanged(3))
    assert state.phase is Phase.PREDICTING
    state = after(predicted(2), stored(2), state=state)
    assert state.phase is Phase.AWAITING, "its consensus is about to come, and learns the new rows too"
    state = after(block(2), trained(2), ReportSent(round_id(2)), state=state)
    assert (state.phase, state.known_epoch) == (Phase.IDLE, 3)


def test_an_offer_that_comes_while_changed_rows_are_learned_waits():
    state = learned(PrivateDataChanged(3), offered(2))
    assert state.phase is Phase.REFRESHING
    assert step(state, Refreshed(3, accepted=False)).phase is Phase.PREDICTING


def test_rows_that_change_while_they_are_learned_are_learned_again():
    state = learned(PrivateDataChanged(3), PrivateDataChanged(4))
    assert state.refreshing.private_epoch == 3
    state = step(state, Refreshed(3, accepted=True))
    assert (state.phase, state.refreshing.private_epoch) == (Phase.REFRESHING, 4)


def test_rows_that_change_in_a_training_are_learned_after_it():
    state = warm(offered(objection="not_sampled"), block(), PrivateDataChanged(1), trained(), ReportSent(round_id()))
    assert work(state) == [Work(Task.REFRESH, round_id())]


def test_a_device_that_was_never_warm_learns_changed_rows_in_its_warm_up():
    state = after(offered(objection="not_sampled"), PrivateDataChanged(3))
    assert outstanding(state) == ()
    assert after(offered(2), WarmedUp(), state=state).known_epoch == 3


def test_rows_that_change_in_a_warm_up_are_learned_after_it():
    state = after(PrivateDataChanged(1), offered(), PrivateDataChanged(2))
    assert (state.warming_epoch, work(state)) == (1, [Work(Task.WARM_UP, round_id())])
    state = step(state, WarmedUp(private_epoch=1))
    assert state.known_epoch == 1
    given_up = after(ClockTicked(60_000), ReportSent(round_id()), state=state)
    assert work(given_up) == [Work(Task.REFRESH, round_id())]
    assert given_up.refreshing.private_epoch == 2


def test_a_warm_up_that_goes_on_from_round_to_round_knows_the_rows_that_it_began_with():
    state = after(PrivateDataChanged(1), offered(), ClockTicked(60_000), ReportSent(round_id()))
    state = after(PrivateDataChanged(2), offered(2), state=state)
    assert state.warming_epoch == 1
    warmed = after(WarmedUp(private_epoch=1), PrivateDataChanged(3), state=state)
    assert (warmed.is_warm, warmed.known_epoch, warmed.warming_epoch) == (True, 1, None)
    assert step(warmed, WarmedUp(private_epoch=1)) == warmed, "that of the second round"


def test_a_warm_up_that_waits_for_the_machine_has_not_begun():
    state = after(ConditionsChanged("heat"), PrivateDataChanged(1), offered(), PrivateDataChanged(2))
    assert step(state, ConditionsChanged("")).warming_epoch == 2


def test_with_another_bundle_the_warm_up_begins_anew():
    state = after(BundleChanged(b"one"), PrivateDataChanged(1), offered(), ClockTicked(60_000))
    state = after(BundleChanged(b"two"), PrivateDataChanged(2), ReportSent(round_id()), offered(2), state=state)
    assert state.warming_epoch == 2


def test_a_warm_up_in_the_journal_of_an_agent_that_named_no_epoch_is_read_as_it_was():
    state = after(PrivateDataChanged(1), offered(), PrivateDataChanged(2))
    assert step(state, from_journal("WarmedUp", cbor.encode({}))).known_epoch == 2


def test_changed_rows_wait_for_the_machine_like_any_training():
    state = learned(ConditionsChanged("heat"), PrivateDataChanged(3))
    assert (state.phase, would_train(state)) == (Phase.IDLE, True)
    state = deferred(step(state, ConditionsChanged("")))
    assert (state.phase, state.obstacle) == (Phase.IDLE, "heat")
    assert work(step(state, ConditionsChanged(""))) == [Work(Task.REFRESH, round_id())]


def test_changed_rows_that_cannot_be_learned_wait_for_the_next_change():
    state = learned(PrivateDataChanged(3))
    for _ in range(MAX_ATTEMPTS):
        state = step(state, WorkFailed(work(state)[0], "diverged"))
    assert (state.phase, outstanding(state), state.report) == (Phase.IDLE, (), None)
    assert work(step(state, PrivateDataChanged(4))) == [Work(Task.REFRESH, round_id())]


# Privacy.

ASKED = PrivacyTerms(epsilon=4.0)


def test_under_terms_the_warm_up_is_the_training_that_is_paid_for():
    state = warm(offered(own=ASKED, competence=True))
    assert work(state) == [Work(Task.WARM_UP, round_id())]
    state = step(state, WarmedUp(is_private=True))
    assert work(state) == [Work(Task.PREDICT, round_id())], "and there is no map"


def test_a_plain_warm_up_that_ends_late_pays_for_nothing():
    state = after(offered(), offered(2, own=ASKED), WarmedUp())
    assert work(state) == [Work(Task.WARM_UP, round_id(2))]


def test_what_was_paid_in_this_period_is_not_asked_for_again():
    state = warm(offered(own=ASKED, is_paid=True))
    assert work(state) == [Work(Task.PREDICT, round_id())]


def test_a_private_warm_up_warms_nothing_else():
    state = after(offered(own=ASKED), WarmedUp(is_private=True), offered(2))
    assert work(state) == [Work(Task.WARM_UP, round_id(2))]


def test_a_map_that_is_owed_is_held_back_under_terms():
    mapped = warm(offered(competence=True), CompetenceMapped(PUBLIC_SET, 0, MAP))
    assert sends(mapped)
    under_terms = step(mapped, offered(2, own=ASKED, is_paid=True, competence=True))
    assert sends(under_terms) == []
    assert [send.kind for send in sends(step(under_terms, offered(3, competence=True)))] == [Kind.COMPETENCE]


def test_of_a_failure_under_terms_no_more_is_said_than_that_there_was_one():
    for reason, expected in [
        ("MemoryError: 1234 rows", "warm-up: failed"),
        ("epsilon_spent", "warm-up: epsilon_spent"),
    ]:
        state = after(offered(own=ASKED))
        for _ in range(MAX_ATTEMPTS):
            state = step(state, WorkFailed(work(state)[0], reason))
        assert state.report.reason == expected


def test_changed_rows_are_no_reason_to_train_under_terms():
    state = learned(offered(2, own=ASKED, objection="not_sampled"), PrivateDataChanged(3))
    assert (state.phase, would_train(state)) == (Phase.IDLE, False)


def test_what_was_trained_under_terms_says_nothing_of_the_plain_weights():
    state = after(offered(own=ASKED, objection="not_sampled"), block())
    state = step(state, Trained(consensus_digest(1), accepted=True, is_private=True))
    assert not state.is_warm


# Any history.

NUMBERS = st.integers(1, 3)
EPOCHS = st.sampled_from([7, 8])


def any_receipt(number, epoch, status, with_base, kind):
    made = submission(f"{epoch}/{number}", with_base=with_base)
    payload = MAP if kind is Kind.COMPETENCE else made.payload
    reason = "unknown_base" if status is Status.REFUSED else ""
    return receipt(payload, number, epoch, status, reason, kind, (0,) if status is Status.MISSING else ())


def failed(task, number, epoch, attempt):
    return WorkFailed(Work(task, round_id(number, epoch), attempt), "killed")


def laid_aside(task, number, epoch, attempt):
    return WorkDeferred(Work(task, round_id(number, epoch), attempt), "heat")


EVENTS = st.one_of(
    st.builds(
        offered,
        NUMBERS,
        EPOCHS,
        st.integers(0, 10**5),
        st.sampled_from(["", "", "not_sampled"]),
        competence=st.booleans(),
        own=st.sampled_from([PrivacyTerms(), PrivacyTerms(), ASKED]),
        is_paid=st.booleans(),
        slice=st.sampled_from([Slice(PUBLIC_SET, 0, 8, 3), Slice(PUBLIC_SET, 8, 8, 3)]),
    ),
    st.builds(predicted, NUMBERS, EPOCHS, with_base=st.booleans()),
    st.builds(any_receipt, NUMBERS, EPOCHS, st.sampled_from(Status), st.booleans(), st.sampled_from(Kind)),
    st.builds(block, NUMBERS, EPOCHS, st.integers(0, 1), st.just(2)),
    st.builds(trained, NUMBERS, EPOCHS),
    st.builds(lambda n, e: ReportSent(round_id(n, e)), NUMBERS, EPOCHS),
    st.builds(WarmedUp, st.booleans()),
    st.builds(Refreshed, st.integers(0, 2), st.booleans()),
    st.builds(ConditionsChanged, st.sampled_from(["", "", "heat"])),
    st.builds(laid_aside, st.sampled_from(Task), NUMBERS, EPOCHS, st.integers(0, 2)),
    st.builds(CompetenceMapped, st.just(PUBLIC_SET), st.integers(0, 1), st.just(MAP)),
    st.builds(PrivateDataChanged, st.integers(0, 1)),
    st.builds(ProbesNamed, st.sampled_from([(), (PUBLIC_SET,), (PUBLIC_SET, MAP)])),
    st.builds(failed, st.sampled_from(Task), NUMBERS, EPOCHS, st.integers(0, 2)),
    st.builds(ClockTicked, st.integers(0, 2 * 10**5)),
)

DRAWN = {
    Phase.IDLE: {Phase.PREDICTING, Phase.TRAINING, Phase.REFRESHING},
    Phase.PREDICTING: {Phase.SUBMITTING, Phase.REPORTING},
    Phase.SUBMITTING: {Phase.AWAITING, Phase.REPORTING},
    Phase.AWAITING: {Phase.TRAINING},
    Phase.TRAINING: {Phase.REPORTING, Phase.IDLE},
    Phase.REPORTING: {Phase.IDLE},
    Phase.REFRESHING: {Phase.IDLE},
}


def helped(state):
    """Events that the world would answer to what is outstanding, so that random histories get far."""
    for effect in outstanding(state):
        match effect:
            case Work(Task.PREDICT, who):
                yield predicted(who.number, who.epoch)
            case Work(Task.TRAIN, who):
                yield trained(who.number, who.epoch)
            case Work(Task.REFRESH):
                yield Refreshed(state.refreshing.private_epoch, accepted=True)
            case Work(Task.WARM_UP):
                yield WarmedUp(state.privacy.is_asked)
            case Send(Kind.CONTRIBUTION, who):
                yield stored(who.number, who.epoch)
            case SendReport(who):
                yield ReportSent(who)


@st.composite
def histories(draw):
    state, events = Participant(), []
    for _ in range(draw(st.integers(0, 25))):
        likely = list(helped(state))
        event = draw(st.sampled_from(likely) | EVENTS if likely else EVENTS)
        events.append(event)
        state = step(state, event)
    return events


@given(histories(), st.integers(0, 25))
def test_replay_from_any_point_equals_the_uninterrupted_run(events, cut):
    snapshot = cbor.encode(to_item(after(*events[:cut])))
    journal = [to_journal(event) for event in events[cut:]]
    replayed = after(*(from_journal(*entry) for entry in journal), state=from_item(Participant, cbor.decode(snapshot)))
    assert replayed == after(*events)
    assert outstanding(replayed) == outstanding(after(*events))


@given(histories())
def test_every_move_is_drawn(events):
    state = Participant()
    for event in events:
        moved = step(state, event)
        reachable = set(DRAWN[state.phase]) | {state.phase}
        # A newer offer ends the round before it, and what waits in IDLE or AWAITING begins in the same step.
        if moved.offer != state.offer and state.phase not in (Phase.TRAINING, Phase.REPORTING, Phase.REFRESHING):
            reachable |= {Phase.IDLE}
        if reachable & {Phase.IDLE, Phase.AWAITING}:
            reachable |= {Phase.PREDICTING, Phase.TRAINING}
        if Phase.IDLE in reachable:
            reachable |= {Phase.REFRESHING}
        assert moved.phase in reachable
        state = moved


@given(histories())
def test_a_round_has_one_payload_and_at_most_its_full_twin(events):
    state, sent = Participant(), {}
    for event in events:
        state = step(state, event)
        for send in sends(state):
            if send.kind is Kind.CONTRIBUTION:
                payloads = sent.setdefault(send.round, [])
                payloads += [send.payload] if send.payload not in payloads else []
                assert payloads[1:] in ([], [state.submission.full])


@given(histories())
def test_no_consensus_is_taken_twice_and_none_goes_back(events):
    """But for one that was laid aside: it was not learned."""
    state, taken = Participant(), []
    for event in events:
        before, state = state, step(state, event)
        if isinstance(event, WorkDeferred) and before.training is not None and state.training != before.training:
            taken.remove(before.training)
        if state.training is not None and state.training != before.training:
            taken.append(state.training)
    assert len({(consensus.round, consensus.sha256) for consensus in taken}) == len(taken)
    for earlier, later in pairwise(taken):
        assert earlier.round.epoch != later.round.epoch or earlier.round.number <= later.round.number


@given(histories())
def test_what_is_sent_or_trained_on_is_named_and_kept(events):
    state = Participant()
    for event in events:
        state = step(state, event)
        assert {send.payload for send in sends(state)} <= named_blobs(state)
        assert set(state.training.messages if state.training else ()) <= named_blobs(state)
        assert set(state.lesson.messages if state.lesson else ()) <= named_blobs(state)


@given(histories())
def test_every_phase_but_idle_and_awaiting_has_something_to_do(events):
    state = after(*events)
    if state.phase not in (Phase.IDLE, Phase.AWAITING):
        assert outstanding(state) or (state.phase is Phase.PREDICTING and state.obstacle and would_train(state))
    assert (state.phase is Phase.REPORTING) == (state.report is not None)
    assert (state.phase is Phase.TRAINING) == (state.training is not None)
    assert (state.phase is Phase.REFRESHING) == (state.refreshing is not None)
    assert state.failures < MAX_ATTEMPTS


@given(histories(), st.data())
def test_an_event_taken_in_changes_nothing_when_it_comes_again(events, data):
    """Whatever the link doubles: offers, blocks, receipts, and the clock."""
    if not events:
        return
    state = after(*events)
    event = data.draw(st.sampled_from(events))
    if not isinstance(event, WorkFailed):
        once = step(state, event)
        assert step(once, event) == once


@given(histories())
def test_no_training_begins_while_something_keeps_the_machine_from_it(events):
    state = Participant()
    for event in events:
        before, state = state, step(state, event)
        if state.obstacle:
            new = {effect.task for effect in work(state)} - {effect.task for effect in work(before)}
            assert not new & {Task.WARM_UP, Task.TRAIN, Task.REFRESH}


@given(histories())
def test_under_terms_no_map_is_sent_and_nothing_is_predicted_that_was_not_paid_for(events):
    state = Participant()
    for event in events:
        state = step(state, event)
        if state.privacy.is_asked:
            assert all(send.kind is Kind.CONTRIBUTION for send in sends(state))
            assert Task.MAP_COMPETENCE not in [effect.task for effect in work(state)]
            assert state.is_paid or Task.PREDICT not in [effect.task for effect in work(state)]
