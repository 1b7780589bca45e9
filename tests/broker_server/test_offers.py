"""What a round asks for, and of whom."""

import pytest

from broker_server.core.federation import Presence
from broker_server.offers import agreed_codec, open_round, slice_of
from broker_server.settings import MethodSettings, ProbeSet, RoundSettings, Settings
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import is_sampled, sha256
from fd_protocol.messages import Codec, PrivacyTerms
from tests.broker_server.builders import FED, PUBLIC_SET, TASK, round_id

PROBES = ProbeSet(PUBLIC_SET, 20, 3, TASK)
ONLINE = {f"dev-{k}": Presence(1, ("u8-sqrt", "u4-sqrt")) for k in range(200)}
SEED = b"s" * 16


def opening(settings, online=ONLINE):
    return open_round(settings, PROBES, online, round_id(), seed=SEED, at_ms=5_000_999)


def test_an_offer_says_what_the_settings_say():
    settings = Settings(FED, rounds=RoundSettings(quorum=3, duration_s=90), bundles=(sha256(b"b").hex(),))
    offer = opening(settings).offer
    assert (offer.quorum, offer.remaining_s, offer.deadline_utc_s) == (3, 90, 5_090)
    assert (offer.method, offer.competence, offer.bundles) == ("competence", True, (sha256(b"b"),))


def test_only_competence_asks_for_maps():
    assert not opening(Settings(FED, method=MethodSettings("mean-logits"))).offer.competence


def test_exactly_the_sampled_devices_online_are_invited():
    invited = opening(Settings(FED, rounds=RoundSettings(fraction=0.3))).invited
    assert set(invited) == {device for device in ONLINE if is_sampled(device, SEED, 0.3)}
    assert 30 <= len(invited) <= 90
    assert list(invited) == sorted(invited)


def test_a_codec_must_be_understood_by_every_invited_device():
    method = MethodSettings(codec=Codec.TOP_K, top_k=2)
    assert agreed_codec(method, [("top-k", "u8-sqrt"), ("top-k",)]) == (Codec.TOP_K, 2)
    assert agreed_codec(method, [("top-k",), ()]) == (Codec.U8_SQRT, 0)
    assert agreed_codec(method, []) == (Codec.TOP_K, 2)


def starts(rounds, numbers):
    return [slice_of(PROBES, Settings(FED, rounds=rounds), number).start for number in numbers]


def test_whole_slices_are_taken_in_turn():
    assert starts(RoundSettings(probes=8), (1, 2, 3)) == [0, 8, 0]
    assert starts(RoundSettings(), (1, 5)) == starts(RoundSettings(probes=20), (1, 5)) == [0, 0]


def test_a_slice_stays_for_as_many_rounds_as_the_settings_say():
    assert starts(RoundSettings(probes=8, slice_rounds=3), range(1, 9)) == [0, 0, 0, 8, 8, 8, 0, 0]


def test_as_many_devices_are_invited_as_the_settings_ask_for_on_average():
    settings = Settings(FED, rounds=RoundSettings(invite=20))
    seeds = [bytes([k]) * 16 for k in range(50)]
    counts = [len(open_round(settings, PROBES, ONLINE, round_id(), seed=seed, at_ms=0).invited) for seed in seeds]
    assert 18 < sum(counts) / len(counts) < 22
    assert len(set(counts)) > 5, "every device draws for itself"


def test_fewer_devices_than_are_asked_for_are_all_invited():
    few = {"a": Presence(1), "b": Presence(1)}
    assert opening(Settings(FED, rounds=RoundSettings(invite=5)), few).invited == ("a", "b")
    assert opening(Settings(FED, rounds=RoundSettings(invite=5)), {}).invited == ()


def test_a_draw_that_could_not_reach_the_quorum_is_drawn_again():
    few = {f"dev-{k}": Presence(1) for k in range(4)}
    settings = Settings(FED, rounds=RoundSettings(fraction=0.25, quorum=3))
    seeds = [bytes([k]) * 16 for k in range(20)]
    drawn = [open_round(settings, PROBES, few, round_id(), seed=seed, at_ms=0) for seed in seeds]
    assert min(len(opening.invited) for opening in drawn) >= 3
    for opening in drawn:
        seed = opening.offer.sampling.seed
        assert opening.invited == tuple(device for device in few if is_sampled(device, seed, 0.25))


