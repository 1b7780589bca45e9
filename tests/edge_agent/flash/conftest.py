"""Stock images, made once; a device's kit as the server's authority makes it; packages by name."""

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from edge_agent.flash.boards import Board, BoardName, Mechanism
from edge_agent.flash.orders import Order, seed_of
from tests.support import card_images

DEVICE, FEDERATION, BROKER = "press-3", "plant-7", "mqtt.plant-7.example"
TARGETS = (("3.11", "arm64"), ("3.13", "arm64"), ("3.12", "arm64"), ("3.11", "amd64"))
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4rG1KFDvE0pPOAIpSdHh8Hh3pJ9aWq9nAcQv1mX1dP me@desk"
TOKEN_TEXT = "press-3.9f2c41d7a0b64e55"


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    """name -> a stock image, made when it is first asked for; nobody may write it."""
    folder, made = tmp_path_factory.mktemp("stock"), {}

    def get(name):
        if name not in made:
            made[name] = getattr(card_images, name).make(folder / f"{name.lower()}.img")
            made[name].chmod(0o444)
        return made[name]

    return get


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """A folder with a package for each board; they hold nothing, for nobody installs them here."""
    folder = tmp_path_factory.mktemp("debs")
    for python, architecture in TARGETS:
        path = folder / f"fedistill-agent_0.1.0-1+py{python}_{architecture}.deb"
        path.write_bytes(b"!<arch>\n" + f"{python} {architecture}".encode() * 20_000)
    return folder


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("ca") / "pki", fleet=FEDERATION, now=datetime.now(timezone.utc))


@pytest.fixture
def kit(authority, tmp_path):
    """What `broker-server ca sign press-3 --out kit` makes: a certificate, its key, the root."""
    authority.issue(Identity(DEVICE, Role.DEVICE), tmp_path / "kit", now=datetime.now(timezone.utc))
    return tmp_path / "kit"


@pytest.fixture
def token_kit(authority, tmp_path):
    """A kit of a device that makes its own key."""
    folder = tmp_path / "token-kit"
    folder.mkdir()
    shutil.copy(authority.root_path, folder / "ca.pem")
    (folder / "enrolment.token").write_text(f"{TOKEN_TEXT}\n")
    return folder


@pytest.fixture
def ssh_key(tmp_path):
    path = tmp_path / "id.pub"
    path.write_text(f"# mine\n{SSH_KEY}\n")
    return path


@pytest.fixture
def order(kit, packages):
    return Order(DEVICE, FEDERATION, broker=BROKER, kit=kit, package=packages)


@pytest.fixture
def with_token(order, token_kit):
    return replace(order, kit=token_kit, enrol="https://mqtt.plant-7.example:8443")


BOARDS = {
    Mechanism.CLOUD_INIT: Board(
        BoardName.RPI_TRIXIE, Mechanism.CLOUD_INIT, "Debian 13", "/boot/firmware", "bootfs", True, "3.13", "arm64"
    ),
    Mechanism.FIRSTRUN: Board(
        BoardName.RPI_BOOKWORM, Mechanism.FIRSTRUN, "Debian 12", "/boot/firmware", "bootfs", True, "3.11", "arm64"
    ),
    Mechanism.PRESEED: Board(
        BoardName.RPI_TRIXIE, Mechanism.PRESEED, "Debian 13", "/boot/firmware", "bootfs", True, "3.13", "arm64"
    ),
}
GENERIC = Board(
    BoardName.GENERIC_CLOUDINIT, Mechanism.CLOUD_INIT, "Debian 12", "/boot/fedistill", "CIDATA", False, "3.11", "amd64"
)


@pytest.fixture
def seed(order):
    return lambda board=BOARDS[Mechanism.CLOUD_INIT], **said: seed_of(replace(order, **said), board)


def silent(_step, _total, chunks):
    """Nobody watches."""
    return iter(chunks)


def mtype(image, start, name):
    """A file of a FAT partition, read by mtools alone."""
    return subprocess.run(
        ["mtype", "-i", f"{image}@@{start}", f"::/{name}"],
        check=True,
        capture_output=True,
        env={"MTOOLS_SKIP_CHECK": "1", "PATH": "/usr/bin:/bin:/usr/local/bin"},
    ).stdout
