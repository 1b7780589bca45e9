"""Versions as dpkg sorts them."""

import shutil
import subprocess
from itertools import pairwise

import pytest

from deploy.deb.versions import debian_version

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed")

RISING = [
    "0.2.0.dev1",
    "0.2.0a1.dev2",
    "0.2.0a1",
    "0.2.0b1",
    "0.2.0rc2",
    "0.2.0rc10",
    "0.2.0",
    "0.2.0.post1.dev1",
    "0.2.0.post1",
    "0.2.1.dev1",
    "0.10.0",
]


def is_before(one, other):
    return subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0


@needs_dpkg
@pytest.mark.parametrize(("one", "other"), [*pairwise(RISING)])
def test_dpkg_sorts_versions_as_python_does(one, other):
    assert is_before(debian_version(one, 9, "3.13"), debian_version(other, 1, "3.10"))


@needs_dpkg
def test_a_revision_is_newer_and_a_newer_python_is_an_upgrade():
    versions = [debian_version("0.1.0", *rest) for rest in ((1, "3.9"), (1, "3.10"), (1, "3.13"), (2, "3.10"))]
    assert all(is_before(one, other) for one, other in pairwise(versions))


@pytest.mark.parametrize("version", ["", "1.0+local", "1!1.0", "v1", "1.0-1", "1.0rc"])
def test_other_versions_are_refused(version):
    with pytest.raises(ValueError, match="no version"):
        debian_version(version, 1, "3.11")


def test_a_revision_counts_from_one():
    with pytest.raises(ValueError, match="revision 0"):
        debian_version("0.1.0", 0, "3.11")
