"""A device's way to another bundle, and what its silence says: the rules, and that no order of events breaks them."""

from hypothesis import given
from hypothesis import strategies as st

from broker_server.core.delivery import COMMIT, Standing, ask, be_born, be_gone, id_of, lose, lost_ms, say
from broker_server.deliveries import Deliveries, lost
from fd_protocol.identity import sha256
from fd_protocol.messages import Command, CommandState
from fd_protocol.schema import decode, encode
from fd_runtime.storage.store import Store

BUNDLE, OTHER = id_of(sha256(b"new")), id_of(sha256(b"old"))
PATIENCE_MS = 60_000


def asked(at_ms=1000):
    return ask(None, "a", BUNDLE, boot=3, at_ms=at_ms)


def word(state, step="", bundle=BUNDLE):
    return Command(bundle, "model", state, 1, step=step, reason="no" if state is CommandState.FAILED else "")


def begun(step="install", at_ms=2000):
    return say(asked(), "a", word(CommandState.EXECUTING, step), at_ms)


def test_a_device_that_is_there_is_never_lost_whatever_it_waits_for():
    for one in (asked(), begun("download"), begun("install"), begun("reboot")):
        assert lost_ms(one, PATIENCE_MS) is None
        assert lose(one, PATIENCE_MS, 10**12) is one


def test_a_device_that_goes_before_it_has_ended_is_silent_and_then_lost():
    for one in (asked(), begun()):
        gone = be_gone(one, 3, 5000)
        assert gone.standing is Standing.SILENT
        assert lose(gone, PATIENCE_MS, 64_999) is gone
        assert lose(gone, PATIENCE_MS, 65_000).standing is Standing.LOST


def test_a_trial_that_does_not_end_is_lost_though_the_device_is_heard():
    trying = begun(COMMIT, at_ms=2000)
    assert lose(trying, PATIENCE_MS, 61_999) is trying
    assert lose(trying, PATIENCE_MS, 62_000).standing is Standing.LOST


def test_a_new_life_begins_its_trial_anew():
    gone = be_gone(begun(COMMIT, at_ms=2000), 3, 30_000)
    back = be_born(gone, 4, 60_000)
    assert lose(back, PATIENCE_MS, 119_999).standing is Standing.UNDER_WAY
    assert lose(back, PATIENCE_MS, 120_000).standing is Standing.LOST


def test_a_device_that_comes_back_is_as_it_was():
    away = lose(be_gone(begun(), 3, 5000), PATIENCE_MS, 65_000)
    assert be_born(away, 4, 70_000).standing is Standing.UNDER_WAY
    assert say(away, "a", word(CommandState.EXECUTING, "install"), 70_000).standing is Standing.UNDER_WAY
    assert say(away, "a", word(CommandState.SUCCESSFUL), 70_000).standing is Standing.SUCCEEDED


def test_a_device_that_counts_its_lives_anew_is_back():
    """Its card died: only while it is there is a lower number one of an earlier life."""
    at_ms = 70_000
    away = lose(be_gone(begun(), 3, 5000), PATIENCE_MS, 65_000)
    back = be_born(away, 1, at_ms)
    assert (back.standing, back.boot, back.since_ms) == (Standing.UNDER_WAY, 1, at_ms)
    assert be_gone(back, 1, at_ms + 1).standing is Standing.SILENT
    there = begun()
    assert be_born(there, 1, at_ms) is there


def test_what_the_broker_kept_does_not_tell_that_a_device_is_there():
    away = lose(be_gone(begun("download"), 3, 5000), PATIENCE_MS, 65_000)
    assert say(away, "a", word(CommandState.EXECUTING, "install"), 70_000, is_kept=True).standing is Standing.LOST
    assert say(away, "a", word(CommandState.FAILED), 70_000, is_kept=True).standing is Standing.FAILED


def test_the_late_will_of_an_earlier_life_says_nothing():
    assert be_gone(asked(), 2, 5000) == asked()


def test_what_has_ended_is_not_watched():
    done = say(begun(), "a", word(CommandState.SUCCESSFUL), 3000)
    assert be_gone(done, 3, 4000) is done
    assert lose(done, PATIENCE_MS, 10**12) is done


def test_the_last_word_about_another_bundle_does_not_answer_what_it_was_asked():
    assert say(asked(), "a", word(CommandState.SUCCESSFUL, bundle=OTHER), 4000) == asked()
    turned_back = say(begun(), "a", word(CommandState.SUCCESSFUL, bundle=OTHER), 4000)
    assert (turned_back.bundle, turned_back.standing) == (OTHER, Standing.SUCCEEDED)


def test_who_was_asked_is_not_asked_again():
    done = say(begun(), "a", word(CommandState.FAILED), 3000)
    assert ask(done, "a", BUNDLE, 4, 9000) is done
    assert ask(done, "a", OTHER, 4, 9000).standing is Standing.ASKED


# Whatever happens, in whatever order.

