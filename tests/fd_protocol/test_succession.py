"""Whether what was learnt with one bundle is anything for the next one: what the manifests say."""

from dataclasses import replace

import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import (
    FORMAT,
    FeatureSpec,
    FileEntry,
    InvalidManifestError,
    Manifest,
    Role,
    Task,
    TrainSpec,
)
from fd_protocol.succession import unfit

LAYOUT = ThetaLayout.of([("w", (3, 2)), ("b", (2,))])


def manifest(backbone=b"frozen", twin=None, theta=b"t" * 32, **changes):
    files = {
        Role.BACKBONE: ("backbone.onnx", backbone),
        Role.TAIL: ("tail.onnx", b"tail" + theta),
        Role.TRAIN_STEP: ("step.onnx", b"step"),
        Role.THETA: ("theta.bin", theta),
    }
    if twin is not None:
        files[Role.BACKBONE_TFLITE] = ("backbone.tflite", twin)
    fields = {
        "format": FORMAT,
        "name": "a",
        "family": "cnn-s",
        "version": "1",
        "task": Task(("a", "b"), (4,), "uint8"),
        "files": {role.value: FileEntry.of(*content) for role, content in files.items()},
        "layout": LAYOUT,
        "features": FeatureSpec((3,), "uint8", 0.1, 3),
        "training": TrainSpec(8, "sgd"),
        "verified_on": ("onnxruntime",),
    }
    return Manifest(**{**fields, **changes})


BEFORE = manifest()


@pytest.mark.parametrize(
    "after",
    [
        manifest(theta=b"u" * 32, version="2", keeps_tail=True),
        manifest(twin=b"the same for another runtime", keeps_tail=True),
        manifest(training=TrainSpec(8, "adam", ("m", "v")), keeps_tail=True),
    ],
    ids=["other parameters", "a twin more", "another optimizer"],
)
def test_a_tail_is_kept_where_shape_and_backbone_are_the_same(after):
    assert unfit(BEFORE, after) == ""


UNFIT = {
    "nobody says so": (manifest(version="2"), "does not keep it"),
    "another backbone": (manifest(backbone=b"frozen otherwise", keeps_tail=True), "another one"),
    "other codes": (manifest(features=FeatureSpec((3,), "uint8", 0.2, 3), keeps_tail=True), "another one"),
    "another order": (
        manifest(layout=ThetaLayout.of([("b", (2,)), ("w", (3, 2))]), keeps_tail=True),
        "another shape",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_tail_that_fits_nothing_is_not_kept_whatever_is_said(name):
    after, word = UNFIT[name]
    assert word in unfit(BEFORE, after)


def test_another_twin_for_the_same_runtime_is_another_backbone():
    before, after = manifest(twin=b"one"), manifest(twin=b"two", keeps_tail=True)
    assert "another one" in unfit(before, after)


def test_a_bundle_from_before_this_key_has_the_digest_that_it_had():
    assert b"keeps_tail" not in BEFORE.to_json()
    assert Manifest.from_json(BEFORE.to_json()).digest == BEFORE.digest
    kept = replace(BEFORE, keeps_tail=True)
    assert Manifest.from_json(kept.to_json()) == kept
    assert kept.digest != BEFORE.digest


def test_there_is_one_way_to_say_no():
    with pytest.raises(InvalidValueError):
        replace(BEFORE, keeps_tail=False)
    data = replace(BEFORE, keeps_tail=True).to_json().replace(b'"keeps_tail": true', b'"keeps_tail": false')
    with pytest.raises(InvalidManifestError):
        Manifest.from_json(data)
