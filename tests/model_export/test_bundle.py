"""A bundle is written whole, proven where it was built, and verified wherever it arrives."""

from dataclasses import replace

import numpy as np
import pytest

from fd_protocol.errors import DecodeError, DigestError
from fd_protocol.manifest import FileEntry, Preprocessing, Role, Task
from fd_runtime.artifacts import MissingArtifactError, load_bundle
from fd_runtime.models import golden
from fd_runtime.models.golden import Golden, GoldenMismatchError
from fd_runtime.models.model import OptimizerState
from model_export.building import build
from model_export.bundle import Proof, verify_bundle
from model_export.recipe import FactoryData, Recipe

TASK = Task(("a", "b", "c"), (12,), "uint8", Preprocessing(1 / 255))


def samples(count=40):
    return np.random.default_rng(0).integers(0, 256, (count, 12), dtype=np.uint8)


DATA = FactoryData(samples(0), np.empty(0, np.int64), samples())


@pytest.fixture
def bundle(tmp_path):
    return build(Recipe("small", "mlp-s"), TASK, DATA, tmp_path / "bundle")


def test_a_bundle_verifies_where_it_was_built(bundle):
    found, proofs = verify_bundle(bundle.folder)
    assert found.digest == bundle.digest
    assert {proofs[runtime] for runtime in ("onnxruntime", "litert", "numpy")} == {Proof.MET}
    assert tuple(proofs) == bundle.manifest.verified_on


@pytest.mark.parametrize("role", [Role.TAIL, Role.TRAIN_STEP, Role.THETA, Role.GOLDEN])
def test_one_flipped_bit_anywhere_is_found(bundle, role):
    path = bundle.folder / bundle.manifest.files[role].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DigestError, match=path.name):
        verify_bundle(bundle.folder)


def test_a_file_that_is_missing_is_named(bundle):
    (bundle.folder / "tail.onnx").unlink()
    with pytest.raises(MissingArtifactError, match=r"tail\.onnx"):
        verify_bundle(bundle.folder)


def sign_again(bundle, role, content):
    """What an attacker with the manifest's pen, or a mistake in a build script, would leave."""
    (bundle.folder / bundle.manifest.files[role].path).write_bytes(content)
    entry = FileEntry.of(bundle.manifest.files[role].path, content)
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, role: entry})
    (bundle.folder / "manifest.json").write_bytes(manifest.to_json())


def test_weights_that_do_not_give_the_golden_vectors_are_found_though_their_digest_is_right(bundle):
    theta = np.frombuffer(bundle.read(Role.THETA), "<f4")
    sign_again(bundle, Role.THETA, (2 * theta).astype("<f4").tobytes())
    load_bundle(bundle.folder)
    with pytest.raises(GoldenMismatchError, match="golden vectors"):
        verify_bundle(bundle.folder)


def test_golden_vectors_that_are_none_are_refused(bundle):
    sign_again(bundle, Role.GOLDEN, b"not an npz")
    with pytest.raises(DecodeError, match="golden"):
        verify_bundle(bundle.folder)


def test_a_bundle_never_overwrites_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        build(Recipe("small", "mlp-s"), TASK, DATA, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_recording_golden_vectors_leaves_the_model_as_it_was(bundle):
    model = bundle.open("onnxruntime")
    before = model.train_session.state
    golden.record(model, samples(8), np.zeros(8, np.int64))
    assert model.train_session.state is before


def test_golden_vectors_notice_a_train_step_that_learns_otherwise(bundle):
    model = bundle.open("numpy")
    expected = Golden.from_bytes(bundle.read(Role.GOLDEN), TASK)
    golden.check(model, expected)
    state = model.train_session.state
    model.train_session.state = OptimizerState(state.theta + np.float32(0.05), state.slots)
    with pytest.raises(GoldenMismatchError, match="losses"):
        golden.check(model, expected)


def test_golden_vectors_survive_a_round_trip_in_the_same_bytes(bundle):
    data = bundle.read(Role.GOLDEN)
    assert Golden.from_bytes(data, TASK).to_bytes() == data
