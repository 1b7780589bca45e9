"""Who is attacked: a real `broker-server run` and a real `edge-agent run`, by TLS at the broker of a `Ground`.

After every attack they must be what they were: the same processes, never cut off, and the next round ends as all do.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker_server.cli import CONFIG_NAME
from broker_server.core.federation import Federation
from broker_server.identity.certificates import Role
from broker_server.journal import Journal
from broker_server.records.quarantine import Quarantine
from fd_runtime.links.link import TlsFiles
from fd_runtime.storage.store import Store, StoreError
from tests.attacks.ground import VICTIM, Ground
from tests.edge_agent.processes import AgentProcess, settings_text
from tests.support.brokers import AGGREGATOR, FEDERATION
from tests.support.patience import wait_until

_SERVER = """
federation = "{federation}"
aggregator = "{aggregator}"
trust = "none"
artifacts = {{ public_set = "dev-1/public", bundle = "dev-1/bundle" }}
state = {{ folder = "state" }}
rounds = {{ minimum_online = 1, quorum = 1, pause_s = 0.2, duration_s = 10 }}
student = {{ enabled = false }}
[broker]
host = "localhost"
port = {port}
{tls}
"""
_RUN = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())", "run", "--config"]
_START_S = 120.0


def _tls(files: TlsFiles) -> str:
    return f'[broker.tls]\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'


class Victims:
    """A server and a device in rounds without end."""

    def __init__(self, ground: Ground) -> None:
        self.ground, folder = ground, ground.folder
        self.is_weak = False
        """Whether an attacker has been given what the row's control gives."""
        self.counted: dict[str, str] = {}
        device = settings_text(ground.port, device__id=VICTIM, broker__host="localhost")
        self.agent = AgentProcess(folder / VICTIM, ground.port, settings=f"{device}\n{_tls(ground.files(VICTIM))}")
        self.folder, self.log = folder / "state", folder / "server.log"
        config = folder / CONFIG_NAME
        tls = _tls(ground.files(AGGREGATOR, Role.AGGREGATOR))
        config.write_text(_SERVER.format(federation=FEDERATION, aggregator=AGGREGATOR, port=ground.port, tls=tls))
        with self.log.open("ab") as log:
            self.server = subprocess.Popen([*_RUN, config], stderr=log)
        self.agent.start()

    @property
    def state(self) -> Federation | None:
        """What the server would find at a restart."""
        with suppress(StoreError), Store.view(self.folder / "server.db") as store:
            return Journal(store, FEDERATION).replay()
        return None

    def quarantined(self) -> int:
        with Store.view(self.folder / "server.db") as store:
            return Quarantine(store, FEDERATION).count()

    def hearings(self, device: str) -> list[tuple[int, str, str]]:
        """Return (round, status, reason) of all that a device has sent, as the server's records tell it."""
        with Store.view(self.folder / "server.db") as store:
            rows = store.rows("hearings", {"fed": FEDERATION, "device": device}, "round")
        return [(row["round"], row["status"], row["reason"]) for row in rows]

    def play(self) -> None:
        """Wait until a round that was offered after this call has ended in a consensus."""
        begun = wait_until(lambda: self.state, _START_S).number
        wait_until(
            lambda: (
                (state := self.state) is not None
                and state.consensus is not None
                and state.consensus.round.number > begun
            ),
            _START_S,
        )

    def peak_mb(self) -> float:
        """Most memory that the server has had, in MB."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def harm(self) -> list[str]:
        """Return what the attack has cost; nothing, if all is well. Ends when a further round has ended."""
        harm = []
        if self.ground.fleet.broker._process is None or self.ground.fleet.broker._process.poll() is not None:
            harm.append("the broker ended")
        if self.server.poll() is not None:
            harm.append("the server ended")
        if self.agent.process.poll() is not None:
            harm.append("the device ended")
        if harm:
            return harm
        self.play()
        if "broker lost" in self.log.read_text():
            harm.append("the server was cut off")
        if "not connected" in self.agent.log.read_text():
            harm.append("the device was cut off")
        told = self.agent.wait_for_standing(lambda standing: standing.vitals is not None)
        if told.vitals.worker_starts > 1:
            harm.append("the device's worker ended")
        return harm

    def end(self) -> None:
        self.agent.end()
        self.server.terminate()
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()


@contextmanager
def victims(ground: Ground) -> Iterator[Victims]:
    """Start them, and return once a first round has ended."""
    begun_s = time.monotonic()
    made = Victims(ground)
    try:
        made.play()
        print(f"victims stand after {time.monotonic() - begun_s:.1f} s")  # noqa: T201
        yield made
    finally:
        made.end()
