"""`edge-agent flash` as it is typed: one card, a fleet, a mounted card; and each refusal with its exit code."""

import json
import os
import pty
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from broker_server.identity.certificates import Identity, Role
from edge_agent.cli import main
from edge_agent.cli.parser import BOARDS
from edge_agent.flash import command
from edge_agent.flash.boards import BoardName
from fd_runtime.command_line import EX_INTERRUPTED
from fd_runtime.config import EX_CANTCREAT, EX_DATAERR, EX_NOPERM, EX_UNAVAILABLE, EX_USAGE
from tests.support import card_images
from tests.support.card_images import MIB, lay_out, needs_card_tools

from .conftest import BROKER, DEVICE, FEDERATION, mtype

pytestmark = needs_card_tools

START = 4 * MIB


@pytest.fixture
def flash(packages, tmp_path, monkeypatch):
    """Run the command in an empty folder; return its exit code."""
    monkeypatch.chdir(tmp_path)
    always = ("--federation", FEDERATION, "--broker", BROKER, "--package", str(packages))

    def run(target, *words):
        return main(["flash", str(target), *always, *map(str, words)])

    return run


@pytest.fixture
def fleet(authority, tmp_path):
    """A table of three devices, each with its kit."""
    rows = ["device,kit,host"]
    for number in (1, 2, 3):
        name = f"press-{number}"
        authority.issue(Identity(name, Role.DEVICE), tmp_path / "kits" / name, now=datetime.now(timezone.utc))
        rows.append(f"{name},kits/{name},presse{number}")
    (tmp_path / "line.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "line.csv"


def test_boards_are_called_the_same_in_both_places():
    assert [one.value for one in BoardName] == list(BOARDS)


def test_one_image_with_a_manifest_beside_it(flash, stock, kit, tmp_path, capsys):
    assert flash(stock("TRIXIE"), "--device", DEVICE, "--kit", kit, "--json") == 0
    image = tmp_path / f"trixie-{DEVICE}.img"
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["device"], told["where"], told["bytes"]) == (DEVICE, image.name, image.stat().st_size)
    (entry,) = json.loads((tmp_path / f"trixie-{DEVICE}.rpi-imager-manifest").read_text())["os_list"]
    assert entry["extract_sha256"] == told["sha256"] == entry["image_download_sha256"]
    assert entry["url"] == image.as_uri()
    assert entry["init_format"] == "none"  # what Imager adds would take the place of ours
    # The schema of Imager's lists asks for these.
    wanted = {"name", "description", "icon", "url", "extract_size", "extract_sha256", "image_download_size"}
    assert wanted | {"release_date", "devices"} <= entry.keys()


