"""Predictions to Home Assistant, and labels from it, over a broker of the home: a second client with its own settings.

    say --newest--> +----------+ --state, question--> broker --> Home Assistant
                    | a thread |
    label <---------+----------+ <--label, ask, home-- broker

- The thread publishes a state at most every `every_s` and never a second one before the broker has the first: a broker
  that is away or slow costs no memory. Between two states only the newest prediction counts.
- Availability is retained, and the will says offline when the worker vanishes. Everything retained is published again
  at every connection and when Home Assistant starts: a broker without a memory forgets nothing for long.
- The federation's broker and its access rules are not involved.

What is deliberately absent: samples. See `discovery` for the topics.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import cast

from edge_agent.inference import questions
from edge_agent.inference.outputs.discovery import (
    AVAILABLE,
    NOT_AVAILABLE,
    SKIP,
    HomeTopics,
    answer_in,
    document,
    question_of,
    state_of,
)
from edge_agent.inference.questions import Asking
from edge_agent.inference.seams import LivePrediction
from edge_agent.inference.settings import HomeAssistantSettings
from fd_runtime.links.link import Arrived, LinkDown, LinkEvent, LinkSettings, LinkUp, Published, PublishRefused, Will
from fd_runtime.links.mqtt_link import MqttLink

_TURN_S = 0.5
_FAREWELL_S = 1.0
_SESSION_S = 86_400
"""For how long the broker keeps labels for a device that is away."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Labelling:
    """How an answer comes home.

    Attributes:
        label: takes sample id, class name and who says so; False: there is no such sample any more.
        skip: takes the id of a sample that nobody can tell.
        is_kept: whether a sample can still be labelled.
    """

    label: Callable[[str, str, str], bool]
    skip: Callable[[str], bool]
    is_kept: Callable[[str], bool]


