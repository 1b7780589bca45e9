"""What it costs a device to ask whether anything is new, and to fetch a small release: bytes of bodies, and of all.

    python benchmarks/update_poll.py

The real packages site over TLS with a certificate of the fleet on both sides; between it and the device a proxy counts
what goes over the wire, both ways. Each row is one process's worth of questions: one connection.

The second table says what a handshake alone takes, with the same certificates and without a network: what resuming
sessions would save if the site allowed it (`broker_server.sites.https`) and a device could keep a session from one
process to the next, which Python's `ssl.SSLSession` cannot. Where clients show certificates a ticket of TLS 1.3 holds
them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from broker_server.cli import CONFIG_NAME
from broker_server.cli import main as broker_server
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from edge_agent.slots.download import Parcel, fetch
from fd_protocol.targets import TargetFacts
from fd_runtime.tuf import root as tuf_root
from fd_runtime.tuf import targets as tuf_targets
from fd_runtime.tuf.client import TufClient
from fd_runtime.tuf.online import OnlineTrust
from fd_runtime.tuf.root import Changes
from fd_runtime.tuf.signing_keys import load_public, load_signer, make_key

DAY_S = 86_400
FACTS = TargetFacts("a" * 64, "mlp-s", "2", ("onnxruntime", "litert", "numpy"), 18, 1_000_000, "b" * 64)
PACKAGE = bytes(range(250)) * 100
RUN = "import sys; from broker_server.cli import main; sys.exit(main())"


@dataclass
class Count:
    """Bytes from the device, and to it."""

    sent: int = 0
    received: int = 0


class Proxy:
    """Passes connections on to `port`, and counts."""

    def __init__(self, port: int) -> None:
        self._port, self.count = port, Count()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                device, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pump, args=(device, server, "sent"), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, device, "received"), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):  # either side has gone
            while data := source.recv(1 << 16):
                setattr(self.count, name, getattr(self.count, name) + len(data))
                sink.sendall(data)
        for one in (source, sink):
            one.close()


@contextmanager
def site(folder: Path, port: int) -> Iterator[ssl.SSLContext]:
    """Serve the packages of a federation with certificates of its own; yield how a device connects."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    authority = Authority.create(folder / "pki", fleet="demo", now=now)
    server = authority.issue(Identity("packages", Role.BROKER, ("127.0.0.1",)), folder / "server", now=now)
    device = authority.issue(Identity("kettle", Role.DEVICE), folder / "device", now=now)
    config = folder / CONFIG_NAME
    before, after = config.read_text().split("[packages]")
    tls = f'[packages.tls]\ncertificate = "{server.certificate}"\nkey = "{server.key}"'
    lines = f'port = {port}\nca = "{server.ca}"\n{tls}'
    config.write_text(f"{before}[packages]\n{lines}\n[dashboard]{after.split('[dashboard]', 1)[1]}")
    process = subprocess.Popen([sys.executable, "-c", RUN, "packages", "--config", str(config)])
    try:
        tls = ssl.create_default_context(cafile=device.ca)
        tls.load_cert_chain(device.certificate, device.key)
        yield tls
    finally:
        process.terminate()
        process.wait(30)


def signed(folder: Path, now_s: float) -> tuple[OnlineTrust, bytes, str]:
    """Return a server's trust with one package vouched for, what devices are born with, and the package's name."""
    keys, work = folder / "keys", folder / "signed"
    keys.mkdir()
    for name in ("root-1", "root-2", "root-3", "targets", "online"):
        make_key(keys / name)
    roots = [load_public(keys / f"root-{number}.pub") for number in (1, 2, 3)]
    changes = Changes(roots, 2, load_public(keys / "targets.pub"), load_public(keys / "online.pub"))
    tuf_root.draft(work, changes, now_s)
    for name in ("root-1", "root-2"):
        tuf_root.sign(work, load_signer(keys / name))
    tuf_targets.renew(work, load_signer(keys / "targets"), students="mlp-s", now_s=now_s)
    target = tuf_targets.add(work, load_signer(keys / "targets"), PACKAGE, FACTS, now_s=now_s)
    (work / "blobs").mkdir()
    (work / "blobs" / target.package).write_bytes(PACKAGE)
    web = folder / "state" / "releases" / "web" / "v1"
    online = OnlineTrust(web / "tuf", web / "blobs", load_signer(keys / "online"))
    online.take_in(work, now_s)
    return online, (work / "1.root.json").read_bytes(), target.name


