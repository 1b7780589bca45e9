"""Sensors over MQTT: JSON messages of a local broker -> readings -> samples.

    broker --message--> stream of its topic --reading--> window --sample--> deliver
                              ^ every_s: a reading of the latest

The link is a client of its own at a broker of its own (`local_broker`), nothing of the federation's. It keeps no
session: what was said while the device was away is no news. Messages that are no JSON, or hold none of the fields, are
not readings; zigbee2mqtt and Tasmota say much else on the same topics.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty
from typing import Any

from edge_agent.sources.readings import Stream, value_at
from edge_agent.sources.settings import MqttSettings
from edge_agent.sources.source import Captured, Deliver, Names, SourceError, unix_ms
from edge_agent.sources.windows import Ready, Window, in_columns
from fd_protocol.manifest import Task
from fd_runtime.links.link import Arrived, Link, LinkDown, LinkSettings, LinkUp
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.samples import LabelError, class_number

_POLL_S = 1.0
_MOST_STREAMS = 1000
"""A wildcard over the topics of a whole town does not take the device's memory."""
_ID_CHARACTERS = 200

log = logging.getLogger("edge-agent")


@dataclass(slots=True)
class _Flow:
    """A stream and its window."""

    stream: Stream
    window: Window
    next_s: float
    label: Any = None
    own_id: Any = None


class Sensors:
    """The source but for its link: messages and time in, samples out. Pure.

    Args:
        settings: of the source.
        task: what a sample is.

    Raises:
        SourceError: the fields make no sample of the task.
    """

    def __init__(self, settings: MqttSettings, task: Task) -> None:
        self._settings, self._task = settings, task
        self._fields = in_columns(settings.fields, task)
        self._is_joined = bool(self._fields[0].topic)
        self._flows: dict[str, _Flow] = {}
        self._new_window()

    def hear(self, topic: str, document: Any, now_s: float) -> Iterator[Ready]:
        """Take a message in.

        Raises:
            SourceError: the task's type does not hold what was said, or it is of one topic too many; all others go on.
        """
        key = "" if self._is_joined else topic
        flow = self._flows.get(key) or self._new_flow(now_s)
        reading = flow.stream.hear(topic, document, now_s)
        if not flow.stream.has_heard:  # other talk takes no room
            return
        if key not in self._flows and len(self._flows) >= _MOST_STREAMS:
            raise SourceError(f"more than {_MOST_STREAMS} topics; those beyond are not heard")
        self._flows[key] = flow
        label, own_id = value_at(document, self._settings.label), value_at(document, self._settings.id)
        if self._settings.every_s or self._is_joined:  # they may come by themselves, as fields do
            label = flow.label = flow.label if label is None else label
            own_id = flow.own_id = flow.own_id if own_id is None else own_id
        if reading is not None and not self._settings.every_s:
            yield from self._push(flow, reading, now_s, label, own_id)

    def tick(self, now_s: float) -> Iterator[Ready]:
        """Take the readings that are due; raises as `hear`."""
        every_s = self._settings.every_s
        for flow in self._flows.values() if every_s else ():
            if now_s < flow.next_s:
                continue
            # Where the device slept, one reading stands for all that it missed, and the gap begins windows anew.
            flow.next_s += every_s * (1 + (now_s - flow.next_s) // every_s)
            reading = flow.stream.latest(now_s)
            if reading is not None:
                yield from self._push(flow, reading, now_s, flow.label, flow.own_id)

    def wait_s(self, now_s: float) -> float:
        """Return after how many seconds a `tick` is due, at most one."""
        if not self._settings.every_s or not self._flows:
            return _POLL_S
        return min(_POLL_S, max(0.0, min(flow.next_s for flow in self._flows.values()) - now_s))

    def _push(self, flow: _Flow, reading: Sequence[float], now_s: float, label: Any, own_id: Any) -> Iterator[Ready]:
        ready = flow.window.push(reading, now_s, label, own_id)
        if ready is not None:
            yield ready

    def _new_flow(self, now_s: float) -> _Flow:
        settings = self._settings
        by_message = not settings.every_s and not self._is_joined
        stream = Stream(self._fields, stale_s=settings.stale_s, by_message=by_message)
        return _Flow(stream, self._new_window(), now_s + settings.every_s)

    def _new_window(self) -> Window:
        settings = self._settings
        gap_s = settings.gap_s or 1.5 * settings.every_s
        return Window(self._task, len(self._fields), stride=settings.stride, gap_s=gap_s)


class MqttSource:
    """See the module.

    Args:
        name: of the source.
        settings: of the source.
        task: what a sample is.
        client_id: names the device at the broker.
        connect: opens a link.
        clock: monotonic seconds.

    Raises:
        SourceError: the fields make no sample of the task.
    """

    def __init__(
        self,
        name: str,
        settings: MqttSettings,
        task: Task,
        *,
        client_id: str,
        connect: Callable[[LinkSettings], Link] = MqttLink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._settings, self._task = name, settings, task
        self._client_id, self._connect, self._clock = client_id, connect, clock
        self._names = Names(name)
        self._last_problem = ""
        Sensors(settings, task)

    def run(self, deliver: Deliver, stop: threading.Event) -> None:
        """See `Source.run`.

        Raises:
            OSError: the password cannot be read.
            InvalidValueError: a file of TLS is not what it should be.
        """
        sensors = Sensors(self._settings, self._task)
        link = self._connect(self._settings.broker.link(self._client_id, self._settings.topics))
        try:
            while not stop.is_set():
                try:
                    event = link.events.get(timeout=sensors.wait_s(self._clock()))
                except Empty:
                    event = None
                self._pass_on(self._heard(sensors, event), deliver)
                self._pass_on(sensors.tick(self._clock()), deliver)
        finally:
            link.close()

    def _heard(self, sensors: Sensors, event: object) -> Iterator[Ready]:
        match event:
            case Arrived(topic, payload, retained) if self._settings.retained or not retained:
                try:
                    document = json.loads(payload)
                except (ValueError, RecursionError):
                    self._complain(f"what comes on {topic} is no JSON")
                    return
                yield from sensors.hear(topic, document, self._clock())
            case LinkUp():
                log.info("source %s: connected", self._name)
            case LinkDown(reason):
                self._complain(f"not connected: {reason}")

    def _pass_on(self, samples: Iterator[Ready], deliver: Deliver) -> None:
        try:
            for ready in samples:
                at_ms = unix_ms()
                own = "" if ready.own_id is None else str(ready.own_id).strip()[:_ID_CHARACTERS]
                deliver(Captured(ready.sample, own or self._names.name(at_ms), at_ms, self._label(ready), self._name))
        except SourceError as error:
            self._complain(str(error))

    def _label(self, ready: Ready) -> int | None:
        if ready.label is None:
            return None
        try:
            return class_number(ready.label, self._task)
        except LabelError as error:
            self._complain(str(error))
            return None

    def _complain(self, problem: str) -> None:
        """Say it once, until something else is wrong: a sensor says the same all day."""
        if problem != self._last_problem:
            self._last_problem = problem
            log.warning("source %s: %s", self._name, problem)
