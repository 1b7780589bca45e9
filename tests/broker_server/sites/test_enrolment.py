"""Who gets a certificate over the HTTPS port, by the program itself, and who does not."""

import contextlib
import itertools
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker_server.brokers.loopback import LOOPBACK
from broker_server.cli import main
from broker_server.identity.ca import CRL_DAYS, MOST_GRACE_DAYS, Authority, CaError
from broker_server.identity.certificates import Identity, Role, fingerprint, key_pem, new_key, next_update, pem, role_of
from broker_server.identity.desk import Desk, RefusedError
from broker_server.identity.keeping import Keeping, is_due
from broker_server.identity.settings import EnrolmentSettings
from broker_server.identity.tokens import LONGEST_LIFE, Token, Tokens, Verdict, digest, judge, new_token
from fd_protocol.errors import InvalidValueError
from tests.support.identity import Counter, common_name, leaf, now, request_pem
from tests.support.patience import wait_until


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    with Counter(tmp_path_factory.mktemp("counter")).open() as counter:
        yield counter


# Tokens, by rule.

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def test_a_token_is_good_for_its_device_until_its_end_and_for_one_key():
    token, kept = new_token("dev-1", HOUR, now=NOW, who="ann")
    assert judge(kept, token, "k", now=NOW) is Verdict.GRANTED
    assert judge(kept, token, "k", now=NOW + HOUR) is Verdict.EXPIRED
    assert judge(kept, token + "x", "k", now=NOW) is Verdict.UNKNOWN
    assert judge(None, token, "k", now=NOW) is Verdict.UNKNOWN
    claimed = Token(kept.device, kept.sha256, kept.made_utc_s, kept.ends_utc_s, key="k")
    assert judge(claimed, token, "k", now=NOW + 100 * HOUR) is Verdict.AGAIN
    assert judge(claimed, token, "other", now=NOW) is Verdict.USED
    assert judge(claimed, token + "x", "k", now=NOW) is Verdict.UNKNOWN


def test_no_token_is_kept_and_no_two_are_the_same(tmp_path):
    tokens = Tokens(tmp_path / "tokens")
    token, kept = new_token("dev-1", HOUR, now=NOW, who="ann")
    tokens.put(kept)
    [path] = tokens.folder.iterdir()
    assert token not in path.read_text()
    assert digest(token) in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert new_token("dev-1", HOUR, now=NOW, who="ann")[0] != token
    assert tokens.of("dev-1") == kept
    assert tokens.take_back("dev-1")
    assert not tokens.take_back("dev-1")


@pytest.mark.parametrize("life", [timedelta(0), -HOUR, LONGEST_LIFE + HOUR])
def test_a_token_lives_for_some_time_but_not_for_ever(life):
    with pytest.raises(InvalidValueError, match="90 days"):
        new_token("dev-1", life, now=NOW, who="ann")


@pytest.mark.parametrize("name", ["../x", "Dev", "#", ""])
def test_a_token_is_for_a_device_whose_name_may_stand_in_a_file_name(name, tmp_path):
    with pytest.raises(InvalidValueError):
        new_token(name, HOUR, now=NOW, who="ann")
    with pytest.raises(InvalidValueError):
        Tokens(tmp_path).of(name)


# At the desk, by a clock of the test's own.


