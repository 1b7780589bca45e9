"""What a device has learnt for itself, when another bundle comes: carried over, or left where it was."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.equipment import load_equipment
from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.checkpoint import Checkpoint
from edge_agent.learning.learned import private_path
from edge_agent.slots.machine import Downloaded, Healthy, Installed, Nudged, Offered, Phase, Started, TookPart, step
from edge_agent.slots.personal import carry_over, learnt_with
from fd_protocol.manifest import TrainSpec
from fd_runtime.artifacts import load_bundle
from fd_runtime.models.model import OptimizerState
from tests.edge_agent.artifacts import LAYOUT, factory_theta, write_bundle
from tests.edge_agent.slots.test_trial import delivered, device  # noqa: F401 - a fixture

THETA = factory_theta(seed=7)
SLOTS = {"moment1": factory_theta(seed=8), "moment2": factory_theta(seed=9)}


@pytest.fixture
def before(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "before"))
    save(tmp_path / "before.checkpoint", bundle)
    return bundle


def save(path, of, **changes):
    record = Checkpoint.of(of.digest, OptimizerState(THETA, SLOTS, 17), is_warm=True)
    checkpoints.save(path, replace(record, **changes))


def successor(folder, **changes):
    return load_bundle(write_bundle(folder, **{"theta": factory_theta(seed=3), "keeps_tail": True, **changes}))


def carried(tmp_path, before, after):
    is_carried = carry_over(before, tmp_path / "before.checkpoint", after, tmp_path / "after.checkpoint")
    assert is_carried == (tmp_path / "after.checkpoint").exists()
    return checkpoints.load(tmp_path / "after.checkpoint")


def test_parameters_and_the_optimizers_memory_are_carried_over(tmp_path, before):
    after = successor(tmp_path / "after")
    found = carried(tmp_path, before, after)
    assert (found.bundle, found.is_warm, found.step) == (after.digest, True, 17)
    assert np.array_equal(found.state().theta, THETA)
    assert np.array_equal(found.state().slots["moment2"], SLOTS["moment2"])
    assert np.array_equal(learnt_with(after, tmp_path / "after.checkpoint"), THETA)


def test_the_file_of_the_bundle_before_stays_for_the_way_back(tmp_path, before):
    content = (tmp_path / "before.checkpoint").read_bytes()
    carried(tmp_path, before, successor(tmp_path / "after"))
    assert (tmp_path / "before.checkpoint").read_bytes() == content


def test_another_optimizer_begins_anew_with_the_same_parameters(tmp_path, before):
    after = successor(tmp_path / "after", training=TrainSpec(64, "momentum", ("velocity",)))
    found = carried(tmp_path, before, after)
    assert np.array_equal(found.state().theta, THETA)
    assert {name: float(vector.sum()) for name, vector in found.state().slots.items()} == {"velocity": 0.0}
    assert (found.step, found.is_warm) == (0, True)


def test_what_a_bundle_has_learnt_itself_stands(tmp_path, before):
    after = successor(tmp_path / "after")
    save(tmp_path / "after.checkpoint", after, theta=factory_theta(seed=30).tobytes())
    assert not carry_over(before, tmp_path / "before.checkpoint", after, tmp_path / "after.checkpoint")
    assert np.array_equal(learnt_with(after, tmp_path / "after.checkpoint"), factory_theta(seed=30))


def test_a_bundle_that_does_not_keep_it_begins_with_its_own(tmp_path, before):
    assert carried(tmp_path, before, successor(tmp_path / "after", keeps_tail=None)) is None


def another_length(path, bundle):
    save(path, bundle, theta=bytes(4 * 5), slots={})


def not_finite(path, bundle):
    save(path, bundle, theta=np.full(LAYOUT.size, np.nan, "<f4").tobytes())


BROKEN = {
    "there is none": lambda path, _: path.unlink(),
    "it is damaged": lambda path, _: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "it is another bundle's": lambda path, bundle: save(path, bundle, bundle=b"o" * 32),
    "it has another length": another_length,
    "it is not finite": not_finite,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_checkpoint_that_is_none_costs_what_was_learnt_and_nothing_else(tmp_path, before, name):
    place = tmp_path / "before.checkpoint"
    BROKEN[name](place, before)
    assert learnt_with(before, place) is None
    assert carried(tmp_path, before, successor(tmp_path / "after")) is None


def test_a_device_that_speaks_under_privacy_terms_begins_anew(tmp_path, before):
    paid = private_path(tmp_path / "before.checkpoint")
    save(paid, before)
    os.utime(paid, (2_000_000_000, 2_000_000_000))
    assert carried(tmp_path, before, successor(tmp_path / "after")) is None


# Which bundle is the one before.


def switched(shelf, factory, offered, *events, keeps_tail=True):
    """Write down the state of a device that has switched to a bundle; its slot is there."""
    state = step(shelf.load(), Started(factory.digest.hex()))
    way = (Nudged(offered), Downloaded(), Installed("", keeps_tail), *events)
    for event in way:
        state = step(state, event)
    shelf.save(state)
    return state


@pytest.fixture
def switching(device, shop, factory):  # noqa: F811 - the fixture
    config, shelf = device
    offered = delivered(shop, shelf, shop.keeping(f"5.{os.urandom(4).hex()}", epochs=1))
    shutil.copytree(shop.place / "bundles" / offered.version, shelf.slot(offered.bundle))
    return lambda *events, **changes: (
        switched(shelf, factory, offered, *events, **changes),
        load_equipment(config),
        offered,
    )


@pytest.mark.parametrize(
    "events",
    [(), (Healthy(),), (Healthy(), Nudged(Offered("b" * 64, "9", "c" * 64, 9)))],
    ids=["on trial", "at rest", "while another is fetched"],
)
def test_a_bundle_that_has_begun_goes_on_with_what_ran_before(switching, factory, events):
    _, equipment, offered = switching(Started(factory.digest.hex()), *events)
    assert equipment.bundle.digest.hex() == offered.bundle
    assert equipment.before.bundle.digest == factory.digest
    assert equipment.before.checkpoint == equipment.settings.state.checkpoint


def test_until_it_begins_the_bundle_that_runs_inherits_nothing(switching, factory):
    state, equipment, _ = switching()
    assert (state.phase, equipment.bundle.digest) == (Phase.REBOOT, factory.digest)
    assert equipment.before is None


def test_what_the_trial_found_no_good_is_not_inherited(switching, factory):
    _, equipment, _ = switching(Started(factory.digest.hex()), keeps_tail=False)
    assert equipment.before is None


def test_after_a_round_there_is_no_bundle_before(switching, factory):
    _, equipment, _ = switching(Started(factory.digest.hex()), Healthy(), TookPart())
    assert equipment.before is None


def test_a_bundle_before_that_cannot_be_read_is_no_reason_not_to_start(switching, device, factory):  # noqa: F811
    config, _ = device
    switching(Started(factory.digest.hex()), Healthy())
    (config.parent / "bundle" / "manifest.json").write_bytes(b"{}")
    assert load_equipment(config).before is None


def test_what_was_learnt_with_a_bundle_that_is_gone_goes_in_all_its_files(switching, device, factory):  # noqa: F811
    _, shelf = device
    state, _, offered = switching(Started(factory.digest.hex()), Healthy(), TookPart())
    kinds = ("checkpoint", "checkpoint-private", "checkpoint.progress", "checkpoint-private.progress")
    for digest in (offered.bundle, "e" * 64):
        for kind in kinds:
            (shelf.folder / f"{digest}.{kind}").write_bytes(b"learnt")
    shelf.tidy(state)
    left = sorted(path.name for path in shelf.folder.iterdir())
    assert left == sorted(["state.json", offered.bundle, *(f"{offered.bundle}.{kind}" for kind in kinds)])
