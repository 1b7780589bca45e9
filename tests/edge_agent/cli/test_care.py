"""What an owner does about a device: examines it, collects what helps, destroys it; and what the shell completes."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from edge_agent import remote_config
from edge_agent.care import doctor, log_level
from edge_agent.care.archive import REDACTED, redacted, redacted_setting
from edge_agent.care.diagnosis import Seen, summary
from edge_agent.care.doctor import examine
from edge_agent.care.vitals import Vitals
from edge_agent.cli import main
from edge_agent.cli.completion import script
from edge_agent.cli.parser import SHELLS, leaves, make_parser
from edge_agent.remote_config import RemoteConfig
from edge_agent.round.participant import Participant
from fd_protocol.errors import DecodeError
from fd_protocol.manifest import MANIFEST_NAME, FileEntry
from fd_protocol.manifest import Role as FileRole
from fd_runtime.artifacts import load_bundle
from fd_runtime.findings import Verdict
from fd_runtime.links.certificate import outlook
from fd_runtime.models.golden import record
from fd_runtime.storage.store import Store
from tests.edge_agent.artifacts import TASK, clouds, write_bundle
from tests.edge_agent.builders import FEDERATION
from tests.edge_agent.processes import settings_text
from tests.support.trust import Trust as Owner

NOW = datetime.now(timezone.utc)

# Doctor.


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def with_golden(folder, offset=0.0):
    """Give the bundle golden vectors; with `offset` such as its model does not answer."""
    samples, labels = clouds(8, seed=4)
    golden = record(load_bundle(folder).open("numpy"), samples, labels)
    data = replace(golden, logits=(golden.logits + offset * np.arange(3)).astype(np.float32)).to_bytes()
    (folder / "golden.npz").write_bytes(data)
    manifest = load_bundle(folder).manifest
    files = {**manifest.files, FileRole.GOLDEN.value: FileEntry.of("golden.npz", data)}
    (folder / MANIFEST_NAME).write_bytes(replace(manifest, files=files).to_json())


def found(home, *, offline=True, now=NOW):
    return {one.check: one for one in examine(lambda: home.config, now, offline=offline)}


def test_before_anything_is_configured_every_line_helps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDISTILL_CONFIG", raising=False)
    assert main(["doctor"]) == 78
    out = capsys.readouterr().out
    assert "system" in out
    assert "`edge-agent init .` writes one" in out
    assert main(["init"]) == 0
    assert main(["doctor", "--json"]) == 66
    lines = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert all(one["remedy"] for one in lines if one["verdict"] == "failed")
    assert {one["check"]: one["verdict"] for one in lines}["data"] == "warning"
    assert "copy the bundle" in {one["check"]: one["remedy"] for one in lines}["model"]


def test_a_device_that_lacks_nothing_is_well(home):
    with_golden(home.folder / "bundle")
    home.live().says()
    with home.running():
        lines = found(home)
    assert {check: one.verdict for check, one in lines.items() if one.verdict is not Verdict.OK} == {}
    assert lines["model"].found == "bundle clouds 1 on numpy answers and learns as where it was built"
    assert lines["state"].found.endswith("the memory is sound, 1 starts")
    assert lines["data"].found.startswith("60 labelled rows")


@pytest.mark.parametrize(
    ("spoil", "check", "verdict", "words"),
    [
        (lambda home: with_golden(home.folder / "bundle", offset=9.0), "model", Verdict.FAILED, "golden vectors"),
        (lambda home: (home.folder / "bundle" / "theta.bin").write_bytes(b"x"), "model", Verdict.FAILED, "sha256"),
        (lambda home: None, "model", Verdict.WARNING, "without golden vectors"),
        (lambda home: shutil.rmtree(home.folder / "public"), "probes", Verdict.FAILED, "no such file"),
        (lambda home: write_bundle(home.folder / "bundle", task=replace(TASK, classes=("x", "y", "z"))),
         "probes", Verdict.FAILED, "another task"),
        (lambda home: (home.folder / "private.npz").unlink(), "data", Verdict.FAILED, "not a readable npz"),
        (lambda home: (home.live(), (home.state / "agent.db").write_bytes(b"SQLite format 3\0" + bytes(5000))),
         "state", Verdict.FAILED, "store"),
        (lambda home: home.config.write_text(settings_text(1, model__runtime="litert")),
         "model", Verdict.FAILED, "was proven on numpy"),
        (lambda home: home.state.write_bytes(b"a file"), "state", Verdict.FAILED, ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_has_a_remedy(home, spoil, check, verdict, words):
    spoil(home)
    line = found(home)[check]
    assert (line.verdict, words in line.found, bool(line.remedy)) == (verdict, True, True)


def test_what_needs_something_that_is_missing_is_not_looked_at(home):
    shutil.rmtree(home.folder / "bundle")
    lines = found(home)
    assert lines["probes"].found == lines["data"].found == "not looked at: model comes first"


def test_a_clock_that_was_never_set_and_heat_and_want_of_room_are_told(home, monkeypatch):
    assert found(home, now=datetime(1970, 1, 1, tzinfo=timezone.utc))["clock"].exit_code == 75
    monkeypatch.setattr(doctor.host, "temperature_c", lambda: 91.0)
    monkeypatch.setattr(doctor.host, "free_disk_mb", lambda _: 3.0)
    monkeypatch.setattr(doctor.host, "memory_mb", lambda _: 20.0)
    lines = found(home)
    assert [lines[check].verdict.value for check in ("heat", "disk", "memory")] == ["failed", "failed", "warning"]


def test_a_broker_is_knocked_at_and_rights_are_not_tried_while_the_device_runs(home, listening):
    home.config.write_text(settings_text(listening))
    home.live().says()
    with home.running():
        lines = found(home, offline=False)
    assert lines["broker"].found == f"127.0.0.1:{listening} answers, TCP, without TLS: on this machine alone"
    assert lines["rights"].found.startswith("not tried")
    home.config.write_text(settings_text(1))
    lines = found(home, offline=False)
    assert (lines["broker"].exit_code, lines["rights"].found) == (69, "not looked at: broker comes first")


@pytest.fixture
def identity(home):
    authority = Authority.create(home.folder / "ca", fleet=FEDERATION, now=NOW)
    tls = authority.issue(Identity("dev-1", Role.DEVICE), home.folder / "own", now=NOW)
    lines = f'\n[broker.tls]\nca = "{tls.ca}"\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
    home.config.write_text(settings_text(1) + lines)
    return tls


def test_a_certificate_is_read_without_a_library(home, identity):
    own = outlook(identity.certificate.read_text())
    assert own.name == "dev-1"
    assert own.begin < NOW < own.end
    assert outlook(identity.ca.read_text()).end > own.end


def test_the_end_of_a_certificate_is_told_in_time(home, identity):
    own = outlook(identity.certificate.read_text())
    assert found(home)["certificate"].verdict is Verdict.OK
    assert found(home, now=own.end - timedelta(days=20))["certificate"].verdict is Verdict.WARNING
    assert found(home, now=own.end + timedelta(days=1))["certificate"].exit_code == 78
    assert "the clock?" in found(home, now=own.begin - timedelta(days=1))["certificate"].found
    identity.key.chmod(0o644)
    assert found(home)["certificate"].remedy.startswith("chmod 600")
    home.config.write_text(home.config.read_text().replace('id = "dev-1"', 'id = "dev-2"'))
    assert found(home)["certificate"].found == "it names 'dev-1', the settings say device.id = 'dev-2'"


def test_the_root_of_releases_is_looked_at(home):
    owner = Owner(home.folder / "owner", now_s=NOW.timestamp())
    root = home.folder / "root.json"
    root.write_bytes(owner.root)
    lines = '\n[releases]\nurl = "https://updates.example"\nroot = "root.json"\n'
    home.config.write_text(settings_text(1) + lines)
    assert found(home)["releases"].verdict is Verdict.OK
    assert found(home, now=NOW + timedelta(days=4 * 365))["releases"].verdict is Verdict.WARNING
    root.write_bytes(owner.root.replace(b'"version":1', b'"version":2'))
    assert found(home)["releases"].verdict is Verdict.FAILED
    root.unlink()
    assert "1.root.json" in found(home)["releases"].remedy


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_is_refused(text):
    with pytest.raises(DecodeError):
        outlook(text)


def test_a_certificate_cut_anywhere_is_refused_or_read(identity):
    first = identity.certificate.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----"
    der = ssl.PEM_cert_to_DER_cert(first)
    for cut in range(0, len(der), 7):
        body = base64.encodebytes(der[:cut]).decode()
        with pytest.raises(DecodeError):
            outlook(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")


# Diag.

SECRETS = ("hunter2-secret", "s3cr3t-token-value", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.signature")


def members(home, *words):
    told = home.json("diag", "collect", "--out", str(home.folder / "diag.tar.gz"), *words)
    with tarfile.open(told["archive"]) as archive:
        return {Path(one.name).name: archive.extractfile(one).read().decode() for one in archive.getmembers()}, told


def test_the_archive_holds_what_helps(home):
    home.live(waiting=True).says()
    contents, told = members(home)
    assert (
        sorted(contents)
        == ["doctor.json", "journal.json", "log.txt", "settings.json", "summary.json"]
        == sorted(told["holds"])
    )
    assert json.loads(contents["summary.json"])["phase"] == "submitting"
    assert json.loads(contents["journal.json"])["events"] == {"OfferReceived": 1, "Predicted": 1, "WarmedUp": 1}
    assert json.loads(contents["settings.json"])["model.runtime"] == {"value": "numpy", "source": "file"}
    assert "model" in {one["check"] for one in json.loads(contents["doctor.json"])}
    assert (home.folder / "diag.tar.gz").stat().st_mode & 0o777 == 0o600


def test_nothing_secret_and_no_private_row_is_in_the_archive(home, identity, monkeypatch):
    """What a log might hold at its worst, beside the device's own files: none of it comes out."""
    home.live(waiting=True)
    with np.load(home.folder / "private.npz") as arrays:
        rows = arrays["x"]
    lines = [
        f"password = {SECRETS[0]}", f"Authorization: Bearer {SECRETS[1]}", f"mqtts://dev:{SECRETS[0]}@broker:8883",
        f"token={SECRETS[2]}", identity.key.read_text(), identity.certificate.read_text(),
        f"ValueError: bad row {rows[0].tolist()}", f"sample {' '.join(map(str, rows[1]))}", f"{rows[2]}",
        "lr 0.1 loss 0.25 step 7", "broker 10.0.0.7:8883 refused",
    ]  # fmt: skip
    monkeypatch.setattr("edge_agent.care.archive._log_lines", lambda _: iter("\n".join(lines).splitlines()))
    contents, _ = members(home)
    whole = "\n".join(contents.values())
    key_lines = [line for line in identity.key.read_text().splitlines() if len(line) > 20 and "-----" not in line]
    for secret in (*SECRETS, *key_lines, "BEGIN PRIVATE KEY", "BEGIN EC PRIVATE KEY", "BEGIN CERTIFICATE"):
        assert secret not in whole
    for row in rows:
        for glue in (", ", " ", ","):
            assert glue.join(map(str, row)) not in whole
    assert "lr 0.1 loss 0.25 step 7" in contents["log.txt"]
    assert "broker 10.0.0.7:8883 refused" in contents["log.txt"]
    assert home.folder.joinpath("private.npz").read_bytes()[:64] not in (home.folder / "diag.tar.gz").read_bytes()


