"""Which bundle runs: every way there and back, and what no course of events can do."""

import random
from dataclasses import replace

import pytest

from edge_agent.slots.machine import (
    MAX_STARTS,
    BackWanted,
    Broken,
    Compiling,
    Downloaded,
    Healthy,
    Installed,
    Nudged,
    Offered,
    Phase,
    Refused,
    Slots,
    Started,
    TookPart,
    Unhealthy,
    step,
)
from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json

FACTORY, OTHER = "f" * 64, "e" * 64
BORN = step(Slots(), Started(FACTORY))


def release(number, package="p"):
    return Offered(f"{number}" * 64, f"1.r{number}", package * 64 if package else "", 100 if package else 0)


FIRST, SECOND, HOME = release(1), release(2), Offered(FACTORY, "1")
TO_TRIAL = (Nudged(FIRST), Downloaded(), Installed(), Started(FACTORY))
TO_USE = (*TO_TRIAL, Healthy())


def after(*events, state=BORN):
    for event in events:
        state = step(state, event)
    return state


def test_the_way_of_a_good_release():
    phases = [after(*TO_USE[:count]).phase for count in range(len(TO_USE) + 1)]
    assert phases == [Phase.IDLE, Phase.DOWNLOAD, Phase.INSTALL, Phase.REBOOT, Phase.COMMIT, Phase.IDLE]
    done = after(*TO_USE)
    assert (done.active, done.previous, done.succeeded) == (FIRST.bundle, "", True)
    assert "1.r1 runs" in done.outcome


def test_a_trial_may_compile_on_its_way():
    compiling = after(Nudged(FIRST), Downloaded(), Compiling())
    assert compiling.phase is Phase.COMPILING
    assert step(compiling, Compiling()) is compiling
    assert step(compiling, Started(FACTORY)) is compiling  # power was lost: the trial begins again
    assert step(compiling, Installed()).phase is Phase.REBOOT
    assert step(compiling, Refused("no")).known_bad == (FIRST.bundle,)
    assert after(Compiling()) is BORN


def test_what_the_trial_found_out_is_told_when_the_bundle_runs():
    events = (Nudged(FIRST), Downloaded(), Installed("what was learnt is kept", keeps_tail=True), Started(FACTORY))
    trial = after(*events)
    assert trial.inherits
    done = step(trial, Healthy())
    assert done.outcome == "1.r1 runs (what was learnt is kept)"
    assert done.inherits
    assert not step(done, TookPart()).inherits
    assert done.note is None
    keeping = after(Nudged(SECOND), Downloaded(), Installed("", keeps_tail=True), state=done)
    assert (keeping.active, keeping.previous) == (FIRST.bundle, "")
    assert not keeping.inherits  # which it says of the one that has not begun
    second = after(Nudged(SECOND), Downloaded(), Installed(), state=done)
    assert not second.inherits
    assert after(Started(FACTORY), Healthy(), state=second).outcome == "1.r2 runs"


def test_what_is_gone_back_to_inherits_nothing():
    kept = (Nudged(FIRST), Downloaded(), Installed("", keeps_tail=True), Started(FACTORY))
    assert not after(*kept, Unhealthy("it dies")).inherits
    assert not after(*kept, Healthy(), BackWanted()).inherits
    home = after(*kept, Healthy(), Nudged(HOME), Started(FACTORY))
    assert (home.active, home.inherits) == ("", False)


def test_a_state_of_before_is_read_as_it_was_written():
    """An agent of before knew no note and no tail; what it wrote must not be taken for damaged."""
    old = to_json(after(*TO_TRIAL))
    assert b"note" not in old
    assert b"keeps_tail" not in old
    assert from_json(Slots, old, Place("state.json", InvalidDocumentError)) == after(*TO_TRIAL)


def test_the_slot_before_stays_until_a_round_was_taken_part_in():
    second = after(*TO_USE, Nudged(SECOND), Downloaded(), Installed(), Started(FACTORY), Healthy())
    assert second.kept == {FIRST.bundle, SECOND.bundle}
    assert step(second, TookPart()).kept == {SECOND.bundle}


def test_a_round_while_on_trial_drops_nothing():
    trial = after(*TO_TRIAL)
    assert step(trial, TookPart()) is trial


def test_what_is_refused_is_not_tried_again():
    refused = after(Nudged(FIRST), Refused("wrong digest"))
    assert (refused.phase, refused.active, refused.succeeded) == (Phase.IDLE, "", False)
    assert "wrong digest" in refused.outcome
    assert step(refused, Nudged(FIRST)) is refused
    assert step(refused, Nudged(SECOND)).phase is Phase.DOWNLOAD


