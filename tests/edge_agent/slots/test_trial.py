"""A package on trial: what it must prove, and what is left when it does not."""

import shutil

import pytest

from edge_agent.slots.machine import Offered
from edge_agent.slots.shelf import Shelf
from edge_agent.slots.trial import Outcome, put_on_trial
from fd_runtime.artifacts import load_bundle
from tests.edge_agent.artifacts import write_private, write_public_set
from tests.edge_agent.processes import settings_text


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
    return offered


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


def test_other_bytes_than_offered_are_refused_before_they_are_read(device, shop):
    config, shelf = device
    offered = delivered(shop, shelf, shop.good("1.r12"))
    package = shelf.part(offered.package)
    package.write_bytes(package.read_bytes()[:-1] + b"?")
    verdict = put_on_trial(config, offered)
    assert (verdict.outcome, shelf.slot(f"{offered.bundle}.new").exists()) == (Outcome.REFUSED, False)
    assert "was offered" in verdict.reason


def test_a_package_of_another_bundle_is_refused(device, shop):
    config, shelf = device
    one, other = shop.good("1.r13"), shop.good("1.r14", epochs=3)
    delivered(shop, shelf, one)
    swapped = Offered(other.bundle, other.version, one.package, one.package_bytes)
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