@pytest.mark.parametrize(
    "name", ["broker.password", "api.token", "proxy.credentials_token", "x.api_key", "store.passphrase"]
)
def test_a_setting_with_a_secret_name_is_a_word(name):
    assert redacted_setting(name, "hunter2", "file") == {"value": REDACTED, "source": "file"}


def test_a_setting_that_only_names_a_file_stays():
    assert redacted_setting("broker.tls.key", "/etc/fedistill/dev-1.key", "file")["value"] == "/etc/fedistill/dev-1.key"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ('said {"token": "s3cret", "user": "ada"}', 'said {"token": (redacted), "user": "ada"}'),
        ('{"password":"s3cret s3cret","n":1}', '{"password":(redacted),"n":1}'),
        ('{"password": "a \\"s3cret\\" b", "n": 1}', '{"password": (redacted), "n": 1}'),
        ("{'api_key': 's3cret', 'n': 1}", "{'api_key': (redacted), 'n': 1}"),
        ("{b'secret': b's3cret s3cret', b'n': 1}", "{b'secret': (redacted), b'n': 1}"),
        (r"{\"client_secret\": \"s3cret s3cret\", \"n\": 1}", r"{\"client_secret\": (redacted), \"n\": 1}"),
        ('"passphrase": "s3cret and no end', '"passphrase": (redacted)'),
        ("Settings(user='ada', password='s3cret s3cret')", "Settings(user='ada', password=(redacted))"),
        ("passwd=s3cret n=1", "passwd=(redacted) n=1"),
        ("passwd: s3cret", "passwd: (redacted)"),
        ("password=s3cret n=1", "password=(redacted) n=1"),
        ("token: Bearer s3cret n=1", "token: (redacted) n=1"),
        ("Authorization: Basic s3cret==", "Authorization: (redacted)"),
        ("Proxy-Authorization: Basic s3cret", "Proxy-Authorization: (redacted)"),
        ("Authorization: Bearer s3cret", "Authorization: (redacted)"),
        ('authorization: Digest username="ada", response="s3cret"\nn=1', "authorization: (redacted)\nn=1"),
        ('{"Authorization": "Basic s3cret", "n": 1}', '{"Authorization": (redacted), "n": 1}'),
        ("{'Authorization': 'Basic s3cret'}", "{'Authorization': (redacted)}"),
    ],
)
def test_a_secret_is_cut_in_every_form_and_what_stands_beside_it_stays(line, left):
    assert "s3cret" not in redacted(line)
    assert redacted(line) == left


