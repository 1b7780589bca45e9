"""Outside programs, mtools for FAT and debugfs for ext4: found among root's too, run without the user's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edge_agent.flash.errors import ToolError

_PACKAGES = {"mcopy": "mtools", "mdir": "mtools", "mlabel": "mtools", "mdeltree": "mtools", "debugfs": "e2fsprogs"}
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/opt/homebrew/sbin"))
_ENVIRONMENT = {
    # Images of cards have a geometry that mtools finds odd; whatever the user has set for floppies is not ours.
    "MTOOLS_SKIP_CHECK": "1",
    "MTOOLSRC": os.devnull,
    # debugfs shows file after file in a pager where there is one.
    "DEBUGFS_PAGER": "cat",
    "LC_ALL": "C",
}


def has(program: str) -> bool:
    return shutil.which(program, path=_PATH) is not None


def run(program: str, *words: str | Path, codes: Sequence[int] = (0,)) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and return what it said.

    Raises:
        ToolError: it is not installed, or ended with none of `codes`.
    """
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise ToolError(f"{program} is not installed: apt install {_PACKAGES[program]} (brew, dnf: the same name)")
    done = subprocess.run(
        [found, *map(str, words)], capture_output=True, check=False, env={**os.environ, **_ENVIRONMENT}
    )
    if done.returncode not in codes:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())
        raise ToolError(f"{program}: exit code {done.returncode}: {said[-300:]}")
    return done
