"""From a stock image to a seeded one: what is written, what is not touched, and that a wrong byte is found."""

import gzip
import hashlib
import lzma
import os
import stat
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.flash import flashing, writing
from edge_agent.flash.boards import BoardName
from edge_agent.flash.disks import Disk
from edge_agent.flash.errors import NoRoomError, NotRecognisedError, NotVerifiedError, ToolError
from edge_agent.flash.fat import Fat
from edge_agent.flash.flashing import make_card, make_image, seed_mounted, source
from edge_agent.flash.orders import seed_of
from tests.support import card_images
from tests.support.card_images import MIB, lay_out, needs_card_tools, run

from .conftest import DEVICE, mtype, silent

pytestmark = needs_card_tools

START, END = 4 * MIB, 68 * MIB
WIFI = {"wifi": "Werk 7", "wifi_password": "korrekt pferd", "wifi_country": "DE"}


@pytest.fixture
def make(stock, order, tmp_path):
    """Make a seeded image of a stock one; return it, and what was said of it."""

    def make(name, watched=silent, **said):
        out = tmp_path / f"{name.lower()}-{DEVICE}.img"
        with source(stock(name), None, tmp_path, watched) as ready:
            return out, make_image(ready, seed_of(replace(order, **said), ready.board), out, watched)

    return make


@pytest.mark.parametrize("name", ["BOOKWORM", "TRIXIE", "TRIXIE_FIRST", "PRESEED", "UBUNTU", "CIDATA"])
def test_outside_the_boot_partition_nothing_changes(make, stock, name):
    out, made = make(name)
    before, after = stock(name).read_bytes(), out.read_bytes()
    assert len(before) == len(after) == made.size
    assert before[:START] == after[:START]
    assert before[END:] == after[END:]
    assert before[START:END] != after[START:END]
    assert hashlib.sha256(after).hexdigest() == made.sha256


@pytest.mark.parametrize("name", ["BOOKWORM", "TRIXIE", "UBUNTU"])
def test_mtools_alone_reads_back_what_was_written_and_what_was_there(make, stock, order, name):
    out, made = make(name)
    image = getattr(card_images, name)
    for file, data in image.boot.items():
        if file not in ("cmdline.txt", "user-data", "meta-data", "network-config"):
            assert mtype(out, START, file) == data
    assert made.kept >= len(image.boot) - 4
    sums = mtype(out, START, "fedistill/SHA256SUMS").decode().splitlines()
    assert any(line.endswith(".deb") for line in sums)
    for line in sums:
        digest, file = line.split("  ")
        assert hashlib.sha256(mtype(out, START, f"fedistill/{file}")).hexdigest() == digest
    assert made.written == len(sums) + 1 + (2 if name == "BOOKWORM" else 3)


def test_the_file_system_is_sound_afterwards(make, tmp_path):
    out, _ = make("BOOKWORM")
    part = tmp_path / "part"
    part.write_bytes(out.read_bytes()[START:END])
    run("fsck.vfat", "-n", part)


def test_nobody_else_may_read_an_image_with_secrets(make):
    out, _ = make("TRIXIE")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_the_stock_image_is_only_read(make, stock):
    before = hashlib.sha256(stock("TRIXIE").read_bytes()).digest()
    make("TRIXIE")
    assert hashlib.sha256(stock("TRIXIE").read_bytes()).digest() == before


def test_the_same_order_at_the_same_time_makes_the_same_bytes(stock, order, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    sums = set()
    for name in ("one", "two"):
        with source(stock("TRIXIE"), None, tmp_path, silent) as ready:
            sums.add(make_image(ready, seed_of(order, ready.board), tmp_path / name, silent).sha256)
    assert len(sums) == 1


def test_no_password_of_the_network_is_in_the_image(make):
    out, _ = make("TRIXIE", **WIFI)
    assert b"korrekt pferd" not in out.read_bytes()
    assert b"Werk 7" in out.read_bytes()


def test_an_image_is_sparse_where_it_is_zeros(make):
    out, made = make("TRIXIE")
    assert out.stat().st_blocks * 512 < made.size / 2


# A wrong byte


def flip(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0xFF]))


