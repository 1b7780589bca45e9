"""A release: what is refused, what its notes and sums say; and whole ones, made twice."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.deb.catalogue import targets
from deploy.release import __main__ as command
from deploy.release import making
from fd_runtime.version import VERSION

CHANGELOG = """# Changelog

## [Unreleased]

### Added
- Not yet.

## [0.2.0] - 2026-12-01

### Added
- A thing.

## [0.1.0] - 2026-11-01
"""


def test_notes_are_what_the_changelog_says_of_one_version():
    assert making.notes(CHANGELOG, "0.2.0") == "### Added\n- A thing.\n"
    assert making.notes(CHANGELOG, "Unreleased") == "### Added\n- Not yet.\n"


@pytest.mark.parametrize("version", ["0.1.0", "0.2", "0.3.0"])
def test_a_version_of_which_the_changelog_says_nothing_is_no_release(version):
    with pytest.raises(making.NotReadyError, match="says nothing"):
        making.notes(CHANGELOG, version)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, in the place of ours."""

    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(making, "ROOT", tmp_path)
    return tmp_path, git


def test_only_a_tagged_commit_is_released(checkout):
    _, git = checkout
    with pytest.raises(making.NotReadyError, match=r"not tagged v0\.2\.0"):
        making.check_commit("0.2.0")
    git("tag", "v0.2.0")
    making.check_commit("0.2.0")


@pytest.mark.parametrize("change", ["file", "another"])
def test_what_is_in_no_commit_is_not_released(checkout, change):
    folder, git = checkout
    git("tag", "v0.2.0")
    (folder / change).write_text("2")
    with pytest.raises(making.NotReadyError, match=change):
        making.check_commit("0.2.0")


def test_sums_are_what_sha256sum_checks(tmp_path):
    (tmp_path / "a.deb").write_bytes(b"a")
    (tmp_path / "b.whl").write_bytes(b"b")
    (tmp_path / making.SUMS).write_text(making.sums(tmp_path))
    (tmp_path / making.SUMS).write_text(making.sums(tmp_path))  # and not of itself
    check = ["sha256sum", "--check", "--strict", making.SUMS]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "a.deb").write_bytes(b"c")
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 1


def test_some_packages_are_no_release(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--arch", "arm64"])
    assert end.value.code == 2
    assert "--draft" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="packages are made on Debian")
def test_a_draft_is_the_same_bytes_twice(tmp_path, monkeypatch):
    """Without packages: those have a test of their own, of minutes (`test_deb_lifecycle`)."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = []
    for folder in ("first", "second"):
        made = list(making.make(targets([], [], []), tmp_path / folder, is_draft=True))
        assert [path.name for path in made] == [
            f"fedistill-{VERSION}-py3-none-any.whl",
            f"fedistill-{VERSION}.tar.gz",
            "install.sh",
            "NOTES.md",
            making.SUMS,
        ]
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in made])
        assert [path.name for path in (tmp_path / folder).iterdir()] == [f"fedistill-{VERSION}"]
    assert digests[0] == digests[1]


def test_the_pipeline_does_what_a_developer_does():
    text = (Path(making.ROOT) / ".github" / "workflows" / "release.yml").read_text()
    assert re.findall(r"run: (\S+(?: \S+)?)", text)[:2] == [".ci/run", "make release"]
