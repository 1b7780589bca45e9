"""Wheels of a machine that is not this one: by digest from a lock, into a folder, with pip.

pip picks by tags that it is given, runs nothing of what it fetches and takes nothing whose digest the lock does not
name. A lock has one line a wheel, and one digest a line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from deploy.deb.catalogue import ROOT, Target

BUILD_LOCK = Path(__file__).resolve().parent / "locks" / "build.txt"
"""What makes a wheel of this project; pure Python, the same for every target."""
_LINE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:(?P<digest>[0-9a-f]{64})")
_GLIBC = re.compile(r"manylinux_2_(\d+)_|manylinux(2014)_")
_GLIBC_2014 = 17


def read_lock(path: Path) -> dict[str, str]:
    """Return name -> version of what a lock holds.

    Raises:
        ValueError: a line that is neither a comment nor one wheel.
    """
    pinned = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"{path}: not a wheel with its digest: {line!r}")
            pinned[match["name"]] = match["version"]
    return pinned


def tags(target: Target) -> list[str]:
    """Return pip's options for wheels that run on a target."""
    machine, minor = target.machine, target.python.minor
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(target.python.glibc, _GLIBC_2014 - 1, -1)]
    abis = [f"cp3{minor}", "abi3", "none"]
    return [
        *("--only-binary=:all:", "--implementation=cp", f"--python-version=3.{minor}"),
        *(f"--platform={platform}" for platform in [*platforms, f"manylinux2014_{machine}"]),
        *(f"--abi={abi}" for abi in abis),
    ]


PURE_TAGS = ["--only-binary=:all:", "--platform=any", "--abi=none"]


def download(lock: Path, options: list[str], folder: Path) -> list[Path]:
    """Fetch the wheels of a lock and return them, by name."""
    _pip("download", "--no-deps", "--require-hashes", f"--requirement={lock}", *options, f"--dest={folder}")
    return sorted(folder.glob("*.whl"))


def download_pins(pins: list[str], options: list[str], folder: Path) -> dict[str, Path]:
    """Fetch the wheels of lines `name==version`, whatever their digests, and return them by name."""
    _pip("download", "--no-deps", *options, f"--dest={folder}", *pins)
    return {canonical(wheel.name.split("-")[0]): wheel for wheel in folder.glob("*.whl")}


def canonical(name: str) -> str:
    """Return the name of a distribution as locks have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def install(wheels: list[Path], options: list[str], folder: Path) -> None:
    """Lay wheels out in a folder, as pip would on the machine that they are for."""
    # The tags say which Python; pip compares what a wheel requires with the Python that it runs on itself.
    how = ("--no-deps", "--no-index", "--no-compile", "--ignore-requires-python", f"--target={folder}")
    _pip("install", *how, *options, *map(str, wheels))


def own_wheel(folder: Path, epoch: int) -> Path:
    """Make the wheel of this project by the tools of the build lock, and return it.

    epoch: seconds since 1970 that its files bear.
    """
    out = folder / "own"
    _pip(
        *("wheel", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={out}", str(ROOT)),
        environment=_tools(folder, epoch),
    )
    (wheel,) = out.glob("*.whl")
    return wheel


def own_source(folder: Path, epoch: int) -> Path:
    """Make the source distribution of this project by the same tools, and return it."""
    out = folder / "own-source"
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(out)]
    subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **_tools(folder, epoch)}
    )
    (source,) = out.glob("*.tar.gz")
    return source


def _tools(folder: Path, epoch: int) -> dict[str, str]:
    """Return the environment in which the tools of the build lock work, and fetch them into it the first time."""
    tools = folder / "tools"
    if not tools.exists():
        install(download(BUILD_LOCK, PURE_TAGS, folder / "tool-wheels"), PURE_TAGS, tools)
    return {"PYTHONPATH": str(tools), "SOURCE_DATE_EPOCH": str(epoch)}


def oldest_glibc(wheels: list[Path]) -> int:
    """Return the least N of glibc 2.N that all of the wheels run on. One that names several runs on the oldest."""
    named = [[int(newer or _GLIBC_2014) for newer, _ in _GLIBC.findall(wheel.name)] for wheel in wheels]
    return max((min(each) for each in named if each), default=_GLIBC_2014)


def _pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore", **(environment or {})})
