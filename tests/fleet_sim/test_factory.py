"""What leaves the factory fits together, and is measured without being touched."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from fleet_sim.factory import equip, public_set_bytes
from fleet_sim.federation.simulation import Simulation
from fleet_sim.lab import Lab
from fleet_sim.scenario import PRESETS
from fleet_sim.worlds import Samples, digits, new_class
from model_export.pretrain import PretrainTerms

MODELS = replace(
    PRESETS["new-class"].models, families=("cnn-s", "mlp-s"), student="cnn-s", pretraining=PretrainTerms(3)
)


@pytest.fixture(scope="module")
def world():
    return new_class(3)


@pytest.fixture(scope="module")
def equipment(world, tmp_path_factory):
    return equip(world, MODELS, 3, tmp_path_factory.mktemp("factory"))


def test_bundles_and_public_set_are_of_one_task(world, equipment):
    assert equipment.public.spec.task_sha256 == world.task.digest.hex()
    assert {bundle.manifest.task.digest for bundle in equipment.bundles.values()} == {world.task.digest}
    assert set(equipment.bundles) == {"cnn-s", "mlp-s"}


def test_canaries_point_at_the_same_samples_before_and_after_the_shuffle(world, equipment):
    canaries = equipment.canaries
    positions = [*canaries.trust.probes, *canaries.release.probes]
    shuffled = equipment.public.probes()[positions]
    assert {row.tobytes() for row in shuffled} == {row.tobytes() for row in world.probes.values[world.canaries]}
    labels = [*canaries.trust.labels, *canaries.release.labels]
    np.testing.assert_array_equal(labels, equipment.public_probes.labels[positions])
    assert len(canaries.trust.probes) == len(canaries.release.probes) == 100


def test_the_bytes_of_a_public_set_are_those_of_what_devices_get(world, equipment):
    files = [path.read_bytes() for path in equipment.public.folder.iterdir()]
    assert public_set_bytes(world, 3) == sum(len(zlib.compress(content, 9)) for content in files)


def test_the_public_set_on_disk_holds_no_label(equipment):
    files = {path.name for path in equipment.public.folder.iterdir()}
    assert files == {"public_set.json", "probes.npy", "space_mean.npy", "space_components.npy"}


def test_a_lab_sees_samples_as_each_family_reads_them(world, equipment):
    lab = Lab(world, equipment.bundles)
    whole, features = lab.rows("mlp-s", world.test), lab.rows("cnn-s", world.test)
    assert whole.features.shape == (800, 1, 28, 28)
    assert (features.features.shape, features.features.dtype) == ((800, 64), np.uint8)
    assert lab.rows("cnn-s", world.test) is features


def test_a_device_without_a_row_has_no_features_of_the_right_shape(world, equipment):
    nobody = Samples(world.test.values[:0], world.test.labels[:0])
    assert Lab(world, equipment.bundles).rows("cnn-s", nobody).features.shape == (0, 64)


def test_looking_changes_nothing(tmp_path):
    world = digits(0, devices=3)
    scenario = replace(PRESETS["digits"], devices=3, rounds=2)
    equipment = equip(world, scenario.models, 0, tmp_path)
    watched, unwatched = (Simulation(scenario, world, equipment, 0) for _ in range(2))
    for result in watched.run():
        again = watched.observer.look(watched.server, watched.honest)
        assert (again.clients, again.student) == (result.clients, result.student)
    *_, last = unwatched.run()
    assert last.consensus_sha256 == result.consensus_sha256
    assert last.clients == result.clients


def test_a_factory_model_can_start_again_and_again(equipment):
    model = Lab(None, equipment.bundles).factory_model("cnn-s")
    one, two = (model.session("adam") for _ in range(2))
    np.testing.assert_array_equal(one.state.theta, two.state.theta)
    assert tuple(model.session("momentum").state.slots) == ("velocity",)


def test_a_device_may_answer_without_its_local_prior(world, equipment):
    """As `[inference] local_prior = false` has it."""
    one, other = (Lab(world, equipment.bundles, has_prior) for has_prior in (True, False))

    def evenly(rows):
        return np.zeros((len(rows.labels), 10), np.float32)

    corrected, labels = one.own_answers("cnn-s", 0, evenly)
    plain, _ = other.own_answers("cnn-s", 0, evenly)
    assert not plain.any()
    assert (corrected.argmax(axis=1) == np.bincount(world.private[0].labels).argmax()).all()
    np.testing.assert_array_equal(other.own_hits("cnn-s", 0, evenly)[0], labels == 0)
