"""A federation of class prototypes, at the server: what it asks for, whom it takes, what it refuses to start with."""

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.core.admission import RefusedError, admit_contribution
from broker_server.equipment import Workshop, load_equipment
from broker_server.offers import open_round
from broker_server.settings import MethodSettings, RoundSettings, Settings
from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import Codec, Contribution, Slice
from fd_protocol.payload import encode_body, quantise
from fd_protocol.prototypes import STATES, PrototypeSpace
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.artifacts import load_bundle
from fd_runtime.releases import release
from model_export.building import build
from model_export.quantisation import QuantisationTerms
from model_export.recipe import FactoryData, Recipe
from tests.broker_server.artifacts import TASK, build_artifacts, three_kinds
from tests.broker_server.builders import FED, round_id

METHOD = MethodSettings("prototypes")


def build_bundle(folder, family="tab-s", int8="minmax"):
    samples, labels = three_kinds(60)
    recipe = Recipe("small", family, tflite="none", quantisation=QuantisationTerms(method=int8))
    return build(recipe, TASK, FactoryData(samples, labels, samples), folder)


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path), "--federation", FED, "--trust", "none"]) == 0
    path = tmp_path / CONFIG_NAME
    edit(path, 'name = "competence"', 'name = "prototypes"')
    edit(path, 'public_set = "public_set"', "# public_set")
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refusal(path, capsys):
    capsys.readouterr()
    code = main(["run", "--config", str(path)])
    return code, capsys.readouterr().err


def test_it_asks_for_every_feature_of_every_class_of_the_bundles_backbone(config):
    bundle = build_bundle(config.parent / "bundle")
    equipment = load_equipment(config)
    space = PrototypeSpace.of(bundle.manifest)
    assert (equipment.probes.public_set, equipment.probes.count) == (space.digest, 3 * 32)
    assert Workshop(equipment).first().student is None
    opening = open_round(equipment.config, equipment.probes, {}, round_id(), seed=bytes(16), at_ms=0)
    assert opening.offer.slice == Slice(space.digest, 0, 96, STATES)
    assert not opening.offer.competence


def test_prototypes_of_another_backbone_are_refused(config):
    build_bundle(config.parent / "bundle")
    other = PrototypeSpace.of(build_bundle(config.parent / "other", "tab-m").manifest)
    equipment = load_equipment(config)
    offer = open_round(equipment.config, equipment.probes, {}, round_id(), seed=bytes(16), at_ms=0).offer
    rows = SoftLabels(np.tile(np.array([0.5, 0.5, 0.0], np.float32), (other.count, 1)), offer.temperature)
    body = encode_body(quantise(rows, offer.codec))
    part = Slice(other.digest, 0, other.count, STATES)
    payload = codec.encode(Contribution(part, offer.temperature, offer.codec, body))
    with pytest.raises(RefusedError, match="foreign_public_set"):
        admit_contribution(payload, offer, lambda _: None)


@pytest.mark.parametrize(("family", "int8"), [("mlp-s", "minmax"), ("tab-s", "none")])
def test_a_bundle_without_an_int8_backbone_is_refused_at_its_key(config, capsys, family, int8):
    build_bundle(config.parent / "bundle", family, int8)
    code, line = refusal(config, capsys)
    assert code == 78
    assert "artifacts.bundle: prototypes are features of an int8 backbone" in line


def test_a_public_set_is_in_vain(config, capsys):
    build_artifacts(config.parent)
    edit(config, "# public_set", 'public_set = "public_set"')
    code, line = refusal(config, capsys)
    assert code == 78
    assert "artifacts.public_set: method prototypes goes without a public set" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": MethodSettings("prototypes", codec=Codec.TOP_1)}, "top-1 would not carry it"),
        ({"method": MethodSettings("prototypes", codec=Codec.TOP_K, top_k=1)}, "top-k would not carry it"),
        ({"rounds": RoundSettings(probes=10)}, "asks for all prototypes in every round"),
        ({"method": MethodSettings("prototypes", downlink="student")}, "needs a public set"),
        ({"method": MethodSettings("per-label", downlink="student")}, "needs a public set"),
        ({"rounds": RoundSettings(most_uncovered=0.3)}, "goes with competence maps"),
    ],
)
def test_settings_that_make_no_sense_of_prototypes_are_refused(changes, said):
    with pytest.raises(InvalidValueError, match=said):
        Settings(FED, **{"method": METHOD, **changes})


def test_a_release_of_the_same_backbone_speaks_of_the_same_prototypes(config):
    first, folder = build_bundle(config.parent / "bundle"), config.parent / "next"
    release(first, np.zeros(first.manifest.layout.size, np.float32), folder, version="2")
    assert load_bundle(folder).digest != first.digest
    assert PrototypeSpace.of(load_bundle(folder).manifest) == PrototypeSpace.of(first.manifest)
