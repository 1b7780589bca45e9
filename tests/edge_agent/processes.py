"""A real `edge-agent` process at a real broker, with a server whose every word a test decides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_agent.process import standing as standings
from edge_agent.round.journal import Journal
from edge_agent.round.participant import Phase
from fd_protocol import codec, topics
from fd_protocol.identity import sha256
from fd_protocol.messages import (
    Codec,
    ConsensusBlock,
    DeviceState,
    Kind,
    Part,
    Receipt,
    RoundReport,
    Slice,
    Status,
    TrainingTerms,
)
from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.artifacts import PublicSet, load_public_set
from fd_runtime.links.link import Arrived, LinkDown, LinkSettings, LinkUp
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.storage.store import Store, StoreError
from tests.edge_agent.artifacts import CLASSES, TASK, write_bundle, write_private, write_public_set
from tests.edge_agent.builders import FEDERATION, offer, round_id
from tests.support.patience import wait_until

DEVICE = "dev-1"
TOPICS = topics.Topics(FEDERATION)
TERMS = TrainingTerms(epochs=2, learning_rate=5e-3, warm_up_epochs=2)
LONG = 1000
"""Epochs that take seconds: time to be killed in."""


class ScriptedServer:
    """Hears everything that devices say, says what the test tells it to."""

    def __init__(self, settings: LinkSettings, public: PublicSet):
        self.link = MqttLink(settings)
        self.slice = Slice(public.digest, 0, public.spec.count, CLASSES)
        self.parts: list[Part] = []
        self.states: list[DeviceState] = []
        self.reports: list[RoundReport] = []
        self.is_up = False

    def hear(self):
        while not self.link.events.empty():
            match self.link.events.get():
                case Arrived(topic, payload):
                    self._sort(topics.parse(topic).leaf, payload)
                case LinkUp():
                    self.is_up = True
                case LinkDown():
                    self.is_up = False

    def _sort(self, leaf, payload):
        match leaf:
            case "up":
                self.parts.append(codec.decode(payload, Part))
            case "state":
                self.states.append(codec.decode(payload, DeviceState))
            case "report":
                self.reports.append(codec.decode(payload, RoundReport))

    def wait(self, claim):
        def check():
            self.hear()
            return claim()

        return wait_until(check)

    def say(self, topic, message, *, retain=False):
        self.link.publish(topic, codec.encode(message), retain=retain)

    def offer(self, number=1, *, training=TERMS, **changes):
        asked = offer(number, slice=self.slice, task=TASK.digest, remaining_s=3600, training=training)
        self.say(TOPICS.round, replace(asked, **changes), retain=True)

    def contribution(self, number=1):
        """Wait for the contribution to a round and return its part."""
        wanted = round_id(number)
        return self.wait(
            lambda: next((p for p in self.parts if (p.round, p.kind) == (wanted, Kind.CONTRIBUTION)), None)
        )

    def receipt(self, part, status=Status.STORED):
        self.say(TOPICS.receipt(DEVICE), Receipt(part.round, part.kind, part.payload_sha256, status))

    def consensus(self, number=1):
        labels = np.arange(self.slice.count) % CLASSES
        logits = np.eye(CLASSES, dtype=np.float32)[labels] * number
        body = encode_body(quantise(SoftLabels.of(logits, 2.0), Codec.U8_SQRT))
        block = ConsensusBlock(round_id(number), sha256(body), 0, 1, self.slice, 2.0, Codec.U8_SQRT, body)
        self.say(TOPICS.consensus(0), block, retain=True)

    def report(self, number=1):
        return self.wait(lambda: next((r for r in self.reports if r.round == round_id(number)), None))

    def payloads(self, number=1):
        """Digests of all contributions that came for a round."""
        self.hear()
        return {p.payload_sha256 for p in self.parts if (p.round, p.kind) == (round_id(number), Kind.CONTRIBUTION)}


class AgentProcess:
    """A device in a folder of its own."""

    def __init__(self, folder: Path, port: int, rows=600, settings=None, python=sys.executable, environment=None):
        self.folder, self.log, self.python = folder, folder / "log", python
        self.environment = {**os.environ, **(environment or {})}
        folder.mkdir(parents=True, exist_ok=True)
        write_bundle(folder / "bundle")
        self.public = load_public_set(write_public_set(folder / "public"))
        write_private(folder / "private.npz", rows)
        self.config = folder / "agent.toml"
        self.config.write_text(settings or settings_text(port))
        self.process: subprocess.Popen | None = None

    def start(self):
        with self.log.open("ab") as log:
            command = [self.python, "-m", "edge_agent.cli", "run", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stderr=log, cwd=self.folder, env=self.environment)
        return self

    def standing(self):
        """How it says that it is; None: it says nothing."""
        return standings.load(self.folder / "state" / "standing.json")

    def wait_for_standing(self, claim):
        """Return the first standing of which `claim` holds."""
        return wait_until(lambda: (standing := self.standing()) is not None and claim(standing) and standing)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def state(self):
        """The state as a restart would find it; None before there is any."""
        try:
            with closing(Store.open(self.folder / "state" / "agent.db")) as store:
                return Journal(store, FEDERATION).replay()
        except StoreError:  # being made this very moment
            return None

    def wait_for(self, phase: Phase):
        wait_until(lambda: (state := self.state()) is not None and state.phase is phase)

    def worker_ids(self):
        """Process ids of the workers of this device, orphans too."""
        marks = ("edge_agent.worker_process", str(self.config))
        return [pid for pid in _process_ids() if all(mark in _command_line(pid) for mark in marks)]

    @contextmanager
    def held_worker(self):
        """Inside the block the worker stands still: no machine is too slow to see a phase in which it has work.

        It may be ended meanwhile: a supervisor that is told to restart it does that.
        """
        pids = wait_until(self.worker_ids)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def held(self):
        """Inside the block the agent stands still; its worker does not."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill_worker(self):
        for pid in wait_until(self.worker_ids):
            os.kill(pid, signal.SIGKILL)

    @property
    def checkpoint(self):
        return self.folder / "state" / "checkpoint"


def settings_text(port, **changes):
    lines = {
        "device": {"id": DEVICE, "federation": FEDERATION},
        "broker": {"host": "127.0.0.1", "port": port},
        "model": {"bundle": "bundle", "public_set": "public", "runtime": "numpy"},
        "data": {"private": "private.npz"},
        "state": {"folder": "state"},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        lines.setdefault(section, {})[key] = value
    quoted = {
        section: {k: f'"{v}"' if isinstance(v, str) else v for k, v in keys.items()} for section, keys in lines.items()
    }
    return "\n".join(
        f"[{section}]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items()) for section, keys in quoted.items()
    )


def _process_ids():
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