@pytest.mark.parametrize("place", [0, START + 5_000_000, END + 100, 97 * 1_000_000], ids=str)
def test_one_wrong_byte_anywhere_is_found_and_leaves_no_image(make, tmp_path, monkeypatch, place):
    real = writing._let_go

    def spoil(descriptor):
        real(descriptor)
        flip(Path(f"/proc/self/fd/{descriptor}").readlink(), place)

    monkeypatch.setattr(writing, "_let_go", spoil)
    with pytest.raises(NotVerifiedError, match="reads otherwise"):
        make("BOOKWORM")
    assert not list(tmp_path.glob("*.img"))
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_mtools_wrote_wrong_is_found(make, monkeypatch, tmp_path):
    real = Fat.put

    def put(self, files, **options):
        real(self, {**files, "config.txt": b"arm_64bit=0\n"}, **options)

    monkeypatch.setattr(Fat, "put", put)
    with pytest.raises(NotVerifiedError, match=r"config\.txt"):
        make("BOOKWORM")
    assert not list(tmp_path.glob("*.img"))


def test_a_file_that_got_lost_is_found(make, monkeypatch):
    real = Fat.put

    def put(self, files, **options):
        real(self, {name: data for name, data in files.items() if not name.endswith(".deb")}, **options)

    monkeypatch.setattr(Fat, "put", put)
    with pytest.raises(NotVerifiedError, match=r"fedistill-agent_.*\.deb"):
        make("BOOKWORM")


# Refused


def test_what_does_not_fit_is_refused_before_anything_is_written(make, tmp_path, packages):
    big = tmp_path / "bundle"
    big.mkdir()
    (big / "weights.bin").write_bytes(bytes(70 * MIB))
    with pytest.raises(NoRoomError, match="boot partition") as refusal:
        make("BOOKWORM", bundle=big)
    assert refusal.value.needed > 70 * MIB > refusal.value.free
    assert not list(tmp_path.glob("*.img"))


def test_an_image_that_is_there_is_not_written_over(make):
    out, _ = make("TRIXIE")
    before = out.read_bytes()
    with pytest.raises(FileExistsError):
        make("TRIXIE")
    assert out.read_bytes() == before