def handshakes(folder: Path) -> Iterator[tuple[str, int, int, bool]]:
    """Yield (how, bytes from the device, bytes to it, whether the server knows the device's certificate afterwards)."""
    client = ssl.create_default_context(cafile=folder / "device" / "ca.pem")
    client.load_cert_chain(folder / "device" / "kettle.pem", folder / "device" / "kettle.key")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server" / "packages.pem", folder / "server" / "packages.key")
    server.load_verify_locations(folder / "device" / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.num_tickets = 0
    row, _ = _shake_hands(client, server, None)
    yield "the first, as the site is: no tickets", *row
    server.num_tickets = 1
    row, session = _shake_hands(client, server, None)
    yield "the first, with a ticket for the next", *row
    row, _ = _shake_hands(client, server, session)
    yield "resumed by that ticket, with one for the next", *row


def _shake_hands(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[tuple[int, int, bool], ssl.SSLSession | None]:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    device_in, site_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    device = client.wrap_bio(device_in, to_server, server_hostname="127.0.0.1", session=session)
    site = server.wrap_bio(site_in, to_client, server_side=True)
    sent = received = 0
    for turn in (device.do_handshake, site.do_handshake) * 4:
        with contextlib.suppress(ssl.SSLWantReadError):
            turn()
        up, down = to_server.read(), to_client.read()
        sent, received = sent + len(up), received + len(down)
        site_in.write(up)
        device_in.write(down)
    with contextlib.suppress(ssl.SSLWantReadError):  # tickets come after the handshake
        device.read(1)
    if session is not None and not device.session_reused:
        raise RuntimeError("the session was not resumed: these bytes tell nothing")
    return (sent, received, bool(site.getpeercert())), device.session


def wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.1)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker_server(["init", str(folder), "--federation", "demo", "--trust", "none"])
        now_s = time.time()
        online, root, package = signed(folder, now_s)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        proxy = Proxy(port)
        url = f"https://127.0.0.1:{proxy.port}"
        rows: list[tuple[str, int, int, int, int]] = []

        def ask(what: str, *, fetches: bool = False) -> None:
            proxy.count = Count()
            client = TufClient(folder / "device", root, url, tls)
            client.refresh()
            found = client.find([package]) if fetches else None
            body = client.traffic.body_bytes
            if found is not None:
                parcel = Parcel(f"{url}/v1/blobs/{found.package}", found.package, found.package_bytes)
                fetch(parcel, folder / "part", tls=tls)
                body += found.package_bytes
            time.sleep(0.3)  # the last bytes pass the proxy
            rows.append((what, client.traffic.requests, body, proxy.count.sent, proxy.count.received))

        with site(folder, port) as tls:
            wait_for(port)
            ask(f"the first release, {len(PACKAGE):,} bytes", fetches=True)
            ask("poll, nothing is new")
            online.tend(now_s + 2 * DAY_S)
            ask("poll, the server has signed again")
        proxy.close()
        sizes = {path.name: path.stat().st_size for path in sorted((folder / "device").glob("*.json"))}
        print("bytes of documents:", ", ".join(f"{name} {size}" for name, size in sizes.items()))
        print(f"{'':38} requests  bodies    sent  received (TLS, handshake and heads included)")
        for what, requests, body, sent, received in rows:
            print(f"{what:38} {requests:8} {body:7} {sent:7} {received:9}")
        print()
        print(f"{'handshake alone, TLS 1.3':54}    sent  received  the server knows the device's certificate")
        for how, sent, received, knows in handshakes(folder):
            print(f"{how:54} {sent:7} {received:9}  {'yes' if knows else 'no'}")


if __name__ == "__main__":
    main()
