"""A bundle that devices may go on with: said by whoever makes it, and refused where it cannot be."""

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.succession import unfit
from fd_runtime.artifacts import load_bundle
from fd_runtime.releases import release
from model_export import cli
from tests.support.small_bundles import small_bundle


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("parent") / "parent")


def test_the_same_recipe_with_another_optimizer_keeps_the_tail(parent, tmp_path):
    after = small_bundle(tmp_path / "after", version="2", optimizer="sgd", parent=parent.folder, keeps_tail=True)
    assert after.manifest.keeps_tail
    assert after.manifest.parent == parent.digest.hex()
    assert unfit(parent.manifest, after.manifest) == ""


def test_another_backbone_cannot_and_nothing_is_written(parent, tmp_path):
    with pytest.raises(InvalidValueError, match="cannot keep the tail of its parent: the new backbone is another one"):
        small_bundle(tmp_path / "after", version="2", seed=5, parent=parent.folder, keeps_tail=True)
    assert not (tmp_path / "after").exists()


def test_a_tail_is_kept_of_a_parent(tmp_path):
    with pytest.raises(InvalidValueError, match="`keeps_tail` is about the tail of a `parent`"):
        small_bundle(tmp_path / "after", keeps_tail=True)


def test_a_bundle_does_not_keep_it_unless_it_is_told_to(parent, tmp_path):
    after = small_bundle(tmp_path / "after", version="2", parent=parent.folder)
    assert after.manifest.keeps_tail is None
    assert unfit(parent.manifest, after.manifest) == "the new bundle does not keep it"


def test_a_release_of_a_bundle_that_kept_it_does_not_for_that(parent, tmp_path):
    theta = np.zeros(parent.manifest.layout.size, np.float32)
    kept = release(parent, theta, tmp_path / "kept", version="2", keeps_tail=True)
    assert unfit(parent.manifest, kept.manifest) == ""
    assert release(kept, theta, tmp_path / "next", version="3").manifest.keeps_tail is None


def test_the_command_line_says_so_and_shows_it(parent, tmp_path, capsys):
    (tmp_path / "theta.bin").write_bytes(bytes(4 * parent.manifest.layout.size))
    arguments = ["release", parent.folder, "--theta", tmp_path / "theta.bin", "--version", "2", "--keeps-tail"]
    assert cli.main([*map(str, arguments), "--out", str(tmp_path / "out")]) == 0
    assert load_bundle(tmp_path / "out").manifest.keeps_tail
    assert "keeps_tail" in capsys.readouterr().out
