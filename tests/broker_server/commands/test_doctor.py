"""`doctor` finds what is wrong, says what to do, and is content with what is right."""

import json
import shutil
import threading
from datetime import datetime, timedelta, timezone
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import NamedTuple

import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.commands.doctor import examine
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from fd_protocol.canaries import Canaries, LabelledProbes
from fd_runtime.findings import Verdict
from fd_runtime.starting import exclusive
from fd_runtime.tuf.online import OnlineTrust
from tests.broker_server.artifacts import build_artifacts
from tests.broker_server.builders import FED
from tests.broker_server.world import World, fleet
from tests.support.trust import Trust

NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    public = build_artifacts(folder)
    canaries = Canaries(public.digest.hex(), LabelledProbes((1, 2), (0, 1)))
    (folder / "canaries.json").write_bytes(canaries.to_json())
    return folder


@pytest.fixture
def listening():
    """A port where somebody takes the call and hangs up: of TLS there is nothing, and nobody waits for it."""
    with ThreadingTCPServer(("127.0.0.1", 0), BaseRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def config(tmp_path, artifacts, listening):
    """A server that lacks nothing: artifacts, canaries, a database, a broker on loopback."""
    assert main(["init", str(tmp_path), "--federation", FED]) == 0
    for name in ("bundle", "public_set"):
        shutil.copytree(artifacts / name, tmp_path / name)
    shutil.copy(artifacts / "canaries.json", tmp_path)
    path = tmp_path / CONFIG_NAME
    text = path.read_text().replace("# canaries =", "canaries =").replace('host = "localhost"', 'host = "127.0.0.1"')
    path.write_text(text.replace("port = 8883", f"port = {listening}"))
    (tmp_path / "state").mkdir()
    world = World(tmp_path / "state" / "server.db")
    for device in fleet(world):
        device.contribute()
    world.store.close()
    return path


def findings(config, crl=None, now=NOW):
    return {one.check: one for one in examine(config, crl, now)}


def failed(config, **arguments):
    return {name: one.found for name, one in findings(config, **arguments).items() if one.verdict is Verdict.FAILED}


def edit(config, before, after):
    assert before in config.read_text()
    config.write_text(config.read_text().replace(before, after))


def test_a_server_that_lacks_nothing_is_well(config, capsys):
    found = findings(config)
    assert {one.verdict for one in found.values()} == {Verdict.OK}, found
    assert all(one.exit_code == 0 and not one.remedy for one in found.values())
    capsys.readouterr()
    assert main(["doctor", "--config", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["check"] for one in told] == list(found)
    assert main(["doctor", "--config", str(config)]) == 0
    assert "sound, schema 3" in capsys.readouterr().out


def test_a_wrong_setting_ends_the_look(config):
    edit(config, "quorum = 2", "quorum = 0")
    (only,) = examine(config, None, NOW)
    assert (only.check, only.verdict, only.exit_code) == ("settings", Verdict.FAILED, 78)
    assert "rounds" in only.found


def test_a_damaged_bundle_is_found_with_its_file(config):
    theta = next(path for path in (config.parent / "bundle").iterdir() if "theta" in path.name)
    theta.write_bytes(bytes(theta.stat().st_size))
    assert "sha256" in failed(config)["artifacts"]
    shutil.rmtree(config.parent / "bundle")
    assert findings(config)["artifacts"].exit_code == 66


def test_a_fleet_that_is_trusted_without_canaries_is_a_warning(config):
    edit(config, "canaries =", "# canaries =")
    assert "nothing to weigh devices by" in failed(config)["artifacts"]
    edit(config, 'trust = "canaries"', 'trust = "none"')
    assert findings(config)["artifacts"].verdict is Verdict.WARNING


def test_a_clock_that_was_never_set_or_went_back_is_found(config):
    assert "never set" in failed(config, now=datetime(1970, 1, 2, tzinfo=timezone.utc))["clock"]
    world = World(config.parent / "state" / "server.db")
    world.now_ms = round((NOW + timedelta(days=1)).timestamp() * 1000)
    world.device("z")
    world.store.close()
    assert "the database knows of" in failed(config)["clock"]


def test_what_a_running_server_writes_while_we_look_is_no_clock_that_went_back(config):
    world = World(config.parent / "state" / "server.db")
    world.now_ms = round((NOW + timedelta(seconds=30)).timestamp() * 1000)
    world.device("z")
    world.store.close()
    assert failed(config) == {}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free_mib", "verdict"), [(10, Verdict.FAILED), (100, Verdict.WARNING), (10_000, Verdict.OK)])
def test_a_disk_without_room_is_found(config, monkeypatch, free_mib, verdict):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(0, 0, free_mib << 20))
    assert findings(config)["disk"].verdict is verdict


def test_a_torn_database_is_found(config):
    path = config.parent / "state" / "server.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 6] = bytes(range(256)) * 48
    path.write_bytes(data)
    assert "database" in failed(config)


def test_rows_without_their_blobs_are_found(config):
    world = World(config.parent / "state" / "server.db")
    world.store.delete_blobs_except(())
    world.store.close()
    found = findings(config)["database"]
    assert (found.verdict, found.exit_code) == (Verdict.FAILED, 65)
    assert "no content" in found.found


def test_rows_of_another_federation_are_a_warning(config):
    edit(config, f'federation = "{FED}"', 'federation = "other"')
    found = findings(config)["database"]
    assert (found.verdict, FED in found.found) == (Verdict.WARNING, True)


def test_whether_the_server_runs_is_told_and_it_may_run(config):
    with exclusive(config.parent / "state" / "server.lock"):
        assert findings(config)["server"].found == "running"
    assert findings(config)["server"].found == "not running"
    assert failed(config) == {}


def test_a_server_that_never_ran_is_well_and_nothing_is_made(config):
    shutil.rmtree(config.parent / "state")
    assert failed(config) == {}
    assert not (config.parent / "state").exists()


def test_an_absent_broker_is_found(config, listening, capsys):
    edit(config, f"port = {listening}", "port = 1")
    found = findings(config)["broker"]
    assert (found.verdict, found.exit_code) == (Verdict.FAILED, 69)
    assert "running" in found.remedy
    assert main(["doctor", "--config", str(config)]) == 69


# Certificates; against a real broker in tests/system/test_doctor.py.


def with_tls(config, *, signed=NOW, name="aggregator", days=365):
    authority = Authority.create(config.parent / "pki", fleet="plant", now=signed)
    tls = authority.issue(Identity(name, Role.AGGREGATOR), config.parent / "tls", now=signed, days=days)
    lines = "\n".join(f'{key} = "{getattr(tls, key)}"' for key in ("ca", "certificate", "key"))
    edit(config, "# [broker.tls]", f"[broker.tls]\n{lines}\n#")


def test_the_ends_of_certificate_and_revocation_list_are_told(config):
    with_tls(config)
    found = findings(config)
    assert (found["certificate"].verdict, found["revocations"].verdict) == (Verdict.OK, Verdict.OK)
    assert f"{NOW + timedelta(days=365):%Y-%m-%d}" in found["certificate"].found
    assert f"{NOW + timedelta(days=30):%Y-%m-%d}" in found["revocations"].found


@pytest.mark.parametrize(
    ("later", "certificate", "revocations"),
    [
        (timedelta(days=25), Verdict.OK, Verdict.WARNING),
        (timedelta(days=31), Verdict.OK, Verdict.FAILED),
        (timedelta(days=350), Verdict.WARNING, Verdict.FAILED),
        (timedelta(days=366), Verdict.FAILED, Verdict.FAILED),
    ],
)
def test_what_ends_soon_is_a_warning_and_what_has_ended_a_failure(config, later, certificate, revocations):
    with_tls(config)
    found = findings(config, now=NOW + later)
    assert (found["certificate"].verdict, found["revocations"].verdict) == (certificate, revocations)


def test_a_certificate_of_another_name_is_found(config):
    with_tls(config, name="impostor")
    assert "impostor" in failed(config)["certificate"]


def test_a_list_that_lies_elsewhere_can_be_named(config, tmp_path):
    with_tls(config)
    moved = shutil.move(config.parent / "pki" / "crl.pem", tmp_path / "list.pem")
    assert findings(config)["revocations"].verdict is Verdict.WARNING
    assert findings(config, crl=moved)["revocations"].verdict is Verdict.OK
    edit(config, "[dashboard]", f'[dashboard]\ncrl = "{moved}"  #')
    assert findings(config)["revocations"].verdict is Verdict.OK
    moved.write_text("no list")
    assert "not a revocation list" in failed(config, crl=moved)["revocations"]


# The authority that enrols devices.


@pytest.mark.parametrize(
    ("days", "root_is_away", "verdict", "words"),
    [
        (0, True, Verdict.OK, ""),
        (0, False, Verdict.WARNING, "offline"),
        (310, True, Verdict.WARNING, "ca issuing"),
        (366, True, Verdict.FAILED, "ca issuing"),
    ],
)
def test_the_authority_is_looked_at_where_devices_enrol(config, tmp_path, days, root_is_away, verdict, words):
    with_tls(config)
    pki = config.parent / "pki"
    if root_is_away:
        (pki / "root.key").rename(tmp_path / "drawer.key")
    edit(config, "# authority =", f'authority = "{pki}"  #')
    found = findings(config, now=NOW + timedelta(days=days))["authority"]
    assert (found.verdict, words in found.remedy) == (verdict, True)


def test_what_the_server_signs_is_looked_at(config, tmp_path):
    assert "signing" not in findings(config)  # it has no key: its devices run what they were born with
    owner = Trust(tmp_path / "owner", now_s=NOW.timestamp())
    shutil.copy(owner.keys / "online", config.parent / "state" / "signing.key")
    assert findings(config)["signing"].verdict is Verdict.WARNING
    web = config.parent / "state" / "releases" / "web" / "v1"
    OnlineTrust(web / "tuf", web / "blobs", owner.signer("online")).take_in(owner.signed, NOW.timestamp())
    assert findings(config)["signing"].verdict is Verdict.OK
    late = findings(config, now=NOW + timedelta(days=20))["signing"]
    assert (late.verdict, "no device takes a release" in late.found) == (Verdict.FAILED, True)
    OnlineTrust(web / "tuf", web / "blobs", owner.signer("online")).tend((NOW + timedelta(days=350)).timestamp())
    soon = findings(config, now=NOW + timedelta(days=350))["signing"]
    assert (soon.verdict, "trust renew" in soon.found) == (Verdict.WARNING, True)
