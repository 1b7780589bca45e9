"""A release is its parent with other parameters: small, proven anew, and a child by digest."""

from __future__ import annotations

import numpy as np
import pytest

from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.manifest import Preprocessing, Role, Task
from fd_runtime.models.model import ThetaError
from fd_runtime.packages import pack, unpack
from fd_runtime.releases import release
from fd_runtime.space import preprocessed
from model_export.building import build
from model_export.recipe import FactoryData, Recipe

TASK = Task(("a", "b", "c"), (1, 12, 12), "uint8", Preprocessing(1 / 255))
X = np.random.default_rng(0).integers(0, 256, (40, 1, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    recipe = Recipe("cnn", "cnn-s", int8_tail=True, private=True)
    return build(recipe, TASK, FactoryData.unlabelled(X), tmp_path_factory.mktemp("parent"))


@pytest.fixture
def theta(parent):
    return np.random.default_rng(1).normal(0, 0.2, parent.manifest.layout.size).astype(np.float32)


def logits(bundle, runtime):
    model = bundle.open(runtime)
    return model.tail.logits(model.features(preprocessed(X, TASK)))


def test_a_release_answers_with_its_own_parameters_on_every_runtime(parent, theta, tmp_path):
    child = release(parent, theta, tmp_path / "child", version="2")
    assert (child.manifest.parent, child.manifest.version) == (parent.digest.hex(), "2")
    assert {"onnxruntime", "litert"} <= set(child.manifest.verified_on)
    tail = parent.open("onnxruntime").tail
    tail.load(theta)
    expected = tail.logits(parent.open("onnxruntime").features(preprocessed(X, TASK)))
    for runtime in ("onnxruntime", "litert"):
        np.testing.assert_allclose(logits(child, runtime), expected, atol=0.05 * np.ptp(expected))
        assert np.abs(logits(child, runtime) - logits(parent, runtime)).max() > 0.1


def test_a_twin_with_the_parents_weights_is_left_out(parent, theta, tmp_path):
    assert Role.TAIL_INT8.value in parent.manifest.files
    assert Role.TAIL_INT8.value not in release(parent, theta, tmp_path / "child", version="2").manifest.files


def test_its_delta_is_a_fraction_of_it(parent, theta, tmp_path):
    child = release(parent, theta, tmp_path / "child", version="2")
    delta = pack(child, parent=parent)
    assert len(delta) < len(pack(child)) / 3
    assert unpack(delta, tmp_path / "device", parent=parent.folder).manifest == child.manifest


def test_a_runtime_that_cannot_be_proven_is_not_listed(parent, theta, tmp_path):
    def prove(_draft, runtime):
        if runtime == "litert":
            raise FedistillError("no")

    assert "litert" not in release(parent, theta, tmp_path / "child", version="2", prove=prove).manifest.verified_on


@pytest.mark.parametrize("damage", [lambda t: t[:-1], lambda t: t * np.float32(np.nan)])
def test_parameters_that_do_not_fit_write_nothing(parent, theta, tmp_path, damage):
    with pytest.raises(ThetaError):
        release(parent, damage(theta), tmp_path / "child", version="2")
    assert not (tmp_path / "child").exists()


def test_a_version_that_is_none_writes_nothing(parent, theta, tmp_path):
    with pytest.raises(InvalidValueError, match="version"):
        release(parent, theta, tmp_path / "child", version="../2")
    assert not (tmp_path / "child").exists()


def test_nothing_is_written_over(parent, theta, tmp_path):
    release(parent, theta, tmp_path / "child", version="2")
    with pytest.raises(FileExistsError):
        release(parent, theta, tmp_path / "child", version="3")
