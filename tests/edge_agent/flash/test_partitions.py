"""Where file systems lie in an image, by its table and by what they begin with."""

import pytest

from edge_agent.flash.errors import NotRecognisedError
from edge_agent.flash.partitions import Kind, partitions
from tests.support.card_images import MIB, needs_card_tools, run

pytestmark = needs_card_tools


@pytest.mark.parametrize("name", ["BOOKWORM", "UBUNTU"], ids=["MBR", "GPT"])
def test_both_tables_are_read(stock, name):
    boot, root = partitions(stock(name))
    assert (boot.number, boot.start, boot.size, boot.kind) == (1, 4 * MIB, 64 * MIB, Kind.FAT)
    assert (root.number, root.start, root.size, root.kind) == (2, 68 * MIB, 24 * MIB, Kind.EXT)


def test_sfdisk_sees_the_same(stock):
    said = run("sfdisk", "-d", stock("BOOKWORM"))
    starts = [int(line.split("start=")[1].split(",")[0]) * 512 for line in said.splitlines() if "start=" in line]
    assert [part.start for part in partitions(stock("BOOKWORM"))] == starts


def test_an_image_that_was_cut_off_is_refused(stock, tmp_path):
    short = tmp_path / "short.img"
    short.write_bytes(stock("BOOKWORM").read_bytes()[: 80 * MIB])
    with pytest.raises(NotRecognisedError, match="partition 2 ends past the file"):
        partitions(short)


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"PK\3\4" + bytes(4096)], ids=["empty", "zeros", "zip"])
def test_what_has_no_table_is_refused(tmp_path, data):
    path = tmp_path / "no.img"
    path.write_bytes(data)
    with pytest.raises(NotRecognisedError, match="no partition table"):
        partitions(path)


def test_a_partition_alone_is_no_image_of_a_card(stock, tmp_path):
    fat = tmp_path / "fat.img"
    fat.write_bytes(stock("BOOKWORM").read_bytes()[4 * MIB : 68 * MIB])
    with pytest.raises(NotRecognisedError, match="no partition table"):
        partitions(fat)


def test_a_damaged_gpt_is_refused(stock, tmp_path):
    data = bytearray(stock("UBUNTU").read_bytes())
    data[512:520] = b"GONE    "
    path = tmp_path / "damaged.img"
    path.write_bytes(data)
    with pytest.raises(NotRecognisedError, match="damaged"):
        partitions(path)
