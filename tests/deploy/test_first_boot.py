"""What a seeded card does at its first boot, on real systems with a real package: chroots, no running systemd.

    FEDISTILL_ROOTS=/var/tmp/roots pytest tests/deploy/test_first_boot.py

Minutes: it makes the package. FEDISTILL_DEBS names a folder that has it already. What reads the boot partition of an
image (cloud-init, the kernel's command line) does not run here: its first command is given by hand.
"""

import os
import subprocess
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from deploy.deb import building
from deploy.deb.catalogue import targets
from edge_agent.flash.boards import Board, BoardName, Mechanism
from edge_agent.flash.contents import lay_out
from edge_agent.flash.mechanisms import boot_files
from edge_agent.flash.orders import Order, seed_of
from tests.support.card_images import BOOKWORM
from tests.support.roots import Root, needs_roots

pytestmark = [pytest.mark.slow, needs_roots]

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4rG1KFDvE0pPOAIpSdHh8Hh3pJ9aWq9nAcQv1mX1dP me@desk"
UNIT = "/etc/systemd/system/multi-user.target.wants/fedistill-first-boot.service"
BOOT, CARD = "/boot/firmware", "/boot/firmware/fedistill"
INSTALL = ("sh", f"{CARD}/first-boot.sh", "install")


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """suite -> its package."""
    out = Path(os.environ.get("FEDISTILL_DEBS") or tmp_path_factory.mktemp("debs"))

    def make(suite):
        found = sorted(out.glob(f"fedistill-agent_*+py{PYTHONS[suite]}_amd64.deb"))
        return found[-1] if found else building_of(suite, out)

    return make


def building_of(suite, out):
    (deb,) = building.build(targets(["fedistill-agent"], [PYTHONS[suite]], ["amd64"]), out)
    return deb.path


@pytest.fixture
def kit(tmp_path):
    now = datetime.now(timezone.utc)
    Authority.create(tmp_path / "pki", fleet="plant-7", now=now).issue(
        Identity("press-3", Role.DEVICE), tmp_path / "kit", now=now
    )
    return tmp_path / "kit"


@pytest.fixture(params=PYTHONS)
def root(request, tmp_path):
    return Root(request.param, tmp_path / "root")