def test_ordinary_lines_stay_as_they_are():
    line = "2026-11-29 09:22:11,123 WARNING not connected: [Errno 111] Connection refused (after 3 tries, 2.5 s)"
    assert redacted(line) == line


def test_an_archive_is_bounded(home, monkeypatch):
    monkeypatch.setattr(
        "edge_agent.care.archive._log_lines", lambda _: (f"{n} " + os.urandom(20).hex(" ") for n in range(20_000))
    )
    contents, told = members(home)
    assert len(contents["log.txt"]) <= 256 << 10
    assert told["bytes"] < 512 << 10


def test_the_summary_is_numbers_and_words_and_counts_no_private_row(home):
    vitals = Vitals(os.getpid(), 3, 1_700_000_000, is_connected=True, is_worker_ready=True, worker_starts=2)
    seen = Seen("edge-agent 1", Participant(), vitals, "numpy", bytes(32), bytes(32), home.state / "agent.db",
                1_700_000_100.0, {}, {"log.level": "debug"}, "info", {"warning": 4})  # fmt: skip
    told = summary(seen)
    assert (told["uptime_s"], told["log_warnings"], told["set log.level"], told["clock_set"]) == (
        "100",
        "4",
        "debug",
        "no",
    )
    assert not any("row" in name or "sample" in name or "label" in name for name in told)
    assert len(told) <= 64
    assert sum(map(len, told.values())) < 1000


