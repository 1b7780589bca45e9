"""From a tagged commit to a folder: wheel, source, Debian packages, install.sh, notes, checksums.

    fedistill-0.2.0/
      fedistill-0.2.0-py3-none-any.whl   fedistill-0.2.0.tar.gz
      fedistill-agent_..._arm64.deb ...  fedistill-server_..._amd64.deb ...
      install.sh                         installs the package for the machine that it runs on
      NOTES.md                           what the changelog says of this version
      SHA256SUMS                         of all of these

The same commit makes the same bytes: times are the commit's, tools come from `deploy/deb/locks/build.txt` by their
hashes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy.deb import building, wheels
from deploy.deb.catalogue import ROOT, Target
from fd_runtime.version import VERSION

SUMS = "SHA256SUMS"


class NotReadyError(Exception):
    """This commit is no release."""


def notes(changelog: str, heading: str) -> str:
    """Return what the changelog says under `## [heading]`.

    Raises:
        NotReadyError: nothing.
    """
    section = re.search(rf"^## \[{re.escape(heading)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise NotReadyError(f"CHANGELOG.md says nothing of {heading}")
    return section[1].strip() + "\n"


def check_commit(wanted: str) -> None:
    """Refuse what nobody could make again.

    Raises:
        NotReadyError: files differ from the commit, or it does not bear the tag `v` + `wanted`.
    """
    if changed := _git("status", "--porcelain").splitlines():
        raise NotReadyError(f"not of a commit: {changed[0].strip()} and {len(changed) - 1} more")
    if f"v{wanted}" not in _git("tag", "--points-at", "HEAD").split():
        raise NotReadyError(f"this commit is not tagged v{wanted}")


def make(chosen: list[Target], out: Path, *, is_draft: bool) -> Iterator[Path]:
    """Make the release in `out`/fedistill-VERSION, yield each file as it is made.

    The folder appears whole or not at all; one of before is replaced.

    Args:
        chosen: the Debian packages.
        out: where the folder goes.
        is_draft: of the working tree as it is, with the notes of what is not released yet.

    Raises:
        NotReadyError: this commit is no release.
        deploy.deb.building.TooLargeError: a package has grown too large.
        subprocess.CalledProcessError: a tool failed, and said why.
    """
    if not is_draft:
        check_commit(VERSION)
    said = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), "Unreleased" if is_draft else VERSION)
    final = out / f"fedistill-{VERSION}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out) as name:
        folder = Path(name) / final.name
        folder.mkdir()
        for made in _files(chosen, Path(name), folder, said):
            yield final / made.name
        (folder / SUMS).write_text(sums(folder), encoding="utf-8")
        if final.exists():
            shutil.rmtree(final)
        folder.rename(final)
    yield final / SUMS


def _files(chosen: list[Target], work: Path, folder: Path, said: str) -> Iterator[Path]:
    epoch = building.source_date()
    for made in (wheels.own_wheel(work, epoch), wheels.own_source(work, epoch)):
        yield Path(shutil.copy(made, folder))
    for deb in building.build(chosen, folder):
        yield deb.path
    yield Path(shutil.copy(ROOT / "deploy" / "install.sh", folder))
    (folder / "NOTES.md").write_text(said, encoding="utf-8")
    yield folder / "NOTES.md"


def sums(folder: Path) -> str:
    """Return what `sha256sum --check` reads, of every file in a folder but itself."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout
