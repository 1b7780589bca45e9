"""What an identity costs: to enrol, to connect with it, to renew it, to end it.

    python benchmarks/identity.py [--devices 20] [--write]

A real HTTPS port (`broker-server packages`), the shipped Mosquitto configuration, and the errand of `edge-agent` in a
process of its own, as the device starts it: key, request, answer, certificate on the disk. Times are walls of this
machine; `--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import io
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from publish import publish

from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.brokers.mosquitto import MosquittoSettings, mosquitto_process, write_config
from broker_server.cli import CONFIG_NAME
from broker_server.cli import main as broker_server
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from broker_server.identity.desk import Desk
from broker_server.identity.settings import EnrolmentSettings
from fd_protocol.topics import Topics
from fd_runtime.links.link import LinkDown, LinkSettings, LinkUp, Published, TlsFiles
from fd_runtime.links.mqtt_link import MqttLink

FEDERATION, AGGREGATOR = "bench", "agg-1"
TOPICS = Topics(FEDERATION)
CONNECTS = 50
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Row:
    what: str
    goal: str
    seconds: list[float]

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        middle, slow = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
        return f"| {self.what} | {len(ordered)} | {1000 * middle:,.0f} | {1000 * slow:,.0f} | {self.goal} |"


@dataclass(frozen=True)
class Place:
    """A fleet in a folder: authority, HTTPS port, broker."""

    folder: Path
    port: int
    broker_port: int

    @property
    def authority(self) -> Authority:
        return Authority(self.folder / "pki")

    @property
    def desk(self) -> Desk:
        return Desk.of(EnrolmentSettings(enabled=True, authority=self.authority.folder))

    @property
    def config(self) -> Path:
        return self.folder / "server" / CONFIG_NAME

    def device(self, name: str) -> Path:
        """Write the settings of a blank device with a token."""
        folder = self.folder / name
        folder.mkdir()
        token, _ = self.desk.make_token(name, timedelta(hours=1), now=now(), who="benchmark")
        (folder / "enrolment.token").write_text(token)
        path = folder / "agent.toml"
        path.write_text(f"""[device]
id = "{name}"
federation = "{FEDERATION}"
[broker]
host = "localhost"
port = {self.broker_port}
[enrolment]
url = "https://{LOOPBACK}:{self.port}"
ca_file = "{self.authority.root_path}"
token_file = "enrolment.token"
[model]
bundle = "bundle"
[state]
folder = "state"
""")
        return path

    def files(self, path: Path) -> TlsFiles:
        identity = path.parent / "state" / "identity"
        return TlsFiles(self.authority.root_path, identity / "device.pem", identity / "device.key")


def now() -> datetime:
    return datetime.now(timezone.utc)


@contextmanager
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        here = Place(Path(name), free_port(), free_port())
        authority = Authority.create(here.authority.folder, fleet=FEDERATION, now=now())
        https = authority.issue(Identity("https", Role.BROKER, (LOOPBACK,)), here.folder / "https", now=now())
        broker = authority.issue(Identity("broker", Role.BROKER, ("localhost",)), here.folder / "broker", now=now())
        agg = authority.issue(Identity(AGGREGATOR, Role.AGGREGATOR), here.folder / "agg", now=now())
        settings = MosquittoSettings(
            here.folder / "broker", broker, authority.crl_path, port=here.broker_port, user=getpass.getuser()
        )
        config = write_config(settings, federation=FEDERATION, aggregator=AGGREGATOR)
        stack.enter_context(mosquitto_process(config, here.broker_port))
        _write_settings(here, https, agg)
        stack.enter_context(_serving(here))
        yield here


def _write_settings(here: Place, https: TlsFiles, agg: TlsFiles) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        broker_server(["init", str(here.config.parent), "--federation", FEDERATION, "--trust", "none"])
    text = here.config.read_text()
    head, rest = text.split("[broker]")
    middle, tail = rest.split("[packages]")
    rounds = middle.split("[rounds]", 1)[1]
    here.config.write_text(f"""{head}[broker]