@dataclass
class Visit:
    """A device's first visit at `NOW`, with a token of an hour, at a desk whose certificates last for 30 days."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def __post_init__(self) -> None:
        authority = Authority.create(self.folder / "pki", fleet="demo", now=NOW)
        self.desk = Desk.of(EnrolmentSettings(enabled=True, authority=authority.folder))
        self.token = self.desk.make_token("dev-1", HOUR, now=NOW, who="ann")[0]
        self.first = leaf(self.again(NOW))

    def again(self, at: datetime) -> bytes:
        return self.desk.enrol("dev-1", self.token, request_pem(self.key).encode(), now=at)


def test_a_device_whose_answer_was_lost_gets_in_again_for_as_long_as_the_first_could_have_lasted(tmp_path):
    visit, ends = Visit(tmp_path), NOW + HOUR + timedelta(days=30)
    assert leaf(visit.again(NOW + 100 * HOUR)) == visit.first
    second = leaf(visit.again(ends - timedelta(seconds=1)))
    assert second.not_valid_after_utc > ends
    assert leaf(visit.again(ends)) == second, "what it has is no secret"
    for days in (60, 300):
        with pytest.raises(RefusedError, match="used") as refused:
            visit.again(NOW + timedelta(days=days))
        assert refused.value.reason == "token_used"
    assert len(visit.desk.authority.issued("dev-1")) == 2


def test_a_token_that_was_used_is_of_no_use_after_a_revocation_which_left_it(tmp_path):
    """`ca revoke` knows certificates alone."""
    visit = Visit(tmp_path)
    visit.desk.authority.revoke("dev-1", now=NOW + 2 * HOUR)
    with pytest.raises(RefusedError, match="used") as refused:
        visit.again(NOW + 3 * HOUR)
    assert refused.value.reason == "token_used"
    assert {one.serial_number for one in visit.desk.authority.issued("dev-1")} <= visit.desk.authority.revoked()


def test_a_device_that_was_let_in_again_by_a_new_token_may_ask_again_by_it(tmp_path):
    """Its key has been on the list since before that token; the desk may fall between claim and certificate."""
    visit, later = Visit(tmp_path), NOW + 2 * HOUR
    visit.desk.revoke("dev-1", now=later, who="ann")
    visit.token, kept = visit.desk.make_token("dev-1", HOUR, now=later + HOUR, who="ann")
    visit.desk.tokens.claim(kept, fingerprint(visit.key.public_key()))
    assert leaf(visit.again(later + HOUR)).not_valid_after_utc == later + HOUR + timedelta(days=30)


# At the port.


def test_a_device_with_its_token_gets_a_certificate_of_thirty_days_for_its_own_key(counter):
    key = new_key()
    status, answer = counter.enrol("dev-1", counter.token("dev-1"), key)
    assert status == 200, answer
    certificate = leaf(answer["certificate"])
    assert (common_name(certificate), role_of(certificate)) == ("dev-1", Role.DEVICE)
    assert certificate.public_key() == key.public_key()
    days = (certificate.not_valid_after_utc - now()) / timedelta(days=1)
    assert 29.9 < days <= 30
    chain = x509.load_pem_x509_certificates(answer["certificate"].encode())
    chain[0].verify_directly_issued_by(chain[1])


@pytest.mark.parametrize("name", ["agg-1", "dev-2", "#", "x" * 64, "dev/+"])
def test_names_in_a_request_are_not_looked_at(counter, name):
    status, answer = counter.enrol("dev-3", counter.token("dev-3"), new_key(), name)
    assert status == 200, answer
    assert common_name(leaf(answer["certificate"])) == "dev-3"


def test_the_same_key_gets_the_same_answer_again_when_the_first_was_lost(counter):
    key, token = new_key(), counter.token("dev-4")
    answers = [counter.enrol("dev-4", token, key) for _ in range(3)]
    assert [status for status, _ in answers] == [200] * 3
    assert len({answer["certificate"] for _, answer in answers}) == 1
    assert len(counter.authority.issued("dev-4")) == 1


def test_of_two_devices_with_one_token_the_first_gets_in(counter):
    token = counter.token("dev-5")
    assert counter.enrol("dev-5", token, new_key())[0] == 200
    status, answer = counter.enrol("dev-5", token, new_key())
    assert (status, answer["error"]) == (403, "token_used")


def test_of_many_that_come_at_once_with_one_token_one_gets_in(counter):
    token, keys = counter.token("dev-6"), [new_key() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(status for status, _ in pool.map(lambda key: counter.enrol("dev-6", token, key), keys))
    assert statuses == [200, *[403] * 7]
    assert len(counter.authority.issued("dev-6")) == 1


@pytest.mark.parametrize(
    ("case", "status", "error"),
    [
        ("another device's", 403, "unknown_token"),
        ("expired", 403, "token_expired"),
        ("replaced", 403, "unknown_token"),
        ("none", 403, "unknown_token"),
        ("empty", 403, "unknown_token"),
        ("name", 400, "malformed"),
        ("request", 400, "malformed"),
    ],
)
def test_whoever_has_no_good_token_gets_nothing(counter, case, status, error):
    device, key = "dev-7", new_key()
    token = counter.token(device)
    match case:
        case "another device's":
            token = counter.token("dev-8")
        case "expired":
            token = counter.token(device, timedelta(hours=1), made=now() - timedelta(hours=2))
        case "replaced":
            counter.token(device)
        case "none":
            device = "dev-never"
        case "empty":
            token = ""
        case "name":
            device = "../dev"
    request = "x" if case == "request" else request_pem(key)
    found = counter.post("/v1/enrol", {"device": device, "token": token, "request": request})
    assert (found[0], found[1]["error"]) == (status, error)
    assert not (counter.authority.folder / "issued" / device).exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"device": 1}',
        b"[" * 16_000,
        b"x" * 20_000,
        b'{"device": "dev-1"}',
        b"\xff\xfe",
        rb'{"device": "dev-1", "token": "\ud800", "request": "x"}',
        rb'{"device": "dev-1", "token": "x", "request": "\ud800"}',
        rb'{"device": "\u00fc", "token": "x", "request": "x"}',
    ],
)
def test_noise_is_malformed(counter, body):
    status, answer = counter.post("/v1/enrol", body)
    assert (status, answer["error"]) == (400, "malformed")


def test_a_certificate_of_a_strangers_own_making_is_not_renewed_whatever_it_names(counter):
    key, began = new_key(), now() - timedelta(days=31)
    for name in ("../..", ""):
        names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        builder = x509.CertificateBuilder(names, names, key.public_key(), 5, began, began + timedelta(days=30))
        shown = pem(builder.sign(key, hashes.SHA256())).decode()
        status, answer = counter.post("/v1/renew", {"request": request_pem(key), "certificate": shown})
        assert (status, answer["error"]) == (403, "not_ours")


@pytest.mark.parametrize(
    ("good", "bad", "status"), [(b"dev-1", b"dev-\xff", 403), (b"\x02\x01\x02", b"\x02\x01\x09", 400)]
)
def test_a_certificate_that_cannot_be_read_is_not_renewed(counter, good, bad, status):
    key, began = new_key(), now() - timedelta(days=31)
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")])
    builder = x509.CertificateBuilder(names, names, key.public_key(), 5, began, began + timedelta(days=30))
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    shown = ssl.DER_cert_to_PEM_cert(der.replace(good, bad))
    assert counter.post("/v1/renew", {"request": request_pem(key), "certificate": shown})[0] == status


def test_no_device_gets_the_aggregators_name(counter, tmp_path):
    counter.authority.issue(Identity("agg-1", Role.AGGREGATOR), tmp_path, now=now())
    with pytest.raises(CaError, match="aggregator"):
        counter.token("agg-1")


def test_a_certificate_is_renewed_over_mutual_tls_and_to_ask_again_is_harmless(counter):
    key, files = counter.enrolled("dev-9")
    status, same = counter.post("/v1/renew", {"request": request_pem(key)}, files)
    assert status == 200
    assert same["certificate"] == files.certificate.read_text()
    other = new_key()
    status, answer = counter.post("/v1/renew", {"request": request_pem(other, "agg-1")}, files)
    assert (status, common_name(leaf(answer["certificate"]))) == (200, "dev-9")
    assert leaf(answer["certificate"]).public_key() == other.public_key()


def test_an_old_certificate_is_renewed_for_thirty_days_more(counter):
    key = new_key()
    chain = counter.authority.sign(
        Identity("dev-10", Role.DEVICE), key.public_key(), now=now() - timedelta(days=21), days=30
    )
    files = counter.files("dev-10", key, chain.decode())
    answers = [counter.post("/v1/renew", {"request": request_pem(key)}, files) for _ in range(2)]
    assert [status for status, _ in answers] == [200, 200]
    assert answers[0] == answers[1]
    assert leaf(answers[0][1]["certificate"]).not_valid_after_utc > now() + timedelta(days=29)
    assert len(counter.authority.issued("dev-10")) == 2


def test_without_a_certificate_nothing_is_renewed(counter):
    key, files = counter.enrolled("dev-11")
    status, answer = counter.post("/v1/renew", {"request": request_pem(key)})
    assert (status, answer["error"]) == (400, "malformed")
    status, answer = counter.post(
        "/v1/renew", {"request": request_pem(key), "certificate": files.certificate.read_text()}
    )
    assert (status, answer["error"]) == (403, "ended"), "one that is good is shown to TLS"


@pytest.mark.parametrize(("ago_days", "thief", "expected"), [(1, False, 200), (1, True, 403), (40, False, 403)])
def test_a_device_that_slept_past_the_end_renews_by_its_key_for_a_while(counter, ago_days, thief, expected):
    key, device = new_key(), f"sleeper-{ago_days}-{int(thief)}"
    began = now() - timedelta(days=30 + ago_days)
    chain = counter.authority.sign(Identity(device, Role.DEVICE), key.public_key(), now=began, days=30)
    said = {"request": request_pem(new_key() if thief else key), "certificate": chain.decode()}
    status, answer = counter.post("/v1/renew", said)
    assert status == expected, answer


def test_certificates_of_others_and_of_other_roles_are_not_renewed(counter, tmp_path):
    files = counter.authority.issue(Identity("agg-2", Role.AGGREGATOR), tmp_path, now=now())
    status, answer = counter.post("/v1/renew", {"request": request_pem(new_key())}, files)
    assert (status, answer["error"]) == (403, "not_ours")
    foreign = Counter(tmp_path / "foreign")
    key = new_key()
    chain = foreign.authority.sign(
        Identity("dev-1", Role.DEVICE), key.public_key(), now=now() - timedelta(days=31), days=30
    )
    status, answer = counter.post("/v1/renew", {"request": request_pem(key), "certificate": chain.decode()})
    assert (status, answer["error"]) == (403, "not_ours")


def test_a_revoked_device_renews_nothing_and_its_token_lets_nobody_in(counter):
    key, files = counter.enrolled("dev-12")
    unused = counter.token("dev-12")
    standing = counter.connection(files)
    ask = json.dumps({"request": request_pem(key)})
    standing.request("POST", "/v1/renew", body=ask)
    assert standing.getresponse().read()
    counter.desk.revoke("dev-12", now=now(), who="ann")
    standing.request("POST", "/v1/renew", body=ask)
    assert standing.getresponse().status != 200, "a connection that stands is looked at as well"
    with pytest.raises(OSError):  # noqa: PT011 - in TLS 1.3 a refusal comes after the handshake, as an alert or an end
        counter.post("/v1/renew", {"request": request_pem(key)}, files)
    said = {"request": request_pem(key), "certificate": files.certificate.read_text()}
    assert counter.post("/v1/renew", said)[0] == 403
    assert counter.enrol("dev-12", unused, key)[1]["error"] == "unknown_token"
    assert counter.enrol("dev-12", counter.token("dev-12"), key)[0] == 200, "an operator may let it in again"


def test_a_connection_that_stands_gets_no_package_after_a_revocation(counter):
    _, files = counter.enrolled("dev-16")
    standing, statuses = counter.connection(files), []
    for _ in range(2):
        standing.request("GET", f"/v1/blobs/{'0' * 64}")
        response = standing.getresponse()
        response.read()
        statuses.append(response.status)
        counter.desk.revoke("dev-16", now=now(), who="ann")
    assert statuses == [404, 403]


def test_a_revoked_device_that_slept_past_the_end_stays_out(counter):
    key, began = new_key(), now() - timedelta(days=31)
    chain = counter.authority.sign(Identity("dev-17", Role.DEVICE), key.public_key(), now=began, days=30)
    said = {"request": request_pem(key), "certificate": chain.decode()}
    counter.desk.revoke("dev-17", now=now(), who="ann")
    status, answer = counter.post("/v1/renew", said)
    assert (status, answer["error"]) == (403, "revoked")


def asking(body):
    return b"POST /v1/renew HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_session_of_before_a_revocation_is_of_no_use(counter):
    key, files = counter.enrolled("dev-13")
    context = ssl.create_default_context(cafile=counter.authority.root_path)
    context.load_cert_chain(files.certificate, files.key)
    body = json.dumps({"request": request_pem(key)}).encode()

    def ask(session):
        plain = socket.create_connection((LOOPBACK, counter.port))
        with plain, context.wrap_socket(plain, server_hostname=LOOPBACK, session=session) as secure:
            secure.sendall(asking(body))
            return b"200 OK" in secure.recv(65_536), secure.session_reused, secure.session

    kept = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.maximum_version = version
        is_given, _, kept[version] = ask(None)
        assert is_given
        is_given, is_resumed, _ = ask(kept[version])
        assert is_given
        assert not (is_resumed and version is ssl.TLSVersion.TLSv1_3), "a ticket would go past the list"
    counter.desk.revoke("dev-13", now=now(), who="ann")
    for version, session in kept.items():
        context.maximum_version = version
        is_given = False
        with contextlib.suppress(OSError):
            is_given, _, _ = ask(session)
        assert not is_given


def test_whoever_dawdles_is_hung_up_on(counter):
    context = ssl.create_default_context(cafile=counter.authority.root_path)
    plain = socket.create_connection((LOOPBACK, counter.port))
    with plain, context.wrap_socket(plain, server_hostname=LOOPBACK) as secure:
        secure.settimeout(60)
        secure.sendall(b"POST /v1/enrol HTTP/1.1\r\n")
        try:
            ended = secure.recv(1) == b""
        except TimeoutError:
            ended = False
        except OSError:  # a reset is an end as well
            ended = True
        assert ended


def test_packages_are_still_for_devices_alone(counter):
    _, files = counter.enrolled("dev-14")
    paths = f"/v1/blobs/{'0' * 64}", "/v1/tuf/timestamp.json"
    for path, (shown, status) in itertools.product(paths, ((None, 403), (files, 404))):
        connection = counter.connection(shown)
        connection.request("GET", path)
        assert connection.getresponse().status == status


def test_everything_is_on_record(counter):
    key, token = new_key(), counter.token("dev-15")
    counter.enrol("dev-15", "wrong", key)
    counter.enrol("dev-15", token, key)
    counter.enrol("dev-15", token, key)
    counter.desk.revoke("dev-15", now=now(), who="ann")
    lines = [line for line in counter.desk.audit.lines() if line["device"] == "dev-15"]
    assert [line["done"] for line in lines] == ["token", "refused", "enrolled", "claimed_again", "revoked"]
    assert lines[1]["reason"] == "unknown_token"
    assert (lines[1]["address"], lines[-1]["who"]) == (LOOPBACK, "ann")
    assert token not in counter.desk.audit.path.read_text()
    assert counter.desk.audit.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("request_", "refusal", "told"), [(request_pem(new_key()), 403, "dev-1"), ("\ud800", 400, "")])
def test_an_address_that_guesses_is_not_listened_to_for_a_while_and_fills_no_disk(tmp_path, request_, refusal, told):
    with Counter(tmp_path / "guessed").open() as counter:
        said, statuses = {"device": "dev-1", "token": "guess", "request": request_}, []
        while not statuses or statuses[-1] != 429:
            statuses.append(counter.post("/v1/enrol", said)[0])
            assert len(statuses) < 1000
        assert set(statuses) == {refusal, 429}
        assert len(statuses) >= 60, "the first of its minute's 61 was our look whether the port is open"
        lines = [line for line in counter.desk.audit.lines() if line["device"] == told]
        refused = [line for line in lines if line["done"] == "refused"]
        assert 0 < len(refused) <= statuses.count(refusal) + 1, "what is not looked at is not written down"


def test_a_new_certificate_of_the_port_counts_from_the_next_handshake_on(tmp_path):
    with Counter(tmp_path / "fresh").open() as counter:
        before = ssl.get_server_certificate((LOOPBACK, counter.port))
        counter.authority.issue(Identity("https", Role.BROKER, (LOOPBACK,)), counter.tls.certificate.parent, now=now())
        assert ssl.get_server_certificate((LOOPBACK, counter.port)) != before
        counter.tls.certificate.write_text("half of one")
        assert counter.post("/v1/enrol", {})[0] == 400, "what is broken at the moment leaves the last in its place"


# The revocation list.


def test_a_list_is_signed_anew_three_weeks_before_its_end(tmp_path):
    counter = Counter(tmp_path)
    authority, clock = counter.authority, [now() + timedelta(days=6)]
    keeping = Keeping(authority, None, lambda: clock[0])
    first = authority.crl_path.read_bytes()
    keeping.look()
    assert authority.crl_path.read_bytes() == first
    clock[0] = now() + timedelta(days=7, minutes=1)
    keeping.look()
    assert next_update(authority.crl_path.read_bytes()) >= clock[0] + timedelta(days=CRL_DAYS)
    assert not is_due(next_update(authority.crl_path.read_bytes()), clock[0])


def test_the_port_opens_again_by_itself_after_its_list_has_expired(tmp_path):
    """A server that was off for longer than the list lasts: it signs a new one, and the port reads it."""
    with Counter(tmp_path / "late", age=timedelta(days=CRL_DAYS + 1)).open() as counter:
        key, files = counter.enrolled("dev-1")
        wait_until(lambda: next_update(counter.authority.crl_path.read_bytes()) > now())
        assert counter.post("/v1/renew", {"request": request_pem(key)}, files)[0] == 200


# Commands.


def test_the_commands_make_a_token_and_take_a_device_back(counter, capsys):
    assert main(["devices", "token", "dev-20", "--config", str(counter.config), "--expires", "7d"]) == 0
    token = capsys.readouterr().out.strip()
    kept = counter.desk.tokens.of("dev-20")
    assert kept.ends_utc_s - kept.made_utc_s == 7 * 24 * 3600
    assert counter.enrol("dev-20", token, new_key())[0] == 200
    assert main(["devices", "revoke", "dev-20", "--config", str(counter.config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"device": "dev-20", "certificates": 1, "session": "none"}
    assert main(["devices", "revoke", "dev-21", "--config", str(counter.config)]) != 0
    assert "dev-21" in capsys.readouterr().err


@pytest.mark.parametrize("life", ["0h", "91d", "1", "7w", "-1d"])
def test_a_life_that_is_none_is_refused(counter, life, capsys):
    words = ["devices", "token", "dev-22", "--config", str(counter.config), f"--expires={life}"]
    with contextlib.suppress(SystemExit):  # of the parser
        assert main(words) != 0
    assert counter.desk.tokens.of("dev-22") is None


def test_the_root_key_renews_the_issuing_certificate_and_what_was_signed_stays_good(counter, tmp_path, capsys):
    counter = Counter(tmp_path / "old", age=timedelta(days=300))
    before = leaf(counter.authority.issuing_path.read_bytes())
    assert main(["ca", "issuing", str(counter.authority.folder), "--root-key", str(counter.root_key)]) == 0
    after = leaf(counter.authority.issuing_path.read_bytes())
    assert after.public_key() == before.public_key()
    assert timedelta(days=364) < after.not_valid_after_utc - now() <= timedelta(days=365)
    assert after.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    other = tmp_path / "other.key"
    other.write_bytes(key_pem(new_key()))
    assert main(["ca", "issuing", str(counter.authority.folder), "--root-key", str(other)]) != 0
    assert "not the key" in capsys.readouterr().err


def test_nothing_is_signed_once_the_issuing_certificate_has_ended(tmp_path):
    counter = Counter(tmp_path, age=timedelta(days=364))
    late = now() + timedelta(days=2)
    with pytest.raises(CaError, match="ca issuing"):
        counter.authority.sign(Identity("dev-1", Role.DEVICE), new_key().public_key(), now=late)


def test_the_records_of_a_name_do_not_grow_with_its_renewals(tmp_path):
    counter, key = Counter(tmp_path), new_key()
    for days in range(0, 300, 20):
        at = now() + timedelta(days=days)
        counter.authority.sign(Identity("dev-1", Role.DEVICE), key.public_key(), now=at, days=30)
    assert len(counter.authority.issued("dev-1")) <= 3


def test_a_revocation_is_forgotten_once_nothing_it_took_back_can_be_good(tmp_path):
    counter = Counter(tmp_path)
    counter.authority.sign(Identity("dev-1", Role.DEVICE), new_key().public_key(), now=now())
    counter.authority.revoke("dev-1", now=now())
    for days, count in ((300, 1), (730, 1), (731, 0)):
        counter.authority.renew_crl(now=now() + timedelta(days=days))
        assert len(counter.authority.revoked()) == count


@pytest.mark.parametrize("grace_days", [30, MOST_GRACE_DAYS])
def test_a_revocation_is_remembered_for_as_long_as_the_grace_lasts(tmp_path, grace_days):
    counter, key, began = Counter(tmp_path), new_key(), now()
    desk = Desk.of(EnrolmentSettings(enabled=True, authority=counter.authority.folder, grace_days=grace_days))
    shown = leaf(counter.authority.sign(Identity("dev-1", Role.DEVICE), key.public_key(), now=began, days=365))
    desk.revoke("dev-1", now=began, who="ann")
    counter.authority.renew_issuing(counter.root_key, now=began + timedelta(days=364))
    for days in (366, 365 + grace_days):
        counter.authority.renew_crl(now=began + timedelta(days=days))
        with pytest.raises(RefusedError, match="revoked"):
            desk.renew(shown, request_pem(key).encode(), now=began + timedelta(days=days), is_proven=False)


@pytest.mark.parametrize(
    "wrong", [{"enabled": True}, {"days": 0}, {"days": 366}, {"grace_days": -1}, {"grace_days": 366}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        EnrolmentSettings(**wrong)


def test_a_refusal_says_one_word_for_programs():
    assert RefusedError("token_used", "the token was used already").reason == "token_used"
