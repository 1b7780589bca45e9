"""Which system an image holds, by what is on it; and what is none that a device could boot from."""

from dataclasses import replace

import pytest

from edge_agent.flash.boards import BoardName, Facts, Mechanism, recognise
from edge_agent.flash.errors import NotRecognisedError
from edge_agent.flash.looking import look_at_card, look_at_image
from tests.support import card_images
from tests.support.card_images import BOOKWORM, PI_FIRMWARE, TRIXIE, lay_out, needs_card_tools, os_release

pytestmark = needs_card_tools

KNOWN = {
    "BOOKWORM": ("rpi-bookworm", Mechanism.FIRSTRUN, "3.11", "arm64", "/boot/firmware"),
    "TRIXIE": ("rpi-trixie", Mechanism.CLOUD_INIT, "3.13", "arm64", "/boot/firmware"),
    "TRIXIE_FIRST": ("rpi-trixie", Mechanism.FIRSTRUN, "3.13", "arm64", "/boot/firmware"),
    "PRESEED": ("rpi-trixie", Mechanism.PRESEED, "3.13", "arm64", "/boot/firmware"),
    "UBUNTU": ("generic-cloudinit", Mechanism.CLOUD_INIT, "3.12", "arm64", "/boot/firmware"),
    "CIDATA": ("generic-cloudinit", Mechanism.CLOUD_INIT, "3.11", "amd64", "/boot/fedistill"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_an_image_is_recognised_by_what_is_on_it(stock, name):
    board = recognise(look_at_image(stock(name)).facts)
    assert (board.name.value, board.mechanism, board.python, board.architecture, board.boot) == KNOWN[name]


def test_without_debugfs_the_boot_partition_is_enough(stock, monkeypatch):
    monkeypatch.setattr("edge_agent.flash.tools._PATH", "/nowhere")
    monkeypatch.setattr("edge_agent.flash.tools.has", lambda program: program != "debugfs")
    monkeypatch.setattr("edge_agent.flash.tools._PATH", "/usr/bin:/bin:/usr/local/bin")
    for name in ("BOOKWORM", "TRIXIE"):
        board = recognise(look_at_image(stock(name)).facts)
        assert (board.name.value, board.python) == (KNOWN[name][0], KNOWN[name][2])


@pytest.mark.parametrize("name", ["BOOKWORM", "TRIXIE", "TRIXIE_FIRST"])
def test_a_mounted_card_is_recognised_by_its_boot_partition(tmp_path, name):
    folder = lay_out(getattr(card_images, name).boot, tmp_path / "bootfs")
    board = recognise(look_at_card(folder))
    assert (board.name.value, board.mechanism, board.python) == KNOWN[name][:3]


def test_what_the_facts_say_wins_over_what_the_owner_says(stock):
    facts = look_at_image(stock("TRIXIE")).facts
    with pytest.raises(NotRecognisedError, match="this is rpi-trixie, not rpi-bookworm"):
        recognise(facts, BoardName.RPI_BOOKWORM)
    assert recognise(facts, BoardName.RPI_TRIXIE) == recognise(facts)


def test_where_nothing_tells_the_release_the_owner_does():
    facts = Facts(frozenset(PI_FIRMWARE) | {"cmdline.txt"})
    with pytest.raises(NotRecognisedError, match="say --board"):
        recognise(facts)
    assert recognise(facts, BoardName.RPI_BOOKWORM).python == "3.11"


def test_ubuntus_boot_partition_is_not_taken_for_that_of_trixie(tmp_path):
    facts = look_at_card(lay_out(card_images.UBUNTU.boot, tmp_path / "anywhere"))
    with pytest.raises(NotRecognisedError, match="generic-cloudinit"):
        recognise(facts)
    assert recognise(facts, BoardName.GENERIC_CLOUDINIT).python == ""
    assert recognise(look_at_card(lay_out(card_images.UBUNTU.boot, tmp_path / "system-boot"))).python == ""


REFUSED = {
    "32-bit": (
        {**BOOKWORM.root, "usr/lib/arm-linux-gnueabihf/libc.so.6": b""},
        ["usr/lib/aarch64-linux-gnu/libc.so.6"],
        "no 64-bit processor",
    ),
    "old Python": (
        {**BOOKWORM.root, "usr/lib/os-release": os_release("debian", "11", "bullseye"), "usr/bin/python3.9": b""},
        ["usr/bin/python3.11"],
        "its Python is 3.9",
    ),
    "no Python": (BOOKWORM.root, ["usr/bin/python3.11"], "has no Python 3"),
    "a release to come": (
        {**TRIXIE.root, "usr/lib/os-release": os_release("debian", "14", "forky"), "usr/bin/python3.14": b""},
        [],
        "Raspberry Pi OS forky",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_systems_that_the_agent_does_not_run_on_are_refused(tmp_path, case):
    root, gone, why = REFUSED[case]
    root = {name: data for name, data in root.items() if name not in gone}
    image = replace(BOOKWORM, root=root).make(tmp_path / "odd.img")
    with pytest.raises(NotRecognisedError, match=why):
        recognise(look_at_image(image).facts)


def test_an_image_without_a_boot_partition_of_ours_is_refused(tmp_path):
    image = replace(BOOKWORM, boot={"README": b"my photographs\n"}, label="PHOTOS").make(tmp_path / "photos.img")
    with pytest.raises(NotRecognisedError, match="no boot partition"):
        look_at_image(image)


def test_a_cidata_partition_on_a_system_without_cloud_init_is_refused(stock, tmp_path):
    without = {name: data for name, data in card_images.CIDATA.root.items() if "cloud-init" not in name}
    image = replace(card_images.CIDATA, root=without).make(tmp_path / "no.img")
    with pytest.raises(NotRecognisedError, match="no cloud-init"):
        recognise(look_at_image(image).facts)


def test_a_folder_that_is_no_boot_partition_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(NotRecognisedError, match="no boot partition"):
        recognise(look_at_card(tmp_path))
    with pytest.raises(NotRecognisedError, match="no such folder"):
        look_at_card(tmp_path / "nowhere")
