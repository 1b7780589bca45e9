"""By which terms a device works, and when it refuses: as values, without a model."""

from dataclasses import replace

import pytest

from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.limits import Spent, charge_for, effective
from edge_agent.privacy.saying import (
    CLOCK_UNSET,
    EPSILON_SPENT,
    FAILED,
    LEDGER_DAMAGED,
    NO_PRIVATE_STEP,
    PRIVATE_PROBES,
    REFUSALS,
    public_reason,
)
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.reservations import DATA_BUDGET, Reservations, nothing
from edge_agent.round.eligibility import Profile
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import PrivacyTerms
from tests.edge_agent.builders import FEDERATION, PUBLIC_SET, TASK, offer

BUNDLE, OTHER_BUNDLE = sha256(b"bundle"), sha256(b"other bundle")
PROFILE = Profile("dev-1", FEDERATION, TASK, 3, BUNDLE, "mlp-s", "onnxruntime", PUBLIC_SET, 8)
NOW, DAY = 1_800_000_000, 86_400
TWO = PrivacyTerms(epsilon=2.0, steps=10)


# The stricter wins.


@pytest.mark.parametrize(
    ("offered", "own", "expected"),
    [
        (0.0, 0.0, 0.0),
        (4.0, 0.0, 4.0),
        (0.0, 3.0, 3.0),
        (4.0, 3.0, 3.0),
        (2.0, 3.0, 2.0),
        (50.0, 0.0, 10.0),
        (0.0, 50.0, 10.0),
    ],
)
def test_the_stricter_epsilon_wins_and_none_is_above_the_most(offered, own, expected):
    terms = effective(PrivacyTerms(epsilon=offered), PrivacySettings(epsilon=own, epsilon_max=10.0))
    assert terms.epsilon == expected
    assert terms.is_asked == (expected > 0)


def test_the_stricter_delta_wins_and_the_rest_is_the_offers():
    offered = PrivacyTerms(epsilon=2.0, delta=1e-6, steps=77, clip_norm=0.3)
    assert effective(offered, PrivacySettings(delta=1e-5)) == offered
    assert effective(offered, PrivacySettings(delta=1e-8)) == replace(offered, delta=1e-8)


@pytest.mark.parametrize(
    "wrong", [{"epsilon": -1.0}, {"delta": 0.0}, {"delta": 0.1}, {"epsilon_max": 0.0}, {"period_days": 0.0}]
)
def test_settings_that_promise_nothing_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        PrivacySettings(**wrong)


# Spending.


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "privacy")


def spend(ledger, at_s=NOW, terms=TWO, bundle=BUNDLE, *, is_open=False):
    entry = ledger.charge(charge_for(terms, bundle.hex(), at_s))
    if not is_open:
        ledger.close_charge(entry, bundle.hex(), sha256(b"theta"))


def reservations(ledger, own=PrivacySettings(), now_s=NOW, **options):  # noqa: B008 - frozen
    return Reservations(PROFILE, own, ledger, clock=lambda: now_s, **options)


def asked(terms=TWO, **changes):
    return offer(privacy=terms, **changes)


def test_an_offer_that_asks_for_nothing_is_met_by_nothing(ledger):
    reserved = reservations(ledger)(offer())
    assert (reserved.objection, reserved.privacy, reserved.is_paid) == ("", PrivacyTerms(), False)


def test_a_first_training_is_affordable_and_not_yet_paid(ledger):
    reserved = reservations(ledger)(asked())
    assert (reserved.objection, reserved.privacy, reserved.is_paid) == ("", TWO, False)


@pytest.mark.parametrize("is_open", [True, False])
def test_one_training_serves_every_round_of_its_period(ledger, is_open):
    spend(ledger, is_open=is_open)
    for day in (0, 1, 29):
        reserved = reservations(ledger, now_s=NOW + day * DAY)(asked())
        assert (reserved.objection, reserved.is_paid) == ("", not is_open)
    assert not reservations(ledger, now_s=NOW + 31 * DAY)(asked()).is_paid


def test_weights_that_cost_more_than_a_stricter_offer_allows_are_not_spoken_with(ledger):
    spend(ledger, terms=PrivacyTerms(epsilon=4.0, steps=10))
    assert reservations(ledger)(asked(PrivacyTerms(epsilon=4.0, steps=10))).objection == ""
    assert reservations(ledger)(asked(PrivacyTerms(epsilon=8.0, steps=10))).objection == ""
    assert reservations(ledger)(asked(TWO)).objection == EPSILON_SPENT
    assert reservations(ledger)(asked(PrivacyTerms(epsilon=4.0, delta=1e-7, steps=10))).objection == EPSILON_SPENT
    assert reservations(ledger, now_s=NOW + 31 * DAY)(asked(TWO)).objection == ""


