"""Keys, requests, answers and the files that a device keeps them in."""

import json
import sys
import threading
from datetime import datetime, timedelta, timezone
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role, Signer, Validity, certify, new_key, pem, requested_key
from edge_agent.care.wiping import left_elsewhere, wipe
from edge_agent.configuration import load_settings
from edge_agent.enrolment.errand import EXIT_CODES, Ending, visit
from edge_agent.enrolment.files import IdentityFiles
from edge_agent.enrolment.keeper import IdentityKeeper
from edge_agent.enrolment.renewal import Due
from edge_agent.enrolment.request import KeyElsewhere, KeyInFile, RequestFailedError, WrongAnswerError, check_answer
from edge_agent.enrolment.settings import EnrolmentSettings
from fd_protocol.errors import InvalidValueError
from fd_runtime.config import ConfigError
from fd_runtime.links.link import TlsFiles
from tests.edge_agent.processes import settings_text
from tests.support.identity import Counter, now
from tests.support.patience import wait_until

DEVICE = "dev-1"


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    return Counter(tmp_path_factory.mktemp("counter"))


def enrolling(folder, port=1, **changes):
    """A settings file of a device that enrols."""
    folder.mkdir(parents=True, exist_ok=True)
    enrolment = {"url": f"https://127.0.0.1:{port}", "ca_file": "ca.pem", "token_file": "enrolment.token"}
    given = {f"enrolment__{name}": value for name, value in {**enrolment, **changes}.items()}
    path = folder / "agent.toml"
    path.write_text(settings_text(8883, broker__host="broker.example", **given))
    return path


# Settings.


def test_a_device_that_enrols_needs_no_files_of_a_certificate_in_its_settings(tmp_path):
    settings = load_settings(enrolling(tmp_path))
    state = tmp_path / "state" / "identity"
    assert settings.tls == TlsFiles(tmp_path / "ca.pem", state / "device.pem", state / "device.key")
    assert settings.identity == IdentityFiles(state, settings.tls, tmp_path / "enrolment.token")


def test_where_files_are_named_the_device_keeps_its_identity_there(tmp_path):
    path = enrolling(tmp_path)
    path.write_text(path.read_text() + '\n[broker.tls]\nca = "a"\ncertificate = "c"\nkey = "k"\nalpn = ["mqtt"]\n')
    settings = load_settings(path)
    assert settings.tls == settings.identity.tls
    assert settings.tls == TlsFiles(tmp_path / "a", tmp_path / "c", tmp_path / "k", alpn=("mqtt",))


