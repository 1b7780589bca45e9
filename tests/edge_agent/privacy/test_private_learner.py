"""The worker under privacy terms: private rows are read once, for what was paid, and nothing else ever reads them."""

from dataclasses import replace

import pytest

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.acceptance import Score
from edge_agent.learning.learned import Learned
from edge_agent.privacy import learner as private_learner
from edge_agent.privacy.accountant import epsilon_of
from edge_agent.privacy.learner import DISAGREES
from edge_agent.privacy.ledger import ABANDONED, Ledger
from edge_agent.privacy.saying import EPSILON_SPENT, LEDGER_DAMAGED, NO_PRIVATE_STEP, PRIVATE_PROBES, WEIGHTS_LOST
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.privacy.training import PrivateTrainingDivergedError
from edge_agent.round.events import Predicted, Trained, WarmedUp, WorkDeferred, WorkFailed
from edge_agent.training.between import Between, DeferredError
from edge_agent.worker_core import WorkerCore
from fd_protocol.messages import PrivacyTerms
from fd_runtime.models.model import ModelError
from tests.edge_agent.privacy.private_device import (
    DAY,
    NOW,
    PRIVACY,
    TRAINING,
    PrivateDevice,
    bundle_folder,
    rows_of,
)

PLAIN = PrivacyTerms()


@pytest.fixture
def device(tmp_path):
    return PrivateDevice(tmp_path / "device")


def failure(answer):
    assert isinstance(answer.event, WorkFailed), answer
    return answer.event.reason


def theta(device):
    return checkpoints.load(device.private_checkpoint).theta


# One training a period.


def test_a_private_warm_up_is_charged_trains_and_is_remembered(device):
    core = device.core()
    before = device.accuracy(core)
    assert core.handle(device.warm_up()).event == WarmedUp(is_private=True)
    (entry,) = device.ledger.entries()
    assert not entry.is_open
    assert entry.charge.terms == PRIVACY
    assert epsilon_of(entry.charge.rdp, PRIVACY.delta) <= PRIVACY.epsilon
    assert (learned := device.accuracy(core)) > before + 0.2
    assert device.accuracy(device.core()) == learned, "a start goes on with the weights that spoke last"


def test_it_happens_once_in_a_period(device):
    core = device.core()
    core.handle(device.warm_up())
    learned, lines = theta(device), device.ledger._path.read_bytes()
    for again in (core, device.core()):
        assert again.handle(device.warm_up(number=2)).event == WarmedUp(is_private=True)
    device.now_s = NOW + 29 * DAY
    assert device.core().handle(device.warm_up(number=9)).event == WarmedUp(is_private=True)
    assert (theta(device), device.ledger._path.read_bytes()) == (learned, lines)


def test_a_new_period_pays_for_a_new_training(device):
    core = device.core()
    core.handle(device.warm_up())
    first = theta(device)
    device.now_s = NOW + 31 * DAY
    assert core.handle(device.warm_up(number=2)).event == WarmedUp(is_private=True)
    assert len(device.ledger.entries()) == 2
    assert theta(device) != first


def test_two_devices_with_the_same_rows_have_other_noise(tmp_path):
    one, two = (PrivateDevice(tmp_path / name) for name in ("one", "two"))
    for each in (one, two):
        each.core().handle(each.warm_up())
    assert theta(one) != theta(two)


def test_a_device_that_never_has_private_rows_pays_nothing(device):
    device.private = rows_of(0)
    core = device.core(has_rows=False)
    assert core.handle(device.warm_up()).event == WarmedUp(is_private=True)
    assert device.ledger.entries() == ()
    assert isinstance(core.handle(device.predict()).event, Predicted)


def test_a_device_whose_source_has_no_rows_yet_trains_on_noise_like_any_other(device):
    device.private = rows_of(0)
    assert device.core().handle(device.warm_up()).event == WarmedUp(is_private=True)
    assert len(device.ledger.entries()) == 1


# Lineages.


def test_weights_that_were_trained_without_terms_never_come_into_the_private_ones(tmp_path):
    """The charge is the same, key and all: whether the device had trained plainly before must not show."""
    clean, mixed = PrivateDevice(tmp_path / "clean"), PrivateDevice(tmp_path / "mixed")
    keys = iter([bytes(32)] * 2)
    for each in (clean, mixed):
        core = each.core()
        core._private_learner._purse.ledger._entropy = lambda _: next(keys)
        if each is mixed:
            core.handle(each.warm_up(PLAIN))
            core.handle(each.train(PLAIN))
        core.handle(each.warm_up())
        core.handle(each.train(number=2))
    assert theta(clean) == theta(mixed)


def test_terms_come_and_go_and_each_lineage_goes_on_where_it_was(device):
    core = device.core()
    core.handle(device.warm_up(PLAIN))
    plain = core.handle(device.predict(PLAIN)).blobs[0]
    core.handle(device.warm_up())
    private = core.handle(device.predict()).blobs[0]
    assert plain != private
    for again in (core, device.core()):
        assert again.handle(device.predict(PLAIN)).blobs[0] == plain
        assert again.handle(device.predict()).blobs[0] == private