def test_another_bundle_needs_another_training_within_the_most(ledger):
    spend(ledger, bundle=OTHER_BUNDLE)
    assert reservations(ledger)(asked()).objection == ""
    tight = PrivacySettings(epsilon_max=2.5)
    assert reservations(ledger, tight)(asked()).objection == EPSILON_SPENT
    assert reservations(ledger, tight, now_s=NOW + 31 * DAY)(asked()).objection == ""


def test_past_the_most_a_device_refuses_whatever_the_server_asks(ledger):
    tight = PrivacySettings(epsilon_max=2.05)
    spend(ledger, bundle=OTHER_BUNDLE)
    for epsilon in (1.0, 2.0, 8.0, 1000.0):
        assert reservations(ledger, tight)(asked(replace(TWO, epsilon=epsilon))).objection == EPSILON_SPENT


def test_a_period_slides_and_no_two_trainings_within_one_pass_the_most(ledger):
    own = PrivacySettings(epsilon_max=2.5, period_days=30)
    spend(ledger, at_s=NOW, bundle=OTHER_BUNDLE)
    for days in (1, 15, 29.9):
        assert reservations(ledger, own, now_s=NOW + days * DAY)(asked()).objection == EPSILON_SPENT
    assert reservations(ledger, own, now_s=NOW + 30.1 * DAY)(asked()).objection == ""


def test_a_clock_that_runs_back_opens_no_period(ledger):
    tight = PrivacySettings(epsilon_max=2.5)
    spend(ledger, bundle=OTHER_BUNDLE)
    for days in (1, 400):
        assert reservations(ledger, tight, now_s=NOW - days * DAY)(asked()).objection == EPSILON_SPENT


def test_nothing_is_charged_by_a_clock_that_was_never_set_but_what_was_paid_serves(ledger):
    assert reservations(ledger, now_s=1000.0)(asked()).objection == CLOCK_UNSET
    spend(ledger)
    reserved = reservations(ledger, now_s=1000.0)(asked())
    assert (reserved.objection, reserved.is_paid) == ("", True)


def test_a_device_without_private_rows_has_nothing_to_pay_for():
    reserved = reservations(None)(asked())
    assert (reserved.objection, reserved.is_paid) == ("", True)


def test_terms_that_no_noise_can_meet_are_refused(ledger):
    mad = PrivacyTerms(epsilon=1e-3, delta=1e-9, steps=100_000, sampling_rate=1.0)
    assert reservations(ledger)(asked(mad)).objection == EPSILON_SPENT


def test_a_bundle_without_a_clipping_graph_takes_no_part(ledger):
    assert reservations(ledger, problem=NO_PRIVATE_STEP)(asked()).objection == NO_PRIVATE_STEP
    assert reservations(ledger, problem=NO_PRIVATE_STEP)(offer()).objection == ""


def test_rounds_whose_probes_are_private_rows_are_refused(ledger):
    on_labels = reservations(ledger, has_public_set=False)
    assert on_labels(asked()).objection == PRIVATE_PROBES
    assert on_labels(offer()).objection == ""


def test_a_damaged_ledger_refuses_every_private_round_and_no_other(ledger):
    spend(ledger)
    ledger._path.write_bytes(b"gone\n")
    assert reservations(ledger)(asked()).objection == LEDGER_DAMAGED
    assert reservations(ledger)(offer()).objection == ""


def test_a_device_that_has_used_up_its_data_takes_no_part(ledger):
    assert reservations(ledger, is_data_spent=lambda: True)(offer()).objection == DATA_BUDGET
    assert reservations(None, is_data_spent=lambda: True)(asked()).objection == DATA_BUDGET
    assert nothing(asked()).objection == ""


def test_an_open_charge_is_good_for_whatever_bundle_runs_now(ledger):
    spend(ledger, bundle=OTHER_BUNDLE, is_open=True)
    standing = Spent.within(30 * DAY, ledger.entries(), NOW, BUNDLE.hex()).standing
    assert standing is not None
    assert standing.is_open


# What may be said.


def test_of_a_failure_only_our_own_words_are_said():
    for word in REFUSALS:
        assert public_reason(word) == word
    for told in ("MemoryError: Unable to allocate 1.2 MiB for an array with shape (1234, 8)", "epsilon_spent!", ""):
        assert public_reason(told) == FAILED
