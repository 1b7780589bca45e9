"""The root of trust, and how it changes hands: drafts that several people sign, each on a machine of their own.

    draft --> root.draft.json --sign, sign--> N.root.json         signed by as many as the root before asks for, and as
                                                                  many as the new one does

Keys of `root` sign roots and nothing else. `targets` signs bundles; `snapshot` and `timestamp` are one key, the
server's, which signs `students` too (`tuf_targets`). Devices follow one version after another, however many they have
missed, so every root that ever was must stay where they can get it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root

from fd_runtime.files import write_atomically
from fd_runtime.tuf.documents import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, TrustError, after, newest, read, write

DRAFT = "root.draft.json"
ROOT_DAYS = 3 * 365
"""A device that slept for as long cannot be reached over the air any more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a draft is: `missing` signatures by keys of the root before and by keys of its own."""

    version: int
    missing_old: int
    missing_new: int

    @property
    def is_whole(self) -> bool:
        return not self.missing_old and not self.missing_new


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new root says otherwise than the one before; None, or () = the same.

    Attributes:
        roots: keys of the root role, all of them.
        threshold: how many of them must sign.
        targets: the key that signs bundles.
        online: the server's key.
    """

    roots: Sequence[SSlibKey] = ()
    threshold: int | None = None
    targets: SSlibKey | None = None
    online: SSlibKey | None = None


def draft(folder: Path, changes: Changes, now_s: float, days: int = ROOT_DAYS) -> Root:
    """Write the draft of the next root, unsigned, over any other draft.

    Raises:
        TrustError: a first root that does not name every key, or one that nobody could sign.
        OSError: the folder cannot be written.
    """
    before = newest(Root, folder, ROOT)
    root = Root(consistent_snapshot=True) if before is None else before.signed
    if before is None:
        if not (changes.roots and changes.targets and changes.online):
            raise TrustError("a first root names the keys of root, of targets, and the server's")
    else:
        root.version += 1
    root.expires = after(now_s, days)
    _take_keys(root, changes)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / DRAFT, Metadata(root).to_bytes())
    return root


def sign(folder: Path, signer: CryptoSigner) -> Standing:
    """Put a signature under the draft; with the last one it becomes a root.

    Raises:
        TrustError: there is no draft, or the key is of neither root.
        OSError: the folder cannot be written.
    """
    document = read(Root, folder / DRAFT)
    before = newest(Root, folder, ROOT)
    owners = set(document.signed.roles[ROOT].keyids) | (set(before.signed.roles[ROOT].keyids) if before else set())
    if signer.public_key.keyid not in owners:
        raise TrustError("this key is none of the root's, nor of the root's before")
    document.sign(signer, append=True)
    standing = _standing(document, before)
    if standing.is_whole:
        write(folder, document, ROOT)
        (folder / DRAFT).unlink()
    else:
        write_atomically(folder / DRAFT, document.to_bytes())
    return standing


def follow(trusted: Metadata[Root] | None, folder: Path) -> list[Metadata[Root]]:
    """Return the roots in a folder that come after a trusted one, each vouched for by the one before, in order.

    None is trusted: the first one in the folder is taken at its own word.

    Raises:
        TrustError: one is not signed as it must be, or is missing between others.
    """
    found: list[Metadata[Root]] = []
    last = trusted
    while (path := folder / f"{last.signed.version + 1 if last else 1}.{ROOT}.json").is_file():
        document = read(Root, path)
        is_next = path.name == f"{document.signed.version}.{ROOT}.json"
        if not is_next or not _standing(document, last).is_whole:
            raise TrustError(f"{path}: not signed as a root must be")
        found.append(document)
        last = document
    return found


def _take_keys(root: Root, changes: Changes) -> None:
    for role, keys in (
        (ROOT, list(changes.roots)),
        (TARGETS, [changes.targets]),
        (SNAPSHOT, [changes.online]),
        (TIMESTAMP, [changes.online]),
    ):
        wanted = [key for key in keys if key is not None]
        if not wanted:
            continue
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        for key in wanted:
            root.add_key(key, role)
    if changes.threshold is not None:
        root.roles[ROOT].threshold = changes.threshold
    if not 1 <= root.roles[ROOT].threshold <= len(root.roles[ROOT].keyids):
        raise TrustError(f"{root.roles[ROOT].threshold} of {len(root.roles[ROOT].keyids)} keys cannot sign")


def _standing(document: Metadata[Root], before: Metadata[Root] | None) -> Standing:
    said = document.signed.get_root_verification_result(
        before.signed if before else None, document.signed_bytes, document.signatures
    )
    return Standing(document.signed.version, said.first.missing, said.second.missing)