def test_a_device_with_terms_of_its_own_speaks_with_the_private_weights_from_the_start(device):
    device.own = PrivacySettings(epsilon=8.0)
    core = device.core()
    core.handle(device.warm_up())
    assert device.accuracy(device.core()) == device.accuracy(core)


# A consensus.


def test_a_consensus_is_learned_from_probes_alone(tmp_path):
    """The same weights beside other rows: what is learned from the consensus is the same to the bit."""
    device = PrivateDevice(tmp_path / "device")
    device.core().handle(device.warm_up())
    other = device.copy(tmp_path / "other", rows_of(37, seed=1, classes=[2]))
    answers = [each.core().handle(each.train()) for each in (device, other)]
    assert answers[0] == answers[1]
    assert theta(device) == theta(other)
    assert isinstance(answers[0].event, Trained)
    assert answers[0].event.is_private


def test_a_report_has_only_what_follows_from_public_data(device):
    core = device.core()
    core.handle(device.warm_up())
    trained = core.handle(device.train()).event
    assert (trained.accepted, trained.is_private) == (True, True)
    assert set(trained.metrics) == {"loss", "steps", "agreement"}
    assert trained.metrics["agreement"] > 0.9


def test_a_training_that_agrees_less_with_the_consensus_is_put_back(device, monkeypatch):
    core = device.core()
    core.handle(device.warm_up())
    before = core.handle(device.predict()).blobs[0]
    scores = iter([Score(50, 60), Score(20, 60)])
    monkeypatch.setattr(private_learner.PrivateLearner, "_agreement", lambda *_: next(scores))
    trained = core.handle(device.train()).event
    assert (trained.accepted, trained.reason) == (False, DISAGREES)
    assert core.handle(device.predict()).blobs[0] == before
    assert device.core().handle(device.predict()).blobs[0] == before


def test_a_consensus_is_trained_on_once(device):
    core = device.core()
    core.handle(device.warm_up())
    first = core.handle(device.train())
    learned = theta(device)
    assert device.core().handle(device.train()) == first
    assert theta(device) == learned


# Refusals.


def test_without_a_clipping_graph_nothing_is_charged(device):
    core = device.core(problem=NO_PRIVATE_STEP)
    assert failure(core.handle(device.warm_up())) == NO_PRIVATE_STEP
    assert device.ledger.entries() == ()


def test_a_graph_that_does_not_open_costs_nothing(device):
    def broken():
        raise ModelError("onnxruntime refuses the graph")

    core = device.core()
    core._private_learner._purse = replace(core._private_learner._purse, open_step=broken)
    assert "refuses the graph" in failure(core.handle(device.warm_up()))
    assert device.ledger.entries() == ()


def test_past_the_most_the_worker_refuses_too(device, tmp_path):
    device.own = PrivacySettings(epsilon_max=8.1)
    device.core().handle(device.warm_up())
    newer = PrivateDevice(device.folder, own=device.own, bundle=bundle_folder("2"))
    core = newer.core()
    assert failure(core.handle(newer.warm_up())) == EPSILON_SPENT
    assert len(newer.ledger.entries()) == 1


def test_labels_as_probes_are_never_looked_up_under_terms(device):
    model = device.bundle.open("onnxruntime")
    core = WorkerCore(model, None, device.private, None, device="dev-1")
    for job in (device.predict(), device.train()):
        assert failure(core.handle(job)) == PRIVATE_PROBES


def test_a_damaged_ledger_stops_everything_that_would_read_rows(device):
    device.core().handle(device.warm_up())
    device.now_s = NOW + 31 * DAY
    device.ledger._path.write_bytes(b"gone\n")
    core = device.core()
    assert failure(core.handle(device.warm_up())) == LEDGER_DAMAGED
    assert failure(core.handle(device.predict())) == LEDGER_DAMAGED


def test_a_ledger_that_was_put_back_is_noticed_by_the_weights(device):
    device.core().handle(device.warm_up())
    device.ledger._path.unlink()
    assert failure(device.core().handle(device.warm_up())) == LEDGER_DAMAGED
    assert device.ledger.entries() == ()


def test_weights_that_are_lost_are_not_trained_again_in_their_period(device):
    device.core().handle(device.warm_up())
    device.private_checkpoint.unlink()
    core = device.core()
    for job in (device.warm_up(), device.predict()):
        assert failure(core.handle(job)) == WEIGHTS_LOST
    assert len(device.ledger.entries()) == 1
    device.now_s = NOW + 31 * DAY
    assert core.handle(device.warm_up()).event == WarmedUp(is_private=True)


def test_a_disk_that_does_not_take_the_charge_leaves_everything_untrained(device):
    core = device.core()
    before = device.accuracy(core)
    (device.folder / "privacy").write_text("no folder can be made here")
    assert "Error" in failure(core.handle(device.warm_up()))
    assert device.accuracy(core) == before
    assert not device.private_checkpoint.exists()


# Cut short.


