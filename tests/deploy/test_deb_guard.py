"""The broker's guard in the server's package: the same bytes each time, for the right processor, and on by itself."""

import hashlib
import re
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from broker_server.brokers.mosquitto import packaged_guard
from broker_server.cli import main
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from deploy.deb import building, control, guard, staging
from deploy.deb.catalogue import MACHINES, PACKAGES, ROOT, SERVER, targets
from tests.deploy.test_deb_trees import ALL, EPOCH, listing, target_of

NATIVE = "amd64"
AARCH64, X86_64 = 183, 62
"""`e_machine` of ELF."""


def needs_compiler(architecture):
    return pytest.mark.skipif(
        bool(guard.missing(architecture)), reason=f"not installed: {' '.join(guard.missing(architecture))}"
    )


@pytest.mark.parametrize(
    ("architecture", "machine"),
    [
        pytest.param("amd64", X86_64, marks=needs_compiler("amd64")),
        pytest.param("arm64", AARCH64, marks=needs_compiler("arm64")),
    ],
)
def test_it_is_compiled_for_its_processor_to_the_same_bytes_wherever(tmp_path, architecture, machine):
    first = guard.compile_guard(architecture, tmp_path / "a")
    second = guard.compile_guard(architecture, tmp_path / "elsewhere" / "b")
    head = first.read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    assert int.from_bytes(head[18:20], "little") == machine
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    assert str(tmp_path).encode() not in first.read_bytes()


def test_what_is_lacking_is_said_before_any_work_is_done(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(guard, "INCLUDE", tmp_path)
    with pytest.raises(guard.NoCompilerError, match="gcc-aarch64-linux-gnu mosquitto-dev libmosquitto-dev"):
        guard.check("arm64")
    (server,) = targets([SERVER.name], ["3.11"], ["arm64"])
    with pytest.raises(guard.NoCompilerError):
        next(building.build([server], tmp_path / "out"))


@needs_compiler(NATIVE)
@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_the_servers_package_holds_it_with_all_that_the_broker_needs(tmp_path):
    target = target_of(SERVER.name, architecture=NATIVE)
    site, root = tmp_path / "site", tmp_path / "root"
    for name in ALL:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    staging.stage(target, site, root, guard.compile_guard(NATIVE, tmp_path / "guard"))
    control.write(target, root, version="0.1.0-1+py3.11", glibc=28)
    building.pack(root, tmp_path / "made.deb", EPOCH)
    files = {name: mode for mode, _, _, name in listing(tmp_path / "made.deb")}
    plugin = f"./{target.home}/mosquitto/{guard.NAME}"
    assert files[plugin] == "-rw-r--r--"
    shared = f"./usr/share/{SERVER.name}/mosquitto"
    units = [path.relative_to(ROOT / "deploy/mosquitto") for path in (ROOT / "deploy/mosquitto/systemd").rglob("*.*")]
    assert {
        f"{shared}/{name}" for name in ("README.md", *units) if (ROOT / "deploy/mosquitto" / name).is_file()
    } <= set(files)
    # Nothing of it changes a broker that is on the machine for something else.
    assert not [name for name in files if "mosquitto" in name and not name.startswith((f"./{target.home}", shared))]


def test_the_agents_package_has_none():
    assert [package.name for package in PACKAGES.values() if package.has_broker] == [SERVER.name]
    assert set(MACHINES) == {"arm64", "amd64"}


@pytest.fixture
def folder(tmp_path):
    """Where the broker's files are to go."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    authority = Authority.create(tmp_path / "pki", fleet="lab", now=now)
    authority.issue(Identity("broker", Role.BROKER, ("localhost",)), tmp_path / "broker", now=now)
    return tmp_path / "broker"


def configure(folder, *more):
    arguments = ["mosquitto", str(folder), "--federation", "lab", "--aggregator", "agg-1"]
    assert main([*arguments, "--crl", str(folder.parent / "pki" / "crl.pem"), *more]) == 0
    return re.findall(r"^plugin (.*)$", (folder / "mosquitto.conf").read_text(), re.MULTILINE)


def test_the_command_of_the_package_takes_the_guard_of_the_package(folder, tmp_path, monkeypatch, capsys):
    assert packaged_guard() is None  # this is no package
    assert configure(folder) == []
    assert "without the guard" in capsys.readouterr().err
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "mosquitto").mkdir()
    packaged = tmp_path / "mosquitto" / guard.NAME
    packaged.touch()
    assert configure(folder) == [str(packaged)]
    assert capsys.readouterr().err == ""
    assert configure(folder, "--no-guard") == []


def test_a_guard_that_is_not_there_is_said_and_no_broker_will_fail_of_it(folder, tmp_path, capsys):
    arguments = ["mosquitto", str(folder), "--federation", "lab", "--aggregator", "agg-1"]
    more = ["--crl", str(folder.parent / "pki" / "crl.pem"), "--guard", str(tmp_path / "none.so")]
    assert main([*arguments, *more]) != 0
    assert "none.so is missing" in capsys.readouterr().err
    assert not (folder / "mosquitto.conf").exists()


def test_the_place_in_the_package_is_where_the_command_looks():
    """`sys.prefix` of the package's environment is its home."""
    target = target_of(SERVER.name)
    assert Path("/", target.home, "mosquitto", guard.NAME) == Path("/usr/lib/fedistill-server/mosquitto", guard.NAME)
    assert f'"mosquitto", "{guard.NAME}"' in (ROOT / "broker_server" / "brokers" / "mosquitto.py").read_text()
