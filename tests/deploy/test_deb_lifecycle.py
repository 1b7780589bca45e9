"""Real packages on the real systems that they are for: installed, changed, removed, and at work.

    FEDISTILL_ROOTS=/var/tmp/roots pytest tests/deploy/test_deb_lifecycle.py

Minutes: it fetches wheels, makes packages, and a root file system where the folder has none yet. systemd does not run
in a chroot: what it is told is looked at, what it would do is `test_deb_units`.
"""

import functools
import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from cryptography import x509

from broker_server.brokers.loopback import free_port
from deploy.deb import building
from deploy.deb.catalogue import MAX_BYTES, PACKAGES, ROOT, targets
from deploy.release import making
from fd_runtime.artifacts import load_public_set
from fd_runtime.links.link import LinkSettings
from model_export.public_set import build_public_set
from tests.edge_agent.processes import DEVICE, FEDERATION, TERMS, TOPICS, ScriptedServer
from tests.edge_agent.stores import until
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.roots import Root, needs_roots
from tests.support.small_bundles import PICTURES, pictures, small_bundle

pytestmark = [pytest.mark.slow, needs_roots]

SUITES = {"bookworm": "3.11", "trixie": "3.13"}
ENABLED = "/etc/systemd/system/multi-user.target.wants/{}"


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """(package, Python, revision, architecture) -> a package, made when it is first asked for."""
    out = tmp_path_factory.mktemp("debs")

    @functools.cache
    def make(package, python, revision=1, architecture="amd64"):
        (deb,) = building.build(targets([package], [python], [architecture]), out, revision=revision)
        return deb.path

    return make


@pytest.fixture(params=SUITES)
def root(request, tmp_path):
    return Root(request.param, tmp_path / "root")


@pytest.fixture(params=PACKAGES.values(), ids=PACKAGES)
def package(request):
    return request.param


def test_a_package_is_made_again_byte_for_byte(debs, tmp_path):
    first = debs("fedistill-agent", "3.11", architecture="arm64")
    before = os.umask(0o077)
    try:
        (again,) = building.build(targets(["fedistill-agent"], ["3.11"], ["arm64"]), tmp_path)
    finally:
        os.umask(before)
    assert hashlib.sha256(first.read_bytes()).hexdigest() == again.sha256
    assert again.path.stat().st_size <= MAX_BYTES
    listing = subprocess.run(["dpkg-deb", "-c", again.path], check=True, capture_output=True, text=True).stdout
    assert "cpython-311-aarch64-linux-gnu.so" in listing
    assert not [word for word in ("x86_64", ".pyc", "__pycache__", "/tests/") if word in listing]


def test_a_life_from_installation_to_purge(root, package, debs):
    python = SUITES[root.suite]
    first, second = (debs(package.name, python, revision) for revision in (1, 2))
    unit, default = package.units[0], f"/etc/default/{package.program}"
    settings, state = f"/etc/{package.user}", f"/var/lib/{package.user}"
    home, enabled = f"/usr/lib/{package.name}", root.path(ENABLED.format(unit))

    root.install(first)
    assert root.status(package.name) == "install ok installed"
    assert root.run("dpkg", "-V", package.name) == ""
    assert root.run(package.program, "--version").startswith(f"{package.program} 0.")
    assert enabled.is_symlink()
    assert [other for other in package.units[1:] if root.path(ENABLED.format(other)).is_symlink()] == []
    assert stat.S_IMODE(root.path(settings).stat().st_mode) == 0o750
    assert root.run("stat", "-c", "%U:%G", settings).strip() == f"root:{package.user}"
    number = root.run("id", "-u", package.user)

    # What an owner does, and what a service leaves behind.
    root.run(package.program, "init", settings)
    owned = root.path(settings) / ("agent.toml" if package.program == "edge-agent" else "federation.toml")
    assert f'folder = "{state}"' in owned.read_text()
    root.path(default).write_text("FEDISTILL__LOG__LEVEL=debug\n")
    root.path(state).mkdir()
    (root.path(state) / "agent.db").write_bytes(b"all that it remembers")
    enabled.unlink()  # as `systemctl disable` does
    kept = [owned, root.path(default), root.path(state) / "agent.db"]
    contents = [path.read_bytes() for path in kept]

    for deb, version in ((second, "2+py"), (first, "1+py")):  # an upgrade, a downgrade
        said = root.install(deb)
        assert f"-{version}{python}" in root.version(package.name)
        assert "not empty so not removed" not in said
        assert [path.read_bytes() for path in kept] == contents
        assert not enabled.is_symlink()
        assert root.run("dpkg", "-V", package.name).split()[1:] == ["c", default]  # changed here, and nothing else
        assert root.run(package.program, "--version").startswith(package.program)

    said = root.run("dpkg", "--remove", package.name)
    assert "not empty so not removed" not in said
    assert root.status(package.name) == "deinstall ok config-files"
    assert not root.path(home).exists()  # bytecode too
    assert [path.read_bytes() for path in kept] == contents

    root.install(second)
    assert [path.read_bytes() for path in kept] == contents
    said = root.run("dpkg", "--purge", package.name)
    assert "not empty so not removed" not in said
    ours = (home, settings, state, default, f"/usr/bin/{package.program}")
    assert not [name for name in ours if root.path(name).exists()]
    assert not list(root.path("/etc/systemd").rglob(unit))
    assert not list(root.path("/var/lib/systemd").rglob(f"*{unit}*"))
    assert root.run("id", "-u", package.user) == number  # nobody else's by chance