def test_what_fails_its_trial_is_taken_back_and_known_bad():
    failed = after(*TO_TRIAL, Unhealthy("it dies"))
    assert (failed.phase, failed.active) == (Phase.ROLLBACK, "")
    again = step(failed, Started(FACTORY))
    assert (again.phase, again.active) == (Phase.IDLE, "")
    assert step(again, Nudged(FIRST)) is again


def test_a_bundle_on_trial_has_so_many_starts():
    state = after(*TO_TRIAL)
    for _ in range(MAX_STARTS - 1):
        state = step(state, Started(FACTORY))
        assert (state.phase, state.active) == (Phase.COMMIT, FIRST.bundle)
    state = step(state, Started(FACTORY))
    assert (state.phase, state.active, state.known_bad) == (Phase.IDLE, "", (FIRST.bundle,))


def test_what_comes_while_another_is_on_trial_waits_and_the_newest_counts():
    waiting = after(*TO_TRIAL, Nudged(SECOND), Nudged(release(3)))
    assert (waiting.release, waiting.waiting) == (FIRST, release(3))
    assert (step(waiting, Healthy()).phase, step(waiting, Healthy()).release) == (Phase.DOWNLOAD, release(3))


def test_a_newer_release_takes_the_place_of_one_that_is_being_fetched():
    assert after(Nudged(FIRST), Nudged(SECOND)).release == SECOND
    assert after(Nudged(FIRST), Downloaded(), Nudged(SECOND)).phase is Phase.DOWNLOAD


def test_a_release_that_is_withdrawn_while_it_is_fetched_is_called_off():
    assert after(Nudged(FIRST), Nudged(HOME)) == BORN


def test_the_fleet_goes_back_to_what_it_was_born_with_without_a_download():
    back = after(*TO_USE, Nudged(HOME))
    assert back.phase is Phase.REBOOT
    assert after(Started(FACTORY), Healthy(), state=back).active == ""


def test_the_factory_bundle_is_never_known_bad():
    bad = after(*TO_USE, Nudged(HOME), Started(FACTORY), Unhealthy("it dies"))
    assert (bad.active, bad.known_bad) == (FIRST.bundle, ())


def test_a_release_without_a_package_that_is_not_here_comes_to_nothing():
    state = step(BORN, Nudged(release(1, package="")))
    assert (state.phase, state.succeeded) == (Phase.IDLE, False)


def test_the_owner_goes_back():
    back = after(*TO_USE, BackWanted())
    assert (back.phase, back.active, back.known_bad) == (Phase.ROLLBACK, "", (FIRST.bundle,))
    assert after(*TO_TRIAL, BackWanted()).active == ""
    assert step(BORN, BackWanted()) is BORN


def test_another_factory_bundle_ends_what_was_over_the_air():
    moved = step(after(*TO_USE, Nudged(SECOND)), Started(OTHER))
    assert (moved.active, moved.phase, moved.factory) == ("", Phase.IDLE, OTHER)


def test_a_slot_that_rots_falls_back_and_may_come_again():
    second = after(*TO_USE, Nudged(SECOND), Downloaded(), Installed(), Started(FACTORY), Healthy())
    once = step(second, Broken("digest"))
    assert once.active == FIRST.bundle
    twice = step(once, Broken("digest"))
    assert twice.active == ""
    assert step(twice, Broken("digest")) is twice
    assert step(twice, Nudged(SECOND)).phase is Phase.DOWNLOAD


@pytest.mark.parametrize("seed", range(200))
def test_no_course_of_events_runs_what_was_not_proven(seed):
    dice = random.Random(seed)
    releases = [release(number) for number in range(1, 5)]
    state, proven = BORN, {""}
    for _ in range(120):
        event = dice.choice(
            [
                Started(FACTORY),
                Nudged(dice.choice([*releases, HOME])),
                Downloaded(),
                Compiling(),
                Installed(keeps_tail=dice.random() < 0.5),
                Refused("no"),
                Healthy(),
                Unhealthy("ill"),
                Broken("rotten"),
                TookPart(),
                BackWanted(),
            ]
        )
        before, state = state, step(state, event)
        if before.phase in (Phase.INSTALL, Phase.COMPILING) and isinstance(event, Installed):
            proven.add(before.release.bundle)
        assert state.active in proven
        assert (state.previous or "") in proven
        assert FACTORY not in state.known_bad
        assert state.active not in state.known_bad
        assert not state.active or state.active in state.kept
        assert not state.inherits or (state.previous is not None and state.previous != state.active)
        if state.active != before.active:  # never while a life lasts, but on the way back, which ends it
            assert isinstance(event, Started | Broken) or state.phase is Phase.ROLLBACK


def test_the_state_is_a_value():
    state = after(*TO_USE)
    assert replace(state) == state
    assert step(state, Downloaded()) is state
