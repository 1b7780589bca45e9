"""Packages over HTTPS, by the program itself: what a device gets, and who gets nothing."""

import signal
import ssl
import subprocess
import sys
from datetime import datetime, timezone
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.dashboard.settings import ServingFiles
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from broker_server.sites.settings import PackageSettings
from edge_agent.slots.download import Parcel, PostponedError, fetch
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from tests.support.brokers import free_port
from tests.support.patience import PATIENCE_S, wait_until

PACKAGE = bytes(range(256)) * 4000
DIGEST = sha256(PACKAGE).hex()
STAMP = b'{"signed": {}}'
FILES = ServingFiles(Path("c.pem"), Path("k.pem"))
COMMAND = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]


def served(folder, port, lines):
    """Settings of a server with one package on its shelf, and the program that serves it."""
    assert main(["init", str(folder), "--federation", "demo", "--trust", "none"]) == 0
    config = folder / CONFIG_NAME
    before, after = config.read_text().split("[packages]")
    config.write_text(f"{before}[packages]\nport = {port}\n{lines}\n[dashboard]{after.split('[dashboard]', 1)[1]}")
    blobs = folder / "state" / "releases" / "web" / "v1" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / DIGEST).write_bytes(PACKAGE)
    documents = blobs.parent / "tuf"
    documents.mkdir()
    (documents / "timestamp.json").write_bytes(STAMP)
    (documents / "12.students.json").write_bytes(STAMP)
    (documents / ".timestamp.json.new").write_bytes(b"sss, half of one that is being written")
    (documents / "1.snapshot.json").symlink_to(folder / "state" / "secret")
    (blobs / f".{DIGEST}.new").write_bytes(b"sss, half of one that is being written")
    (folder / "state" / "secret").write_bytes(b"s" * 64)
    (blobs / ("a" * 64)).symlink_to(folder / "state" / "secret")
    return subprocess.Popen([*COMMAND, "packages", "--config", str(config)])


def answers(connection):
    def ask():
        try:
            connection.request("GET", "/")
            return connection.getresponse().read() is not None
        except (OSError, HTTPException):
            connection.close()
            return False

    return ask


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A server on loopback, without TLS, as the walkthrough has it."""
    port = free_port()
    process = served(tmp_path_factory.mktemp("plain"), port, 'host = "127.0.0.1"')
    wait_until(answers(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)))
    yield port
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM)


def get(port, path, **headers):
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response, response.read()


def test_a_package_is_given_by_its_digest_whole_or_from_where_one_stopped(port, tmp_path):
    response, body = get(port, f"/v1/blobs/{DIGEST}")
    assert (response.status, body) == (200, PACKAGE)
    assert "immutable" in response.getheader("Cache-Control")
    response, body = get(port, f"/v1/blobs/{DIGEST}", Range="bytes=1000000-")
    assert (response.status, body) == (206, PACKAGE[1_000_000:])
    assert response.getheader("Content-Range") == f"bytes 1000000-{len(PACKAGE) - 1}/{len(PACKAGE)}"


def test_the_agents_own_download_goes_on_where_it_was(port, tmp_path):
    part, came = tmp_path / "part", []
    part.write_bytes(PACKAGE[:700_000])
    parcel = Parcel(f"http://127.0.0.1:{port}/v1/blobs/{DIGEST}", DIGEST, len(PACKAGE))
    fetch(parcel, part, on_bytes=came.append)
    assert (part.read_bytes(), sum(came)) == (PACKAGE, len(PACKAGE) - 700_000)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/blobs/",
        f"/v1/blobs/.{DIGEST}.new",
        f"/v1/blobs/{'0' * 64}",
        f"/v1/blobs/{DIGEST.upper()}",
        f"/v1/blobs/{'a' * 64}",
        "/v1/blobs/../../../../secret",
        "/v1/blobs/..%2f..%2f..%2f..%2fsecret",
        f"/v1/blobs/{DIGEST}/",
        f"/v1/blobs/{DIGEST}%00",
        "/v1/tuf/",
        "/v1/tuf/.timestamp.json.new",
        "/v1/tuf/1.snapshot.json",
        "/v1/tuf/0.root.json",
        "/v1/tuf/root.draft.json",
        "/v1/tuf/..%2fblobs%2fx",
    ],
)
def test_nothing_else_is_given(port, path):
    response, body = get(port, path)
    assert response.status in (307, 404)
    assert b"sss" not in body
    assert len(body) < 100


def test_what_is_signed_is_given_and_never_cached_for_long(port):
    for name in ("timestamp.json", "12.students.json"):
        response, body = get(port, f"/v1/tuf/{name}")
        assert (response.status, body) == (200, STAMP)
        assert response.getheader("Cache-Control") == "no-cache"


def test_a_root_that_is_yet_to_come_costs_no_body(port):
    response, body = get(port, "/v1/tuf/2.root.json")
    assert (response.status, body) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_is_taken(port, method):
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(method, f"/v1/blobs/{DIGEST}", body=b"x")
    assert connection.getresponse().status == 405


# Over TLS, with the fleet's own authority.


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """An authority, its server of packages, and the files of two devices, one of which was revoked."""
    folder, port = tmp_path_factory.mktemp("fleet"), free_port()
    now = datetime.now(timezone.utc).replace(microsecond=0)
    authority = Authority.create(folder / "pki", fleet="demo", now=now)
    server = authority.issue(Identity("packages", Role.BROKER, ("127.0.0.1",)), folder / "server", now=now)
    devices = {
        name: authority.issue(Identity(name, Role.DEVICE), folder / name, now=now) for name in ("kettle", "lamp")
    }
    authority.revoke("lamp", now=now)
    lines = f"""ca = "{server.ca}"
