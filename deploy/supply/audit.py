"""Known vulnerabilities of what is locked, by a database that was fetched before: no network, no service.

The database is OSV's own export of PyPI (`https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip`, format
https://ossf.github.io/osv-schema/), as a zip or as a folder of JSON files. With a network `pip-audit` says the same:
`pip-audit --disable-pip --require-hashes -r deploy/deb/locks/LOCK`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from deploy.deb import wheels


@dataclass(frozen=True, slots=True)
class Finding:
    """A library in a lock that an entry of the database is about."""

    lock: str
    name: str
    version: str
    id: str
    summary: str

    def __str__(self) -> str:
        return f"{self.lock}: {self.name} {self.version}: {self.id} {self.summary}".rstrip()


def audit(locks: list[Path], database: Path) -> list[Finding]:
    """Return what the database knows of these locks.

    Raises:
        OSError, ValueError: the database cannot be read, or holds nothing.
    """
    wanted: dict[str, dict[str, list[str]]] = {}
    for lock in locks:
        for name, version in wheels.read_lock(lock).items():
            wanted.setdefault(name, {}).setdefault(version, []).append(lock.stem)
    found, count = [], 0
    for entry in entries(database):
        count += 1
        for affected in entry.get("affected", ()):
            package = affected.get("package", {})
            name = wheels.canonical(package.get("name", ""))
            if package.get("ecosystem") != "PyPI" or entry.get("withdrawn"):
                continue
            for version, holders in wanted.get(name, {}).items():
                if is_affected(affected, version):
                    found += [Finding(lock, name, version, entry["id"], entry.get("summary", "")) for lock in holders]
    if not count:
        raise ValueError(f"{database} holds no entry")
    return sorted(found, key=str)


def entries(database: Path) -> Iterator[Mapping[str, Any]]:
    """Yield every entry of an export."""
    if database.is_dir():
        for path in sorted(database.glob("**/*.json")):
            yield json.loads(path.read_bytes())
        return
    with zipfile.ZipFile(database) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def is_affected(affected: Mapping[str, Any], version: str) -> bool:
    """Whether a version is listed, or lies in a range: from `introduced` on, before `fixed`, to `last_affected`."""
    if version in affected.get("versions", ()):
        return True
    ours = Version(version)
    return any(
        _is_in(ours, one.get("events", ())) for one in affected.get("ranges", ()) if one.get("type") == "ECOSYSTEM"
    )


def _is_in(ours: Version, events: Any) -> bool:
    """OSV's own evaluation: the last event at or before a version decides."""
    is_in = False
    known = [(_version(text), kind) for event in events for kind, text in event.items() if kind != "limit"]
    for at, kind in sorted(known, key=lambda one: one[0]):
        if kind == "introduced" and ours >= at:
            is_in = True
        elif (kind == "fixed" and ours >= at) or (kind == "last_affected" and ours > at):
            is_in = False
    return is_in


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")
