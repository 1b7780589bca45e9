"""A package is a bundle or a public set in one file; what was tampered with is refused before anything is written."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from dataclasses import replace

import pytest

from fd_protocol.errors import DecodeError, DigestError
from fd_protocol.manifest import FileEntry, InvalidManifestError, Role
from fd_runtime.artifacts import Bundle, MissingArtifactError, load_bundle, load_public_set
from fd_runtime.packages import IncompletePackageError, pack, unpack
from tests.edge_agent.artifacts import write_bundle, write_public_set


@pytest.fixture
def bundle(tmp_path):
    write_bundle(tmp_path / "bundle")
    return load_bundle(tmp_path / "bundle")


def next_release(bundle, folder):
    """The same bundle with another theta."""
    folder.mkdir()
    files = dict(bundle.manifest.files)
    for role, entry in files.items():
        content = bundle.read(Role(role))
        if role == Role.THETA.value:
            content = content[:-4] + b"\0\0\0\0"
            files[role] = FileEntry.of(entry.path, content)
        (folder / entry.path).write_bytes(content)
    manifest = replace(bundle.manifest, files=files, version="2", parent=bundle.digest.hex())
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return load_bundle(folder)


def tar(**contents):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def members(package):
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_a_bundle_survives_its_package(bundle, tmp_path):
    again = unpack(pack(bundle), tmp_path / "again")
    assert isinstance(again, Bundle)
    assert again.manifest == bundle.manifest


def test_a_public_set_survives_its_package(tmp_path):
    public = load_public_set(write_public_set(tmp_path / "public"))
    assert unpack(pack(public), tmp_path / "again").spec == public.spec


def test_equal_bundles_make_equal_bytes_whenever_they_were_written(bundle, tmp_path):
    twin = unpack(pack(bundle), tmp_path / "twin")
    assert pack(twin) == pack(bundle)


def test_the_document_comes_first(bundle):
    assert next(iter(members(pack(bundle)))) == "manifest.json"


def test_a_delta_carries_only_what_the_parent_lacks(bundle, tmp_path):
    release = next_release(bundle, tmp_path / "release")
    delta = pack(release, parent=bundle)
    assert set(members(delta)) == {"manifest.json", release.manifest.files["theta"].path}
    assert len(delta) < len(pack(release))
    assert unpack(delta, tmp_path / "device", parent=bundle.folder).manifest == release.manifest


def test_a_delta_without_its_parent_says_whose_child_it_is(bundle, tmp_path):
    delta = pack(next_release(bundle, tmp_path / "release"), parent=bundle)
    with pytest.raises(IncompletePackageError, match=bundle.digest.hex()):
        unpack(delta, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_a_changed_file_is_refused_and_nothing_is_written(bundle, tmp_path):
    contents = members(pack(bundle))
    contents[bundle.manifest.files["theta"].path] = b"tampered"
    with pytest.raises(DigestError, match="theta"):
        unpack(tar(**contents), tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_a_document_that_is_no_utf_8_is_refused_and_nothing_is_written(bundle, tmp_path):
    plain = json.loads(bundle.manifest.to_json()) | {"provenance": {"by": "\ud800"}}
    document = json.dumps(plain, indent=1, sort_keys=True).encode()
    with pytest.raises(InvalidManifestError):
        unpack(tar(**{**members(pack(bundle)), "manifest.json": document}), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_that_the_document_does_not_name_is_not_written(bundle, tmp_path):
    package = tar(**members(pack(bundle)), **{"../evil": b"x", "extra": b"x"})
    unpack(package, tmp_path / "in" / "device")
    assert not (tmp_path / "in" / "evil").exists()
    assert not (tmp_path / "in" / "device" / "extra").exists()


def test_a_parent_whose_file_has_rotted_is_found_out(bundle, tmp_path):
    delta = pack(next_release(bundle, tmp_path / "release"), parent=bundle)
    (bundle.folder / bundle.manifest.files["tail"].path).write_bytes(b"rotten")
    with pytest.raises(DigestError, match="tail"):
        unpack(delta, tmp_path / "device", parent=bundle.folder)


@pytest.mark.parametrize(
    ("package", "error"),
    [
        (b"", DecodeError),
        (b"no tar at all" * 100, DecodeError),
        (tar(**{"other.json": b"{}"}), DecodeError),
        (tar(**{"manifest.json": b"{}"}), InvalidManifestError),
    ],
)
def test_what_is_no_package_is_refused(tmp_path, package, error):
    with pytest.raises(error):
        unpack(package, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def header(name, kind=tarfile.REGTYPE, size=0, sparse=None):
    """A block that tarfile would not write; `sparse` is how large an old GNU sparse file says it is."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT)[: tarfile.BLOCKSIZE])
    if sparse is not None:
        block[386:410] = b"%011o\0%011o\0" % (sparse, 0)
        block[483:495] = b"%011o\0" % sparse
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "block",
    [
        header("manifest.json", tarfile.SYMTYPE),
        header("manifest.json", tarfile.DIRTYPE),
        header("manifest.json", tarfile.GNUTYPE_LONGNAME, 512),
        header("manifest.json", tarfile.XHDTYPE, 512),
        header("manifest.json", size=513),
        header("manifest.json", size=-512),
    ],
    ids=["link", "folder", "long name", "extended header", "beyond the end", "negative"],
)
def test_all_but_whole_plain_files_is_refused(tmp_path, block):
    with pytest.raises(DecodeError, match="plain files"):
        unpack(block + bytes(512), tmp_path / "device")


def test_a_sparse_file_of_a_gigabyte_takes_no_memory(tmp_path):
    package = header("manifest.json", tarfile.GNUTYPE_SPARSE, sparse=1 << 30) + bytes(1024)
    tracemalloc.start()
    with pytest.raises(DecodeError, match="plain files"):
        unpack(package, tmp_path / "device")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_name_that_comes_twice_is_refused(bundle, tmp_path):
    package = pack(bundle)[:-1024] + header("tail.onnx") + bytes(1024)
    with pytest.raises(DecodeError, match=r"each once, not 'tail\.onnx'"):
        unpack(package, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_what_is_in_the_folder_is_never_written_over(bundle, tmp_path):
    release = next_release(bundle, tmp_path / "release")
    with pytest.raises(FileExistsError):
        unpack(pack(release), bundle.folder)
    assert load_bundle(bundle.folder).manifest == bundle.manifest


def test_a_file_that_changed_since_it_was_loaded_is_not_packed(bundle):
    (bundle.folder / "tail.onnx").write_bytes(b"other")
    with pytest.raises(DigestError, match="tail"):
        pack(bundle)


def test_a_file_that_vanished_since_it_was_loaded_is_named(bundle):
    (bundle.folder / "tail.onnx").unlink()
    with pytest.raises(MissingArtifactError, match="tail"):
        pack(bundle)
