"""A device that hears commands: the real agent, desk, handlers and files; the wire and the clock are the test's."""

from __future__ import annotations

import json
from dataclasses import replace

from edge_agent import presence, remote_config
from edge_agent.agent import Agent, RestartWantedError
from edge_agent.care.log_level import LogLevels
from edge_agent.commands.assembly import Tools, make_desk
from edge_agent.commands.config import _STEADY_S
from edge_agent.configuration import reload_settings
from edge_agent.settings import AgentSettings
from edge_agent.worker import InlineWorker, WorkerDown, WorkerUp
from fd_protocol.messages import Command, CommandState
from fd_runtime.config import load_toml
from tests.edge_agent.processes import settings_text
from tests.edge_agent.wire import TOPICS, Device, Wire

STEADY_S = _STEADY_S
WINDOW_S = 120


class Ordered(Device):
    """Its state folder is `folder`; `restart` is a power cut, and a life that it wants itself comes by `pump`."""

    def __init__(self, folder, settings=None, **arguments):
        folder.mkdir(exist_ok=True)
        self.folder, self.path = folder / "state", folder / "agent.toml"
        self.folder.mkdir()
        self.path.write_text(settings or settings_text(1))
        self.utc_s, self.s, self.lives, self.workers = 2_000_000_000, 0.0, 0, 0
        self.looks = 0
        self.worker_comes_back = True
        super().__init__(**arguments)

    def restart(self):
        self.lives += 1
        presence.begin_life(self.store)
        self.wire = Wire()
        settings = reload_settings(self.path, load_toml(self.path, AgentSettings))
        self.agent = Agent(
            self.profile,
            self.store,
            self.wire,
            InlineWorker(self.model.handle, self.wire.events.put),
            lambda: self.ms,
            restart_worker=self.end_worker,
        )
        self.signals = 0
        levels = LogLevels(
            self.folder, lambda: reload_settings(self.path, settings).log.level, self.utc, self.monotonic, self.signal
        )
        tools = Tools(self.path, levels, self.summary, self.utc, self.monotonic)
        self.agent.obey(make_desk(self.agent, settings, self.store, self.wire, tools))
        self.worker_up()

    def utc(self):
        return self.utc_s

    def monotonic(self):
        return self.s

    def signal(self):
        self.signals += 1

    def summary(self):
        self.looks += 1
        return {"phase": self.state.phase.value, "looks": str(self.looks)}

    def worker_up(self):
        if self.worker_comes_back:
            self.wire.events.put(WorkerUp())

    def end_worker(self):
        self.workers += 1
        self.wire.events.put(WorkerDown())
        self.worker_up()

    def pump(self):
        try:
            super().pump()
        except RestartWantedError:
            if config := remote_config.load(self.folder):
                remote_config.save(self.folder, remote_config.count_start(config))
            self.restart()
            super().pump()

    def wait(self, seconds):
        self.s += seconds
        self.utc_s += seconds
        for _ in range(3):
            self.pump()

    def order(self, name, arguments=None, number=1, **changes):
        """Hear a command, and return where it stands."""
        self.hear(TOPICS.command("dev-1", name), self.command(name, arguments, number, **changes))
        return self.last(name)

    def command(self, name, arguments=None, number=1, **changes):
        base = Command(f"{name}-{number}", name, CommandState.INIT, self.utc_s + 600, arguments or {})
        return replace(base, **changes)

    def told(self, name):
        return self.wire.messages(TOPICS.command("dev-1", name), Command)

    def last(self, name):
        return self.told(name)[-1] if self.told(name) else None

    @property
    def remote(self):
        path = self.folder / remote_config.NAME
        return json.loads(path.read_text()) if path.exists() else {}


__all__ = ["STEADY_S", "WINDOW_S", "Ordered"]
