"""A public set is shuffled once, described by digests, and carries the space that competence is measured in."""

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Preprocessing, Task
from fd_protocol.public_set import PUBLIC_SET_NAME, PublicSetSpec
from fd_runtime.artifacts import load_public_set
from fd_runtime.space import preprocessed
from model_export.public_set import build_public_set, principal_space
from model_export.samples import Samples

TASK = Task(("a", "b"), (4, 6), "uint8", Preprocessing(1 / 255))


def some_probes(count=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 6), dtype=np.uint8)


def build(folder, **changes):
    return build_public_set(folder, **{"probes": some_probes(), "task": TASK, "seed": 1, "dimensions": 5} | changes)


def test_every_file_is_the_one_its_digest_promises(tmp_path):
    spec = build(tmp_path).spec
    assert PublicSetSpec.from_json((tmp_path / PUBLIC_SET_NAME).read_bytes()) == spec
    for entry in spec.files.values():
        assert sha256((tmp_path / entry.path).read_bytes()).hex() == entry.sha256


def test_equal_arguments_give_equal_identities_and_another_seed_another(tmp_path):
    one, again, other = (build(tmp_path / name, seed=seed).spec for name, seed in (("1", 1), ("2", 1), ("3", 2)))
    assert one.digest == again.digest != other.digest


def test_the_order_says_where_each_probe_came_from(tmp_path):
    built = build(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "probes.npy"), some_probes()[built.order])
    assert not np.array_equal(built.order, np.arange(60))


def test_the_space_is_orthonormal_and_its_widest_axis_comes_first(tmp_path):
    build(tmp_path)
    public = load_public_set(tmp_path)
    space = public.space()
    np.testing.assert_allclose(space.components @ space.components.T, np.eye(5), atol=1e-5)
    spread = space.locate(preprocessed(public.probes(), TASK)).std(axis=0)
    assert (np.diff(spread) < 0).all()


def test_the_unit_is_the_median_distance_to_the_nearest_fellow():
    line = np.array([[0, 0], [1, 0], [3, 0], [6, 0], [10, 0]], np.float32)
    assert principal_space(line, 1).unit == pytest.approx(2.0)  # nearest: 1, 1, 2, 3, 4


def test_the_space_has_no_more_dimensions_than_the_probes_span(tmp_path):
    assert build(tmp_path, probes=some_probes(4), dimensions=20).spec.space.dimensions == 3


@pytest.mark.parametrize(
    ("probes", "complaint"),
    [
        (some_probes().reshape(60, 24), "probes must be uint8"),
        (some_probes().astype(np.float32), "probes must be uint8"),
        (some_probes(1), "at least 2"),
        (np.zeros((10, 4, 6), np.uint8), "too much alike"),
    ],
)
def test_what_is_no_set_of_probes_is_refused_before_anything_is_written(tmp_path, probes, complaint):
    with pytest.raises(InvalidValueError, match=complaint):
        build(tmp_path / "set", probes=probes)
    assert not (tmp_path / "set").exists()


def test_canaries_are_hidden_among_the_probes_and_only_the_builder_knows_their_labels(tmp_path):
    canaries = Samples(some_probes(11, seed=9), np.arange(11) % 2)
    built = build(tmp_path, canaries=canaries)
    probes = np.load(tmp_path / "probes.npy")
    known = {**dict(zip(built.canaries.trust.probes, built.canaries.trust.labels, strict=True))}
    known |= dict(zip(built.canaries.release.probes, built.canaries.release.labels, strict=True))
    assert built.spec.count == len(probes) == 71
    assert len(built.canaries.trust.probes) == 6
    assert len(known) == 11
    for place, label in known.items():
        original = built.order[place] - 60
        np.testing.assert_array_equal(probes[place], canaries.values[original])
        assert canaries.labels[original] == label
    assert built.canaries.public_set_sha256 == built.spec.digest.hex()
    assert "canar" not in (tmp_path / PUBLIC_SET_NAME).read_text()


@pytest.mark.parametrize("seed", range(5))
def test_every_slice_has_its_share_of_the_canaries_of_each_class_for_trust_and_for_release(tmp_path, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2, 3], [40, 40, 20, 10]))
    canaries = Samples(some_probes(110, seed=9), labels)
    built = build(tmp_path, probes=some_probes(990), canaries=canaries, seed=seed)
    for known in (built.canaries.trust, built.canaries.release):
        places, classes = np.array(known.probes), np.array(known.labels)
        np.testing.assert_array_equal(np.bincount(classes), [20, 20, 10, 5])
        for start in range(0, 1100 - 220, 55):  # a fifth of the set: 22 canaries, a half for each end
            share = np.bincount(classes[(places >= start) & (places < start + 220)], minlength=4)
            assert (np.abs(share - [4, 4, 2, 1]) <= 1).all()


def test_where_a_canary_lies_in_its_stretch_is_drawn_at_random(tmp_path):
    canaries = Samples(some_probes(100, seed=9), np.zeros(100, np.int64))
    built = build(tmp_path, probes=some_probes(900), canaries=canaries)
    places = np.flatnonzero(built.order >= 900)
    np.testing.assert_array_equal(places // 10, np.arange(100))  # one of ten rows
    assert (np.bincount(places % 10, minlength=10) >= 3).all()
    assert (np.bincount(built.order, minlength=1000) == 1).all()


def test_the_space_of_texts_counts_words_whatever_their_order(tmp_path):
    task = Task(("a", "b"), (12,), "int32", vocabulary=30)
    tokens = np.random.default_rng(0).integers(0, 30, (40, 12), dtype=np.int32)
    build(tmp_path, probes=tokens, task=task)
    space = load_public_set(tmp_path).space()
    np.testing.assert_allclose(space.locate(tokens), space.locate(tokens[:, ::-1]), atol=1e-5)
    roots = np.sqrt([np.bincount(row, minlength=30) / 12 for row in tokens]).astype(np.float32)
    expected = (roots - space.mean) @ space.components.T / space.unit
    np.testing.assert_allclose(space.locate(tokens), expected, atol=1e-4)


def test_a_missing_value_counts_as_the_mean(tmp_path):
    task = Task(("a", "b"), (6,), "float32")
    table = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    table[::7, 2] = np.nan
    build(tmp_path, probes=table, task=task)
    space = load_public_set(tmp_path).space()
    filled = np.where(np.isnan(table), np.nanmean(table, axis=0), table)
    np.testing.assert_allclose(space.locate(table), space.locate(filled), atol=1e-4)
    assert np.isfinite(space.locate(table)).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e38])
def test_values_without_a_distance_are_refused(value):
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    rows[4, 1] = value
    with pytest.raises(InvalidValueError, match="infinite"):
        principal_space(rows, 2)