def test_a_broker_elsewhere_without_either_is_refused(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(settings_text(8883, broker__host="broker.example"))
    with pytest.raises(ConfigError, match=r"needs \[broker.tls\] or \[enrolment\]"):
        load_settings(path)


@pytest.mark.parametrize("url", ["http://x", "https://", "x", "https://a@x", "https://x?y", "ftp://x"])
def test_a_token_is_told_over_https_alone(url):
    with pytest.raises(InvalidValueError):
        EnrolmentSettings(url, Path("ca.pem"))


# Keys and requests.


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    key = tmp_path / "device.key"
    requests = [KeyInFile().make(DEVICE, key) for _ in range(2)]
    assert key.stat().st_mode & 0o777 == 0o600
    assert requested_key(requests[0], DEVICE) == requested_key(requests[1], DEVICE)


def test_a_key_that_is_damaged_is_put_aside(tmp_path):
    key = tmp_path / "device.key"
    key.write_bytes(b"-----BEGIN")
    requested_key(KeyInFile().make(DEVICE, key), DEVICE)
    assert (tmp_path / "device.damaged").read_bytes() == b"-----BEGIN"


HOOK = """#!/bin/sh
# What an owner's program for a TPM would do, with openssl and a file.
test -e "$2" || openssl ecparam -name prime256v1 -genkey -noout -out "$2" 2>/dev/null
echo "key of Müller"
openssl req -new -key "$2" -subj "/CN=whatever-$1"
"""


@pytest.fixture
def hook(tmp_path):
    path = tmp_path / "hook"
    path.write_text(HOOK, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_program_of_the_owner_may_make_key_and_request(tmp_path, hook):
    key = tmp_path / "k"
    requests = [KeyElsewhere([str(hook)]).make(DEVICE, key) for _ in range(2)]
    assert requested_key(requests[0]) == requested_key(requests[1])


@pytest.mark.parametrize("command", [["/nowhere"], ["sh", "-c", "echo no >&2; exit 3", "sh"]])
def test_a_program_that_fails_says_why(tmp_path, command):
    with pytest.raises(RequestFailedError, match="no"):
        KeyElsewhere(command).make(DEVICE, tmp_path / "k")


# Answers.


@pytest.mark.parametrize(
    "case", ["right", "another key", "another name", "foreign", "with our root", "by a device", "noise", "leaf alone"]
)
def test_only_what_was_asked_for_is_taken(counter, tmp_path, case):
    authority, key = counter.authority, tmp_path / "device.key"
    request = KeyInFile().make(DEVICE, key)
    public = requested_key(request)
    match case:
        case "another key":
            chain = authority.sign(Identity(DEVICE, Role.DEVICE), new_key().public_key(), now=now())
        case "another name":
            chain = authority.sign(Identity("dev-2", Role.DEVICE), public, now=now())
        case "foreign":
            foreign = Authority.create(tmp_path / "f", fleet="foreign", now=now())
            chain = foreign.sign(Identity(DEVICE, Role.DEVICE), public, now=now())
        case "with our root":
            foreign = Authority.create(tmp_path / "f", fleet="foreign", now=now())
            ours = authority.root_path.read_bytes()
            chain = foreign.sign(Identity(DEVICE, Role.DEVICE), public, now=now()) + ours
        case "by a device":
            other = new_key()
            above = authority.sign(Identity("dev-3", Role.DEVICE), other.public_key(), now=now())
            signer = Signer(x509.load_pem_x509_certificates(above)[0].subject, other)
            leaf = certify(Identity(DEVICE, Role.DEVICE), public, signer, Validity.days(now(), 1))
            chain = pem(leaf) + above
        case "noise":
            chain = b"noise"
        case _:
            chain = authority.sign(Identity(DEVICE, Role.DEVICE), public, now=now())
    if case == "leaf alone":
        chain = chain[: chain.index(b"-----END CERTIFICATE-----") + 26]
    if case == "right":
        check_answer(chain, request, DEVICE, authority.root_path)
        return
    with pytest.raises(WrongAnswerError):
        check_answer(chain, request, DEVICE, authority.root_path)


# A visit.


@pytest.fixture(scope="module")
def open_counter(tmp_path_factory):
    with Counter(tmp_path_factory.mktemp("open")).open() as counter:
        yield counter


def device_of(counter, folder, name=DEVICE, token=None, **changes):
    """Settings of a device of this counter, with a token."""
    path = enrolling(folder, counter.port, **changes)
    path.write_text(path.read_text().replace('"dev-1"', f'"{name}"'))
    (folder / "ca.pem").write_bytes(counter.authority.root_path.read_bytes())
    (folder / "enrolment.token").write_text((counter.token(name) if token is None else token) + "\n")
    return load_settings(path)


def test_a_visit_brings_a_certificate_and_the_token_is_spent(open_counter, tmp_path):
    settings = device_of(open_counter, tmp_path, "visitor")
    outcome = visit(settings, Due.ENROL)
    assert outcome.ending is Ending.DONE, outcome
    files = settings.identity
    assert sorted(path.name for path in files.folder.iterdir()) == ["device.key", "device.pem", "lock", "token.used"]
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert files.tls.key.stat().st_mode & 0o777 == 0o600
    assert files.new_token() == ""
    assert timedelta(days=29) < files.life().end - now() <= timedelta(days=30)
    assert visit(settings, Due.RENEW).ending is Ending.DONE
    assert visit(settings, Due.ENROL).ending is Ending.DONE, "it has one"


def test_with_an_owners_program_too_and_its_names_are_not_looked_at(open_counter, tmp_path, hook):
    settings = device_of(open_counter, tmp_path, "tpm", request_command=[str(hook)])
    assert visit(settings, Due.ENROL).ending is Ending.DONE
    leaf = x509.load_pem_x509_certificates(settings.tls.certificate.read_bytes())[0]
    assert leaf.subject.rfc4514_string().startswith("CN=tpm")
    assert visit(settings, Due.RENEW).ending is Ending.DONE


@pytest.mark.parametrize(
    ("case", "ending", "words"),
    [
        ("wrong", Ending.REFUSED, "no such token for this device: have a new token made"),
        ("none", Ending.REFUSED, "there is no new token in"),
        ("used", Ending.REFUSED, "was this card copied?"),
        ("expired", Ending.REFUSED, "the token has expired: have a new token made"),
        ("foreign", Ending.POSTPONED, "does not vouch for it"),
        ("nobody", Ending.POSTPONED, "refused"),
        ("no ca", Ending.POSTPONED, "No such file"),
    ],
)
def test_what_went_wrong_is_one_line_with_a_remedy(open_counter, tmp_path, case, ending, words):
    name = f"wrong-{case.replace(' ', '-')}"
    settings = device_of(open_counter, tmp_path / "device", name, "nonsense" if case == "wrong" else None)
    folder = tmp_path / "device"
    match case:
        case "none":
            (folder / "enrolment.token").unlink()
        case "used":
            other = device_of(open_counter, tmp_path / "other", name, (folder / "enrolment.token").read_text().strip())
            assert visit(other, Due.ENROL).ending is Ending.DONE
        case "expired":
            late = open_counter.token(name, timedelta(hours=1), made=now() - timedelta(hours=2))
            (folder / "enrolment.token").write_text(late)
        case "foreign":
            foreign = Authority.create(tmp_path / "f", fleet="foreign", now=now())
            (folder / "ca.pem").write_bytes(foreign.root_path.read_bytes())
        case "nobody":
            settings = device_of(Counter(tmp_path / "closed"), folder, name)
        case "no ca":
            (folder / "ca.pem").unlink()
    outcome = visit(settings, Due.ENROL)
    assert (outcome.ending, words in outcome.reason, outcome.reason.isprintable()) == (ending, True, True), outcome
    assert settings.identity.life() is None
    assert EXIT_CODES[outcome.ending] in (75, 77)


def test_a_revoked_device_hears_what_it_can_guess(open_counter, tmp_path):
    settings = device_of(open_counter, tmp_path, "revoked")
    assert visit(settings, Due.ENROL).ending is Ending.DONE
    open_counter.desk.revoke("revoked", now=now(), who="test")
    outcome = visit(settings, Due.RENEW)
    assert outcome.ending is Ending.POSTPONED
    assert "revoked; if so: have a new token made" in outcome.reason


def test_a_wipe_leaves_a_device_its_identity_unless_that_is_asked_for(open_counter, tmp_path):
    settings = device_of(open_counter, tmp_path, "wiped")
    assert visit(settings, Due.ENROL).ending is Ending.DONE
    (settings.state.folder / "agent.db").write_bytes(b"what it remembers")
    wipe(tmp_path / "agent.toml", settings)
    assert [path.name for path in settings.state.folder.iterdir()] == ["identity"]
    assert settings.identity.life() is not None
    assert any("devices revoke wiped" in line for line in left_elsewhere(settings, identity=False))
    wipe(tmp_path / "agent.toml", settings, identity=True)
    assert list(settings.state.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "body", "ending"),
    [
        (200, b"not json", Ending.POSTPONED),
        (200, b"{}", Ending.POSTPONED),
        (200, json.dumps({"certificate": "noise"}).encode(), Ending.REFUSED),
        (301, b"", Ending.POSTPONED),
        (404, b"", Ending.POSTPONED),
        (429, json.dumps({"error": "too_many", "text": "wait"}).encode(), Ending.POSTPONED),
        (503, json.dumps({"error": "not_now", "text": "wait"}).encode(), Ending.POSTPONED),
        (403, json.dumps({"error": "new_word", "text": "a\nb"}).encode(), Ending.REFUSED),
        (200, b"[" * 100_000, Ending.POSTPONED),
    ],
)
def test_a_server_that_answers_oddly_harms_nobody(counter, tmp_path, status, body, ending):
    import ssl  # noqa: PLC0415

    class Odd(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", "https://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(counter.tls.certificate, counter.tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = device_of(counter, tmp_path, token="t", url=f"https://127.0.0.1:{server.server_port}")
    try:
        outcome = visit(settings, Due.ENROL)
    finally:
        server.shutdown()
        server.server_close()
    assert outcome.ending is ending
    assert outcome.reason.isprintable()
    assert not settings.tls.certificate.exists()


# The keeper, with an errand that a test writes.

ERRAND = """
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / "visits").open("a") as file:
    file.write(sys.argv[1] + "\\n")
said = json.loads((folder / "say").read_text())
if said["ending"] == "done":
    (folder / "part").write_bytes((folder / "next.pem").read_bytes())
    (folder / "part").replace(folder / "device.pem")
    (folder / "token.used").write_text((folder / "digest").read_text())
print(json.dumps(said))
"""


class Kept:
    def __init__(self, folder, counter):
        self.folder, self.time = folder, now()
        tls = TlsFiles(counter.authority.root_path, folder / "device.pem", folder / "device.key")
        self.files = IdentityFiles(folder, tls, folder / "token")
        self.authority, self.enrolled = counter.authority, threading.Event()
        (folder / "digest").write_text("x")
        self.say("postponed", "nobody is there")

    @cached_property
    def keeper(self):
        command = [sys.executable, "-c", ERRAND.format(folder=str(self.folder))]
        return IdentityKeeper(self.files, DEVICE, command, clock=lambda: self.time, look_s=0.02)

    def say(self, ending, reason=""):
        part = self.folder / "say.part"
        part.write_text(json.dumps({"ending": ending, "reason": reason}))
        part.replace(self.folder / "say")

    def certificate(self, began, name="device.pem"):
        key = new_key()
        self.files.tls.key.write_text("a key")
        part = self.folder / "new"
        part.write_bytes(self.authority.sign(Identity(DEVICE, Role.DEVICE), key.public_key(), now=began, days=30))
        part.replace(self.folder / name)

    def visits(self):
        path = self.folder / "visits"
        return path.read_text().split() if path.exists() else []

    def start(self):
        self.keeper.start(self.enrolled.set)


@pytest.fixture
def kept(counter, tmp_path):
    kept = Kept(tmp_path, counter)
    yield kept
    kept.keeper.close()


def test_a_device_without_a_certificate_says_why_it_does_not_connect_until_it_has_one(kept):
    assert kept.keeper.obstacle() == "not enrolled: it has no certificate yet"
    kept.certificate(now(), "next.pem")
    kept.start()
    wait_until(lambda: kept.keeper.obstacle() == "not enrolled: nobody is there")
    kept.say("done", "good")
    assert kept.enrolled.wait(60)
    assert kept.keeper.obstacle() == ""
    assert set(kept.visits()) == {"enrol"}


def test_a_refusal_waits_for_another_token(kept):
    kept.say("refused", "no such token")
    kept.start()
    wait_until(lambda: "no such token" in kept.keeper.obstacle())
    kept.certificate(now(), "next.pem")
    kept.say("done")
    assert not kept.enrolled.wait(0.5), "it has no reason to ask again yet"
    (kept.folder / "token").write_text("another")
    assert kept.enrolled.wait(60)


def test_a_clock_that_was_never_set_costs_no_process(kept):
    kept.time = datetime(1970, 1, 1, tzinfo=timezone.utc)
    kept.start()
    wait_until(lambda: "the clock says 1970-01-01" in kept.keeper.obstacle())
    assert kept.visits() == []
    kept.certificate(now(), "next.pem")
    kept.say("done")
    kept.time = now()
    assert kept.enrolled.wait(60)


def test_a_certificate_is_renewed_in_its_last_third_and_not_before(kept):
    kept.certificate(now())
    kept.certificate(now() + timedelta(days=21), "next.pem")
    kept.say("done")
    kept.start()
    kept.time = now() + timedelta(days=19)
    assert not kept.enrolled.wait(0.3)
    assert kept.visits() == []
    kept.time = now() + timedelta(days=23)
    wait_until(lambda: kept.visits() == ["renew"])
    wait_until(lambda: kept.files.life().end > now() + timedelta(days=50))
    assert not kept.enrolled.is_set(), "who is connected stays connected"
    assert kept.keeper.alarm == ""


def test_a_renewal_that_fails_to_the_last_is_an_alarm(kept):
    kept.certificate(now() - timedelta(days=27))
    kept.start()
    wait_until(lambda: kept.keeper.alarm)
    assert "nobody is there" in kept.keeper.alarm


def test_somebody_else_may_bring_the_certificate(kept):
    kept.start()
    wait_until(kept.visits)
    kept.certificate(now())
    assert kept.enrolled.wait(60)
