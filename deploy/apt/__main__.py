"""A repository that apt reads, of the packages in dist/deb, where some devices take a new version before the others do.

    python -m deploy.apt REPOSITORY dist/deb/*.deb --percent 5 --key KEY     put packages in, the newest for a few
    python -m deploy.apt REPOSITORY --percent 50 --key KEY                   for more; 0 = nobody else begins
    python -m deploy.apt REPOSITORY --withdraw 0.2.0-1 --key KEY             out of it: devices go back (README)

REPOSITORY/py3.11/ and its like are flat repositories, one for each Python: apt takes the highest version there is, and
a package for another Python is not for this system. The share is apt's own `Phased-Update-Percentage`: each machine
draws a number of 0..100 by its machine-id and takes what has no lower percentage, so a wider share holds the narrower,
and there is none that nobody is in: at 0 the newest version depends on a package that does not exist. Nobody can take
it then, no canary either, and who has it keeps it, for it is still the highest. Signed by gpg with KEY; without it apt
takes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import cmp_to_key
from pathlib import Path

_PYTHON = re.compile(r"\+(py\d+\.\d+)_")
_PHASED = "Phased-Update-Percentage"
_HALTED = "fedistill-is-halted"
"""A package that there never is; apt names it to whoever installs by hand what is halted."""


class NoPackageError(Exception):
    """A file is no package of ours, or there is none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.apt", description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("packages", type=Path, nargs="*", help=".deb files to put in")
    parser.add_argument("--percent", type=int, default=100, help="of devices that take the newest (100); 0 halts")
    parser.add_argument("--withdraw", metavar="VERSION", help="take a version out, without its +py...")
    parser.add_argument("--key", help="of gpg, that signs")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.percent <= 100:
        parser.error("--percent lies in 0..100")
    try:
        for path in arguments.packages:
            add(arguments.repository, path)
        if arguments.withdraw:
            withdraw(arguments.repository, arguments.withdraw)
        for folder in folders(arguments.repository):
            print(f"{folder}: {index(folder, arguments.percent, arguments.key)}")
    except (NoPackageError, subprocess.CalledProcessError, OSError) as error:
        print(f"deploy.apt: {error}", file=sys.stderr)
        return 1
    return 0


def add(repository: Path, path: Path) -> None:
    """Copy a package to where systems of its Python look for it."""
    found = _PYTHON.search(path.name)
    if found is None or path.suffix != ".deb":
        raise NoPackageError(f"{path}: not a package of `make deb`")
    folder = repository / found[1]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / path.name)


def withdraw(repository: Path, version: str) -> None:
    """Remove the packages of a version."""
    gone = [path for path in repository.glob("py*/*.deb") if f"_{version}+py" in path.name]
    if not gone:
        raise NoPackageError(f"{repository}: no package of version {version}")
    for path in gone:
        path.unlink()


def folders(repository: Path) -> list[Path]:
    """Return the flat repositories, one for each Python."""
    found = sorted(path for path in repository.glob("py*") if path.is_dir())
    if not found:
        raise NoPackageError(f"{repository}: no packages")
    return found


def index(folder: Path, percent: int, key: str | None = None) -> str:
    """Write what apt reads, and sign it; return a line for people. The signature is written last."""
    stanzas = [_stanza(path) for path in sorted(folder.glob("*.deb"))]
    newest = _newest(stanzas)
    for stanza in stanzas:
        if newest[_name(stanza)] == stanza["Version"]:
            stanza.update(_share(stanza, percent))
    packages = "\n".join(_lines(stanzas)).encode()
    for name in ("InRelease", "Release"):  # what is half new is not read
        (folder / name).unlink(missing_ok=True)
    (folder / "Packages").write_bytes(packages)
    (folder / "Packages.gz").write_bytes(gzip.compress(packages, mtime=0))
    (folder / "Release").write_text(_release(folder), encoding="utf-8")
    if key is not None:
        command = ["gpg", "--batch", "--yes", "--local-user", key, "--output", str(folder / "InRelease"), "--clearsign"]
        subprocess.run([*command, str(folder / "Release")], check=True)
    told = ", ".join(f"{name} {version}" for (name, _), version in sorted(newest.items()))
    return f"{told or 'nothing'} for {percent} % of devices"


def _share(stanza: dict[str, str], percent: int) -> dict[str, str]:
    """Return the fields by which so many devices take a version."""
    if percent == 0:
        return {"Depends": ", ".join(filter(None, (stanza.get("Depends"), _HALTED)))}
    return {_PHASED: str(percent)} if percent < 100 else {}


def _stanza(path: Path) -> dict[str, str]:
    said = subprocess.run(["dpkg-deb", "-f", str(path)], check=True, capture_output=True, text=True).stdout
    fields: dict[str, str] = {}
    name = ""
    for line in said.splitlines():
        if line.startswith((" ", "\t")):
            fields[name] += f"\n{line}"
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    content = path.read_bytes()
    return {
        **fields,
        "Filename": f"./{path.name}",
        "Size": str(len(content)),
        "SHA256": hashlib.sha256(content).hexdigest(),
    }


def _name(stanza: dict[str, str]) -> tuple[str, str]:
    return stanza["Package"], stanza["Architecture"]


def _newest(stanzas: list[dict[str, str]]) -> dict[tuple[str, str], str]:
    """Return the highest version of each package; dpkg compares."""
    newest: dict[tuple[str, str], str] = {}
    for stanza in stanzas:
        known = newest.get(_name(stanza))
        newest[_name(stanza)] = max(filter(None, (known, stanza["Version"])), key=cmp_to_key(_compare))
    return newest


def _compare(one: str, other: str) -> int:
    if one == other:
        return 0
    return 1 if subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode == 0 else -1


def _lines(stanzas: list[dict[str, str]]) -> Iterator[str]:
    for stanza in stanzas:
        yield from (f"{name}: {value}" for name, value in stanza.items())
        yield ""
    yield ""


def _release(folder: Path) -> str:
    now = datetime.now(timezone.utc)
    sums = []
    for name in ("Packages", "Packages.gz"):
        content = (folder / name).read_bytes()
        sums.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    lines = ["Origin: fedistill", "Label: fedistill", f"Date: {now:%a, %d %b %Y %H:%M:%S} UTC", "SHA256:", *sums]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
