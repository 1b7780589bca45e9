"""Signing keys, ceremonies and a web server for devices, all of them real: what a fleet's owner has, in a folder."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fd_protocol.targets import TargetFacts
from fd_runtime.tuf import root as tuf_root
from fd_runtime.tuf import targets as tuf_targets
from fd_runtime.tuf.client import TufClient
from fd_runtime.tuf.online import OnlineTrust
from fd_runtime.tuf.root import Changes
from fd_runtime.tuf.signing_keys import load_public, load_signer, make_key

NOW = time.time()
DAY = 86_400
FACTS = TargetFacts("a" * 64, "mlp-s", "2", ("onnxruntime",), 18, 1000, "b" * 64)


class Trust:
    """A fleet's keys in `folder`/keys, its workstation's documents in `folder`/signed, its server's in `folder`/web.

    Root is 2 of 3.
    """

    def __init__(self, folder: Path, family: str = "mlp-s", now_s: float = NOW):
        self.folder, self.family = folder, family
        self.keys, self.signed, self.web = folder / "keys", folder / "signed", folder / "releases" / "web"
        self.keys.mkdir(parents=True)
        for name in ("root-1", "root-2", "root-3", "targets", "online"):
            make_key(self.keys / name)
        self.begin(now_s)

    def begin(self, now_s):
        roots = [self.public(f"root-{number}") for number in (1, 2, 3)]
        changes = Changes(roots, 2, self.public("targets"), self.public("online"))
        tuf_root.draft(self.signed, changes, now_s)
        self.sign("root-1", "root-3")
        tuf_targets.renew(self.signed, self.signer("targets"), students=self.family, now_s=now_s)

    def public(self, name):
        return load_public(self.keys / f"{name}.pub")

    def signer(self, name):
        return load_signer(self.keys / name)

    def sign(self, *names):
        return [tuf_root.sign(self.signed, self.signer(name)) for name in names][-1]

    @property
    def root(self) -> bytes:
        """What devices are born with."""
        return (self.signed / "1.root.json").read_bytes()

    @property
    def documents(self) -> Path:
        return self.web / "v1" / "tuf"

    @property
    def blobs(self) -> Path:
        return self.web / "v1" / "blobs"

    @property
    def online(self) -> OnlineTrust:
        return OnlineTrust(self.documents, self.blobs, self.signer("online"))

    def add(self, package: bytes, facts: TargetFacts = FACTS, now_s: float = NOW):
        """Vouch for a package on the workstation."""
        target = tuf_targets.add(self.signed, self.signer("targets"), package, facts, now_s=now_s)
        blobs = self.signed / "blobs"
        blobs.mkdir(exist_ok=True)
        (blobs / target.package).write_bytes(package)
        return target

    def deliver(self, now_s: float = NOW):
        return self.online.take_in(self.signed, now_s)

    def client(self, device: Path, url: str, **terms) -> TufClient:
        return TufClient(device, self.root, url, **terms)


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder: Path):
    """Yield the address of a web server over a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Dripping:
    """A server that gives the head of an answer, and then a byte every tenth of a second."""

    def __enter__(self):
        self._given, self._end = [], threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}", self._given

    def __exit__(self, *_):
        self._end.set()
        self._socket.close()

    def _serve(self):
        try:
            connection, _ = self._socket.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not self._end.wait(0.1):
                connection.sendall(b" ")
                self._given.append(1)
        except OSError:
            return
