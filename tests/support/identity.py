"""A fleet's authority and its HTTPS port, by the program itself, and a client that says what a device would."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.cli import CONFIG_NAME, main
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role, key_pem, new_key
from broker_server.identity.desk import Desk
from broker_server.identity.settings import EnrolmentSettings
from fd_runtime.links.link import TlsFiles
from tests.support.patience import wait_until

COMMAND = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]


def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def request_pem(key: ec.EllipticCurvePrivateKey, name: str = "whoever") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def leaf(chain: bytes | str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain.encode() if isinstance(chain, str) else chain)[0]


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@dataclass
class Counter:
    """A fleet's counter: the authority, the settings of its server, its HTTPS port once `open` has begun.

    Attributes:
        settings: of `[enrolment]`, as a table's lines, beside those that are always there.
    """

    folder: Path
    age: timedelta = timedelta()
    settings: str = ""
    broker: str = ""
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.authority = Authority.create(self.folder / "pki", fleet="demo", now=now() - self.age)
        self.root_key = self.authority.root_key_path.rename(self.folder / "drawer.key")
        names = Identity("https", Role.BROKER, (LOOPBACK, "localhost"))
        self.tls = self.authority.issue(names, self.folder / "https", now=now())
        assert main(["init", str(self.folder / "server"), "--federation", "test", "--trust", "none"]) == 0
        self.config = self.folder / "server" / CONFIG_NAME
        text = self.config.read_text()
        before, rest = text.split("[packages]")
        after = rest.split("[dashboard]", 1)[1]
        mine = f"""[packages]
port = {self.port}
[packages.tls]
certificate = "{self.tls.certificate}"
key = "{self.tls.key}"
[enrolment]
enabled = true
authority = "{self.authority.folder}"
{self.settings}
"""
        if self.broker:
            head, tail = before.split("[broker]")
            before = f"{head}[broker]\n{self.broker}\n[rounds]{tail.split('[rounds]', 1)[1]}"
        self.config.write_text(f"{before}{mine}\n[dashboard]{after}")

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def desk(self) -> Desk:
        return Desk.of(EnrolmentSettings(enabled=True, authority=self.authority.folder))

    def token(self, device: str, life: timedelta = timedelta(hours=1), made: datetime | None = None) -> str:
        return self.desk.make_token(device, life, now=made or now(), who="test")[0]

    @contextmanager
    def open(self) -> Iterator[Counter]:
        """The program that serves the port."""
        process = subprocess.Popen([*COMMAND, "packages", "--config", str(self.config)])
        try:
            wait_until(lambda: self._answers() or process.poll() is not None)
            assert process.poll() is None, "the port did not open"
            yield self
        finally:
            process.terminate()
            process.wait(30)

    def _answers(self) -> bool:
        try:
            return self.post("/v1/enrol", {})[0] == 400
        except (OSError, HTTPException):
            return False

    def post(self, path: str, said: object, shown: TlsFiles | None = None) -> tuple[int, dict[str, str]]:
        """Say something, showing a certificate or none; return status and answer."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        with contextlib.closing(self.connection(shown)) as connection:
            connection.request("POST", path, body=body)
            response = connection.getresponse()
            content = response.read()
        return response.status, json.loads(content) if content.startswith(b"{") else {}

    def connection(self, shown: TlsFiles | None = None) -> HTTPConnection:
        context = ssl.create_default_context(cafile=self.authority.root_path)
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return HTTPSConnection(LOOPBACK, self.port, context=context, timeout=20)

    def enrol(
        self, device: str, token: str, key: ec.EllipticCurvePrivateKey, name: str = "whoever"
    ) -> tuple[int, dict[str, str]]:
        return self.post("/v1/enrol", {"device": device, "token": token, "request": request_pem(key, name)})

    def files(self, device: str, key: ec.EllipticCurvePrivateKey, chain: str) -> TlsFiles:
        """What a device keeps."""
        folder = self.folder / f"{device}-files"
        folder.mkdir(exist_ok=True)
        files = TlsFiles(self.authority.root_path, folder / "d.pem", folder / "d.key")
        files.certificate.write_text(chain)
        files.key.write_bytes(key_pem(key))
        return files

    def enrolled(self, device: str) -> tuple[ec.EllipticCurvePrivateKey, TlsFiles]:
        """Enrol a device that has a token; the port is open."""
        key = new_key()
        status, answer = self.enrol(device, self.token(device), key)
        assert status == 200, answer
        return key, self.files(device, key, answer["certificate"])
