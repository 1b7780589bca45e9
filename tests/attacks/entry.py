"""Attacks by whoever wants to get in: certificates that do not hold, brokers that are none, other people's names."""

from __future__ import annotations

import getpass
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_server.brokers.loopback import free_port
from broker_server.brokers.mosquitto import MosquittoSettings, mosquitto_process, write_config
from broker_server.identity.ca import Authority, CaError
from broker_server.identity.certificates import Identity, Role, key_pem, new_key, pem
from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import LinkDown, LinkSettings, LinkUp, TlsFiles
from tests.attacks.ground import MALLORY, MARK, TOPICS, VICTIM, WITNESS, Ground, Seen, Weakening, said, without
from tests.attacks.raw import (
    CONNACK,
    HungUpError,
    RawClient,
    connect,
    packet,
    publish,
    tcp_socket,
    text,
    tls_socket,
)
from tests.attacks.row import Attack
from tests.support.brokers import AGGREGATOR, FEDERATION, links, next_event, now

IN, OUT = "let in", "refused in the TLS handshake"


def knock(ground: Ground, files: TlsFiles | None, name: str = MALLORY) -> Seen:
    """Say hello with a certificate, or none."""
    try:
        socket = tls_socket(ground.port, files, ca=ground.fleet.authority.root_path)
        with socket:
            socket.sendall(connect(name))
            came = socket.recv(100)
    except OSError:  # ssl.SSLError too
        return Seen(OUT)
    if not came:
        return Seen(OUT)
    return Seen(IN, got_through=True) if came[0] >> 4 == CONNACK and came[3] == 0 else Seen("refused by MQTT")


def no_certificate(ground: Ground) -> Seen:
    return knock(ground, None)


def expired_certificate(ground: Ground) -> Seen:
    age = timedelta(days=0 if ground.is_weak else 2)
    identity = Identity(f"late-{age.days}", Role.DEVICE)
    files = ground.fleet.authority.issue(identity, ground.folder / identity.name, now=now() - age, days=1)
    return knock(ground, files)


def early_certificate(ground: Ground) -> Seen:
    ahead = timedelta(days=0 if ground.is_weak else 2)
    identity = Identity(f"early-{ahead.days}", Role.DEVICE)
    files = ground.fleet.authority.issue(identity, ground.folder / identity.name, now=now() + ahead, days=9)
    return knock(ground, files)


def revoked_certificate(ground: Ground) -> Seen:
    files = ground.files("lost")
    assert knock(ground, files).got_through, "it held before"
    ground.fleet.authority.revoke("lost", now=now())
    ground.fleet.broker.reload()
    for _ in range(100):  # the broker reloads when its loop comes round
        if not (seen := knock(ground, files)).got_through:
            return seen
        time.sleep(0.01)
    return seen


def foreign_certificate(ground: Ground) -> Seen:
    foreign = Authority.create(ground.folder / "foreign", fleet="foreign", now=now())
    files = foreign.issue(Identity(VICTIM, Role.DEVICE), ground.folder / "theirs", now=now())
    if ground.is_weak:  # the broker has been told to trust that authority too
        files = ground.files(MALLORY)
    return knock(ground, replace(files, ca=ground.fleet.authority.root_path), VICTIM)


def broker_certificate(ground: Ground) -> Seen:
    name, role = ("other", Role.DEVICE) if ground.is_weak else ("other-broker", Role.BROKER)
    hosts = () if ground.is_weak else ("other.example",)
    files = ground.fleet.authority.issue(Identity(name, role, hosts), ground.folder / name, now=now())
    return knock(ground, files)


def self_signed(ground: Ground) -> Seen:
    """A certificate with the victim's name, and its own signature."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, VICTIM)])
    made = _certificate(name, name, key, key.public_key())
    files = _write(ground.folder / "self", ground, pem(made), key)
    return knock(ground, ground.files(VICTIM + "-own") if ground.is_weak else files)


def by_a_device(ground: Ground) -> Seen:
    """A certificate that another device's key has signed, its own certificate as the authority."""
    key = new_key()
    own = ground.files(MALLORY)
    parent = x509.load_pem_x509_certificate(own.certificate.read_bytes())
    signer = _load_key(own.key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AGGREGATOR)])
    made = _certificate(name, parent.subject, signer, key.public_key())
    chain = pem(made) + own.certificate.read_bytes()
    files = _write(ground.folder / "grandchild", ground, chain, key)
    return knock(ground, own if ground.is_weak else files)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    return serialization.load_pem_private_key(path.read_bytes(), password=None)


def _certificate(
    subject: x509.Name, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(days=9))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    return builder.sign(signer, hashes.SHA256())


