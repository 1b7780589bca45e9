"""A Flower deployment on this machine as its documentation sets one up: SuperLink with TLS and a database, SuperNodes.

    link/  state.db  home/config.toml       results of an app: results/round-N.npz       logs/

Where the documentation leaves a choice, it is the one that costs Flower least: `--isolation subprocess` (the default),
no telemetry and no look for a newer version, no installation of an app's dependencies at run time (the environment has
them), no federated evaluation (it would be a second message to every client each round), SuperNodes known by the
signature that every one has of itself (a list of public keys would cost nothing more on the wire).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gauges import quiet_tree

from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from fd_runtime.links.link import TlsFiles
from fleet_sim.real.processes import Program, stop_all
from fleet_sim.real.wire_meter import WireMeter

APPS = Path(__file__).parent
PATIENCE_S = 900.0
_LOOK_S = 0.1
_CONNECTION = "bench"


@dataclass(slots=True)
class Deployment:
    """What runs: `nodes` in the order of `names`, `meter` between each and the SuperLink."""

    folder: Path
    names: tuple[str, ...]
    meter: WireMeter
    link: Program
    nodes: list[Program]
    run: Callable[..., Any]

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def online(self) -> int:
        nodes = self.run("supernode", "list")["nodes"]
        return sum(node["status"] == "online" for node in nodes)

    def submit(self, app: str, **settings: object) -> str:
        """Start a run of one of the apps here, with an empty folder for its results, and return its id."""
        shutil.rmtree(self.results, ignore_errors=True)
        self.results.mkdir()
        settings = {"results": str(self.results), "num-clients": len(self.names), **settings}
        text = " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in settings.items())
        return str(self.run("run", str(APPS / app), "--run-config", text)["run-id"])

    def status(self, run: str) -> tuple[str, str]:
        """Return the status of a run, and what is said of it."""
        (found,) = [one for one in self.run("list")["runs"] if one["run-id"] == run]
        return found["status"], found["status-details"]

    def finished(self) -> int:
        """Return the last round that is finished; -1 before the app has begun."""
        numbers = [int(path.stem.removeprefix("round-")) for path in self.results.glob("round-*.npz")]
        return max(numbers, default=-1)

    def wait(self, number: int, patience_s: float = PATIENCE_S) -> bool:
        """Wait for a round; False: it does not come.

        Raises:
            ProgramEndedError: the SuperLink or a SuperNode ended.
        """
        end_s = time.monotonic() + patience_s
        while self.finished() < number:
            for program in (self.link, *self.nodes):
                program.check()
            if time.monotonic() > end_s:
                return False
            time.sleep(_LOOK_S)
        return True

    def restart_link(self) -> None:
        """Kill the SuperLink as a power cut would, and start it again on its database."""
        self.link.kill()
        self.link.start_again()


@contextmanager
def deployed(
    folder: Path, environment: Path, data: Sequence[Path], modules: Path | None = None, *, is_metered: bool = True
) -> Iterator[Deployment]:
    """Start a SuperLink and a SuperNode for each file of `data`; everything is ended on leaving.

    Args:
        folder: new; takes everything.
        environment: with Flower and what its apps import.
        data: of each client.
        modules: a folder that apps import from, beside the environment.
        is_metered: whether a relay counts bytes. While the SuperLink is down a relay takes a connection and ends it,
            which a SuperNode takes for an error of TLS, and gives up; one that is refused it tries again.

    Raises:
        TimeoutError: they do not find each other.
    """
    names = tuple(f"node-{index}" for index in range(len(data)))
    for name in ("logs", "home"):
        (folder / name).mkdir(parents=True)
    port, tls = free_port(), _certificates(folder)
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "{_CONNECTION}"\n\n'
        f'[superlink.{_CONNECTION}]\naddress = "{LOOPBACK}:{port}"\nroot-certificates = "{tls.ca}"\n'
    )
    prefix = _prefix(folder, environment, modules)

    def program(name: str, *command: object) -> Program:
        return Program(name, [*prefix, *map(str, command)], folder / "logs" / f"{name}.log")

    def run(*command: str) -> Any:
        out = subprocess.run(
            [*prefix, "flwr", *command, "--format", "json"], capture_output=True, text=True, check=False
        )
        told = json.loads(out.stdout)
        if not told["success"]:
            raise RuntimeError(f"flwr {' '.join(command)}: {told['error-message']}")
        return told

    with WireMeter(port) as meter, ExitStack() as stack:
        link = program(
            "superlink",
            *("flower-superlink", "--port", port, "--database", folder / "state.db"),
            *("--ssl-ca-certfile", tls.ca, "--ssl-certfile", tls.certificate, "--ssl-keyfile", tls.key),
            "--disable-runtime-dependency-installation",
        )
        deployment = Deployment(folder, names, meter, link, [], run)
        stack.callback(lambda: _stop([*deployment.nodes, deployment.link]))
        _wait_for(lambda: _listens(port))
        for name, rows in zip(names, data, strict=True):
            node = program(
                name,
                *("flower-supernode", "--superlink", f"{LOOPBACK}:{meter.add(name) if is_metered else port}"),
                *("--root-certificates", tls.ca),
                *("--port", free_port(), "--node-config", f'dataset-path="{rows}"'),
            )
            deployment.nodes.append(node)
        _wait_for(lambda: deployment.online() == len(names))
        yield deployment


def _stop(programs: Sequence[Program]) -> None:
    """End all, and what a program has started and left behind: its end is a matter of seconds, or of none."""
    started = [pid for program in programs for pid in quiet_tree(program.pid)]
    stop_all(programs)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _prefix(folder: Path, environment: Path, modules: Path | None) -> list[str]:
    """Its own environment: no other modules, its own settings, one thread for each process as ours have."""
    settings = {
        **({"PYTHONPATH": modules} if modules else {}),
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "FLWR_HOME": folder / "home",
        "FLWR_TELEMETRY_ENABLED": 0,
        "FLWR_DISABLE_UPDATE_CHECK": 1,
    }
    return ["env", "-u", "PYTHONPATH", *(f"{key}={value}" for key, value in settings.items())]


def _certificates(folder: Path) -> TlsFiles:
    """An authority of our own, as for our broker; Flower's nodes have no certificates."""
    now = datetime.now(timezone.utc)
    authority = Authority.create(folder / "ca", fleet="flower", now=now)
    return authority.issue(Identity("link", Role.BROKER, (LOOPBACK, "localhost")), folder / "link", now=now)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait_for(claim: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not claim():
        if time.monotonic() > end_s:
            raise TimeoutError("the deployment does not come up")
        time.sleep(_LOOK_S)


def load() -> float:
    """Return the load of the machine, a mean over a minute."""
    return os.getloadavg()[0]
