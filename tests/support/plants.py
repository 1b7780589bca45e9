"""A plant: the fleet's authority, a Mosquitto as shipped, `broker-server run` with its HTTPS port, and a first device.

All of it real and on loopback of this machine. The first device is an `edge-agent run` of this machine's own processor;
who comes from elsewhere (a chroot, a virtual machine) is the second, and with both a round opens.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.brokers.mosquitto import MosquittoSettings, mosquitto_process, write_config
from broker_server.cli import CONFIG_NAME
from broker_server.commands.commanding import chronicle_of
from broker_server.core.round import Phase
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from broker_server.records.chronicle import HearingRecord
from fd_protocol.messages import Kind, Status
from model_export.public_set import build_public_set
from tests.support.identity import COMMAND, now
from tests.support.patience import wait_until
from tests.support.small_bundles import PICTURES, pictures, small_bundle

FEDERATION, AGGREGATOR, NEIGHBOUR = "plant-7", "agg-1", "press-1"
SERVER = COMMAND
AGENT = [sys.executable, "-m", "edge_agent.cli"]
MINUTES_S = 900.0
"""Patience with what an emulated processor does."""


_DEVICE = f"""[device]
id = "{{device}}"
federation = "{FEDERATION}"
[broker]
host = "{{host}}"
port = {{port}}
[model]
bundle = "bundle"
public_set = "public_set"
[data]
private = "private.npz"
[state]
folder = "/var/lib/fedistill"
runtime = "/run/fedistill"
"""


@dataclass
class Plant:
    """Where everything lies.

    Attributes:
        names: under which devices reach this machine, beside loopback.
        pause_s: from the end of a round to the next.
        count: number of the last round; 0 = no last one.
    """

    folder: Path
    names: tuple[str, ...] = ()
    pause_s: float = 5.0
    count: int = 0

    def __post_init__(self) -> None:
        self.mqtt, self.https = free_port(), free_port()
        self.authority = Authority.create(self.folder / "pki", fleet=FEDERATION, now=now())
        self.authority.root_key_path.rename(self.folder / "drawer.key")
        self.bundle = small_bundle(self.folder / "bundle")
        self.public = build_public_set(self.folder / "public_set", pictures(60, seed=5)[0], PICTURES, seed=3)
        self.config = self.folder / CONFIG_NAME
        self.config.write_text(self._settings())

    @property
    def ca(self) -> Path:
        return self.authority.root_path

    def _settings(self) -> str:
        agg = self.authority.issue(Identity(AGGREGATOR, Role.AGGREGATOR), self.folder / "agg", now=now())
        https = Identity("https", Role.BROKER, ("localhost", LOOPBACK, *self.names))
        web = self.authority.issue(https, self.folder / "https", now=now())
        return f"""federation = "{FEDERATION}"
aggregator = "{AGGREGATOR}"
trust = "none"
[artifacts]
bundle = "bundle"
public_set = "public_set"
[state]
folder = "state"
[broker]
host = "localhost"
port = {self.mqtt}
[broker.tls]
ca = "{agg.ca}"
certificate = "{agg.certificate}"
key = "{agg.key}"
[rounds]
pause_s = {self.pause_s}
count = {self.count}
[training]
epochs = 1
warm_up_epochs = 2
[packages]
enabled = true
port = {self.https}
ca = "pki/root.pem"
crl = "pki/crl.pem"
[packages.tls]
certificate = "{web.certificate}"
key = "{web.key}"
[enrolment]
enabled = true
authority = "pki"
"""

    @contextmanager
    def open(self) -> Iterator[Plant]:
        """Broker, server and first device run until the block ends."""
        broker = Identity("broker", Role.BROKER, ("localhost", LOOPBACK, *self.names))
        tls = self.authority.issue(broker, self.folder / "broker", now=now())
        settings = MosquittoSettings(
            self.folder / "broker", tls, self.authority.crl_path, port=self.mqtt, user=getpass.getuser()
        )
        with ExitStack() as stack:
            config = write_config(settings, federation=FEDERATION, aggregator=AGGREGATOR)
            stack.enter_context(mosquitto_process(config, self.mqtt))
            stack.enter_context(started([*SERVER, "run", "--config", self.config], self.folder / "server.log"))
            wait_until((self.folder / "state" / "server.db").exists, MINUTES_S)
            stack.enter_context(self._neighbour())
            yield self

    def _neighbour(self) -> Any:
        folder = self.folder / NEIGHBOUR
        tls = self.authority.issue(Identity(NEIGHBOUR, Role.DEVICE), folder, now=now())
        write_rows(folder / "private.npz", seed=8)
        (folder / "agent.toml").write_text(
            f"""[device]
id = "{NEIGHBOUR}"
federation = "{FEDERATION}"
[broker]
host = "localhost"
port = {self.mqtt}
[broker.tls]
ca = "{tls.ca}"
certificate = "{tls.certificate}"
key = "{tls.key}"
[model]
bundle = "{self.folder}/bundle"
public_set = "{self.folder}/public_set"
[data]
private = "private.npz"
[state]
folder = "state"
"""
        )
        return started([*AGENT, "run", "--config", folder / "agent.toml"], folder / "log")

    # What an operator says and sees.

    def operator(self, *words: str) -> str:
        """Return what `broker-server WORDS` prints."""
        command = [*SERVER, *words, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def token(self, device: str) -> str:
        return self.operator("devices", "token", device).split()[0]

    def card(
        self, blank: Path, device: str, *, package: Path, host: str, out: Path, ssh_key: Path | None = None
    ) -> Path:
        """Have `edge-agent flash` make the card of a device that gets its certificate for a token; return the image.

        host: this machine's name, as the device knows it.
        """
        folder = out.parent / f"{device}-order"
        folder.mkdir(parents=True)
        (folder / "agent.toml").write_text(_DEVICE.format(device=device, host=host, port=self.mqtt))
        (folder / "token").write_text(self.token(device))
        options = {
            "config": folder / "agent.toml",
            "ca": self.ca,
            "token-file": folder / "token",
            "enrol": f"https://{host}:{self.https}",
            "package": package,
            "bundle": self.folder / "bundle",
            "public-set": self.folder / "public_set",
            "add": write_rows(folder / "private.npz", seed=9),
            "out": out,
            **({"ssh-key": ssh_key} if ssh_key else {}),
        }
        told = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [*AGENT, "flash", str(blank), "--device", device, *told]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    def heard(self) -> dict[int, list[str]]:
        """Return, by the number of each round that has a consensus, whose contributions are in it."""
        with chronicle_of(self.config) as chronicle:
            closed = [one for one in chronicle.rounds() if one.phase == Phase.CLOSED.value]
            return {one.number: _contributors(chronicle.hearings(one.epoch, one.number)) for one in closed}

    def audit(self, device: str) -> list[str]:
        """Return what the authority did for a device."""
        lines = (json.loads(line) for line in (self.authority.folder / "audit.log").read_text().splitlines())
        return [line["done"] for line in lines if line.get("device") == device]


def _contributors(hearings: Sequence[HearingRecord]) -> list[str]:
    stored = (Kind.CONTRIBUTION.name.lower(), Status.STORED.name.lower())
    return sorted({one.device for one in hearings if (one.kind, one.status) == stored})


def write_rows(path: Path, *, seed: int) -> Path:
    """Write private rows, of which there are enough for a tail to learn from."""
    samples, labels = pictures(120, seed=seed)
    np.savez(path, x=samples, y=labels)
    return path


@contextmanager
def started(command: list[Any], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this machine that runs until the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file, env=dict(os.environ))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