def _write(folder: Path, ground: Ground, chain: bytes, key: ec.EllipticCurvePrivateKey) -> TlsFiles:
    folder.mkdir(exist_ok=True)
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key_pem(key))
    return TlsFiles(ground.fleet.authority.root_path, folder / "chain.pem", folder / "key.pem")


def old_tls(ground: Ground) -> Seen:
    """TLS 1.1, with a certificate that holds."""
    files = ground.files(MALLORY)
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    if not ground.is_weak:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with context.wrap_socket(tcp_socket(ground.port), server_hostname="localhost"):
            return Seen(IN, got_through=True)
    except OSError:
        return Seen(OUT)


@contextmanager
def serve_as(folder: Path, files: TlsFiles, authority: Authority) -> Iterator[int]:
    """Be a broker with these files, that lets everybody in; yields its port."""
    port = free_port()
    settings = MosquittoSettings(folder, files, authority.crl_path, port=port, user=_user())
    config = write_config(settings, federation=FEDERATION, aggregator=AGGREGATOR)
    assert ANYBODY.conf is not None
    config.write_text(ANYBODY.conf(config.read_text()))
    with mosquitto_process(config, port):
        yield port


def _rogue(ground: Ground, authority: Authority, host: str) -> LinkDown | LinkUp:
    """Return how a device of ours takes a broker that has this authority's certificate for `host`."""
    folder = ground.folder / f"rogue-{authority.folder.name}-{host}"
    files = authority.issue(Identity(f"rogue-{host}", Role.BROKER, (host,)), folder, now=now())
    device = LinkSettings(VICTIM, host="localhost", tls=ground.files(VICTIM))
    with serve_as(folder, files, authority) as port, links(port, device) as [link]:
        return next_event(link, (LinkUp, LinkDown))


def _user() -> str:
    return getpass.getuser()


def _taken(event: LinkDown | LinkUp) -> Seen:
    return Seen("the device says hello", got_through=True) if isinstance(event, LinkUp) else Seen("the device hangs up")


def wrong_host_name(ground: Ground) -> Seen:
    host = "localhost" if ground.is_weak else "elsewhere"
    return _taken(_rogue(ground, ground.fleet.authority, host))


def rogue_broker(ground: Ground) -> Seen:
    if ground.is_weak:
        return _taken(_rogue(ground, ground.fleet.authority, "localhost"))
    foreign = Authority.create(ground.folder / "rogues", fleet="rogues", now=now())
    return _taken(_rogue(ground, foreign, "localhost"))


def names_with_wildcards(ground: Ground) -> Seen:
    """Ask the authority for names that say more than a name in an ACL."""
    wanted = ("+", "#", "dev-1/up", "dev-1/cmd", "../dev-1", "dev-1\0", "%u", "Dev-1", "", " dev-1", "dev-1 ", "$SYS")
    signed = []
    for name in wanted:
        try:
            Identity(name, Role.DEVICE)
        except InvalidValueError:
            continue
        signed.append(name)
    if signed:
        return Seen(f"signed {signed}", got_through=True)
    if not ground.is_weak:
        return Seen("the authority signs none of 12 names")
    with RawClient(ground.port, _unchecked(ground, "dev-1/up"), connect("x")) as client:
        said(client, publish(f"{TOPICS.base}/dev/dev-1/up/state", MARK))
    return Seen("a contribution in the victim's name", got_through=bool(ground.marked()))


def wildcards_at_the_broker(ground: Ground) -> Seen:
    """Have such a name all the same."""
    ground.listen()
    names = ("+", "#", "mallory/+") if not ground.is_weak else (VICTIM,)
    for name in names:
        try:
            with RawClient(ground.port, _unchecked(ground, name), connect("x")) as client:
                said(client, publish(TOPICS.state(VICTIM), MARK))
        except HungUpError:
            continue
    return Seen("refused", got_through=True) if ground.marked() else Seen("nothing is delivered")


def _unchecked(ground: Ground, name: str) -> TlsFiles:
    """A certificate that our authority would not sign, with its own key."""
    key, folder = new_key(), ground.fleet.authority.folder
    issuing = x509.load_pem_x509_certificate((folder / "issuing.pem").read_bytes())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = _certificate(subject, issuing.subject, _load_key(folder / "issuing.key"), key.public_key())
    chain = pem(made) + pem(issuing)
    return _write(ground.folder / f"unchecked-{name.encode().hex()}", ground, chain, key)


