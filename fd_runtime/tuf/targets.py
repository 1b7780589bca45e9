"""Which packages the training workstation vouches for: `targets`, written anew with every change, in one version more.

It says what may be run at all; what a device should run, and which devices first, is the server's to say (nudges). What
is retired here cannot be fetched by anybody any more, whatever a broker says.

The delegation to `students` stands in it too: the server's key, and the one path that it may sign for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from fd_protocol.targets import BUNDLES, STUDENTS, TargetFacts, package_of, target_name
from fd_runtime.tuf.documents import ROOT, TARGETS, TIMESTAMP, TrustError, after, newest, unborn, write

TARGETS_DAYS = 365


@dataclass(frozen=True, slots=True)
class Target:
    """A package that is vouched for; `package` is its SHA-256 in hex."""

    name: str
    package: str
    package_bytes: int
    facts: TargetFacts


def add(
    folder: Path, signer: CryptoSigner, package: bytes, facts: TargetFacts, *, now_s: float, days: int = TARGETS_DAYS
) -> Target:
    """Vouch for a package; the same one twice is vouched for once.

    Raises:
        TrustError: there is no root, or it has another key for targets.
        OSError: the folder cannot be written.
    """
    document = _next(folder, signer)
    target = target_of(BUNDLES, package, facts)
    document.signed.targets[target.name] = to_tuf(target, package)
    _publish(folder, document, signer, now_s, days)
    return target


def retire(folder: Path, signer: CryptoSigner, bundle: str, *, now_s: float, days: int = TARGETS_DAYS) -> list[Target]:
    """Vouch no more for any package of the bundle with this digest; return what those were.

    Raises:
        TrustError: as `add`; or nothing is vouched for that has this bundle.
        OSError: the folder cannot be written.
    """
    document = _next(folder, signer)
    gone = [target for target in listed(document.signed) if target.facts.bundle == bundle]
    if not gone:
        raise TrustError(f"no package of bundle {bundle[:12]} is vouched for")
    for target in gone:
        del document.signed.targets[target.name]
    _publish(folder, document, signer, now_s, days)
    return gone


def renew(
    folder: Path, signer: CryptoSigner, *, now_s: float, students: str | None = None, days: int = TARGETS_DAYS
) -> int:
    """Sign what is vouched for once more, before its time ends, and return its version.

    Args:
        folder: of the documents.
        signer: of targets.
        now_s: UTC.
        students: family whose packages the server may vouch for from now on; "" = for none. None = as before.
        days: until it ends.

    Raises:
        TrustError: as `add`.
        OSError: the folder cannot be written.
    """
    document = _next(folder, signer)
    if students is not None:
        _delegate(document.signed, students, folder)
    _publish(folder, document, signer, now_s, days)
    return document.signed.version


def listed(targets: Targets) -> list[Target]:
    """Return what a document vouches for.

    Raises:
        InvalidTargetError: it says too little of one.
    """
    return [
        Target(name, package_of(name), file.length, TargetFacts.from_plain(file.custom, name))
        for name, file in sorted(targets.targets.items())
    ]


def target_of(role: str, package: bytes, facts: TargetFacts) -> Target:
    """Return the target that a package is, under the name of `BUNDLES` or `STUDENTS`."""
    digest = TargetFile.from_data("", package).hashes["sha256"]
    return Target(target_name(role, facts.family, digest), digest, len(package), facts)


def to_tuf(target: Target, package: bytes) -> TargetFile:
    """Return a target as TUF has it: length, digest, facts."""
    file = TargetFile.from_data(target.name, package)
    file.unrecognized_fields["custom"] = target.facts.to_plain()
    return file


def may_sign(targets: Targets, name: str) -> bool:
    """Whether the server may vouch for a target of this name."""
    roles = targets.delegations.roles if targets.delegations and targets.delegations.roles else {}
    return STUDENTS in roles and roles[STUDENTS].is_delegated_path(name)


def _next(folder: Path, signer: CryptoSigner) -> Metadata[Targets]:
    """Return what is vouched for, in the version to come."""
    root = _root(folder)
    if signer.public_key.keyid not in root.roles[TARGETS].keyids:
        raise TrustError(f"root {root.version} has another key for targets")
    found = newest(Targets, folder, TARGETS)
    targets = found.signed if found else unborn(Targets)
    targets.version += 1
    if targets.delegations and targets.delegations.roles and STUDENTS in targets.delegations.roles:
        _hand(targets, root)  # the server may have another key by now
    return Metadata(targets)


def _delegate(targets: Targets, family: str, folder: Path) -> None:
    if not family:
        targets.delegations = None
        return
    pattern = f"{STUDENTS}/{family}/*"
    role = DelegatedRole(STUDENTS, [], 1, terminating=True, paths=[pattern])
    targets.delegations = Delegations({}, {STUDENTS: role})
    _hand(targets, _root(folder))


def _hand(targets: Targets, root: Root) -> None:
    """Let the server's present key, and no other, sign for students."""
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    for keyid in list(targets.delegations.roles[STUDENTS].keyids):
        targets.revoke_key(keyid, STUDENTS)
    for keyid in root.roles[TIMESTAMP].keyids:
        targets.add_key(root.keys[keyid], STUDENTS)


def _root(folder: Path) -> Root:
    root = newest(Root, folder, ROOT)
    if root is None:
        raise TrustError(f"{folder}: no root yet: draft one, and have it signed")
    return root.signed


def _publish(folder: Path, document: Metadata[Targets], signer: CryptoSigner, now_s: float, days: int) -> None:
    document.signed.expires = after(now_s, days)
    document.sign(signer)
    write(folder, document, TARGETS)
