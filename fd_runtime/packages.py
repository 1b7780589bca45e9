"""A bundle or a public set as one file, for a web server, a USB stick or a release.

A tar of plain files without folders, sorted, with no times, owners or modes: equal folders give equal bytes. The
document that vouches for the others (`manifest.json`, `public_set.json`) comes first, so that a reader knows after a
few kilobytes what it will get. Nothing is compressed: weights and probes hardly shrink.

A package of a release may leave out files that its parent has: a *delta*. Unpacking takes them from the parent's
folder; a digest says which file is the same, not its name.

Packages come from strangers, so only what `pack` writes is read: headers of plain files, one after the other. The rest
of tar (links, sparse files, longer names, other headers) is refused, and with it what a few bytes can make of memory.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from fd_protocol.errors import DecodeError, FedistillError
from fd_protocol.manifest import MANIFEST_NAME, FileEntry, Manifest
from fd_protocol.public_set import PUBLIC_SET_NAME, PublicSetSpec
from fd_runtime.artifacts import Bundle, PublicSet, load_bundle, load_public_set, read_file
from fd_runtime.files import claim, write_atomically

_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_END_BYTES = 1024
"""Two empty blocks end a tar; tarfile pads to 10 kB, which is more than many a delta."""


class IncompletePackageError(FedistillError):
    """A delta was unpacked without the parent that has the rest of its files."""

    exit_code = 66  # EX_NOINPUT

    def __init__(self, missing: Collection[str], parent: str | None) -> None:
        self.missing, self.parent = tuple(missing), parent
        wanted = f"; it is a delta to the bundle {parent}" if parent else ""
        super().__init__(f"the package lacks {', '.join(sorted(missing))}{wanted}")


def pack(artifact: Bundle | PublicSet, *, parent: Bundle | None = None) -> bytes:
    """Return the package of a bundle or a public set.

    Args:
        artifact: loaded, so every digest was checked.
        parent: leave out the files that this bundle has too.

    Raises:
        MissingArtifactError, DigestError: a file has changed since.
    """
    document, content, vouched = _described(artifact)
    known = {entry.sha256 for entry in parent.manifest.files.values()} if parent else set()
    entries = sorted((entry for entry in vouched.values() if entry.sha256 not in known), key=lambda entry: entry.path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, document, content)
        for entry in entries:
            _add(archive, entry.path, read_file(artifact.folder, entry))
        end = archive.offset + _END_BYTES
    return buffer.getvalue()[:end]


def described(package: bytes) -> Manifest | PublicSetSpec:
    """Return the document that a package begins with; none of the files is looked at.

    Raises:
        DecodeError: not a package.
        InvalidManifestError: its document is wrong at a key.
    """
    document, description = next(_members(package), ("", b""))
    _vouched(document, description)
    if document == MANIFEST_NAME:
        return Manifest.from_json(description)
    return PublicSetSpec.from_json(description)


def unpack(package: bytes, folder: Path, *, parent: Path | None = None) -> Bundle | PublicSet:
    """Write what is in a package into `folder` and return it loaded, every digest checked.

    Args:
        package: what `pack` made; from a stranger, perhaps.
        folder: created; must not exist, or be empty. Its document is written last: a folder that has one is whole.
        parent: folder of the bundle that a delta builds on.

    Raises:
        DecodeError: not a package.
        InvalidManifestError: its document is wrong at a key.
        IncompletePackageError: files are missing, and the parent does not have them.
        DigestError: a file is not the one that the document names; nothing is written.
        FileExistsError: something is in the folder.
        OSError: the folder cannot be written.
    """
    members = _members(package)
    document, description = next(members, ("", b""))
    vouched, parent_digest = _vouched(document, description)
    files: dict[str, bytes | None] = dict.fromkeys(entry.path for entry in vouched.values())
    files |= {name: content for name, content in members if name in files}
    if parent is not None:
        files |= _from_parent(load_bundle(parent), [entry for entry in vouched.values() if files[entry.path] is None])
    missing = [name for name, content in files.items() if content is None]
    if missing:
        raise IncompletePackageError(missing, parent_digest)
    for entry in vouched.values():
        entry.check(files[entry.path] or b"")
    claim(folder)
    for name, content in files.items():
        write_atomically(folder / name, content or b"")
    write_atomically(folder / document, description)
    return load_bundle(folder) if document == MANIFEST_NAME else load_public_set(folder)


def _described(artifact: Bundle | PublicSet) -> tuple[str, bytes, Mapping[str, FileEntry]]:
    """Name and bytes of the document, and the files that it vouches for."""
    if isinstance(artifact, Bundle):
        return MANIFEST_NAME, artifact.manifest.to_json(), artifact.manifest.files
    return PUBLIC_SET_NAME, artifact.spec.to_json(), artifact.spec.files


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _vouched(document: str, content: bytes) -> tuple[Mapping[str, FileEntry], str | None]:
    """The files that the document of a package names, and its parent."""
    if document == MANIFEST_NAME:
        manifest = Manifest.from_json(content)
        return manifest.files, manifest.parent
    if document == PUBLIC_SET_NAME:
        return PublicSetSpec.from_json(content).files, None
    raise DecodeError("malformed", f"a package begins with {MANIFEST_NAME} or {PUBLIC_SET_NAME}, not {document!r}")


def _members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file. Nothing is written, so a name cannot do harm; no content is larger than `package`.

    Raises:
        DecodeError: something else than plain files is in it, a name comes twice, or it breaks off.
    """
    names: set[str] = set()
    at = 0
    while (header := package[at : at + tarfile.BLOCKSIZE]).strip(b"\0"):
        member, start = _header(header), at + tarfile.BLOCKSIZE
        if member.type not in _PLAIN or not 0 <= member.size <= len(package) - start or member.name in names:
            raise DecodeError("malformed", f"a package holds whole plain files, each once, not {member.name!r}")
        names.add(member.name)
        yield member.name, package[start : start + member.size]
        at = start + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise DecodeError("malformed", f"a package: {error}") from error


def _from_parent(parent: Bundle, wanted: Collection[FileEntry]) -> dict[str, bytes]:
    stored = {entry.sha256: entry for entry in parent.manifest.files.values()}
    return {entry.path: read_file(parent.folder, stored[entry.sha256]) for entry in wanted if entry.sha256 in stored}