def the_aggregators_name(ground: Ground) -> Seen:
    """Ask the authority for a device certificate with the aggregator's name, which the ACL lets write everything."""
    ground.files(AGGREGATOR, Role.AGGREGATOR)
    try:
        ground.fleet.authority.issue(Identity(AGGREGATOR, Role.DEVICE), ground.folder / "posing", now=now())
    except CaError:
        if not ground.is_weak:
            return Seen("the authority signs no second role")
    ground.listen()
    with RawClient(ground.port, _unchecked(ground, AGGREGATOR), connect(AGGREGATOR)) as client:
        said(client, publish(TOPICS.round, MARK, retain=True))
    return Seen("writes as the aggregator", got_through=bool(ground.marked()))


def user_name_and_password(ground: Ground) -> Seen:
    """Say in CONNECT that one is the aggregator."""
    ground.listen()
    files = ground.files(AGGREGATOR, Role.AGGREGATOR) if ground.is_weak else ground.files(MALLORY)
    with RawClient(ground.port, files) as client:
        body = text("MQTT") + b"\x05\xc2\x00\x3c\x00" + text("x") + text(AGGREGATOR) + text("secret")
        client.send(packet(1, body))
        client.receive()
        answer = said(client, publish(TOPICS.round, MARK))
    return Seen(answer, got_through=TOPICS.round in ground.marked())


def client_id_takeover(ground: Ground) -> Seen:
    """Connect under the id of a client that is connected."""
    with ground.client(WITNESS) as witness, ground.client(MALLORY) as mallory:
        with RawClient(ground.port, ground.files("mallory-2"), connect(WITNESS, clean=False)):
            alive = witness.is_alive()
        assert mallory.is_alive()
    return Seen("let in under their own name", got_through=not alive)


ANYBODY = Weakening(
    "`require_certificate false`, `allow_anonymous true`",
    lambda conf: without("require_certificate", "use_identity_as_username", "use_username_as_clientid", "acl_file")(
        conf
    ).replace("allow_anonymous false", "allow_anonymous true"),
)
NO_ACL = Weakening("no `acl_file`", without("acl_file"))
CHOSEN_IDS = Weakening("no `use_username_as_clientid`", without("use_username_as_clientid"))


ROWS = (
    Attack("no certificate", "connect without one", OUT, no_certificate, ANYBODY),
    Attack("expired certificate", "connect a day after its end", OUT, expired_certificate, Weakening("a day before")),
    Attack("future certificate", "connect before its begin", OUT, early_certificate, Weakening("after it")),
    Attack(
        "revoked certificate",
        "connect after `ca revoke` and a reload",
        OUT,
        revoked_certificate,
        Weakening("no `crlfile`", without("crlfile")),
    ),
    Attack(
        "foreign certificate",
        "connect with the victim's name by another authority",
        OUT,
        foreign_certificate,
        Weakening("a certificate of this authority"),
    ),
    Attack("self-signed certificate", "sign the victim's name oneself", OUT, self_signed, Weakening("the authority's")),
    Attack(
        "certificate signed by a device",
        "use a device's key as an authority",
        OUT,
        by_a_device,
        Weakening("the device's own certificate"),
    ),
    Attack(
        "broker's certificate",
        "connect as a client with a certificate for servers",
        OUT,
        broker_certificate,
        Weakening("one for clients"),
    ),
    Attack("old TLS", "offer TLS 1.0 and 1.1 alone", OUT, old_tls, Weakening("offer TLS 1.2 and newer")),
    Attack(
        "wrong host name",
        "be a broker with a certificate of the fleet for another host",
        "the device hangs up",
        wrong_host_name,
        Weakening("a certificate for this host"),
    ),
    Attack(
        "rogue broker",
        "be a broker of another authority at the right address",
        "the device hangs up",
        rogue_broker,
        Weakening("the device trusts that authority"),
    ),
    Attack(
        "names with wildcards",
        "ask the authority for `+`, `#`, `dev-1/up`, `%u`, NUL ...",
        "the authority signs none of 12 names",
        names_with_wildcards,
        Weakening("the authority's own key, unchecked"),
    ),
    Attack(
        "wildcards in a certificate",
        "have a signed certificate for `+`, `#`, `mallory/+` all the same",
        "nothing is delivered",
        wildcards_at_the_broker,
        Weakening("a certificate for `dev-1`"),
    ),
    Attack(
        "the aggregator's name",
        "ask for a device certificate with that name",
        "the authority signs no second role",
        the_aggregators_name,
        Weakening("the authority's own key, unchecked"),
    ),
    Attack(
        "user name and password",
        "call oneself the aggregator in CONNECT",
        "PUBACK 0x87",
        user_name_and_password,
        Weakening("the aggregator's certificate"),
    ),
    Attack(
        "client id takeover",
        "connect under a connected client's id",
        "let in under their own name",
        client_id_takeover,
        CHOSEN_IDS,
    ),
)