STATES = st.sampled_from([CommandState.EXECUTING, CommandState.SUCCESSFUL, CommandState.FAILED])
STEPS = st.sampled_from(["download", "install", COMMIT])
EVENTS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from([BUNDLE, OTHER]), st.integers(0, 4)),
    st.tuples(st.just("born"), st.integers(0, 4)),
    st.tuples(st.just("gone"), st.integers(0, 4)),
    st.tuples(st.just("say"), STATES, STEPS, st.sampled_from([BUNDLE, OTHER]), st.booleans()),
    st.tuples(st.just("time")),
)
HISTORIES = st.lists(st.tuples(EVENTS, st.integers(0, 50_000)), max_size=30)


def told(one, event, at_ms):
    match event:
        case ("ask", bundle, boot):
            return ask(one, "a", bundle, boot, at_ms)
        case ("say", state, step, bundle, is_kept):
            said = word(state, step if state is CommandState.EXECUTING else "", bundle)
            return say(one, "a", said, at_ms, is_kept=is_kept)
        case _ if one is None:
            return None
        case ("born", boot):
            return be_born(one, boot, at_ms)
        case ("gone", boot):
            return be_gone(one, boot, at_ms)
    return lose(one, PATIENCE_MS, at_ms)


def play(history):
    one, at_ms = None, 1
    for event, passed_ms in history:
        at_ms += passed_ms
        one = told(one, event, at_ms)
        yield event, one, at_ms


@given(HISTORIES)
def test_only_silence_or_a_trial_without_end_loses_a_device(history):
    before = None
    for event, one, at_ms in play(history):
        if one is not None and one.is_lost and not (before is not None and before.is_lost):
            assert event == ("time",)
            was_silent = one.gone_ms > 0 and at_ms - one.gone_ms >= PATIENCE_MS
            had_no_end = one.step == COMMIT and at_ms - max(one.at_ms, one.since_ms) >= PATIENCE_MS
            assert was_silent or had_no_end
        before = one


@given(HISTORIES, st.integers(0, 50_000))
def test_a_live_word_and_a_new_life_always_bring_a_device_back(history, later_ms):
    *_, (_, one, at_ms) = [(None, None, 1), *play(history)]
    if one is None:
        return
    living = say(one, "a", word(CommandState.EXECUTING, "install", one.bundle), at_ms + later_ms)
    assert living.standing not in (Standing.LOST, Standing.SILENT)
    reborn = be_born(one, one.boot + 1, at_ms + later_ms)
    assert reborn.standing not in (Standing.LOST, Standing.SILENT)


@given(HISTORIES)
def test_what_has_ended_is_neither_silent_nor_lost_and_every_row_is_read_as_it_was_written(history):
    for _, one, _ in play(history):
        if one is not None:
            assert not (one.state.has_ended and (one.is_lost or lost_ms(one, 0) is not None))
            assert decode(type(one), encode(one)) == one


@given(st.lists(st.tuples(st.sampled_from("abc"), EVENTS, st.integers(0, 50_000)), max_size=30))
def test_counts_are_those_of_the_rows_after_any_history(history):
    """Kept one by one as they are, counted anew, and by hand from the same rules: three times the same."""
    store, rows, at_ms = Store.open(None), {}, 1
    kept = Deliveries(store, "lab")
    patience = {BUNDLE: PATIENCE_MS}
    bundle = sha256(b"new")
    kept.outcomes(bundle)  # from now on they are kept
    for device, event, passed_ms in history:
        at_ms += passed_ms
        with store.transaction():
            _tell_rows(kept, device, event, at_ms, patience)
        rows |= _by_hand(rows, device, event, at_ms)
    expected = {}
    for one in rows.values():
        if one is not None and one.bundle == BUNDLE:
            expected[one.standing] = expected.get(one.standing, 0) + 1
    anew = Deliveries(store, "lab")
    for counted in (kept, anew):
        assert {standing: count for standing, count in counted.outcomes(bundle).items() if count} == expected
    assert kept.next_loss_ms(patience) == anew.next_loss_ms(patience)
    assert len(lost(store, "lab", bundle)) == expected.get(Standing.LOST, 0)


def _tell_rows(deliveries, device, event, at_ms, patience):
    match event:
        case ("ask", bundle, boot):
            digest = {BUNDLE: sha256(b"new"), OTHER: sha256(b"old")}[bundle]
            deliveries.ask(device, digest, boot, at_ms)
        case ("say", state, step, bundle, is_kept):
            said = word(state, step if state is CommandState.EXECUTING else "", bundle)
            deliveries.hear(device, said, at_ms, is_kept=is_kept)
        case ("born", boot):
            deliveries.be_born(device, boot, at_ms)
        case ("gone", boot):
            deliveries.be_gone(device, boot, at_ms)
        case _:
            deliveries.lose(patience, at_ms)


def _by_hand(rows, device, event, at_ms):
    if event == ("time",):
        known = {name: one for name, one in rows.items() if one is not None and one.bundle == BUNDLE}
        return {name: lose(one, PATIENCE_MS, at_ms) for name, one in known.items()}
    match event:
        case ("ask", bundle, boot):
            return {device: ask(rows.get(device), device, bundle, boot, at_ms)}
        case ("say", state, step, bundle, is_kept):
            said = word(state, step if state is CommandState.EXECUTING else "", bundle)
            return {device: say(rows.get(device), device, said, at_ms, is_kept=is_kept)}
    return {device: told(rows.get(device), event, at_ms)}