class CutError(Exception):
    """Stands for a kill: nobody catches it."""


class Cut(Between):
    """Saves after every step, and cuts the training short after so many."""

    def __init__(self, steps):
        super().__init__()
        self._left = steps

    def after_step(self, size_bytes, save):
        if not self._left:
            raise CutError
        save()
        self._left -= 1


def test_a_training_cut_short_anywhere_ends_in_the_same_bits_for_one_charge(tmp_path):
    start = PrivateDevice(tmp_path / "start")
    core = start.core(between=Cut(0))
    with pytest.raises(CutError):
        core.handle(start.warm_up())
    assert start.ledger.entries()[0].is_open
    whole = start.copy(tmp_path / "whole")
    whole.core().handle(whole.warm_up())
    for cuts in ([1], [7, 3], [39], [1, 1, 1, 20]):
        pieces = start.copy(tmp_path / f"cut-{cuts}")
        for cut in cuts:
            with pytest.raises(CutError):
                pieces.core(between=Cut(cut)).handle(pieces.warm_up())
        assert pieces.core().handle(pieces.warm_up()).event == WarmedUp(is_private=True)
        assert theta(pieces) == theta(whole), cuts
        assert len(pieces.ledger.entries()) == 1


def test_killed_between_checkpoint_and_the_last_row_of_the_ledger_it_is_only_noted(device, monkeypatch):
    def killed(*_):
        raise CutError

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "close_charge", killed)
        with pytest.raises(CutError):
            device.core().handle(device.warm_up())
    learned = theta(device)
    assert device.ledger.entries()[0].is_open
    assert device.core().handle(device.warm_up()).event == WarmedUp(is_private=True)
    assert not device.ledger.entries()[0].is_open
    assert theta(device) == learned
    assert not device.ledger._key_path.exists()


def test_killed_between_charge_and_training_nothing_is_charged_twice(device, monkeypatch):
    def killed(*_, **__):
        raise CutError

    with monkeypatch.context() as patched:
        patched.setattr(private_learner, "train_privately", killed)
        with pytest.raises(CutError):
            device.core().handle(device.warm_up())
    (open_charge,) = device.ledger.entries()
    assert device.core().handle(device.warm_up()).event == WarmedUp(is_private=True)
    (closed,) = device.ledger.entries()
    assert closed.digest == open_charge.digest


def test_rows_that_changed_while_it_was_cut_short_are_trained_from_the_first_step_with_other_noise(tmp_path):
    device = PrivateDevice(tmp_path / "device")
    with pytest.raises(CutError):
        device.core(between=Cut(10)).handle(device.warm_up())
    fresh = device.copy(tmp_path / "fresh", rows_of(200, seed=4))
    (fresh.folder / "checkpoint-private.progress").unlink()
    device.private = fresh.private
    for each in (device, fresh):
        assert each.core().handle(each.warm_up()).event == WarmedUp(is_private=True)
    assert theta(device) == theta(fresh)


def test_a_charge_of_an_earlier_period_is_abandoned_and_not_trained_by(device):
    with pytest.raises(CutError):
        device.core(between=Cut(3)).handle(device.warm_up())
    device.now_s = NOW + 40 * DAY
    assert device.core().handle(device.warm_up()).event == WarmedUp(is_private=True)
    old, new = device.ledger.entries()
    assert (old.theta_sha256, new.is_open) == (ABANDONED, False)


def test_a_training_that_the_machine_holds_up_is_laid_aside_and_gone_on_with(device):
    class Held(Between):
        def after_step(self, size_bytes, save):
            save()
            raise DeferredError("heat")

    job = device.warm_up()
    assert device.core(between=Held()).handle(job).event == WorkDeferred(job.work, "heat")
    assert checkpoints.load_record(device.folder / "checkpoint-private.progress", checkpoints.Progress).done == 1
    assert device.core().handle(job).event == WarmedUp(is_private=True)
    assert len(device.ledger.entries()) == 1


def test_a_training_that_diverges_leaves_the_weights_as_they_were_for_this_period(device, monkeypatch):
    def diverges(*_, **__):
        raise PrivateTrainingDivergedError(7)

    core = device.core()
    before = core.handle(device.predict()).blobs[0]
    monkeypatch.setattr(private_learner, "train_privately", diverges)
    assert core.handle(device.warm_up()).event == WarmedUp(is_private=True)
    assert core.handle(device.predict()).blobs[0] == before
    assert not device.ledger.entries()[0].is_open


def test_progress_under_terms_holds_no_losses(device):
    with pytest.raises(CutError):
        device.core(between=Cut(5)).handle(device.warm_up())
    progress = checkpoints.load_record(device.folder / "checkpoint-private.progress", checkpoints.Progress)
    assert (progress.done, progress.losses) == (5, b"")


def test_learning_privately_is_what_the_plain_learner_never_touches(device):
    core = device.core()
    core.handle(device.warm_up())
    core.handle(device.train(training=TRAINING))
    assert not device.checkpoint.exists()
    assert isinstance(core._learner._learned, Learned)
    assert core._learner._learned.charge == ""