crl = "{authority.crl_path}"
[packages.tls]
certificate = "{server.certificate}"
key = "{server.key}"
"""
    process = served(folder / "federation", port, lines)
    yield port, devices, process
    process.terminate()
    process.wait(30)


def trust(files, *, shows=True):
    context = ssl.create_default_context(cafile=files.ca)
    if shows:
        context.load_cert_chain(files.certificate, files.key)
    return context


def parcel(port):
    return Parcel(f"https://127.0.0.1:{port}/v1/blobs/{DIGEST}", DIGEST, len(PACKAGE))


def test_a_device_gets_its_package_with_the_certificate_that_it_shows_the_broker(fleet, tmp_path):
    port, devices, _ = fleet
    wait_until(answers(HTTPSConnection("127.0.0.1", port, context=trust(devices["kettle"]))))
    fetch(parcel(port), tmp_path / "part", tls=trust(devices["kettle"]))
    assert (tmp_path / "part").read_bytes() == PACKAGE


@pytest.mark.parametrize("who", ["nobody", "lamp"])
def test_whoever_has_no_certificate_or_a_revoked_one_gets_nothing(fleet, tmp_path, who):
    port, devices, process = fleet
    wait_until(answers(HTTPSConnection("127.0.0.1", port, context=trust(devices["kettle"]))))
    files = devices["kettle" if who == "nobody" else who]
    with pytest.raises(PostponedError):
        fetch(parcel(port), tmp_path / "part", tls=trust(files, shows=who != "nobody"))
    assert (tmp_path / "part").read_bytes() == b""
    assert process.poll() is None


# Settings that would be unsafe.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "0.0.0.0"}, "for devices alone"),
        ({"host": "0.0.0.0", "tls": FILES}, "for devices alone"),
        ({"ca": Path("ca.pem")}, "over TLS"),
        ({"crl": Path("crl.pem"), "tls": FILES}, "set ca"),
        ({"port": 0}, "port"),
    ],
)
def test_settings_that_would_be_unsafe_are_none(changes, words):
    with pytest.raises(InvalidValueError, match=words):
        PackageSettings(**changes)


def test_off_loopback_with_all_it_needs():
    assert PackageSettings(host="0.0.0.0", ca=Path("ca.pem"), tls=FILES).port == 8443