def test_settings_that_were_there_before_the_package_stay(root, debs):
    root.path("/etc/fedistill").mkdir()
    root.path("/etc/fedistill/agent.toml").write_text("[device]\n")
    root.install(debs("fedistill-agent", SUITES[root.suite]))
    assert root.path("/etc/fedistill/agent.toml").read_text() == "[device]\n"


def test_both_packages_live_on_one_machine_apart(root, debs):
    for package in PACKAGES:
        root.install(debs(package, SUITES[root.suite]))
    root.run("broker-server", "init", "/etc/fedistill-server")
    root.run("cat", "/etc/fedistill-server/federation.toml", user="fedistill-server")
    root.run("cat", "/etc/fedistill-server/federation.toml", user="fedistill", code=1)
    root.run("dpkg", "--purge", "fedistill-agent")
    assert root.path("/etc/fedistill-server/federation.toml").exists()
    assert root.run("broker-server", "--version").startswith("broker-server 0.")


def test_a_package_for_another_python_is_not_set_up(root, debs):
    (other,) = set(SUITES.values()) - {SUITES[root.suite]}
    said = root.install(debs("fedistill-agent", other), code=1)
    assert "dependency problems" in said
    assert root.status("fedistill-agent") == "install ok unpacked"


def test_every_library_finds_what_it_is_linked_to(root, package, debs):
    root.install(debs(package.name, SUITES[root.suite]))
    # What lies in NAME.libs is found by way of the modules of NAME, which are asked.
    modules = f"find /usr/lib/{package.name} -name '*.so*' -type f -not -path '*.libs/*'"
    said = root.run("sh", "-c", f"{modules} -exec ldd '{{}}' +")
    assert "libc.so.6" in said
    assert "not found" not in said


@pytest.fixture
def broker(tmp_path):
    broker = plain_mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@needs_mosquitto
def test_the_installed_agent_takes_part_in_a_round(root, broker, debs, tmp_path):
    root.install(debs("fedistill-agent", SUITES[root.suite]))
    root.run("edge-agent", "init", "/etc/fedistill", "--device", DEVICE, "--federation", FEDERATION)
    settings = root.path("/etc/fedistill")
    small_bundle(settings / "bundle")
    build_public_set(settings / "public_set", pictures(60, seed=5)[0], PICTURES, seed=3)
    samples, labels = pictures(120, seed=9)
    np.savez(settings / "private.npz", x=samples, y=labels)
    pairs = ("broker.host", "127.0.0.1", "broker.port", str(broker.port), "data.private", "private.npz")
    root.run("edge-agent", "config", "set", *pairs)
    for folder in ("/var/lib/fedistill", "/run/fedistill"):  # as systemd does
        root.run("install", "-d", "-o", "fedistill", "-m", "0700", folder)

    verdicts = [line.split()[:2] for line in root.run("edge-agent", "doctor", user="fedistill").splitlines()]
    assert ["runtime", "ok"] in verdicts
    assert ["model", "ok"] in verdicts  # its golden vectors come out of the installed onnxruntime

    public = load_public_set(settings / "public_set")
    server = ScriptedServer(
        LinkSettings("agg", port=broker.port, subscriptions=TOPICS.server_filters(), reconnect_min_s=0.05), public
    )
    foreign = root.path("/foreign")  # started in another's folder it imports nothing from there, nor does its worker
    foreign.mkdir()
    for name in ("numpy", "edge_agent", "json"):
        (foreign / f"{name}.py").write_text("raise SystemExit('imported from a foreign folder')\n")
    process = root.start("env", "-C", "/foreign", "edge-agent", "run", user="fedistill", log=tmp_path / "log")
    try:
        server.offer(task=PICTURES.digest, training=replace(TERMS, epochs=1))
        server.receipt(server.contribution())
        server.consensus()
        report = server.report()
        assert report.accepted, report
        assert "fedistill" in root.run("stat", "-c", "%U", "/var/lib/fedistill/agent.db")
    finally:
        root.stop(process)
        server.link.close()
    assert process.returncode == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_install_sh_installs_the_package_beside_it_and_upgrades_to_a_newer_one(root, debs):
    folder = root.path("/root/release")
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "install.sh", folder)
    for revision in (1, 2):
        shutil.copy(debs("fedistill-agent", SUITES[root.suite], revision), folder)
        (folder / making.SUMS).write_text(making.sums(folder))
        said = root.run("sh", "/root/release/install.sh")
        assert "Next: sudo edge-agent init" in said
        assert f"-{revision}+py{SUITES[root.suite]}" in root.version("fedistill-agent")


