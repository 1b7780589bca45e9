"""Rounds made again: bit for bit as they were, or as another rule would have it."""

import json

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.core.labels import StoredLabels
from broker_server.core.standing import chosen_classes
from broker_server.orders import Spool
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import NotReplayableError, Rerun, agreement, remake
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.voice import WEIGHT_ONE, Voice
from broker_server.settings import MethodSettings, RecordSettings, RoundSettings
from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.documents import InvalidDocumentError
from fd_protocol.errors import InvalidValueError
from fd_runtime.storage.store import Store
from tests.broker_server.builders import FED, PUBLIC_SET
from tests.broker_server.world import World, fleet

RIGHT = np.arange(20) % 3
CANARIES = LabelledProbes(tuple(range(20)), tuple(RIGHT.tolist()))
NAMES = "abcd"


def play(world, rounds=4):
    """Rounds with all that changes a voice: trust, maps that are sent again, absent devices, differing labels."""
    devices = fleet(world, NAMES)
    rng = np.random.default_rng(0)
    for number in range(1, rounds + 1):
        for place, device in enumerate(devices):
            if number == 1 or place == number % 4:
                device.send_map(rng.integers(0, 4, 20))
            if number > 1 and place == (number + 1) % 4:
                continue
            p = rng.dirichlet(np.ones(3), 20) * 0.5
            p[np.arange(20), (RIGHT + (place in (1, 2))) % 3] += 0.5  # half of them lie
            device.contribute(probabilities=p.astype(np.float32))
        world.wait(60)
        world.wait(10)


@pytest.fixture
def world(tmp_path):
    rounds = RoundSettings(quorum=2, duration_s=60, minimum_online=4, pause_s=10)
    (tmp_path / "state").mkdir()
    made = World(tmp_path / "state" / "server.db", rounds=rounds, canaries=CANARIES)
    play(made)
    return made


def chronicle(world):
    return Chronicle(world.store, FED)


def ended(world):
    return [one for one in chronicle(world).rounds() if one.consensus_sha256]


def test_every_kept_round_comes_out_again_bit_for_bit_with_the_same_standings(world):
    rounds = ended(world)
    assert [one.number for one in rounds] == [4, 3, 2, 1]
    for record in rounds:
        again = remake(chronicle(world), record, canaries=CANARIES)
        assert again.sha256 == record.consensus_sha256
        assert again.metrics == record.metrics
        told = {one.device: (one.share, one.agreement, one.weight) for one in voices(world, record)}
        stood = {one.source.device: (one.share, one.agreement, one.source.weight) for one in again.standings}
        assert stood == told
        assert sum(share for share, _, _ in stood.values()) == pytest.approx(1.0)


def voices(world, record):
    return [one for one in chronicle(world).hearings(record.epoch, record.number) if one.weight]


def test_the_rounds_differ_in_all_that_a_voice_is_made_of(world):
    """Or the test above would prove little."""
    rounds = ended(world)
    assert len({one.trust for one in rounds}) == 4
    assert {one.weight < WEIGHT_ONE for one in voices(world, rounds[0])} == {True, False}
    maps = [{one.device: one.map for one in voices(world, record)} for record in rounds]
    assert maps[0] != maps[1] != maps[2]


def test_a_round_comes_out_the_same_with_the_server_stopped_and_other_settings(world):
    before = ended(world)
    world.store.close()
    store = Store.open(world.path)
    again = Chronicle(store, FED)
    assert [remake(again, one).sha256 for one in again.rounds() if one.consensus_sha256] == [
        one.consensus_sha256 for one in before
    ]


def test_another_rule_makes_of_the_same_voices_what_it_would_have_made(world):
    record = ended(world)[0]
    now = remake(chronicle(world), record, Rerun("mean-probabilities"), CANARIES)
    assert now.sha256 != record.consensus_sha256
    by_hand = mean_of_the_voices(world, record).argmax(axis=1)
    published = remake(chronicle(world), record)
    assert agreement(now, published) == pytest.approx(np.mean(by_hand == argmax(published)))
    assert np.array_equal(argmax(now), by_hand)


def mean_of_the_voices(world, record):
    heard = [
        Voice(
            one.device,
            StoredLabels.from_bytes(world.store.blob(one.labels)).codes.integers(),
            np.zeros(20, np.uint8),
            np.full(3, WEIGHT_ONE),
            one.weight,
        )
        for one in voices(world, record)
    ]
    return MeanProbabilities().consensus(heard)


def argmax(remade):
    return chosen_classes(remade.joined.blocks)


def test_other_constants_of_the_same_rule_make_another_consensus(world):
    record = ended(world)[0]
    soft = remake(chronicle(world), record, Rerun(terms={"sharpness": 0.5}))
    assert soft.sha256 != record.consensus_sha256
    assert remake(chronicle(world), record, Rerun(terms={"sharpness": 12.0})).sha256 == record.consensus_sha256


def test_a_round_is_made_again_with_the_constants_that_it_had(tmp_path):
    """An operator may have changed the settings since."""
    world = World(tmp_path / "server.db", method=MethodSettings("era"))
    for device in fleet(world):
        device.contribute()
    record = ended(world)[0]
    assert record.method == "era"
    assert json.loads(record.terms)["era_temperature"] == 0.1
    assert remake(chronicle(world), record).sha256 == record.consensus_sha256