def named(settings, devices, online=ONLINE, seed=SEED):
    return open_round(settings, PROBES, online, round_id(), seed=seed, at_ms=0, named=devices)


def test_a_round_for_some_devices_names_them_and_expects_those_online():
    opening = named(Settings(FED), ["dev-7", "dev-3", "away"])
    assert (opening.offer.devices, opening.invited) == (("away", "dev-3", "dev-7"), ("dev-3", "dev-7"))
    assert opening.offer.invites("dev-3")
    assert not opening.offer.invites("dev-4")


def test_a_round_for_nobody_is_not_one_for_all():
    opening = named(Settings(FED), [])
    assert opening.invited == ()
    assert not any(opening.offer.invites(device) for device in ONLINE)


def test_a_share_of_named_devices_is_drawn_among_them():
    devices = [f"dev-{k}" for k in range(100)]
    opening = named(Settings(FED, rounds=RoundSettings(fraction=0.3)), devices)
    assert set(opening.invited) == {device for device in devices if is_sampled(device, SEED, 0.3)}


def test_an_offer_names_no_more_devices_than_it_may_and_others_the_next_time():
    many = {f"dev-{k}": Presence(1) for k in range(1000)}
    first, second = (named(Settings(FED), list(many), many, seed) for seed in (b"a" * 16, b"b" * 16))
    assert len(first.offer.devices) == len(first.invited) == 256
    assert first.offer.devices != second.offer.devices


def test_a_warm_up_round_has_time_of_its_own():
    settings = Settings(FED, rounds=RoundSettings(duration_s=60, warm_up_s=600))
    offers = [
        open_round(settings, PROBES, ONLINE, round_id(), seed=SEED, at_ms=0, is_warm_up=first).offer for first in (0, 1)
    ]
    assert [(offer.remaining_s, offer.deadline_utc_s) for offer in offers] == [(60, 60), (600, 600)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"quorum": 0},
        {"duration_s": 0},
        {"fraction": 0.0},
        {"pause_s": -1.0},
        {"byte_budget": 0},
        {"count": -1},
        {"slice_rounds": 0},
        {"most_uncovered": 1.1},
        {"invite": -1},
        {"warm_up_s": -1},
    ],
)
def test_rounds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        RoundSettings(**wrong)


def test_coverage_can_be_asked_for_only_where_devices_send_maps():
    with pytest.raises(InvalidValueError, match="mean-logits asks for none"):
        Settings(FED, rounds=RoundSettings(most_uncovered=0.3), method=MethodSettings("mean-logits"))


@pytest.mark.parametrize("wrong", [{"name": "vote"}, {"temperature": 0.0}, {"top_k": 3}, {"codec": Codec.TOP_K}])
def test_methods_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        MethodSettings(**wrong)


# Privacy.


def test_an_offer_under_privacy_says_the_terms_and_asks_for_no_maps():
    offer = opening(Settings(FED, privacy=PrivacyTerms(epsilon=4.0))).offer
    assert offer.privacy == PrivacyTerms(epsilon=4.0)
    assert not offer.competence
    assert not opening(Settings(FED)).offer.privacy.is_asked


@pytest.mark.parametrize(
    ("method", "rounds", "why"),
    [
        ("per-label", RoundSettings(), "reads private rows"),
        ("selective", RoundSettings(), "needs competence maps"),
        ("competence", RoundSettings(most_uncovered=0.3), "most_uncovered"),
    ],
)
def test_what_needs_private_rows_every_round_does_not_go_with_privacy(method, rounds, why):
    asked = {"method": MethodSettings(method), "rounds": rounds}
    Settings(FED, **asked)
    with pytest.raises(InvalidValueError, match=why):
        Settings(FED, privacy=PrivacyTerms(epsilon=4.0), **asked)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": -1.0},
        {"epsilon": 1001.0},
        {"delta": 0.0},
        {"delta": 0.01},
        {"steps": 0},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.1},
        {"clip_norm": 0.0},
        {"learning_rate": 0.0},
        {"rows": 0},
    ],
)
def test_privacy_terms_outside_the_limits_do_not_exist(wrong):
    with pytest.raises(InvalidValueError):
        PrivacyTerms(**wrong)
