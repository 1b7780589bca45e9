"""A device in a folder of its own that lacks nothing but a broker, and the program as its owner types it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent import presence
from edge_agent.care.vitals import Vitals
from edge_agent.cli import main
from edge_agent.process import standing as standings
from edge_agent.process.standing import Standing
from edge_agent.round.events import OfferReceived, Predicted, Submission, WarmedUp
from edge_agent.round.journal import Journal
from fd_protocol.identity import sha256
from fd_runtime.starting import exclusive
from fd_runtime.storage.store import Store
from tests.edge_agent.artifacts import write_bundle, write_private, write_public_set
from tests.edge_agent.builders import FEDERATION, offer
from tests.edge_agent.processes import settings_text

PAYLOAD = b"soft labels of this device"


@dataclass
class Home:
    """A device that is stopped."""

    folder: Path
    capsys: pytest.CaptureFixture

    @property
    def config(self):
        return self.folder / "agent.toml"

    @property
    def state(self):
        return self.folder / "state"

    def type(self, *words):
        """Give a command; return (exit code, standard output, standard error)."""
        self.capsys.readouterr()
        try:
            code = main([*words, "--config", str(self.config)])
        except SystemExit as ended:
            code = ended.code
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *words):
        code, out, err = self.type(*words, "--json")
        assert code in (0, 1), err
        return json.loads(out)

    def live(self, *, waiting=False):
        """The device has run once, and is in the middle of a round where `waiting`."""
        self.state.mkdir(exist_ok=True)
        with closing(Store.open(self.state / "agent.db")) as store:
            presence.begin_life(store)
            journal = Journal(store, FEDERATION)
            journal.replay()
            if waiting:
                asked = offer(remaining_s=3600)
                submission = Submission(sha256(PAYLOAD), sha256(b"codes"), sha256(PAYLOAD))
                journal.write([OfferReceived(asked, 0), WarmedUp()], (), 0)
                journal.write([Predicted(asked.round, submission)], (PAYLOAD, b"codes"), 0)
        return self

    def says(self, *, standing=None, **changes):
        """The supervisor has said how it is; `standing` beyond its vitals."""
        self.state.mkdir(exist_ok=True)
        base = {"is_connected": True, "is_worker_ready": True, "worker_starts": 1}
        vitals = Vitals(**{"pid": 0, "boot": 1, "since_utc_s": 0, **base, **changes})
        standings.save(self.state / "standing.json", Standing(vitals, "idle", **(standing or {})))
        return self

    def running(self):
        """Inside, a supervisor holds the folder."""
        self.state.mkdir(exist_ok=True)
        return exclusive(self.state / "agent.lock")


@pytest.fixture
def home(tmp_path, capsys):
    folder = tmp_path / "home"
    folder.mkdir()
    write_bundle(folder / "bundle")
    write_public_set(folder / "public")
    write_private(folder / "private.npz", 60)
    (folder / "agent.toml").write_text(settings_text(1))
    return Home(folder, capsys)
