"""From locks to packages: fetch, stage, pack. A package that is too large is none."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.deb import control, guard, staging, wheels
from deploy.deb.catalogue import MAX_BYTES, ROOT, Target
from deploy.deb.versions import debian_version

_LEVEL = 9
"""Of zstd. 19 saves an eighth of the bytes for nine times the time."""


class TooLargeError(Exception):
    """A package has grown past what a thin link can be asked for."""


@dataclass(frozen=True, slots=True)
class Deb:
    """A package that was made."""

    path: Path
    sha256: str
    megabytes: float


def build(chosen: list[Target], out: Path, *, revision: int = 1) -> Iterator[Deb]:
    """Make the packages in `out`, one after another; then SHA256SUMS beside them.

    Raises:
        TooLargeError: one takes more than `MAX_BYTES`.
        guard.NoCompilerError: the broker's guard cannot be compiled here.
        subprocess.CalledProcessError: pip, the compiler or dpkg-deb failed, and said why.
    """
    for target in chosen:
        if target.package.has_broker:
            guard.check(target.architecture)  # before minutes of wheels
    out.mkdir(parents=True, exist_ok=True)
    epoch = source_date()
    with tempfile.TemporaryDirectory(prefix="deb-") as name:
        own = wheels.own_wheel(Path(name), epoch)
        for number, target in enumerate(chosen):
            yield _build(target, own, Path(name) / str(number), out, epoch=epoch, revision=revision)
    sums = [f"{_sha256(path)}  {path.name}\n" for path in sorted(out.glob("*.deb"))]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def _build(target: Target, own: Path, work: Path, out: Path, *, epoch: int, revision: int) -> Deb:
    root, site = work / "root", work / "site"
    root.mkdir(parents=True)
    options = wheels.tags(target)
    fetched = wheels.download(target.lock, options, work / "wheels")
    wheels.install([*fetched, own], options, site)
    plugin = guard.compile_guard(target.architecture, work / "guard") if target.package.has_broker else None
    staging.stage(target, site, root, plugin)
    version = debian_version(own.name.split("-")[1], revision, target.python.name)
    control.write(target, root, version=version, glibc=wheels.oldest_glibc(fetched))
    deb = out / f"{target.package.name}_{version}_{target.architecture}.deb"
    pack(root, deb, epoch)
    shutil.rmtree(work)
    return Deb(deb, _sha256(deb), deb.stat().st_size / 1e6)


def pack(root: Path, deb: Path, epoch: int, *, max_bytes: int = MAX_BYTES) -> None:
    """Make a .deb of the tree below `root`, DEBIAN/ in it.

    epoch: seconds since 1970 that every file in it bears.

    Raises:
        TooLargeError: it takes more than `max_bytes`; it is not there then.
    """
    staging.settle(root, epoch)
    command = ["dpkg-deb", "--root-owner-group", "-Zzstd", f"-z{_LEVEL}", "--build", str(root), str(deb)]
    # zstd splits its work among threads, and so its output: one thread makes the same bytes on every machine.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "DPKG_DEB_THREADS_MAX": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    size = deb.stat().st_size
    if size > max_bytes:
        deb.unlink()
        raise TooLargeError(f"{deb.name}: {size} bytes, {max_bytes} allowed")


def source_date() -> int:
    """Return the time that a build bears, in seconds since 1970: $SOURCE_DATE_EPOCH, else that of the commit."""
    stated = os.environ.get("SOURCE_DATE_EPOCH")
    if stated:
        return int(stated)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
