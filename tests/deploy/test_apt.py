"""Updates of the agent by the real apt: some machines first, and back. A machine is a folder of apt's own state."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.apt.__main__ import _share, main

HERE = Path(__file__).parents[2] / "deploy" / "apt"
OLD, NEW = "0.1.0-1", "0.2.0-1"
CANARY = ("-o", "APT::Get::Always-Include-Phased-Updates=true")
CONTROL = (
    "Package: fedistill-agent\nVersion: {}\nArchitecture: amd64\n"
    "Maintainer: a <a@example.org>\nDescription: agent\n of two lines\n"
)

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "dpkg-deb", "gpg"))), reason="apt, dpkg-deb and gpg are not here"
)


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """Version -> a package."""
    folder = tmp_path_factory.mktemp("debs")
    found = {}
    for version in (OLD, NEW):
        root = folder / version
        (root / "DEBIAN").mkdir(parents=True)
        full = f"{version}+py3.11"
        (root / "DEBIAN" / "control").write_text(CONTROL.format(full))
        path = folder / f"fedistill-agent_{full}_amd64.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, path], check=True, capture_output=True)
        found[version] = path
    return found


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """A key of gpg, its public half in a file; GNUPGHOME is set by `signing`."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    base = ["gpg", "--homedir", str(home), "--batch", "--passphrase", ""]
    subprocess.run(
        [*base, "--quick-generate-key", "fleet@example.org", "ed25519", "sign"], check=True, capture_output=True
    )
    subprocess.run([*base, "--output", home / "fleet.gpg", "--export"], check=True, capture_output=True)
    yield home
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.fixture
def repository(tmp_path, debs, key, monkeypatch):
    monkeypatch.setenv("GNUPGHOME", str(key))
    folder = tmp_path / "apt"

    def update(*words):
        assert main([str(folder), *map(str, words), "--key", "fleet@example.org"]) == 0

    update.folder = folder
    update(debs[OLD], debs[NEW])
    return update


@pytest.fixture
def machine(tmp_path, repository, key):
    """What a machine with this id would do at its next turn, running a version now."""

    def turn(runs=OLD, machine_id="1" * 32, *options):
        root = tmp_path / f"machine-{machine_id[:2]}-{runs}"
        shutil.rmtree(root, ignore_errors=True)
        for name in ("lists/partial", "archives/partial", "preferences.d"):
            (root / name).mkdir(parents=True)
        status = CONTROL.format(f"{runs}+py3.11") + "Status: install ok installed\n\n"
        (root / "status").write_text(status)
        source = f"deb [signed-by={key}/fleet.gpg] file:{repository.folder}/py3.11 ./\n"
        (root / "sources.list").write_text(source)
        shutil.copy(HERE / "fedistill.pref", root / "preferences.d" / "fedistill")
        said = {
            "Dir::State::lists": root / "lists",
            "Dir::State::status": root / "status",
            "Dir::Cache": root,
            "Dir::Cache::archives": root / "archives",
            "Dir::Etc::sourcelist": root / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": root / "preferences.d",
            "APT::Architecture": "amd64",
            "APT::Architectures::": "amd64",
            "APT::Machine-ID": machine_id,
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", *(word for name, value in said.items() for word in ("-o", f"{name}={value}")), *options]
        done = subprocess.run([*apt, "update"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        done = subprocess.run([*apt, "-s", "--allow-downgrades", "upgrade"], capture_output=True, text=True, check=True)
        taken = [line.split("(")[1].split("+")[0] for line in done.stdout.splitlines() if line.startswith("Inst ")]
        return taken[0] if taken else runs

    return turn


def test_without_a_share_every_machine_takes_the_newest(machine):
    assert machine() == NEW


def test_of_a_share_some_machines_take_it_and_a_wider_share_holds_them(machine, repository):
    ids = [f"{number:032x}" for number in range(0x10, 0x1C)]

    def first(percent):
        repository("--percent", percent)
        return {one for one in ids if machine(OLD, one) == NEW}

    half, more = first(50), first(80)
    assert set() < half < set(ids)
    assert half <= more


FIRST_OF_ALL = f"{0x1F:032x}"
"""A machine that apt draws as number 0 for the newer version: no percentage is too low for it."""


@pytest.mark.parametrize("machine_id", ["1" * 32, FIRST_OF_ALL])
def test_halted_nobody_begins_and_who_has_it_keeps_it(machine, repository, machine_id):
    repository("--percent", 1)
    assert (machine(OLD, machine_id) == NEW) == (machine_id == FIRST_OF_ALL)
    repository("--percent", 0)
    assert machine(OLD, machine_id) == OLD
    assert machine(NEW, machine_id) == NEW
    assert machine(OLD, machine_id, *CANARY) == OLD


def test_what_is_halted_depends_on_all_that_it_did_before():
    assert _share({"Depends": "python3 (>= 3.11), libc6"}, 0) == {
        "Depends": "python3 (>= 3.11), libc6, fedistill-is-halted"
    }


def test_what_was_halted_goes_on(machine, repository):
    repository("--percent", 0)
    repository("--percent", 1)
    assert machine(OLD, FIRST_OF_ALL) == NEW
    assert machine(NEW, FIRST_OF_ALL) == NEW


def test_what_was_halted_is_gone_back_from_once_it_is_withdrawn(machine, repository):
    repository("--percent", 0)
    repository("--withdraw", NEW)
    assert machine(NEW) == OLD


def test_a_canary_is_always_among_the_first(machine, repository):
    repository("--percent", 1)
    assert machine(OLD, "2" * 32) == OLD
    assert machine(OLD, "2" * 32, *CANARY) == NEW


def test_what_is_withdrawn_is_gone_back_from(machine, repository):
    repository("--withdraw", NEW)
    assert machine(NEW) == OLD


def test_what_was_altered_or_is_not_signed_is_not_taken(machine, repository):
    packages = repository.folder / "py3.11" / "Packages"
    (repository.folder / "py3.11" / "Packages.gz").unlink()
    packages.write_text(packages.read_text().replace(OLD, "9.9.9-1"))
    with pytest.raises(AssertionError):
        machine()


def test_what_is_no_package_of_ours_is_not_put_in(tmp_path, capsys):
    (tmp_path / "other.deb").write_bytes(b"")
    assert main([str(tmp_path / "apt"), str(tmp_path / "other.deb")]) == 1
    assert main([str(tmp_path / "apt")]) == 1
    assert "no packages" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "apt"), "--percent", "101"])


def test_the_script_asks_apt_for_its_turn():
    text = (HERE / "fedistill-upgrade").read_text()
    assert " upgrade" in text
    assert " install" not in text.split("set -eu")[1]  # which would not ask whose turn it is
    subprocess.run(["sh", "-n", HERE / "fedistill-upgrade"], check=True)