def test_a_fleet_is_an_image_a_device_and_a_list_that_tells_which_is_whose(flash, stock, fleet, tmp_path):
    assert flash(stock("TRIXIE"), "--fleet", fleet, "--out", "cards") == 0
    listed = json.loads((tmp_path / "cards/line.rpi-imager-manifest").read_text())["os_list"]
    assert [one["name"] for one in listed] == [f"press-{number} (plant-7)" for number in (1, 2, 3)]
    for number, one in enumerate(listed, 1):
        image = Path(one["url"].removeprefix("file://"))
        assert image.name == f"trixie-press-{number}.img"
        assert f'id = "press-{number}"'.encode() in mtype(image, START, "fedistill/etc/agent.toml")
        assert mtype(image, START, f"fedistill/etc/press-{number}.key").startswith(b"-----BEGIN PRIVATE KEY")
        assert f"presse{number}".encode() in mtype(image, START, "user-data")
    done = (tmp_path / "cards/line.done.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in done[1:]] == ["press-1", "press-2", "press-3"]


def test_a_fleet_that_was_interrupted_goes_on_where_it_was(flash, stock, fleet, tmp_path, capsys):
    assert flash(stock("TRIXIE"), "--fleet", fleet, "--out", "cards") == 0
    first = (tmp_path / "cards/trixie-press-1.img").stat().st_mtime_ns
    log = tmp_path / "cards/line.done.csv"
    log.write_text("\n".join(log.read_text().splitlines()[:-1]) + "\n")
    (tmp_path / "cards/trixie-press-3.img").unlink()
    assert flash(stock("TRIXIE"), "--fleet", fleet, "--out", "cards") == 0
    assert (tmp_path / "cards/trixie-press-1.img").stat().st_mtime_ns == first
    assert (tmp_path / "cards/trixie-press-3.img").exists()
    assert len(json.loads((tmp_path / "cards/line.rpi-imager-manifest").read_text())["os_list"]) == 3
    assert "press-1: cards/trixie-press-1.img is there already" in capsys.readouterr().err


def test_what_was_made_before_an_interruption_is_on_the_list(flash, stock, fleet, tmp_path, monkeypatch):
    real, made = command.make_image, []

    def torn(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr(command, "make_image", torn)
    assert flash(stock("TRIXIE"), "--fleet", fleet, "--out", "cards") == EX_INTERRUPTED
    monkeypatch.setattr(command, "make_image", real)
    assert flash(stock("TRIXIE"), "--fleet", fleet, "--out", "cards") == 0
    listed = json.loads((tmp_path / "cards/line.rpi-imager-manifest").read_text())["os_list"]
    assert [one["name"].split()[0] for one in listed] == ["press-1", "press-2", "press-3"]


def test_one_bad_row_and_no_card_is_made(flash, stock, fleet, tmp_path):
    fleet.write_text(fleet.read_text().replace("presse3", "-bad-"))
    assert flash(stock("TRIXIE"), "--fleet", fleet, "--out", "cards") != 0
    assert not list((tmp_path / "cards").iterdir())


def test_a_mounted_card_is_written_where_it_lies(flash, kit, tmp_path):
    card = lay_out(card_images.BOOKWORM.boot, tmp_path / "bootfs")
    assert flash(card, "--device", DEVICE, "--kit", kit) == 0
    assert (card / "fedistill/SHA256SUMS").exists()
    assert "systemd.run=" in (card / "cmdline.txt").read_text()


def test_check_writes_nothing(flash, stock, kit, tmp_path, capsys):
    before = set(tmp_path.rglob("*"))
    assert flash(stock("TRIXIE"), "--device", DEVICE, "--kit", kit, "--check") == 0
    assert set(tmp_path.rglob("*")) == before
    assert "nothing was written" in capsys.readouterr().err


def test_the_password_of_the_network_comes_from_a_file(flash, stock, kit, tmp_path):
    (tmp_path / "word").write_text("korrekt pferd\n")
    words = ("--wifi", "Werk", "--wifi-country", "DE", "--wifi-password-file", tmp_path / "word")
    assert flash(stock("TRIXIE"), "--device", DEVICE, "--kit", kit, *words) == 0
    assert b"Werk" in mtype(tmp_path / f"trixie-{DEVICE}.img", START, "network-config")
    (tmp_path / "word").write_text("\n")
    assert flash(stock("TRIXIE"), "--device", DEVICE, "--kit", kit, "--out", "x.img", *words) == EX_USAGE


def test_refusals_end_with_their_exit_codes_and_leave_nothing(flash, stock, kit, fleet, tmp_path, capsys):
    (tmp_path / "noise.img").write_bytes(bytes(4096))
    (tmp_path / "there.img").write_bytes(b"mine")
    card = lay_out(card_images.BOOKWORM.boot, tmp_path / "bootfs")
    who = ("--device", DEVICE, "--kit", kit)
    cases = [
        ((stock("TRIXIE"),), EX_USAGE, "which device"),
        ((tmp_path / "none.img", *who), 74, "none.img"),
        ((tmp_path / "noise.img", *who), EX_DATAERR, "no partition table"),
        ((stock("TRIXIE"), *who, "--board", "rpi-bookworm"), EX_DATAERR, "this is rpi-trixie"),
        ((stock("TRIXIE"), *who, "--out", "there.img"), EX_CANTCREAT, "exists already"),
        ((stock("TRIXIE"), "--fleet", fleet), EX_USAGE, "--out FOLDER"),
        ((stock("TRIXIE"), *who, "--to", tmp_path / "there.img", "--yes"), EX_NOPERM, "is no disk"),
        ((stock("TRIXIE"), "--fleet", fleet, "--to", "/dev/null"), EX_NOPERM, "nobody is there to ask"),
        ((card, *who, "--out", "x.img"), EX_USAGE, "is a mounted card"),
        ((card, "--fleet", fleet), EX_NOPERM, "nobody is there to ask"),
    ]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for words, code, why in cases:
        assert flash(*words) == code, words
        assert why in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_on_a_device_it_says_where_cards_are_made(flash, stock, kit, monkeypatch, capsys):
    monkeypatch.setattr("edge_agent.cli.flash.find_spec", lambda _: None)
    assert flash(stock("TRIXIE"), "--device", DEVICE, "--kit", kit) == EX_UNAVAILABLE
    assert "pip install 'fedistill[flash]'" in capsys.readouterr().err


def test_the_program_of_a_device_never_loads_it():
    text = "import sys, edge_agent.cli.run, edge_agent.cli.status; print([m for m in sys.modules if 'flash' in m])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Cards, one after another, by somebody at a terminal


def typed(words, answers, folder):
    """Run the command at a terminal of its own, type answers, return exit code and what it showed."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.cli", "flash", *map(str, words)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    os.close(slave)
    os.write(master, answers.encode())
    shown = process.communicate(timeout=120)[0].decode()
    os.close(master)
    return process.returncode, shown


@pytest.fixture
def loop(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a loop device needs root")
    with (tmp_path / "backing").open("wb") as file:
        file.truncate(128 * MIB)
    done = subprocess.run(
        ["losetup", "-f", "--show", tmp_path / "backing"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    yield Path(done.stdout.strip())
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


def test_cards_are_changed_by_hand_and_each_is_somebodys(stock, fleet, packages, loop, tmp_path):
    always = (stock("BOOKWORM"), "--federation", FEDERATION, "--broker", BROKER, "--package", packages)
    words = (*always, "--fleet", fleet, "--to", loop, "--overwrite", loop)
    code, shown = typed(words, "\ns\nq\n", tmp_path)
    assert code == EX_NOPERM
    assert f"Card for press-1 (1 of 3) into {loop}" in shown
    assert "write press-1 on that card" in shown
    assert "the same command goes on" in shown
    assert b'id = "press-1"' in mtype(loop, START, "fedistill/etc/agent.toml")
    code, shown = typed(words, "\n\n", tmp_path)
    assert code == 0
    assert "press-1: done before" in shown
    assert b'id = "press-3"' in mtype(loop, START, "fedistill/etc/agent.toml")
    done = (tmp_path / "line.done.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in done[1:]] == ["press-1", "press-2", "press-3"]


def test_a_disk_is_asked_for_by_name_and_refused_until_told_twice(stock, kit, packages, loop, tmp_path):
    always = (stock("BOOKWORM"), "--federation", FEDERATION, "--broker", BROKER, "--package", packages)
    words = (*always, "--device", DEVICE, "--kit", kit, "--to", loop)
    code, shown = typed(words, "", tmp_path)
    assert (code, "is built in" in shown) == (EX_NOPERM, True)
    code, shown = typed((*words, "--overwrite", loop), "no\n", tmp_path)
    assert (code, "nothing was written" in shown) == (EX_NOPERM, True)
    assert (tmp_path / "backing").read_bytes()[:MIB] == bytes(MIB)
    code, shown = typed((*words, "--overwrite", loop), f"{DEVICE}\n", tmp_path)
    assert code == 0, shown
    assert b'id = "press-3"' in mtype(loop, START, "fedistill/etc/agent.toml")