# Wipe.


def test_a_wipe_takes_what_a_killed_life_said_of_itself_elsewhere(home):
    (home.folder / "run").mkdir()
    text = home.config.read_text()
    home.config.write_text(text.replace("[state]\n", '[state]\nruntime = "run"\n'))
    home.live().says()
    (home.state / "standing.json").rename(home.folder / "run" / "standing.json")
    home.json("wipe", "--yes")
    assert list((home.folder / "run").iterdir()) == []


def test_a_wipe_leaves_nothing_and_says_what_is_left_elsewhere(home, identity):
    home.live(waiting=True).says()
    (home.state / "checkpoint").write_bytes(b"learned" * 100)
    (home.state / "private").mkdir()
    (home.state / "private" / "rows").write_bytes(b"rows" * 100)
    (home.state / "store.key").write_bytes(b"key" * 10)
    remote_config.save(home.state, RemoteConfig({"log.level": "debug"}))
    told = home.json("wipe", "--yes")
    assert list(home.state.iterdir()) == []
    assert {"agent.db", "checkpoint", "private", "store.key", "remote_config.json"} <= {
        Path(one).name for one in told["destroyed"]
    }
    left = " ".join(told["left"])
    assert "broker-server forget dev-1" in left
    assert "ca revoke" in left
    assert "private.npz is yours" in left
    assert identity.key.is_file()
    assert (home.folder / "private.npz").is_file()


