"""Public sets by digest: found there, never used before they are whole."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_runtime.artifacts import MissingArtifactError, load_public_set
from fd_runtime.public_sets import PublicSets
from model_export.public_set import build_public_set
from tests.edge_agent.artifacts import TASK, clouds, write_public_set


@pytest.fixture
def source(tmp_path):
    """The folder of a public set that is somewhere else."""
    return write_public_set(tmp_path / "stick")


@pytest.fixture
def sets(tmp_path):
    return PublicSets(tmp_path / "public_sets", TASK.digest)


def test_a_set_that_was_added_is_found_by_its_digest(source, sets):
    digest = load_public_set(source).digest
    assert (sets.held(), sets.count(digest)) == ({}, 0)
    added = sets.add(source)
    assert (added.digest, added.folder.name) == (digest, digest.hex())
    assert sets.held() == {digest: 60}
    assert np.array_equal(sets.find(digest).probes(), load_public_set(source).probes())
    assert sets.add(source) == added


def test_a_set_of_another_task_is_not_added(source, sets):
    with pytest.raises(InvalidValueError, match="another task"):
        replace(sets, task=sha256(b"another")).add(source)
    assert not sets.folder.exists()


def test_what_is_no_set_is_not_added(tmp_path, sets):
    with pytest.raises(MissingArtifactError):
        sets.add(tmp_path)


@pytest.mark.parametrize("damage", ["a byte", "a file", "another name"])
def test_a_set_that_is_not_what_its_name_says_is_passed_over_and_made_whole_by_adding_it(source, sets, damage):
    place, digest = sets.add(source).folder, load_public_set(source).digest
    if damage == "a byte":
        data = bytearray((place / "probes.npy").read_bytes())
        data[-1] ^= 1
        (place / "probes.npy").write_bytes(data)
    elif damage == "a file":
        (place / "space_mean.npy").unlink()
    else:
        build_public_set(source.with_name("other"), clouds(50, seed=6)[0], TASK, seed=3, dimensions=3)
        shutil.rmtree(place)
        shutil.copytree(source.with_name("other"), place)
    assert (sets.find(digest), sets.held()) == (None, {})
    sets.add(source)
    assert sets.held() == {digest: 60}


def test_a_set_whose_description_is_no_utf_8_is_passed_over(source, sets):
    good = sets.add(source)
    plain = json.loads(good.spec.to_json()) | {"provenance": {"by": "\ud800"}}
    bad = sets.folder / ("00" * 32)
    bad.mkdir()
    (bad / "public_set.json").write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")
    assert sets.find(bytes(32)) is None
    assert sets.held() == {good.digest: 60}


def test_what_lies_beside_the_sets_is_passed_over(sets, source):
    sets.add(source)
    (sets.folder / "README").write_text("hello")
    (sets.folder / "ab").mkdir()
    assert list(sets.held()) == [load_public_set(source).digest]
