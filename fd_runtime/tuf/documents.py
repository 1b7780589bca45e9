"""TUF's signed documents as files in a folder: which there are, the newest of each, written whole.

    1.root.json 2.root.json ...   N.targets.json   N.students.json   N.snapshot.json   timestamp.json

The same names lie on the workstation, on the server, and on its web server below /v1/tuf; a folder that lacks some of
them is a delivery, or the workstation's own (`tuf_repository`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fd_protocol.errors import FedistillError
from fd_runtime.files import write_atomically

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"


class TrustError(FedistillError):
    """Signed documents do not add up: a signature, a version, a time, or a file is missing."""


def read(kind: type[S], path: Path) -> Metadata[S]:
    """Return the document at `path`; its signatures are not looked at.

    Raises:
        TrustError: it is none of this kind.
    """
    try:
        document: Metadata[S] = Metadata.from_bytes(path.read_bytes())
    except (OSError, RepositoryError) as error:
        raise TrustError(f"{path}: {error}") from error
    if not isinstance(document.signed, kind):
        raise TrustError(f"{path}: a {document.signed.type}, not a {kind.type}")
    return document


def newest(kind: type[S], folder: Path, role: str) -> Metadata[S] | None:
    """Return the newest document of a role; None: there is none.

    Raises:
        TrustError: it cannot be read.
    """
    versions = list(versions_of(folder, role))
    return read(kind, folder / f"{max(versions)}.{role}.json") if versions else None


def versions_of(folder: Path, role: str) -> Iterator[int]:
    """Yield the versions of a role that lie in a folder, in no order."""
    for path in folder.glob(f"*.{role}.json"):
        number = path.name.partition(".")[0]
        if number.isascii() and number.isdigit():
            yield int(number)


def unborn(kind: type[S]) -> S:
    """Return what a first document is the next version of."""
    document = kind()
    document.version = 0
    return document


def write(folder: Path, document: Metadata[S], role: str) -> Path:
    """Write a document under its name; without its version where it is the timestamp.

    Raises:
        OSError: the folder cannot be written.
    """
    name = f"{role}.json" if role == TIMESTAMP else f"{document.signed.version}.{role}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, document.to_bytes())
    return folder / name


@dataclass(frozen=True, slots=True)
class RootOutlook:
    """A root by its version, and when it ends."""

    version: int
    end: datetime


def believed_root(path: Path) -> RootOutlook:
    """Return the outlook of a root that is signed by its own keys, as a device's first one must be.

    Raises:
        TrustError: it is not.
    """
    root = read(Root, path)
    try:
        root.signed.verify_delegate(ROOT, root.signed_bytes, root.signatures)
    except RepositoryError as error:
        raise TrustError(f"{path}: {error}") from error
    return RootOutlook(root.signed.version, root.signed.expires)


def utc(at_s: float) -> datetime:
    """Return a time as TUF has it: UTC, whole seconds."""
    return datetime.fromtimestamp(int(at_s), timezone.utc)


def after(at_s: float, days: int) -> datetime:
    """Return the time `days` after another one."""
    return utc(at_s) + timedelta(days=days)
