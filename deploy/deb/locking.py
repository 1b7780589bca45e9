"""Which wheels a package holds: pyproject.toml's extras, resolved for each target by uv, with the digest of each.

uv resolves for a machine that is not this one, markers included (pip takes its own Python's). Its own locks name the
digests of all files of a release; ours name the one that the target takes, so a diff of a lock can be read.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.deb import wheels
from deploy.deb.catalogue import ROOT, Target

UNUSED = ("coloredlogs", "humanfriendly", "mpmath", "sympy")
"""What onnxruntime up to 1.23 asks for, 45 MB, and imports only in tools that are left out too (`staging.PRUNED`)."""
_BUILD = "hatchling>=1.25"


def lock(target: Target) -> None:
    """Resolve a target anew and write its lock."""
    extras = [f"--extra={extra}" for extra in target.package.extras]
    with tempfile.TemporaryDirectory() as folder:
        constraint = Path(folder) / "constraint.txt"
        constraint.write_text(target.constraint, encoding="utf-8")
        pins = _resolve(
            str(ROOT / "pyproject.toml"),
            *extras,
            f"--constraint={constraint}",
            *(f"--no-emit-package={name}" for name in UNUSED),
            f"--python-version={target.python.name}",
            f"--python-platform={target.machine}-manylinux_2_{target.python.glibc}",
        )
    _write(target.lock, pins, wheels.tags(target), f"{target.python.system}, {target.architecture}")


def lock_build() -> None:
    """Resolve anew what makes our wheel, for the oldest Python of all, and write its lock."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "build.in"
        wanted.write_text(_BUILD, encoding="utf-8")
        pins = _resolve(str(wanted), "--python-version=3.10")
    _write(wheels.BUILD_LOCK, pins, wheels.PURE_TAGS, "what makes the wheel of this project")


def _resolve(*arguments: str) -> list[str]:
    if shutil.which("uv") is None:
        raise FileNotFoundError("uv resolves for other machines: pip install uv")
    command = ["uv", "--quiet", "pip", "compile", "--no-header", "--no-annotate", "--only-binary=:all:", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def _write(path: Path, pins: list[str], options: list[str], what: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fetched = wheels.download_pins(pins, options, Path(folder))
        digests = [hashlib.sha256(fetched[pin.split("==")[0]].read_bytes()).hexdigest() for pin in pins]
    lines = [f"{pin} --hash=sha256:{digest}" for pin, digest in zip(pins, digests, strict=True)]
    path.write_text("\n".join([f"# {what}. Written by `make deb-locks`.", *lines, ""]), encoding="utf-8")
