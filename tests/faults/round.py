"""The federation's side of rounds with one device, at a broker of their own; and what it must have heard at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fd_protocol.messages import Kind, RoundReport, Status
from fd_runtime.artifacts import PublicSet, load_public_set
from fd_runtime.links.link import LinkSettings
from fd_runtime.links.mqtt_link import MqttLink
from tests.edge_agent.builders import offer, round_id
from tests.edge_agent.processes import DEVICE, TERMS, TOPICS, ScriptedServer
from tests.edge_agent.wire import consensus_block
from tests.support.brokers import plain_mosquitto

ROUND_S = 60.0


class _Server(ScriptedServer):
    """Hears what nobody receipts, too. Without a public set a round is about words."""

    def __init__(self, settings: LinkSettings, public: PublicSet | None):
        self.heard: list[str] = []
        self._is_real = public is not None
        if public is not None:
            super().__init__(settings, public)
        else:
            self.link, self.parts, self.states, self.reports = MqttLink(settings), [], [], []

    def open(self, number: int) -> None:
        if self._is_real:
            self.offer(number, training=replace(TERMS, epochs=2, warm_up_epochs=1), competence=True)
        else:
            self.say(TOPICS.round, offer(number, remaining_s=3600), retain=True)

    def teach(self, number: int) -> None:
        if self._is_real:
            self.consensus(number)
        else:
            self.say(TOPICS.consensus(0), consensus_block(number), retain=True)

    def _sort(self, leaf: str, payload: bytes) -> None:
        if leaf == "prediction":
            self.heard.append(payload.decode())
        super()._sort(leaf, payload)


class Federation:
    """Plays round after round, receipts what comes, and counts what it would count."""

    def __init__(self, folder: Path, public: Path | None = None):
        self.broker = plain_mosquitto(folder, "max_queued_messages 100000").start()
        filters = (*TOPICS.server_filters(), TOPICS.device(DEVICE, "prediction"))
        quick = {"reconnect_min_s": 0.05, "reconnect_max_s": 0.2}
        settings = LinkSettings("agg", port=self.broker.port, subscriptions=filters, **quick)
        self.server = _Server(settings, None if public is None else load_public_set(public))
        self.counted: dict[tuple[str, Kind], list[bytes]] = {}
        self._answered = 0

    def close(self) -> None:
        self.server.link.close()
        self.broker.stop()

    def ended(self, number: int) -> list[RoundReport]:
        """Return the reports of a round."""
        return [report for report in self.server.reports if report.round == round_id(number)]

    def play(self, number: int, is_alive: Callable[[], bool], patience_s: float = ROUND_S) -> bool:
        """Go on until a round has been reported; false: the device has ended before, or takes too long."""
        return self.listen(lambda: bool(self.ended(number)), is_alive, patience_s)

    def listen(self, claim: Callable[[], bool], is_alive: Callable[[], bool], patience_s: float = ROUND_S) -> bool:
        """Go on until a claim holds; false: as `play`."""
        end_s = time.monotonic() + patience_s
        self._go_on()
        while not claim():
            if not is_alive() or time.monotonic() > end_s:
                return False
            time.sleep(0.005)
            self._go_on()
        return True

    def _go_on(self) -> None:
        self.server.hear()
        for part in self.server.parts[self._answered :]:
            known = self.counted.setdefault((str(part.round), part.kind), [])
            is_new = part.payload_sha256 not in known
            if is_new:
                known.append(part.payload_sha256)
            self.server.receipt(part, Status.STORED if is_new else Status.DUPLICATE)
            if part.kind is Kind.CONTRIBUTION:
                self.server.teach(part.round.number)
        self._answered = len(self.server.parts)

    def wrong(self) -> str:
        """Return what was counted twice, or told in two ways."""
        twice = [key for key, digests in self.counted.items() if key[1] is Kind.CONTRIBUTION and len(digests) > 1]
        if twice:
            return f"two payloads in {twice}"
        for number in {report.round.number for report in self.server.reports}:
            told = {(report.consensus_sha256, report.accepted, report.reason) for report in self.ended(number)}
            if len(told) > 1:
                return f"round {number} was told as {told}"
        return ""
