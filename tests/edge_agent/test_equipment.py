"""What a device takes part in, by its settings: probes, labels, or class prototypes where its owner allows them."""

import pytest

from edge_agent.equipment import load_equipment
from fd_protocol.label_set import label_set
from fd_protocol.prototypes import STATES, PrototypeSpace
from fd_runtime.config import ConfigError
from fd_runtime.starting import StartError
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.artifacts import CLASSES, TASK, clouds, write_public_set

SETTINGS = """
[device]
id = "dev-1"
federation = "test"
[model]
bundle = "bundle"
{model}
[data]
{data}
[state]
folder = "state"
"""


def equipment(folder, family="tab-s", model="", data=""):
    samples, labels = clouds(60)
    build(Recipe("small", family, tflite="none"), TASK, FactoryData(samples, labels, samples), folder / "bundle")
    path = folder / "agent.toml"
    path.write_text(SETTINGS.format(model=model, data=data))
    return load_equipment(path)


def test_without_a_public_set_a_device_is_asked_about_the_labels_of_its_task(tmp_path):
    profile = equipment(tmp_path).profile(0)
    assert (profile.public_set, profile.probes, profile.classes) == (label_set(TASK.digest), CLASSES, CLASSES)


def test_where_prototypes_may_leave_it_a_device_is_asked_about_the_features_of_its_backbone(tmp_path):
    equipped = equipment(tmp_path, data="prototypes = true")
    space = PrototypeSpace.of(equipped.bundle.manifest)
    profile = equipped.profile(0)
    assert equipped.space == space
    assert (profile.public_set, profile.probes, profile.classes) == (space.digest, 32 * CLASSES, STATES)


def test_prototypes_of_a_model_without_a_backbone_would_be_samples_and_are_refused(tmp_path):
    with pytest.raises(StartError, match=r"data\.prototypes: prototypes are features of an int8 backbone"):
        equipment(tmp_path, "mlp-s", data="prototypes = true")


def test_prototypes_and_a_public_set_are_two_answers_to_one_question(tmp_path):
    write_public_set(tmp_path / "public")
    with pytest.raises(ConfigError, match=r"data\.prototypes is for federations without a public set"):
        equipment(tmp_path, model='public_set = "public"', data="prototypes = true")