def test_the_key_goes_first_and_is_written_over(home, monkeypatch):
    home.live()
    (home.state / "store.key").write_bytes(b"key" * 10)
    order = []
    unlink = Path.unlink

    def note(path, *arguments, **named):
        order.append((path.name, path.read_bytes() if path.is_file() else b""))
        unlink(path, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", note)
    assert home.type("wipe", "--yes")[0] == 0
    assert order[0][0] == "store.key"
    assert order[0][1] not in (b"", b"key" * 10)


def test_with_identity_its_private_key_goes_too(home, identity):
    assert home.type("wipe", "--yes", "--identity")[0] == 0
    assert not identity.key.exists()
    assert not identity.certificate.exists()
    assert identity.ca.exists()


def test_nobody_to_ask_is_a_no(home, monkeypatch):
    home.live()
    monkeypatch.setattr(sys, "stdin", io.StringIO("dev-1\n"))
    assert home.type("wipe")[0] == 77
    assert (home.state / "agent.db").is_file()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "code"), [("dev-1\n", 0), ("yes\n", 77), ("\n", 77)])
def test_a_person_must_type_the_devices_name(home, monkeypatch, answer, code):
    home.live()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert home.type("wipe")[0] == code
    assert (home.state / "agent.db").is_file() is bool(code)


# Speed, and the shell.


@pytest.mark.parametrize(
    "words",
    [["status"], ["config", "get"], ["outbox", "list"], ["health"], ["config", "schema"], ["completion", "bash"]],
)
def test_what_an_owner_types_often_loads_no_arrays(home, words):
    home.live()
    place = [] if words[0] == "completion" or "schema" in words else ["--config", str(home.config)]
    code = (
        "import sys\nfrom edge_agent.cli import main\n"
        f"main({[*words, *place]!r})\n"
        "print(*{'numpy', 'onnxruntime', 'paho', 'tomlkit'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_help_loads_next_to_nothing():
    code = "import sys, edge_agent.cli; edge_agent.cli.make_parser(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"numpy", "sqlite3", "ssl", "paho", "subprocess", "importlib.metadata"} & loaded


def test_every_command_can_be_imported():
    known = leaves(make_parser())
    assert {"run", "status", "config get", "config set", "outbox drop", "diag collect", "model list"} <= known.keys()
    for leaf in known.values():
        run = leaf.get_default("run")
        place = dict(zip(run.__code__.co_freevars, (cell.cell_contents for cell in run.__closure__), strict=True))
        module = import_module(f"edge_agent.cli.{place['module']}")
        assert callable(getattr(module, place["function"]))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_knows_every_command(shell):
    text = script(shell)
    for words in leaves(make_parser()):
        for word in words.split():
            assert word in text


def complete(home, *words):
    """What bash offers for the last word."""
    line = " ".join(words)
    program = f"""
{script("bash")}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
_shtab_edge_agent
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd=home.folder, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_choices(home):
    assert {"status", "config", "doctor", "wipe"} <= complete(home, "edge-agent", "")
    assert {"get", "set", "schema"} <= complete(home, "edge-agent", "config", "")
    assert "--json" in complete(home, "edge-agent", "status", "--")
    assert complete(home, "edge-agent", "outbox", "drop", "con") == {"contribution"}
    assert "agent.toml" in complete(home, "edge-agent", "status", "--config", "ag")


# The log level's file.


def test_a_level_that_cannot_be_read_is_none(tmp_path):
    assert log_level.load(tmp_path) is None
    (tmp_path / log_level.NAME).write_bytes(b"{")
    assert log_level.load(tmp_path) is None


def test_a_store_can_be_counted(home):
    home.live(waiting=True)
    with closing(Store.open(home.state / "agent.db")) as store:
        assert store.census()["blobs"] == 2