def enrolled(folder, port, root_pem, token):
    """Enrol press-1 from outside; return the certificate's own words about itself."""
    edge_agent = [sys.executable, "-m", "edge_agent.cli"]
    subprocess.run([*edge_agent, "init", folder, "--device", "press-1", "--federation", "plant-7"], check=True)
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o600)
    told = {"URL": f"https://localhost:{port}", "CA_FILE": str(root_pem), "TOKEN_FILE": str(folder / "token")}
    environment = {**os.environ, **{f"FEDISTILL__ENROLMENT__{key}": value for key, value in told.items()}}
    subprocess.run([*edge_agent, "enrol", "--config", folder / "agent.toml"], check=True, env=environment)
    (certificate,) = folder.rglob("identity/*.pem")
    return x509.load_pem_x509_certificate(certificate.read_bytes()).subject.rfc4514_string()


def test_the_containers_of_compose_are_a_server_that_devices_can_enrol_at(debs, tmp_path):
    """What the Dockerfile installs and compose.yml starts, in a chroot: there is no Docker where this was built."""
    root = Root("bookworm", tmp_path / "root")
    compose = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yml").read_text())["services"]
    root.run("groupadd", "--system", "--gid", "900", "fedistill-server")
    home = ("--home-dir", "/var/lib/fedistill-server", "--no-create-home")
    root.run("useradd", "--system", "--uid", "900", "--gid", "900", *home, "fedistill-server")
    root.install(debs("fedistill-server", "3.11"))
    root.run("apt-get", "update")
    root.run("apt-get", "install", "--yes", "--no-install-recommends", "mosquitto")
    shutil.copy(ROOT / "deploy" / "compose" / "setup.sh", root.path("/usr/local/bin/fedistill-setup"))
    for folder in ("/var/lib/fedistill-server", "/root-key", "/etc/fedistill-server"):  # as compose.yml has them made
        root.path(folder).mkdir(exist_ok=True)
        root.run("chown", "900:900", folder)
    root.path("/etc/hosts").write_text("127.0.0.1 localhost\n")
    mqtt, https, pages = (str(free_port()) for _ in range(3))
    setup = ("env", f"BROKER_PORT={mqtt}", "fedistill-setup", "plant-7", "localhost", "--trust", "none")
    root.run(*setup, user="fedistill-server")
    root.run(*setup, user="fedistill-server", code=73)  # once
    assert sorted(path.name for path in root.path("/root-key").iterdir()) == ["root.key"]
    # The broker below does not start without the guard that it is told of.
    told = root.path("/var/lib/fedistill-server/broker/mosquitto.conf").read_text()
    assert "plugin /usr/lib/fedistill-server/mosquitto/fedistill_guard.so\n" in told

    small_bundle(tmp_path / "bundle")
    build_public_set(tmp_path / "public_set", pictures(40, seed=5)[0], PICTURES, seed=3)
    artifacts = root.path("/etc/fedistill-server/artifacts")
    for name in ("bundle", "public_set"):
        shutil.copytree(tmp_path / name, artifacts / name)
    told = compose["server"]["environment"]
    ports = {"BROKER__PORT": mqtt, "PACKAGES__PORT": https, "DASHBOARD__PORT": pages}
    told |= {f"FEDISTILL__{key}": port for key, port in ports.items()}
    words = ("env", "-C", "/etc/fedistill-server", *(f"{key}={value}" for key, value in told.items()))
    # One process space for both, as `pid: service:broker` makes it.
    both = " & ".join(shlex.join(compose[name]["command"]) for name in ("broker", "server"))
    log = tmp_path / "log"
    process = root.start(*words, "sh", "-c", both, user="fedistill-server", log=log)
    try:
        ready = ("python3", "-c", compose["server"]["healthcheck"]["test"][3].replace("8089", pages))
        until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, 60)
        doctor = root.run(*words, "broker-server", "doctor", "--config", "federation.toml", user="fedistill-server")
        assert "failed" not in doctor
        device = ("broker-server", "devices", "token", "press-1", "--config", "federation.toml")
        token = root.run(*words, *device, user="fedistill-server").split()[0]
        assert "press-1" in enrolled(
            tmp_path / "device", https, root.path("/var/lib/fedistill-server/pki/root.pem"), token
        )
    finally:
        root.stop(process, how=signal.SIGKILL)
        sys.stderr.write(log.read_text()[-4000:])