@pytest.mark.parametrize("method", ["expguard", "competence", "selective", "median"])
def test_a_rule_that_judges_devices_is_not_asked_to_judge_twice(tmp_path, method):
    rounds = RoundSettings(quorum=2, duration_s=60, minimum_online=4, pause_s=10)
    world = World(tmp_path / "server.db", rounds=rounds, method=MethodSettings(method), canaries=CANARIES)
    play(world)
    for record in ended(world):
        again = remake(chronicle(world), record, canaries=CANARIES)
        assert again.sha256 == record.consensus_sha256
        assert again.metrics == record.metrics


def test_a_round_keeps_the_trust_that_it_was_made_with_whatever_devices_are_replaced_since(tmp_path):
    """Also where the server starts anew before the next round: it looks at the last one once more."""
    rounds = RoundSettings(quorum=2, duration_s=60, minimum_online=4, pause_s=10)
    world = World(tmp_path / "s.db", rounds=rounds, canaries=CANARIES, spool=Spool(tmp_path / "orders"))
    for device in fleet(world, NAMES):
        device.send_map([0] * 20)
        right = np.eye(3, dtype=np.float32)[(RIGHT + (device.name == "b")) % 3]
        device.contribute(probabilities=0.9 * right + np.float32(0.1 / 3))
    (made,) = ended(world)
    assert world.give("replace", device="b", new="b-2").is_obeyed
    world.restart()
    (record,) = ended(world)
    assert record.trust == made.trust != world.state.trust
    assert remake(chronicle(world), record).sha256 == record.consensus_sha256


def test_another_rule_judges_the_devices_for_itself(world):
    record = ended(world)[0]
    blind, seeing = (remake(chronicle(world), record, Rerun("expguard", {"expguard_rate": r})) for r in (1e-6, 5.0))
    spread = [np.ptp([one.share for one in remade.standings]) for remade in (blind, seeing)]
    assert spread[0] < spread[1]


def test_what_is_not_kept_is_said(tmp_path):
    world = World(tmp_path / "server.db", records=RecordSettings(replayable_rounds=1))
    for seed in range(2):
        for device in fleet(world):
            device.contribute(seed=seed)
        world.wait(10)
    last, first = ended(world)
    assert remake(chronicle(world), last).sha256 == last.consensus_sha256
    with pytest.raises(NotReplayableError, match="round 1"):
        remake(chronicle(world), first)


def test_an_unknown_rule_or_constant_is_refused(world):
    record = ended(world)[0]
    with pytest.raises(InvalidValueError, match="vote"):
        remake(chronicle(world), record, Rerun("vote"))
    with pytest.raises(InvalidDocumentError, match="sharpness"):
        remake(chronicle(world), record, Rerun(terms={"sharpnes": 1.0}))


# At the command line.


@pytest.fixture
def config(tmp_path, world):
    assert main(["init", str(tmp_path), "--federation", FED]) == 0
    (tmp_path / "canaries.json").write_bytes(Canaries(PUBLIC_SET.hex(), CANARIES).to_json())
    path = tmp_path / CONFIG_NAME
    path.write_text(path.read_text().replace("# canaries =", "canaries ="))
    return path


def told(capsys, *arguments):
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_verify_proves_the_kept_rounds(config, capsys):
    code, rounds = told(capsys, "verify", "--config", str(config))
    assert code == 0
    assert [(one["round"], one["verdict"]) for one in rounds] == [(n, "same") for n in (4, 3, 2, 1)]
    assert main(["verify", "--config", str(config), "--round", "2"]) == 0
    assert "same" in capsys.readouterr().out


def test_verify_tells_a_consensus_that_the_kept_voices_do_not_make(config, world, capsys):
    world.store.merge("rounds", {"fed": FED, "number": 3}, {"consensus_sha256": b"?" * 32})
    code, rounds = told(capsys, "verify", "--config", str(config))
    assert code == 65
    assert {one["round"]: one["verdict"] for one in rounds} == {4: "same", 3: "different", 2: "same", 1: "same"}


def test_replay_tells_what_would_have_been(config, capsys):
    code, what = told(capsys, "replay", "--config", str(config), "--method", "mean-probabilities")
    assert code == 0
    assert [one["round"] for one in what["rounds"]] == [4, 3, 2, 1]
    assert all(one["is_published"] for one in what["rounds"])
    assert all(0 <= one["agreement"] <= 1 for one in what["rounds"])
    first, before = what["rounds"][-1]["metrics"], what["rounds"][-1]["published_metrics"]
    assert before["entropy_nats"] < first["entropy_nats"]
    assert {one["device"] for one in what["devices"]} == {*NAMES}
    assert sum(one["share"] for one in what["devices"]) == pytest.approx(1.0)
    liar = next(one for one in what["devices"] if one["device"] == "b")
    assert liar["share"] > 2 * liar["was_share"], "without trust the liar is heard"
    assert main(["replay", "--config", str(config), "--terms", "sharpness=1.0", "--round", "4", "--limit", "1"]) == 0
    assert "published" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("replay", "--terms", "sharpness"), 78, "NAME=VALUE"),
        (("replay", "--terms", "sharpness=high"), 78, "not a TOML value"),
        (("replay", "--terms", "sharpness=true"), 65, "terms: sharpness"),
        (("verify", "--round", "9"), 66, "round 9"),
    ],
)
def test_a_wrong_question_is_one_line(config, capsys, arguments, code, text):
    assert main([*arguments, "--config", str(config)]) == code
    assert text in capsys.readouterr().err
