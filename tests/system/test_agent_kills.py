"""A device whose processes are killed at random moments over a scripted federation: the whole of what must not happen.

FEDISTILL_KILLS=200 is the full run; CI does a short one. The seed is printed, and FEDISTILL_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.round.journal import Journal
from edge_agent.round.participant import NO_CONSENSUS, Phase
from edge_agent.spool import listing
from fd_protocol.identity import sha256
from fd_protocol.messages import Kind, Status
from fd_runtime.links.link import LinkSettings
from fd_runtime.storage.store import Store
from tests.edge_agent.builders import FEDERATION, round_id
from tests.edge_agent.processes import TERMS, TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.support.brokers import needs_mosquitto, plain_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]

KILLS = int(os.environ.get("FEDISTILL_KILLS", "6"))
SEED = int(os.environ.get("FEDISTILL_SEED", str(time.time_ns() % 1_000_000)))
VICTIMS = ("worker", "supervisor", "both")
ROUND_S = float(os.environ.get("FEDISTILL_ROUND_S", "120"))
"""A round that has not ended by then hangs."""
TRAINING = replace(TERMS, epochs=120, warm_up_epochs=40)
"""Work of a few tenths of a second, so that kills hit it."""


class Federation:
    """A server that plays round after round, takes its time over answers, and notes what it would count."""

    def __init__(self, server, rng):
        self.server, self.number, self.begun_s, self._rng = server, 0, 0.0, rng
        self.counted, self.ends = {}, {}
        self._answered = self._heard = 0
        self._due = []

    def go_on(self):
        """Answer what has come; open the next round when one has ended."""
        self.server.hear()
        for part in self.server.parts[self._answered :]:
            self._answer(part)
        self._answered = len(self.server.parts)
        due, self._due = self._due, []
        for at_s, say, *what in due:
            if time.monotonic() < at_s:
                self._due.append((at_s, say, *what))
            else:
                say(*what)
        for report in self.server.reports[self._heard :]:
            self.ends.setdefault(report.round, []).append(report)
        self._heard = len(self.server.reports)
        if self.number == 0 or round_id(self.number) in self.ends:
            self.open_next()
        assert time.monotonic() < self.begun_s + ROUND_S, f"round {self.number} hangs"

    def open_next(self):
        self.number += 1
        self.begun_s = time.monotonic()
        self.server.offer(self.number, training=TRAINING, competence=True)

    def _answer(self, part):
        known = self.counted.setdefault((part.round, part.kind), [])
        status = Status.DUPLICATE if part.payload_sha256 in known else Status.STORED
        if status is Status.STORED:
            known.append(part.payload_sha256)
            assert sha256(part.body) == part.payload_sha256
            if part.kind is Kind.CONTRIBUTION:
                self._later(0.6, self.server.consensus, part.round.number)
        self._later(0.3, self.server.receipt, part, status)

    def _later(self, most_s, say, *what):
        self._due.append((time.monotonic() + self._rng.uniform(0, most_s), say, *what))


def check_files(agent):
    """Look at everything that the device keeps, as the last kill left it; return the phase that it is in."""
    state = agent.folder / "state"
    if not (state / "agent.db").exists():
        return "its very start"
    with closing(Store.open(state / "agent.db")) as store:
        assert store.faults() == []
        phase = Journal(store, FEDERATION).replay().phase
    checkpoints.load(agent.checkpoint)
    list(listing(state / "outbox"))
    return phase.value


@pytest.fixture
def world(tmp_path):
    broker = plain_mosquitto(tmp_path, "max_queued_messages 1000000").start()
    text = settings_text(broker.port, process__restart_min_s=0.1, process__restart_max_s=0.5)
    agent = AgentProcess(tmp_path / "device", broker.port, settings=text)
    settings = LinkSettings("agg", port=broker.port, subscriptions=TOPICS.server_filters())
    server = ScriptedServer(settings, agent.public)
    yield agent, Federation(server, random.Random(SEED + 1))
    agent.end()
    server.link.close()
    broker.stop()


def test_killed_at_random_moments_a_device_loses_nothing_doubles_nothing_and_hangs_in_no_round(world):
    agent, federation = world
    rng = random.Random(SEED)
    agent.start()
    killed, phases = Counter(), Counter()
    while sum(killed.values()) < KILLS:
        wait_for_a_moment(agent, federation, rng)
        victim = rng.choice(VICTIMS)
        phases[kill(agent, victim, rng)] += 1
        killed[victim] += 1
    last = federation.number + 1
    while federation.number <= last:  # undisturbed, it goes on as if nothing had been
        federation.go_on()
        time.sleep(0.005)
    agent.end()
    check_files(agent)
    tell(killed, phases, federation)
    check_counts(federation)


def wait_for_a_moment(agent, federation, rng):
    """Let the federation go on for a while, half of the time until a phase that is short on a busy machine."""
    phase = rng.choice([None, *[phase for phase in Phase if phase is not Phase.IDLE]])
    until_s = time.monotonic() + (rng.uniform(0.02, 1.5) if phase is None else 10.0)
    while time.monotonic() < until_s:
        federation.go_on()
        time.sleep(rng.uniform(0, 0.02))
        if phase is not None and (state := agent.state()) is not None and state.phase is phase:
            return


def kill(agent, victim, rng):
    """Kill, look at the files, start again; return the phase it was killed in."""
    if victim != "supervisor":
        agent.kill_worker()
    if victim == "worker":
        return "worker alone"
    agent.kill()
    phase = check_files(agent)
    time.sleep(rng.uniform(0, 0.1))
    agent.start()
    return phase


def tell(killed, phases, federation):
    ended = [reports[-1] for reports in federation.ends.values()]
    given_up = [report.reason for report in ended if not report.accepted]
    print(  # noqa: T201 - the figures of docs/agent/process.md
        f"\nseed {SEED}: {sum(killed.values())} kills ({dict(killed)}), supervisor killed in {dict(phases)};"
        f" {len(ended)} rounds ended, {len(ended) - len(given_up)} by a training, given up: {given_up}"
    )


def check_counts(federation):
    contributions = {who: digests for (who, kind), digests in federation.counted.items() if kind is Kind.CONTRIBUTION}
    assert all(len(digests) == 1 for digests in contributions.values())  # never two payloads of a round
    for number in range(1, federation.number):
        reports = federation.ends[round_id(number)]
        assert len({(r.consensus_sha256, r.accepted, r.reason) for r in reports}) == 1
        # What was not learned from was given up for a reason; what was had been contributed to and counted before.
        assert reports[0].accepted or reports[0].reason
        assert round_id(number) in contributions or reports[0].consensus_sha256 == NO_CONSENSUS
    maps = [digests for (_, kind), digests in federation.counted.items() if kind is Kind.COMPETENCE]
    assert len({digest for digests in maps for digest in digests}) == 1  # the private rows never changed