host = "localhost"
port = {here.broker_port}
[broker.tls]
ca = "{agg.ca}"
certificate = "{agg.certificate}"
key = "{agg.key}"
[rounds]{rounds}[packages]
port = {here.port}
[packages.tls]
certificate = "{https.certificate}"
key = "{https.key}"
[enrolment]
enabled = true
authority = "{here.authority.folder}"
broker_pid_file = "{here.folder / "broker" / "mosquitto.pid"}"
[dashboard]{tail.split("[dashboard]", 1)[1]}""")


@contextmanager
def _serving(here: Place) -> Iterator[None]:
    program = "import sys; from broker_server.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "packages", "--config", str(here.config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, here.port)):
                break
            time.sleep(0.05)
        try:
            yield
        finally:
            process.terminate()


def cpu_s() -> float:
    """Return the processor's seconds of all children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def errand(path: Path, kind: str) -> float:
    """Send the errand and return the seconds that it took, of which the start of its interpreter is one part."""
    command = [sys.executable, "-m", "edge_agent.enrolment.errand", str(path), kind]
    began_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - began_s
    assert json.loads(done.stdout)["ending"] == "done"
    return took_s


def peak_mb(path: Path) -> float:
    """Return the most memory that an errand had resident, MB."""
    program = (
        "import sys; from edge_agent.enrolment.errand import main; main(sys.argv[1:]); "
        "print(open('/proc/self/status').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), "renew"], capture_output=True, text=True, check=True
    )
    found = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def first_publish(here: Place, name: str, path: Path) -> float:
    """Return the seconds from nothing to a publish that the broker has acknowledged."""
    settings = LinkSettings(name, host="localhost", port=here.broker_port, tls=here.files(path))
    began_s = time.perf_counter()
    link = MqttLink(settings)
    try:
        link.publish(TOPICS.report(name), bytes(1000))
        _await(link, Published)
        return time.perf_counter() - began_s
    finally:
        link.close()


def revocation(here: Place, name: str, path: Path) -> float:
    """Return the seconds of `devices revoke`, to the end of the device's session."""
    link = MqttLink(LinkSettings(name, host="localhost", port=here.broker_port, tls=here.files(path)))
    try:
        _await(link, LinkUp)
        began_s = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            assert broker_server(["devices", "revoke", name, "--config", str(here.config)]) == 0
        took_s = time.perf_counter() - began_s
        _await(link, LinkDown)
        return took_s
    finally:
        link.close()


def _await(link: MqttLink, kind: type) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not isinstance(link.events.get(timeout=end_s - time.monotonic()), kind):
        pass


def measure(here: Place, devices: int, tell: Callable[[str], None]) -> list[str]:
    names = [f"dev-{number}" for number in range(devices)]
    paths = {name: here.device(name) for name in names}
    tell("enrolling")
    before_s = cpu_s()
    enrolled = [errand(paths[name], "enrol") for name in names]
    errand_s = (cpu_s() - before_s) / devices
    errand_mb = peak_mb(paths[names[0]])
    tell("connecting")
    connected = [first_publish(here, names[0], paths[names[0]]) for _ in range(CONNECTS)]
    tell("renewing")
    renewed = [errand(paths[name], "renew") for name in names]
    tell("revoking")
    revoked = [revocation(here, name, paths[name]) for name in names[: max(1, devices // 4)]]
    rows = [
        Row("enrolment: from a blank device to its certificate on the disk", "2,000", enrolled),
        Row("mTLS connection and first publish, acknowledged", "300", connected),
        Row("renewal over mTLS", "", renewed),
        Row("`devices revoke`, to the end of the session", "", revoked),
    ]
    return [
        "| ms | times | median | 95 % | goal |",
        "|---|---|---|---|---|",
        *map(str, rows),
        "",
        f"An errand takes {1000 * errand_s:,.0f} ms of a processor and {errand_mb:.0f} MB, and is gone afterwards.",
        f"Load of the machine meanwhile: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    with place() as here:
        lines = measure(here, arguments.devices, lambda text: print(text, file=sys.stderr))
    body = "\n".join(lines)
    print(body)
    if arguments.write:
        publish("identity", "python benchmarks/identity.py --write", body)


if __name__ == "__main__":
    main()