@pytest.fixture
def card(root, debs, kit, tmp_path):
    """The boot partition of a seeded card, as the system has it mounted. Returns its folder here."""
    (tmp_path / "id.pub").write_text(f"{KEY}\n")
    order = Order("press-3", "plant-7", broker="mqtt.plant-7.example", kit=kit, package=debs(root.suite))
    order = replace(order, ssh_key=tmp_path / "id.pub", wifi="Werk; 7", wifi_password="12345678", wifi_country="DE")
    board = Board(BoardName.RPI_BOOKWORM, Mechanism.FIRSTRUN, "", BOOT, "bootfs", True, PYTHONS[root.suite], "amd64")
    files = boot_files(seed_of(order, board), board, BOOKWORM.boot.get)
    root.path(BOOT).mkdir(parents=True)
    lay_out({**BOOKWORM.boot, **files}, root.path(BOOT))
    root.path("/etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
    root.run("useradd", "--create-home", "--uid", "1000", "rpi-first-boot-wizard")
    return root.path(CARD)


def test_firstrun_gives_host_login_network_and_our_service_and_goes(root, card):
    root.run("sh", f"{BOOT}/firstrun.sh")
    assert root.path("/etc/hostname").read_text() == "press-3\n"
    assert root.path("/etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tpress-3\n"
    keys = root.path("/home/rpi-first-boot-wizard/.ssh/authorized_keys")
    assert (keys.read_text(), keys.stat().st_uid, oct(keys.stat().st_mode)) == (f"{KEY}\n", 1000, "0o100600")
    wifi = root.path("/etc/NetworkManager/system-connections/preconfigured.nmconnection")
    assert oct(wifi.stat().st_mode) == "0o100600"  # NetworkManager passes over any other
    assert root.path(UNIT).is_symlink()
    unit = root.path("/etc/systemd/system/fedistill-first-boot.service").read_text()
    assert f"ExecStart=/bin/sh {CARD}/first-boot.sh install" in unit
    assert not root.path(f"{BOOT}/firstrun.sh").exists()
    assert root.path(f"{BOOT}/cmdline.txt").read_text().split()[-1] == "cfg80211.ieee80211_regdom=DE"
    before = root.path("/etc/hosts").read_text()
    lay_out({"firstrun.sh": b""}, root.path(BOOT))  # a power cut before it went: all of it once more
    assert root.path("/etc/hosts").read_text() == before


def test_the_agent_is_installed_after_its_settings_and_its_secrets_leave_the_card(root, card):
    settings = {path.name: path.read_bytes() for path in (card / "etc").iterdir()}
    root.run("sh", f"{CARD}/first-boot.sh", "arrange")
    root.run(*INSTALL)
    assert root.status("fedistill-agent") == "install ok installed"
    assert root.path("/etc/systemd/system/multi-user.target.wants/edge-agent.service").is_symlink()
    etc = root.path("/etc/fedistill")
    assert {path.name: path.read_bytes() for path in etc.iterdir()} == settings
    owners = root.run("stat", "-c", "%n %U:%G %a", "/etc/fedistill", *(f"/etc/fedistill/{name}" for name in settings))
    assert sorted(owners.splitlines()) == [
        "/etc/fedistill root:fedistill 750",
        "/etc/fedistill/agent.toml root:fedistill 640",
        "/etc/fedistill/ca.pem root:fedistill 640",
        "/etc/fedistill/press-3.key fedistill:fedistill 600",
        "/etc/fedistill/press-3.pem root:fedistill 640",
    ]
    # The program finds its settings as its user, and nothing of it but the model is missing.
    said = root.run("edge-agent", "config", "get", "broker.host", user="fedistill")
    assert said.strip() == "mqtt.plant-7.example"
    root.run("edge-agent", "flash", "x.img", code=69)  # not on a device
    assert sorted(path.name for path in card.iterdir()) == [
        "first-boot.service",
        "first-boot.sh",
        "installed",
        "status.txt",
    ]
    assert (card / "status.txt").read_text().startswith("installed fedistill-agent 0.")
    assert not root.path(UNIT).is_symlink()
    assert not root.path("/var/cache/fedistill-agent.deb").exists()


def test_a_damaged_card_installs_nothing_and_says_so(root, card):
    deb = next(card.glob("*.deb"))
    with deb.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff\x00\xff\x00")
    root.run(*INSTALL, code=2)
    assert "the card is damaged" in (card / "status.txt").read_text()
    assert not root.path("/etc/fedistill").exists()
    root.run("dpkg-query", "-W", "fedistill-agent", code=1)
    assert (card / "etc/press-3.key").exists()


def test_what_cannot_be_installed_now_stays_on_the_card_for_the_next_boot(root, card):
    stand_in = root.path("/usr/local/sbin/apt-get")
    stand_in.write_text("#!/bin/sh\nexit 100\n")
    stand_in.chmod(0o755)
    root.run(*INSTALL, code=1)
    assert "could not be installed" in (card / "status.txt").read_text()
    assert (card / "etc/press-3.key").exists()
    stand_in.unlink()
    root.run(*INSTALL)
    assert root.status("fedistill-agent") == "install ok installed"


def test_a_power_cut_at_any_moment_is_made_good_at_the_next_boot(root, card):
    root.run("sh", f"{CARD}/first-boot.sh", "arrange")
    cuts = 0
    for after_s in (0.05, 0.2, 0.5, 0.8, 1.2, 1.8, 2.5, 3.5, 4.5, 6.0):
        process = subprocess.Popen(root.command(*INSTALL), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(after_s)
        cuts += process.poll() is None
        process.kill()  # with its process space, and so with all that it started
        process.wait()
    root.run(*INSTALL)
    assert cuts >= 3
    assert root.status("fedistill-agent") == "install ok installed"
    assert root.run("dpkg", "--verify", "fedistill-agent") == ""
    assert root.run("edge-agent", "--version").startswith("edge-agent ")
    assert not list(card.glob("etc"))
    assert not list(root.path("/etc/fedistill").glob("*.new"))


def test_a_cut_while_the_secrets_go_is_made_good(root, card):
    root.run(*INSTALL)
    lay_out({"etc/press-3.key": b"still here"}, card)
    root.run(*INSTALL)
    assert not (card / "etc").exists()


def test_it_deletes_in_its_own_folder_alone(root, card):
    root.path("/first-boot.sh").write_bytes((card / "first-boot.sh").read_bytes())
    said = root.run("sh", "/first-boot.sh", "install", code=64)
    assert "belongs into a folder fedistill" in said
    assert root.path("/etc/hosts").exists()
