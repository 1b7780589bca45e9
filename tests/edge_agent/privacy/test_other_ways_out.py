"""What leaves a device beside rounds, under privacy terms: commands, predictions, the choice of a bundle."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.care.diagnosis import Seen, summary
from edge_agent.care.vitals import Vitals
from edge_agent.equipment import load_equipment
from edge_agent.jobs import Answer, PredictJob
from edge_agent.process.notices import Spoke
from edge_agent.reservations import Reservations
from edge_agent.round.events import WorkFailed
from edge_agent.round.participant import Participant
from edge_agent.settings import AgentSettings
from edge_agent.slots.costs import LATENCY, MEMORY
from edge_agent.slots.machine import Slots
from edge_agent.slots.shelf import Shelf
from edge_agent.slots.telling import command_of
from edge_agent.slots.trial import Outcome, put_on_trial
from fd_protocol.messages import Prediction, PrivacyTerms
from fd_runtime.config import ConfigError, load_toml
from fd_runtime.storage.store import Store
from tests.edge_agent.artifacts import write_private, write_public_set
from tests.edge_agent.builders import offer
from tests.edge_agent.commands.bench import Ordered
from tests.edge_agent.processes import settings_text
from tests.edge_agent.slots.shop import Shop, make_factory
from tests.edge_agent.wire import PROFILE, TOPICS, Device, ScriptedModel

TERMS = PrivacyTerms(epsilon=8.0)
PRIVATE = replace(PROFILE, is_private=True)
SPOKE = Spoke("8c1f2a90d3b74e65", "b", 0.75)


class Dying:
    def handle(self, job):
        return Answer(WorkFailed(job.work, "MemoryError: Unable to allocate an array with shape (300, 6)"))


# Commands.


def test_a_dry_run_works_by_the_terms_of_the_last_offer(tmp_path):
    device = Ordered(tmp_path / "device")
    device.hear_offer(1, privacy=TERMS)
    device.order("dry-run")
    jobs = [job for job in device.model.jobs if isinstance(job, PredictJob) and job.offer.round.epoch == 0]
    assert [job.privacy for job in jobs] == [TERMS]


def test_a_dry_run_before_any_offer_works_by_the_owners_terms(tmp_path):
    device = Device(PRIVATE, ScriptedModel())
    own = load_toml_text(tmp_path, privacy__epsilon=3.0).privacy
    device.restart(reserve=Reservations(PRIVATE, own, ledger=None, clock=lambda: 2e9))
    assert device.agent.reserved(offer(1)).privacy.epsilon == 3.0
    assert device.agent.is_under_terms


@pytest.mark.parametrize(("profile", "reason"), [(PROFILE, "error: MemoryError"), (PRIVATE, "error: failed")])
def test_a_dry_run_tells_no_library_word_under_terms(tmp_path, profile, reason):
    assert Ordered(tmp_path / "device", profile=profile, model=Dying()).order("dry-run").reason == reason


class Diagnosed(Ordered):
    """Its summary is that of a device beside some rows: how often it failed, what fills its disk."""

    seen = None

    def summary(self):
        return summary(self.seen)


def diagnosis_beside(folder, rows, profile):
    device = Diagnosed(folder, profile=profile)
    vitals = Vitals(0, 3, 0, is_connected=True, is_worker_ready=True, worker_starts=1 + rows)
    (folder / "database").write_bytes(bytes(4096 * rows))
    counts = {"warning": rows, "error": rows}
    device.seen = Seen(
        "edge-agent 1",
        Participant(failures=rows),
        vitals,
        "numpy",
        bytes(32),
        bytes(32),
        folder / "database",
        1_700_000_100.0,
        {},
        {},
        "info",
        counts,
    )
    return device.order("diag").result


def test_a_diagnosis_is_the_same_beside_other_rows_under_terms(tmp_path):
    few, many = (diagnosis_beside(tmp_path / str(rows), rows, PRIVATE) for rows in (1, 9))
    assert few == many
    assert few["phase"] == "idle"
    few, many = (diagnosis_beside(tmp_path / f"{rows} free", rows, PROFILE) for rows in (1, 9))
    changed = {name for name in few if few[name] != many[name]}
    assert changed >= {"failures", "log_errors", "worker_starts", "database_kb"}
    assert not {"free_disk_mb", "free_memory_mb"} - set(few)


# Predictions.


def predictions(device):
    device.connect()
    device.tell(SPOKE)
    return device.wire.messages(TOPICS.prediction("dev-1"), Prediction)


def test_what_the_model_says_of_live_samples_stays_here_under_terms():
    device = Device()
    assert len(predictions(device)) == 1
    device.hear_offer(1, privacy=TERMS)
    assert len(predictions(device)) == 1
    device.hear_offer(2)
    assert len(predictions(device)) == 2
    assert predictions(Device(PRIVATE)) == []


def test_an_owner_cannot_ask_for_privacy_and_for_predictions_on_the_federations_topic(tmp_path):
    with pytest.raises(ConfigError, match=r"outputs\.federation"):
        load_toml_text(tmp_path, privacy__epsilon=3.0, outputs__federation="true")
    assert load_toml_text(tmp_path, outputs__federation="true").outputs.federation


def load_toml_text(folder, **changes):
    path = folder / "agent.toml"
    path.write_text(settings_text(1883, **changes).replace('"true"', "true"))
    return load_toml(path, AgentSettings)


# Which bundle runs.


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    return Shop(make_factory(folder / "factory"), folder / "shop")


@pytest.fixture(scope="module")
def offered(shop):
    return replace(shop.good(), by_owner=True)  # what is signed is another test's matter


def on_trial(folder, shop, offered, **changes):
    shutil.copytree(shop.factory.folder, folder / "bundle")
    write_public_set(folder / "public")
    write_private(folder / "private.npz", rows=300)
    (folder / "agent.toml").write_text(settings_text(1883, model__runtime="onnxruntime", **changes))
    shelf = Shelf(folder / "state" / "slots")
    shelf.folder.mkdir(parents=True)
    shutil.copy(shop.blobs / offered.package, shelf.part(offered.package))
    return folder / "agent.toml"


def test_a_release_is_not_tried_on_private_rows_where_the_owner_asks_for_privacy(tmp_path, shop, offered):
    verdict = put_on_trial(on_trial(tmp_path, shop, offered, privacy__epsilon=3.0), offered)
    assert (verdict.outcome, set(verdict.metrics)) == (Outcome.PROVEN, {LATENCY, MEMORY})


def test_nor_where_the_last_offer_did(tmp_path, shop, offered):
    config = on_trial(tmp_path, shop, offered)
    database = Path(load_equipment(config).settings.state.store)
    for privacy in (PrivacyTerms(), TERMS):
        device = Device()
        device.store = Store.open(database)
        device.restart()
        device.hear_offer(epoch=8 + privacy.is_asked, privacy=privacy)
        device.store.close()
        verdict = put_on_trial(config, offered)
        assert verdict.outcome is Outcome.PROVEN
        assert ("hold_out_accuracy" in verdict.metrics) == (not privacy.is_asked)
        shutil.rmtree(config.parent / "state" / "slots" / offered.bundle)


@pytest.mark.parametrize("succeeded", [True, False])
def test_how_a_release_ended_is_told_in_a_word_under_terms(succeeded):
    found_out = Slots(factory="f" * 64, outcome="1.r1: hold_out_accuracy 0.91, rows 90", succeeded=succeeded)
    told = command_of(found_out, 1000, is_under_terms=True)
    assert (told.result, told.reason) == ({}, "" if succeeded else "failed")
    assert "rows 90" in str(command_of(found_out, 1000))