class HomeAssistant:
    """An `Output`.

    Args:
        settings: of [home_assistant].
        topics: of this device.
        classes: of the task.
        model: name of the bundle.
        version: of this program.
        labelling: None: nobody keeps samples, so nobody is asked.
        clock: monotonic seconds.

    Raises:
        InvalidValueError: a TLS file is missing or not what it should be.
        OSError: the password cannot be read.
    """

    name = "home-assistant"

    def __init__(
        self,
        settings: HomeAssistantSettings,
        topics: HomeTopics,
        classes: tuple[str, ...],
        *,
        model: str,
        version: str,
        labelling: Labelling | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._topics, self._classes, self._labelling = settings, topics, classes, labelling
        self._document = document(
            topics, settings.name or topics.device, classes, model, version, can_label=labelling is not None
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._asking = Asking()
        self._newest: LivePrediction | None = None
        self._is_up, self._state_token, self._next_state_s = False, 0, 0.0
        self._shown: LivePrediction | None = None
        self._written, self._labels, self._problem = 0, 0, ""
        self._closing = threading.Event()
        self._link = MqttLink(link_settings(settings, topics, can_label=labelling is not None))
        self._events = cast("SimpleQueue[LinkEvent | None]", self._link.events)
        self._thread = threading.Thread(target=self._run, name="home assistant", daemon=True)
        self._thread.start()

    def say(self, prediction: LivePrediction) -> None:
        with self._lock:
            self._newest = prediction
            if self._labelling is not None:
                self._asking = questions.predicted(self._asking, prediction, self._clock(), self._settings.terms)

    def settle(self, sample_id: str) -> None:
        """The sample was labelled or skipped, here or elsewhere: nothing more is asked about it."""
        with self._lock:
            self._asking = questions.answered(self._asking, sample_id, self._clock(), self._settings.terms)

    def facts(self) -> dict[str, object]:
        with self._lock:
            told: dict[str, object] = {"is_connected": self._is_up, "written": self._written, "labels": self._labels}
            question = self._asking.question
        if question is not None:
            told["asks_about"] = question.sample_id
        return {**told, **({"problem": self._problem} if self._problem else {})}

    def close(self) -> None:
        self._closing.set()
        self._events.put(None)
        self._thread.join(_FAREWELL_S)
        if self._is_up:
            self._link.publish(self._topics.availability, NOT_AVAILABLE, retain=True)
        closing = threading.Thread(target=self._link.close, daemon=True)
        closing.start()
        closing.join(_FAREWELL_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                event = self._events.get(timeout=min(_TURN_S, self._settings.every_s))
            except Empty:
                event = None
            if event is not None:
                self._handle(event)
            self._show()

    def _handle(self, event: LinkEvent) -> None:
        match event:
            case LinkUp():
                self._is_up, self._problem = True, ""
                log.info("home assistant: connected")
                self._announce()
            case LinkDown(reason):
                if self._is_up or reason != self._problem:
                    log.warning("home assistant: not connected: %s", reason)
                self._is_up, self._problem, self._state_token = False, reason, 0
            case Published(token) | PublishRefused(token, _):
                if token == self._state_token:
                    self._state_token = 0
                if isinstance(event, PublishRefused):
                    self._problem = event.reason
            case Arrived():
                self._receive(event)

    def _receive(self, arrived: Arrived) -> None:
        if arrived.topic == self._topics.home:
            if arrived.payload == AVAILABLE:
                self._announce()
        elif arrived.retained:
            log.warning("home assistant: a retained message on %s is nobody's answer", arrived.topic)
        elif arrived.topic == self._topics.ask:
            with self._lock:
                self._asking = questions.wanted(self._asking, self._clock(), self._settings.terms)
        elif arrived.topic == self._topics.label:
            self._take_answer(arrived.payload)

    def _take_answer(self, payload: bytes) -> None:
        answer, labelling = answer_in(payload), self._labelling
        if answer is None or labelling is None or (answer[1] not in self._classes and answer[1] != SKIP):
            log.warning("home assistant: no answer: %r", payload[:100])
            return
        sample_id, label = answer
        taken = labelling.skip(sample_id) if label == SKIP else labelling.label(sample_id, label, "home assistant")
        if not taken:
            log.info("home assistant: an answer came too late: sample %s is gone", sample_id)
        with self._lock:
            self._labels += int(taken and label != SKIP)
            self._asking = questions.answered(self._asking, sample_id, self._clock(), self._settings.terms)

    def _announce(self) -> None:
        """Publish all that is retained."""
        self._link.publish(self._topics.config, self._document, retain=True)
        self._link.publish(self._topics.availability, AVAILABLE, retain=True)
        if self._labelling is not None:
            with self._lock:
                self._shown = self._asking.question
            self._link.publish(self._topics.question, question_of(self._shown), retain=True)

    def _show(self) -> None:
        """Publish what has changed and is due."""
        now_s = self._clock()
        question = self._question(now_s)
        if not self._is_up:
            return
        if self._labelling is not None and question is not self._shown:
            self._shown = question
            self._link.publish(self._topics.question, question_of(question), retain=True)
        if self._state_token or now_s < self._next_state_s:
            return
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            self._next_state_s = now_s + self._settings.every_s
            self._state_token = self._link.publish(self._topics.state, state_of(newest), retain=True)
            self._written += 1

    def _question(self, now_s: float) -> LivePrediction | None:
        """Return what is asked now. A new question about a sample that the store had no place for is none."""
        with self._lock:
            self._asking = questions.ticked(self._asking, now_s, self._settings.terms)
            question = self._asking.question
        if question is None or question is self._shown or self._labelling is None:
            return question
        if self._labelling.is_kept(question.sample_id):
            return question
        with self._lock:
            self._asking = replace(self._asking, question=None)
        return None


def link_settings(settings: HomeAssistantSettings, topics: HomeTopics, *, can_label: bool) -> LinkSettings:
    """Return who connects to the home's broker, and what it listens to there.

    Raises:
        OSError: the password cannot be read.
    """
    listened = (topics.home, *((topics.label, topics.ask) if can_label else ()))
    plain = settings.broker.link(topics.node.replace("_", "-"), listened, session_s=_SESSION_S)
    return replace(plain, will=Will(topics.availability, NOT_AVAILABLE))
