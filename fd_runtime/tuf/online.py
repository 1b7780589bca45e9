"""The server's part of trust: it takes in what was signed elsewhere, and says every day that this is still the latest.

    delivery (N.root.json, N.targets.json, blobs/) --checked--> WEB --+-- snapshot   which versions belong together
                                                                      +-- timestamp  which snapshot is the latest
    packages of the student ------------------------> students -------+

One key signs snapshot, timestamp and students. Who steals it can hold devices back where they are, or sign students for
one family until the key is replaced; no bundle of the workstation, and nothing older than what a device has seen.

Each method may be cut short: nothing is named by a document before it lies there, and the timestamp is written last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import LengthOrHashMismatchError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from fd_protocol.targets import STUDENTS, TargetFacts, package_of
from fd_runtime.files import write_atomically
from fd_runtime.starting import exclusive
from fd_runtime.tuf.documents import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    TrustError,
    after,
    newest,
    read,
    unborn,
    utc,
    versions_of,
    write,
)
from fd_runtime.tuf.root import follow
from fd_runtime.tuf.targets import Target, listed, may_sign, target_of, to_tuf

TIMESTAMP_DAYS, SNAPSHOT_DAYS = 14, 60
"""A device that hears of nothing newer for so long is being held back, or the server is down: it says so."""
_DAILY_S = 86_400
_SLACK_S = 3600.0
"""A clock may be set back by so much, and what was signed before still stands."""
_SIGNED_AT = "at"
"""When a timestamp was signed, in seconds: a device's clock cannot be right and earlier."""
_KEPT = 4
"""Snapshots, targets and students that stay beside the latest: a device may be between two of them."""
LOCK = "trust.lock"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a delivery came to: the newest root and targets, and what they vouch for."""

    root: int
    targets: int
    listed: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """When what others must sign again ends; UTC seconds, 0 = there is none."""

    root_s: float
    targets_s: float


class OnlineTrust:
    """The documents that a web server gives to devices.

    Args:
        folder: of the documents, below /v1/tuf.
        blobs: of the packages, by digest.
        signer: the server's key.
    """

    def __init__(self, folder: Path, blobs: Path, signer: CryptoSigner) -> None:
        self._folder, self._blobs, self._signer = folder, blobs, signer

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever taken in."""
        return any(versions_of(self._folder, ROOT))

    def take_in(self, delivery: Path, now_s: float) -> Taken:
        """Take over what was signed elsewhere, and make it the latest.

        Args:
            delivery: folder of roots and targets; packages lie in its `blobs`, by digest.
            now_s: UTC.

        Raises:
            TrustError: it is not signed as it must be, is older than what is here, or lacks a package.
            OSError: the folder cannot be written.
        """
        with self._held():
            roots = follow(newest(Root, self._folder, ROOT), delivery)
            root = roots[-1] if roots else self._root()
            if self._signer.public_key.keyid not in root.signed.roles[TIMESTAMP].keyids:
                raise TrustError(f"root {root.signed.version} does not name this server's key")
            targets = self._checked(root, delivery, now_s)
            vouched = tuple(listed(targets.signed))
            for file in targets.signed.targets.values():
                self._fetch(file, delivery / "blobs")
            for document in roots:
                write(self._folder, document, ROOT)
            write(self._folder, targets, TARGETS)
            self._renew(now_s)
            return Taken(root.signed.version, targets.signed.version, vouched)

    def vouch(self, package: bytes, facts: TargetFacts, now_s: float, *, beside: Collection[str]) -> Target:
        """Vouch for a package of the student; once, however often it is asked.

        Args:
            package: its bytes.
            facts: what is said about it.
            now_s: UTC.
            beside: digests of the packages, in hex, that stay vouched for; others of the student's no more.

        Raises:
            TrustError: the workstation has not said that this server may.
            OSError: the folder cannot be written.
        """
        with self._held():
            targets = newest(Targets, self._folder, TARGETS)
            target = target_of(STUDENTS, package, facts)
            if targets is None or not may_sign(targets.signed, target.name):
                raise TrustError(f"this server may not sign {target.name}: `model-export trust students`")
            known = newest(Targets, self._folder, STUDENTS)
            if known is None or target.name not in known.signed.targets:
                students = known.signed if known else unborn(Targets)
                stay = {name: file for name, file in students.targets.items() if package_of(name) in beside}
                students.targets = {**stay, target.name: to_tuf(target, package)}
                self._sign_students(students, now_s)
            self._renew(now_s)
            return target

    def tend(self, now_s: float) -> bool:
        """Sign again what has been so for a day, or will soon end; return whether anything was.

        Raises:
            TrustError: what lies here cannot be read.
            OSError: the folder cannot be written.
        """
        if not self.has_begun:
            return False
        with self._held():
            return self._renew(now_s)

    def find(self, name: str) -> Target | None:
        """Return what is vouched for under a name; None: nothing is."""
        return next((target for target in self.listed() if target.name == name), None)

    def listed(self) -> list[Target]:
        """Return all that is vouched for now, the workstation's first.

        Raises:
            TrustError, InvalidTargetError: what lies here cannot be read.
        """
        found = (newest(Targets, self._folder, role) for role in (TARGETS, STUDENTS))
        return [target for document in found if document for target in listed(document.signed)]

    def ending(self) -> Ending:
        """Return until when devices believe what the workstation has signed."""
        root, targets = newest(Root, self._folder, ROOT), newest(Targets, self._folder, TARGETS)
        return Ending(*(one.signed.expires.timestamp() if one else 0.0 for one in (root, targets)))

    def believed_until_s(self) -> float:
        """Return until when devices believe that this is the latest, if nobody signs again; 0 = nothing is signed."""
        stamp = self._timestamp()
        return stamp.signed.expires.timestamp() if stamp else 0.0

    # One process at a time.

    @contextmanager
    def _held(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self._folder.parent.parent.parent / LOCK, wait=True):  # no web server shows it
            yield

    def _root(self) -> Metadata[Root]:
        root = newest(Root, self._folder, ROOT)
        if root is None:
            raise TrustError(f"{self._folder}: no root was taken in yet")
        return root

    def _checked(self, root: Metadata[Root], delivery: Path, now_s: float) -> Metadata[Targets]:
        """Return the newest targets of a delivery, or those that are here where it brings none."""
        brought, known = newest(Targets, delivery, TARGETS), newest(Targets, self._folder, TARGETS)
        targets = brought or known
        if targets is None:
            raise TrustError(f"{delivery}: no targets")
        try:
            root.signed.verify_delegate(TARGETS, targets.signed_bytes, targets.signatures)
        except UnsignedMetadataError as error:
            raise TrustError(f"{delivery}: targets {targets.signed.version}: {error}") from error
        if known is not None and targets.signed.version < known.signed.version:
            raise TrustError(f"{delivery}: targets {targets.signed.version}, here are {known.signed.version} already")
        if known is not None and targets.signed == known.signed:
            return known
        if known is not None and targets.signed.version == known.signed.version:
            raise TrustError(f"{delivery}: other targets {targets.signed.version} than those that are here")
        if targets.signed.is_expired(utc(now_s)):
            raise TrustError(f"{delivery}: targets {targets.signed.version} are past their time: renew them")
        return targets

    def _fetch(self, file: TargetFile, blobs: Path) -> None:
        """Bring a package here, unless it is."""
        here = self._blobs / package_of(file.path)
        place = here if here.is_file() else blobs / package_of(file.path)
        try:
            package = place.read_bytes()
            file.verify_length_and_hashes(package)
        except (OSError, LengthOrHashMismatchError) as error:
            raise TrustError(f"{place}: {error}") from error
        if package_of(file.path) != file.hashes["sha256"]:
            raise TrustError(f"{file.path}: it is signed for other bytes than it names")
        if place != here:
            self._blobs.mkdir(parents=True, exist_ok=True)
            write_atomically(here, package)

    # Signing.

    def _renew(self, now_s: float) -> bool:
        targets = newest(Targets, self._folder, TARGETS)
        if targets is None:
            return False
        students = self._kept_students(targets.signed, now_s)
        meta = {"targets.json": MetaFile(targets.signed.version)}
        if students is not None:
            meta[f"{STUDENTS}.json"] = MetaFile(students.version)
        snapshot = self._snapshot(meta, now_s)
        if not self._is_due(snapshot, now_s):
            return False
        self._stamp(snapshot, now_s)
        self._tidy()
        return True

    def _kept_students(self, targets: Targets, now_s: float) -> Targets | None:
        """Return what the student's packages are signed in, signed again where that is due; None: it may sign none."""
        if targets.delegations is None:
            return None
        found = newest(Targets, self._folder, STUDENTS)
        students = found.signed if found else unborn(Targets)
        is_believed = found is not None and _is_signed_by(targets, found)
        if not is_believed or not _stands(students, now_s):
            named = {name: file for name, file in students.targets.items() if may_sign(targets, name)}
            students.targets = named
            self._sign_students(students, now_s)
        return students

    def _sign_students(self, students: Targets, now_s: float) -> None:
        students.version += 1
        students.expires = after(now_s, SNAPSHOT_DAYS)
        write(self._folder, self._signed(Metadata(students)), STUDENTS)

    def _snapshot(self, meta: Mapping[str, MetaFile], now_s: float) -> Snapshot:
        found = newest(Snapshot, self._folder, SNAPSHOT)
        snapshot = found.signed if found else unborn(Snapshot)
        is_same = found is not None and snapshot.meta == meta and self._is_mine(found)
        if is_same and _stands(snapshot, now_s):
            return snapshot
        snapshot.version += 1
        snapshot.meta, snapshot.expires = dict(meta), after(now_s, SNAPSHOT_DAYS)
        write(self._folder, self._signed(Metadata(snapshot)), SNAPSHOT)
        return snapshot

    def _is_due(self, snapshot: Snapshot, now_s: float) -> bool:
        found = self._timestamp()
        if found is None or found.signed.snapshot_meta.version != snapshot.version or not self._is_mine(found):
            return True
        at = found.signed.unrecognized_fields.get(_SIGNED_AT)
        is_ahead = isinstance(at, int) and _is_ahead(at, now_s)
        begun_s = _begun_s(found.signed, TIMESTAMP_DAYS)
        return is_ahead or _is_ahead(begun_s, now_s) or begun_s <= now_s - _DAILY_S

    def _stamp(self, snapshot: Snapshot, now_s: float) -> None:
        found = self._timestamp()
        version = found.signed.version + 1 if found else 1
        stamp = Timestamp(version, expires=after(now_s, TIMESTAMP_DAYS), snapshot_meta=MetaFile(snapshot.version))
        stamp.unrecognized_fields[_SIGNED_AT] = int(now_s)
        write(self._folder, self._signed(Metadata(stamp)), TIMESTAMP)

    def _timestamp(self) -> Metadata[Timestamp] | None:
        path = self._folder / f"{TIMESTAMP}.json"
        return read(Timestamp, path) if path.exists() else None

    def _signed(self, document: Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]) -> Metadata:  # type: ignore[type-arg]
        document.sign(self._signer)
        return document

    def _is_mine(self, document: Metadata[Snapshot] | Metadata[Timestamp]) -> bool:
        """Whether it was signed by the key that signs now: after a rotation all is signed anew."""
        return self._signer.public_key.keyid in document.signatures

    def _tidy(self) -> None:
        for role in (SNAPSHOT, STUDENTS, TARGETS):
            for version in sorted(versions_of(self._folder, role))[:-_KEPT]:
                (self._folder / f"{version}.{role}.json").unlink(missing_ok=True)


def _stands(document: Snapshot | Targets, now_s: float) -> bool:
    """Whether it need not be signed again yet: less than half its time is over, and it was not signed in the future."""
    begun_s = _begun_s(document, SNAPSHOT_DAYS)
    return begun_s >= now_s - SNAPSHOT_DAYS * _DAILY_S / 2 and not _is_ahead(begun_s, now_s)


def _begun_s(document: Timestamp | Snapshot | Targets, days: int) -> float:
    """When it was signed, by its end."""
    return document.expires.timestamp() - days * _DAILY_S


def _is_ahead(signed_s: float, now_s: float) -> bool:
    """Whether something was signed by a clock that was wrong; earlier than this program was built, now is wrong."""
    return signed_s > now_s + _SLACK_S and now_s >= Path(__file__).stat().st_mtime


def _is_signed_by(targets: Targets, students: Metadata[Targets]) -> bool:
    try:
        targets.verify_delegate(STUDENTS, students.signed_bytes, students.signatures)
    except (UnsignedMetadataError, ValueError):
        return False
    return True
