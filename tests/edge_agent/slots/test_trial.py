"""A package on trial: what it must prove, and what is left when it does not."""

import shutil
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.checkpoint import Checkpoint
from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from edge_agent.slots import trial
from edge_agent.slots.costs import LATENCY, MEMORY, Growth
from edge_agent.slots.machine import Offered
from edge_agent.slots.shadow import MIN_HOLD_OUT_ROWS
from edge_agent.slots.shelf import Shelf
from edge_agent.slots.trial import Outcome, put_on_trial
from fd_runtime.artifacts import load_bundle
from fd_runtime.models.model import OptimizerState
from fd_runtime.packages import unpack
from tests.edge_agent.artifacts import clouds, write_private, write_public_set
from tests.edge_agent.private.noise import NOW_MS
from tests.edge_agent.processes import settings_text
from tests.edge_agent.slots.shop import Shop, learnt


@pytest.fixture
def device(factory, tmp_path):
    """A settings file, and the shelf that belongs to it."""
    shutil.copytree(factory.folder, tmp_path / "bundle")
    write_public_set(tmp_path / "public")
    write_private(tmp_path / "private.npz", rows=300)
    (tmp_path / "agent.toml").write_text(settings_text(1883, model__runtime="onnxruntime"))
    shelf = Shelf(tmp_path / "state" / "slots")
    shelf.folder.mkdir(parents=True)
    return tmp_path / "agent.toml", shelf


def delivered(shop, shelf, offered: Offered):
    shutil.copy(shop.blobs / offered.package, shelf.part(offered.package))
    return replace(offered, by_owner=True)  # what is signed has tests of its own (`test_verify`)


def test_a_good_bundle_becomes_a_slot(device, shop):
    config, shelf = device
    offered = delivered(shop, shelf, shop.good())
    verdict = put_on_trial(config, offered)
    assert verdict.outcome is Outcome.PROVEN
    assert verdict.metrics["hold_out_accuracy"] > 0.9
    assert load_bundle(shelf.slot(offered.bundle)).digest.hex() == offered.bundle
    assert not shelf.slot(f"{offered.bundle}.new").exists()
    shelf.part(offered.package).unlink()
    assert put_on_trial(config, offered).outcome is Outcome.PROVEN  # it lies there; nobody had heard


def test_what_a_crash_left_is_begun_anew(device, shop):
    config, shelf = device
    offered = delivered(shop, shelf, shop.good("1.r11"))
    for name in (offered.bundle, f"{offered.bundle}.new"):
        shelf.slot(name).mkdir()
        (shelf.slot(name) / "tail.onnx").write_bytes(b"half")
    assert put_on_trial(config, offered).outcome is Outcome.PROVEN
    assert load_bundle(shelf.slot(offered.bundle)).digest.hex() == offered.bundle


