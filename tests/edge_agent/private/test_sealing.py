"""Keys are files that nobody else reads; what is sealed opens with its key, in its place, unchanged, or not at all."""

from __future__ import annotations

import sys

import pytest

from edge_agent.private.keys import KeyFileError, destroy_key, key_path, make_key, read_key
from edge_agent.private.sealing import AesGcm, Plain, SealError
from edge_agent.private.settings import StoreSettings
from fd_runtime.extras import MissingExtraError

KEY = bytes(range(32))


def test_what_is_sealed_opens_and_looks_like_nothing():
    seal = AesGcm(KEY)
    sealed = seal.close(b"a private sample", b"samples/1")
    assert seal.open(sealed, b"samples/1") == b"a private sample"
    assert b"private" not in sealed
    assert seal.close(b"a private sample", b"samples/1") != sealed
    assert len(sealed) == 12 + len(b"a private sample") + 16


@pytest.mark.parametrize("place", [0, 12, -1])
def test_a_changed_bit_is_found(place):
    sealed = bytearray(AesGcm(KEY).close(b"a private sample", b"samples/1"))
    sealed[place] ^= 1
    with pytest.raises(SealError, match="samples/1"):
        AesGcm(KEY).open(bytes(sealed), b"samples/1")


def test_another_key_another_place_and_a_stump_do_not_open():
    sealed = AesGcm(KEY).close(b"a private sample", b"samples/1")
    for seal, data, label in (
        (AesGcm(bytes(32)), sealed, b"samples/1"),
        (AesGcm(KEY), sealed, b"samples/2"),
        (AesGcm(KEY), sealed[:5], b"samples/1"),
        (AesGcm(KEY), b"", b"samples/1"),
    ):
        with pytest.raises(SealError):
            seal.open(data, label)


def test_it_is_the_aes_gcm_of_the_standard():
    """Test case 14 of McGrew and Viega, "The Galois/Counter Mode of Operation": key, nonce and data of zeros."""
    nonce, tag = bytes(12), bytes.fromhex("d0d1c8a799996bf0265b98b5d48ab919")
    ciphertext = bytes.fromhex("cea7403d4d606b6e074ec5d3baf39d18")
    assert AesGcm(bytes(32)).open(nonce + ciphertext + tag, b"") == bytes(16)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fedistill\[agent-encrypted\]'"):
        AesGcm(KEY)


def test_without_a_key_bytes_stay_as_they_are():
    assert Plain().open(Plain().close(b"x", b""), b"") == b"x"


# Key files.


def key_file(folder, content=KEY, mode=0o600):
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n"])
def test_a_key_is_32_bytes_or_as_many_hexadecimal_digits(tmp_path, content):
    assert read_key(key_file(tmp_path, content)) == KEY


@pytest.mark.parametrize("content", [b"", KEY[:31], KEY + b"\n", b"password", b"x" * 64])
def test_anything_else_is_none(tmp_path, content):
    with pytest.raises(KeyFileError, match="32 bytes, or 64 hexadecimal digits"):
        read_key(key_file(tmp_path, content))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(key_file(tmp_path, mode=mode))


def test_a_new_key_is_for_its_owner_alone(tmp_path):
    key = make_key(tmp_path / "key")
    assert read_key(tmp_path / "key") == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert make_key(tmp_path / "other") != key


def test_a_destroyed_key_is_overwritten_and_gone(tmp_path):
    path = key_file(tmp_path)
    (tmp_path / "link").hardlink_to(path)
    assert destroy_key(path)
    assert read_key(path) is None
    left = (tmp_path / "link").read_bytes()
    assert len(left) == 32
    assert left != KEY
    assert not destroy_key(path)


def test_a_credential_is_where_systemd_puts_it(tmp_path):
    settings = StoreSettings(credential="store")
    assert key_path(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == tmp_path / "store"
    with pytest.raises(KeyFileError, match="LoadCredential="):
        key_path(settings, {})
    assert key_path(StoreSettings(key_file=tmp_path / "key"), {}) == tmp_path / "key"
    assert key_path(StoreSettings(), {}) is None
