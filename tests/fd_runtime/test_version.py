from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from fd_runtime.version import VERSION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert VERSION == project["version"] == version("fedistill")