BAD = {
    "it knows less": (lambda shop: shop.clueless(), "a clear loss"),
    "it answers otherwise": (lambda shop: shop.unlike_its_golden_vectors(), "golden vectors"),
    "another family": (lambda shop: shop.of_another_family(), "family mlp-xl"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_refused_and_leaves_no_slot(device, shop, name):
    config, shelf = device
    make, reason = BAD[name]
    if name == "it knows less":  # beside a factory that knows nothing either it would be no loss
        good = delivered(shop, shelf, shop.good("1.r20"))
        assert put_on_trial(config, good).outcome is Outcome.PROVEN
        shutil.rmtree(config.parent / "bundle")
        shutil.copytree(shelf.slot(good.bundle), config.parent / "bundle")
        shop = type(shop)(load_bundle(config.parent / "bundle"), config.parent / "second shop")
    offered = delivered(shop, shelf, make(shop))
    verdict = put_on_trial(config, offered)
    assert verdict.outcome is Outcome.REFUSED
    assert reason in verdict.reason
    assert not shelf.slot(offered.bundle).exists()


# The hold-out of the store.


@contextmanager
def with_store(config, rows=400):
    """Give the device a store in the place of its file, and leave it open, as the worker has it."""
    text = config.read_text().replace('[data]\nprivate = "private.npz"', "[store]\nrows = 1000")
    assert "[store]" in text
    config.write_text(text)
    (config.parent / "state").mkdir(exist_ok=True)
    manifest = load_bundle(config.parent / "bundle").manifest
    settings = StoreSettings(rows=1000)
    store = PrivateStore.open(config.parent / "state" / "private.db", settings, manifest, clock=lambda: NOW_MS)
    samples, labels = clouds(rows, seed=21)
    with closing(store):
        for number, (sample, label) in enumerate(zip(samples, labels, strict=True)):
            known = {"sample_id": f"id-{number}", "confidence": None, "at_ms": NOW_MS, "source": "camera"}
            store.add(sample, label=int(label), **known)
        yield store


def knowing(device, shop):
    """Let the device run a bundle that has learnt, so that one which knows nothing is a loss; return its shop."""
    config, shelf = device
    good = delivered(shop, shelf, shop.good(f"good.{config.parent.name.replace('_', '-')}"))
    place = config.parent / "bundle"
    (place).rename(config.parent / "first")
    unpack(shelf.part(good.package).read_bytes(), place, parent=config.parent / "first")
    return Shop(load_bundle(place), config.parent / "second shop")


def test_the_hold_out_of_the_store_is_asked_while_the_worker_has_it_open(device, shop):
    config, shelf = device
    with with_store(config) as store:
        verdict = put_on_trial(config, delivered(shop, shelf, shop.good("1.r30")))
        held = store.summary().held_out
    assert verdict.outcome is Outcome.PROVEN
    assert verdict.metrics["rows"] == held > MIN_HOLD_OUT_ROWS
    assert verdict.metrics["hold_out_accuracy"] > 0.9


def test_a_clear_loss_on_the_stores_hold_out_refuses(device, shop):
    config, shelf = device
    second = knowing(device, shop)
    with with_store(config):
        verdict = put_on_trial(config, delivered(second, shelf, second.clueless("1.r31")))
    assert verdict.outcome is Outcome.REFUSED
    assert "a clear loss" in verdict.reason


def test_file_and_store_are_one_hold_out(device, shop):
    config, shelf = device
    text = config.read_text()
    with with_store(config) as store:
        config.write_text(f"{text}\n[store]\nrows = 1000\n")
        verdict = put_on_trial(config, delivered(shop, shelf, shop.good("1.r32")))
        assert verdict.metrics["rows"] == 30 + store.summary().held_out


def test_a_few_rows_refuse_nothing_for_ever(device, shop):
    config, shelf = device
    second = knowing(device, shop)
    with with_store(config, rows=40) as store:
        assert 0 < store.summary().held_out < MIN_HOLD_OUT_ROWS
        verdict = put_on_trial(config, delivered(second, shelf, second.clueless("1.r33")))
    assert (verdict.outcome, set(verdict.metrics)) == (Outcome.PROVEN, {LATENCY, MEMORY})


@pytest.mark.parametrize("trouble", ["store", "file"])
def test_rows_that_cannot_be_read_are_the_devices_trouble_and_no_bundles(device, shop, trouble):
    config, shelf = device
    if trouble == "store":
        with with_store(config, rows=5):
            pass
        (config.parent / "state" / "private.db").write_bytes(b"no database" * 500)
    else:
        (config.parent / "private.npz").write_bytes(b"no file of arrays")
    verdict = put_on_trial(config, delivered(shop, shelf, shop.good(f"1.r34-{trouble}")))
    assert verdict.outcome is Outcome.POSTPONED


# What the device has learnt.


def having_learnt(config, theta):
    bundle = load_bundle(config.parent / "bundle")
    state = OptimizerState.fresh(theta, bundle.manifest.training.slots)
    checkpoints.save(config.parent / "state" / "checkpoint", Checkpoint.of(bundle.digest, state, is_warm=True))


def test_what_was_learnt_is_kept_where_the_new_bundle_says_so_and_does_no_worse_with_it(device, shop):
    config, shelf = device
    having_learnt(config, learnt(shop.factory, 12))
    verdict = put_on_trial(config, delivered(shop, shelf, shop.keeping("1.k2", epochs=1)))
    assert (verdict.outcome, verdict.keeps_tail) == (Outcome.PROVEN, True)
    assert verdict.tail == "what was learnt is kept"
    assert verdict.metrics["hold_out_accuracy"] == verdict.metrics["hold_out_accuracy_before"] > 0.9


def test_a_bundle_that_does_not_say_so_is_learnt_anew_and_that_is_told(device, shop):
    config, shelf = device
    having_learnt(config, learnt(shop.factory, 12))
    verdict = put_on_trial(config, delivered(shop, shelf, shop.good("1.k3", epochs=11)))
    assert (verdict.outcome, verdict.keeps_tail) == (Outcome.PROVEN, False)
    assert verdict.tail == "it learns anew: the new bundle does not keep it"


def test_nothing_is_said_of_a_tail_where_nothing_was_learnt(device, shop):
    config, shelf = device
    verdict = put_on_trial(config, delivered(shop, shelf, shop.keeping("1.k4", epochs=9)))
    assert (verdict.keeps_tail, verdict.tail) == (True, "")  # it may learn before it begins anew


def test_a_tail_that_a_bundle_misreads_is_not_kept_and_the_bundle_is_taken_for_what_it_is(device, shop):
    """The same layout before another graph: no digest can tell."""
    config, shelf = device
    having_learnt(config, learnt(shop.factory, 12))
    offered = delivered(shop, shelf, shop.keeping_with_another_graph("1.k5"))
    verdict = put_on_trial(config, offered)
    assert (verdict.outcome, verdict.keeps_tail) == (Outcome.PROVEN, False)
    assert verdict.tail == "it learns anew: what was learnt is a clear loss with it"


def test_under_privacy_terms_nothing_is_kept_and_nobody_is_asked(device, shop):
    config, shelf = device
    config.write_text(f"{config.read_text()}\n[privacy]\nepsilon = 4.0\n")
    having_learnt(config, learnt(shop.factory, 12))
    verdict = put_on_trial(config, delivered(shop, shelf, shop.keeping("1.k6", epochs=8)))
    assert (verdict.outcome, verdict.keeps_tail) == (Outcome.PROVEN, False)
    assert set(verdict.metrics) == {LATENCY, MEMORY}  # of golden samples, which are no secret
    assert verdict.tail == "it learns anew: privacy terms"


def test_bytes_that_were_damaged_here_are_fetched_again_and_say_nothing_of_the_bundle(device, shop):
    config, shelf = device
    offered = delivered(shop, shelf, shop.good("1.r12"))
    package = shelf.part(offered.package)
    package.write_bytes(package.read_bytes()[:-1] + b"?")
    verdict = put_on_trial(config, offered)
    assert (verdict.outcome, shelf.slot(f"{offered.bundle}.new").exists()) == (Outcome.POSTPONED, False)
    assert "fetched again" in verdict.reason
    assert not package.exists()


def test_a_package_of_another_bundle_is_refused(device, shop):
    config, shelf = device
    one, other = shop.good("1.r13"), shop.good("1.r14", epochs=3)
    delivered(shop, shelf, one)
    swapped = Offered(other.bundle, other.version, one.package, one.package_bytes, by_owner=True)
    verdict = put_on_trial(config, swapped)
    assert verdict.outcome is Outcome.REFUSED
    assert "was offered" in verdict.reason


def test_a_package_that_is_not_there_is_another_time(device, shop):
    config, _ = device
    assert put_on_trial(config, shop.good("1.r15")).outcome is Outcome.POSTPONED


def test_trouble_of_the_device_itself_says_nothing_of_a_bundle(device, shop):
    config, shelf = device
    offered = delivered(shop, shelf, shop.good("1.r16"))
    shutil.rmtree(config.parent / "bundle")
    assert put_on_trial(config, offered).outcome is Outcome.POSTPONED


# Budgets.


@pytest.mark.parametrize(("key", "words"), [("latency_ms", "ms a sample"), ("memory_mb", "MB to be open")])
def test_a_bundle_beyond_the_owners_budget_is_refused(device, shop, monkeypatch, key, words):
    config, shelf = device
    monkeypatch.setattr(trial, "latency_p95_ms", lambda *_: 70.0)
    monkeypatch.setattr(Growth, "memory_mb", 70.0)
    offered = delivered(shop, shelf, shop.good(f"1.r40-{key.replace('_', '-')}"))
    config.write_text(f"{config.read_text()}\n[releases]\n{key} = 60.0\n")
    verdict = put_on_trial(config, offered)
    assert verdict.outcome is Outcome.REFUSED
    assert words in verdict.reason
    config.write_text(config.read_text().replace("60.0", "80.0"))
    assert put_on_trial(config, offered).outcome is Outcome.PROVEN


def test_what_a_bundle_costs_is_measured_and_told(device, shop):
    config, shelf = device
    verdict = put_on_trial(config, delivered(shop, shelf, shop.good("1.r41")))
    assert verdict.metrics[LATENCY] > 0.0
    assert verdict.metrics[MEMORY] >= 0.0