def test_another_board_than_was_said_is_refused(stock, tmp_path):
    with (
        pytest.raises(NotRecognisedError, match="this is rpi-trixie"),
        source(stock("TRIXIE"), BoardName.RPI_BOOKWORM, tmp_path, silent),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_without_mtools_it_says_what_to_install(stock, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.flash.tools._PATH", str(tmp_path))
    with pytest.raises(ToolError, match="apt install mtools"), source(stock("TRIXIE"), None, tmp_path, silent):
        pass


# Packed


def packed(stock, folder, how):
    data = stock("TRIXIE").read_bytes()
    path = folder / f"2025-raspios.{'zip' if how == 'zip' else f'img.{how}'}"
    if how == "xz":
        path.write_bytes(lzma.compress(data, preset=0))
    elif how == "gz":
        path.write_bytes(gzip.compress(data, 1))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("2025-raspios.img", data)
    return path


@pytest.mark.parametrize("how", ["xz", "gz", "zip"])
def test_an_image_as_it_is_downloaded_makes_the_same_bytes(stock, order, tmp_path, monkeypatch, how):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    sums = []
    for number, image in enumerate((stock("TRIXIE"), packed(stock, tmp_path, how))):
        with source(image, None, tmp_path, silent) as ready:
            sums.append(make_image(ready, seed_of(order, ready.board), tmp_path / f"{number}.img", silent).sha256)
    assert sums[0] == sums[1]
    assert not list(tmp_path.glob(".flash-*"))


@pytest.mark.parametrize("how", ["xz", "gz", "zip"])
def test_a_download_that_was_cut_off_is_refused(stock, tmp_path, how):
    path = packed(stock, tmp_path, how)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(NotRecognisedError, match="damaged"), source(path, None, tmp_path, silent):
        pass


def test_a_zip_without_an_image_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(NotRecognisedError, match="holds 0 images"), source(tmp_path / "x.zip", None, tmp_path, silent):
        pass


# A mounted card


@pytest.fixture
def card(tmp_path):
    return lay_out(card_images.BOOKWORM.boot, tmp_path / "bootfs")


def test_a_mounted_card_gets_the_same_files(make, order, card):
    out, made = make("BOOKWORM")
    board, _, written = seed_mounted(card, None, lambda board: seed_of(order, board))
    assert written.written == made.written
    assert board.name is BoardName.RPI_BOOKWORM
    for path in card.rglob("*"):
        if path.is_file():
            assert mtype(out, START, path.relative_to(card).as_posix()) == path.read_bytes()


def test_a_mounted_card_is_seeded_again_without_leftovers(order, card, tmp_path):
    extra = tmp_path / "extra.txt"
    extra.write_text("x")
    seed_mounted(card, None, lambda board: seed_of(replace(order, add=(extra,)), board))
    (card / "fedistill" / "installed").touch()
    seed_mounted(card, None, lambda board: seed_of(order, board))
    assert not (card / "fedistill" / "installed").exists()
    assert not (card / "fedistill" / "etc" / "extra.txt").exists()
    assert (card / "cmdline.txt").read_text().count("systemd.run=") == 1


def test_a_mounted_card_that_reads_otherwise_is_found(order, card, monkeypatch):
    def spoil(path):
        if path.name == "agent.toml":
            flip(path, 10)

    monkeypatch.setattr(flashing, "_forget", spoil)
    with pytest.raises(NotVerifiedError, match=r"agent\.toml"):
        seed_mounted(card, None, lambda board: seed_of(order, board))


def test_a_mounted_card_that_is_full_is_refused_untouched(order, card, monkeypatch):
    full = os.statvfs_result((4096, 4096, 100, 10, 10, 0, 0, 0, 0, 255))
    monkeypatch.setattr(flashing.os, "statvfs", lambda _: full)
    before = {path: path.read_bytes() for path in card.rglob("*") if path.is_file()}
    with pytest.raises(NoRoomError):
        seed_mounted(card, None, lambda board: seed_of(order, board))
    assert {path: path.read_bytes() for path in card.rglob("*") if path.is_file()} == before


# A disk


@pytest.fixture
def loop(tmp_path):
    """A disk of the kernel's, 128 MiB, that is a file in truth."""
    if os.geteuid() != 0:
        pytest.skip("a loop device needs root")
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(128 * MIB)
    done = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    yield done.stdout.strip(), backing
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


def test_a_card_gets_what_an_image_gets(stock, order, tmp_path, loop, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    name, backing = loop
    disk = Disk(Path(name), "", 128 * MIB, True, ())
    with source(stock("BOOKWORM"), None, tmp_path, silent) as ready:
        seed = seed_of(order, ready.board)
        onto = make_card(ready, seed, disk, silent, told_twice=False)
        image = make_image(ready, seed, tmp_path / "image", silent)
    assert onto == image
    subprocess.run(["sync", name], check=True)
    assert backing.read_bytes()[: image.size] == (tmp_path / "image").read_bytes()


def test_a_card_that_is_taken_out_early_does_not_boot(stock, order, tmp_path, loop):
    name, backing = loop
    disk = Disk(Path(name), "", 128 * MIB, True, ())

    def torn(step, total, chunks):
        for number, chunk in enumerate(chunks):
            if step == "writing" and number == 20:
                raise OSError(5, "taken out")
            yield chunk

    with source(stock("BOOKWORM"), None, tmp_path, torn) as ready, pytest.raises(OSError, match="taken out"):
        make_card(ready, seed_of(order, ready.board), disk, torn, told_twice=False)
    subprocess.run(["sync", name], check=True)
    data = backing.read_bytes()
    assert data[:MIB] == bytes(MIB)  # no table: nothing boots from it
    assert any(data[START : START + 10 * MIB])
