"""The certificate authority: who may be certified as what, and how a name is taken back."""

from __future__ import annotations

import argparse
import base64
import contextlib
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker_server.commands.ca import add_ca_commands
from broker_server.identity.ca import CRL_DAYS, Authority, CaError
from broker_server.identity.certificates import Identity, RequestError, Role, new_key, requested_key
from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import TlsFiles
from fd_runtime.links.mqtt_connection import tls_context

NOW = datetime.now(timezone.utc).replace(microsecond=0)
DEVICE = Identity("dev-1", Role.DEVICE)
BROKER = Identity("broker", Role.BROKER, ("localhost", "127.0.0.1"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", fleet="demo", now=NOW)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def leaf(files: TlsFiles) -> x509.Certificate:
    return x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]


def revoked_serials(authority: Authority) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl(authority.crl_path.read_bytes())}


def request_pem(name: str, key: ec.EllipticCurvePrivateKey, *, times: int = 1) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] * times)
    request = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def shake_hands(broker: TlsFiles, client: TlsFiles, host: str) -> str:
    """Return the common name that a server with `broker`'s files sees when `client` calls it `host`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=broker.ca)
    context.load_cert_chain(broker.certificate, broker.key)
    context.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = tls_context(client).wrap_bio(to_client, to_server, server_hostname=host)
    called = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (calling, called, calling, called):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return dict(pair[0] for pair in called.getpeercert()["subject"])["commonName"]


def test_a_device_and_a_broker_of_one_authority_trust_each_other(authority, tmp_path):
    broker = authority.issue(BROKER, tmp_path / "broker", now=NOW)
    device = authority.issue(DEVICE, tmp_path / "device", now=NOW)
    assert shake_hands(broker, device, "localhost") == "dev-1"
    assert shake_hands(broker, device, "127.0.0.1") == "dev-1"


def test_a_device_refuses_a_broker_under_another_host_name(authority, tmp_path):
    broker = authority.issue(BROKER, tmp_path / "broker", now=NOW)
    device = authority.issue(DEVICE, tmp_path / "device", now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(broker, device, "elsewhere.example")


def test_a_device_certificate_cannot_pose_as_a_broker(authority, tmp_path):
    device = authority.issue(DEVICE, tmp_path, now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(device, device, "localhost")


def test_a_device_refuses_a_broker_of_another_authority(authority, tmp_path):
    foreign = Authority.create(tmp_path / "foreign", fleet="foreign", now=NOW)
    broker = foreign.issue(BROKER, tmp_path / "broker", now=NOW)
    device = authority.issue(DEVICE, tmp_path / "device", now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(broker, device, "localhost")


def test_only_the_issuing_intermediate_signs_leaves_and_nothing_may_be_below_it(authority, tmp_path):
    chain = x509.load_pem_x509_certificates(authority.issue(DEVICE, tmp_path, now=NOW).certificate.read_bytes())
    root = x509.load_pem_x509_certificate(authority.root_path.read_bytes())
    limits = [c.extensions.get_extension_for_class(x509.BasicConstraints).value for c in (*chain, root)]
    assert [(limit.ca, limit.path_length) for limit in limits] == [(False, None), (True, 0), (True, 1)]
    chain[0].verify_directly_issued_by(chain[1])
    chain[1].verify_directly_issued_by(root)


def test_private_keys_are_readable_by_their_owner_alone(authority, tmp_path):
    files = authority.issue(DEVICE, tmp_path / "out", now=NOW)
    keys = [authority.root_key_path, authority.folder / "issuing.key", files.key]
    assert [mode(key) for key in keys] == [0o600] * 3
    assert mode(files.certificate) == 0o644


def test_signing_goes_on_when_the_root_key_is_offline(authority, tmp_path):
    authority.root_key_path.unlink()
    authority.issue(DEVICE, tmp_path, now=NOW)
    assert authority.revoke("dev-1", now=NOW) == 1


def test_a_second_authority_in_the_same_folder_is_refused(authority):
    before = authority.root_path.read_bytes()
    with pytest.raises(CaError, match="holds an authority already"):
        Authority.create(authority.folder, fleet="demo", now=NOW)
    assert authority.root_path.read_bytes() == before


def test_without_the_medium_for_the_roots_key_nothing_is_made(tmp_path):
    with pytest.raises(CaError, match=r"no folder .*usb for the root's key"):
        Authority.create(tmp_path / "ca", fleet="demo", now=NOW, root_key=tmp_path / "usb" / "root.key")
    assert not (tmp_path / "ca").exists()


def test_a_folder_without_an_authority_is_named(tmp_path):
    with pytest.raises(CaError, match=r"no authority in .*nowhere"):
        Authority(tmp_path / "nowhere").issue(DEVICE, tmp_path, now=NOW)


@pytest.mark.parametrize("name", ["", "Dev-1", "dev_1", "dev/1", "#", "evil+", "-dev", "a" * 65, "dev-1\n", "../dev"])
def test_a_name_that_could_reach_into_other_topics_is_never_certified(name):
    with pytest.raises(InvalidValueError):
        Identity(name, Role.DEVICE)


def test_a_device_never_gets_the_aggregators_name_nor_the_other_way_round(authority, tmp_path):
    authority.issue(Identity("agg-1", Role.AGGREGATOR), tmp_path, now=NOW)
    with pytest.raises(CaError, match="'agg-1' has the role aggregator, it cannot be device too"):
        authority.issue(Identity("agg-1", Role.DEVICE), tmp_path, now=NOW)
    authority.issue(DEVICE, tmp_path, now=NOW)
    with pytest.raises(CaError, match="cannot be aggregator too"):
        authority.issue(Identity("dev-1", Role.AGGREGATOR), tmp_path, now=NOW)


def test_host_names_belong_to_brokers_and_to_all_of_them():
    with pytest.raises(InvalidValueError, match="host names"):
        Identity("broker", Role.BROKER)
    with pytest.raises(InvalidValueError, match="host names"):
        Identity("dev-1", Role.DEVICE, ("localhost",))


def test_a_certificate_starts_an_hour_ago_for_clocks_that_lag_and_never_outlives_its_issuer(authority, tmp_path):
    certificate = leaf(authority.issue(DEVICE, tmp_path, now=NOW, days=36_500))
    issuing = x509.load_pem_x509_certificate((authority.folder / "issuing.pem").read_bytes())
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate.not_valid_after_utc == issuing.not_valid_after_utc


def test_revoking_a_name_revokes_every_certificate_it_ever_had_and_no_other(authority, tmp_path):
    mine = [leaf(authority.issue(DEVICE, tmp_path / str(i), now=NOW)).serial_number for i in range(2)]
    authority.issue(Identity("dev-10", Role.DEVICE), tmp_path, now=NOW)
    assert revoked_serials(authority) == set()
    assert authority.revoke("dev-1", now=NOW) == 2
    assert revoked_serials(authority) == set(mine)


def test_revoking_an_unknown_name_is_refused(authority):
    with pytest.raises(CaError, match="'dev-9'"):
        authority.revoke("dev-9", now=NOW)


def test_a_renewed_revocation_list_keeps_what_was_revoked_and_when_and_counts_on(authority, tmp_path):
    authority.issue(DEVICE, tmp_path, now=NOW)
    authority.revoke("dev-1", now=NOW)
    later = NOW + timedelta(days=20)
    authority.revoke("dev-1", now=later)
    expires = authority.renew_crl(now=later)
    assert expires - later >= timedelta(days=CRL_DAYS)
    crl = x509.load_pem_x509_crl(authority.crl_path.read_bytes())
    assert [entry.revocation_date_utc for entry in crl] == [NOW]
    assert crl.next_update_utc == expires
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 4
    issuing = x509.load_pem_x509_certificate((authority.folder / "issuing.pem").read_bytes())
    assert crl.is_signature_valid(issuing.public_key())


def test_a_revocation_in_the_same_second_still_makes_a_younger_list(authority, tmp_path):
    """Of two lists a broker keeps the younger; of two of the same age, the first."""
    authority.issue(DEVICE, tmp_path, now=NOW)
    dates = []
    for _ in range(3):
        dates.append(x509.load_pem_x509_crl(authority.crl_path.read_bytes()).last_update_utc)
        authority.revoke("dev-1", now=NOW)
    assert dates == sorted(set(dates))


def test_a_request_is_signed_for_its_own_key_only_and_nothing_else_in_it_is_believed(authority):
    key = new_key()
    chain = authority.sign(DEVICE, requested_key(request_pem("dev-1", key), "dev-1"), now=NOW)
    certificate = x509.load_pem_x509_certificates(chain)[0]
    assert certificate.public_key() == key.public_key()


def test_a_request_for_another_name_is_refused():
    with pytest.raises(RequestError, match="not for 'dev-1'"):
        requested_key(request_pem("agg-1", new_key()), "dev-1")


def test_of_a_request_with_a_thousand_names_the_refusal_tells_the_first():
    with pytest.raises(RequestError, match=r"is for \['agg-1', 'agg-1'.*, not for 'dev-1'") as caught:
        requested_key(request_pem("agg-1", new_key(), times=1000), "dev-1")
    assert len(str(caught.value)) < 200


def test_a_request_that_its_key_did_not_sign_is_refused():
    der = bytearray(x509.load_pem_x509_csr(request_pem("dev-1", new_key())).public_bytes(serialization.Encoding.DER))
    der[der.index(b"dev-1") + 4] = ord("2")
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(RequestError, match="not signed by its own key"):
        requested_key(forged, "dev-2")


def test_a_request_on_another_curve_or_no_request_at_all_is_refused():
    with pytest.raises(RequestError, match="P-256"):
        requested_key(request_pem("dev-1", ec.generate_private_key(ec.SECP384R1())), "dev-1")
    with pytest.raises(RequestError, match="PEM"):
        requested_key(b"not a request", "dev-1")


@pytest.mark.parametrize(
    ("good", "bad"),
    [("020100", "020105"), ("2a8648ce3d030107", "2a8648ce3d03017e"), ("03420004", "03420005"), ("0c05", "0305")],
    ids=["version", "curve", "point", "name"],
)
def test_a_request_that_cannot_be_read_is_refused(good, bad):
    der = x509.load_pem_x509_csr(request_pem("dev-1", new_key())).public_bytes(serialization.Encoding.DER)
    broken = der.replace(bytes.fromhex(good), bytes.fromhex(bad), 1)
    assert broken != der
    text = base64.encodebytes(broken).decode()
    with pytest.raises(RequestError, match="read"):
        requested_key(f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n".encode())


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_ca_commands(parser.add_subparsers())
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


def test_the_commands_make_sign_and_revoke_and_say_what_to_keep_offline(tmp_path, capsys):
    folder, out = tmp_path / "ca", tmp_path / "out"
    assert run("ca", "init", folder) == 0
    assert f"Move {folder}/root.key to offline storage" in capsys.readouterr().out
    assert run("ca", "sign", folder, "broker", "--role", "broker", "--host", "localhost", "--out", out) == 0
    assert run("ca", "sign", folder, "dev-1", "--out", out) == 0
    files = TlsFiles(out / "ca.pem", out / "broker.pem", out / "broker.key")
    assert shake_hands(files, TlsFiles(out / "ca.pem", out / "dev-1.pem", out / "dev-1.key"), "localhost") == "dev-1"
    assert run("ca", "revoke", folder, "dev-1") == 0
    assert len(revoked_serials(Authority(folder))) == 1
    assert run("ca", "crl", folder) == 0


def test_the_sign_command_takes_a_request_and_makes_no_key(tmp_path):
    run("ca", "init", tmp_path / "ca")
    request = tmp_path / "dev-1.csr"
    request.write_bytes(request_pem("dev-1", new_key()))
    assert run("ca", "sign", tmp_path / "ca", "dev-1", "--csr", request, "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ca.pem", "dev-1.pem"]
