"""A label finds its sample long after, over a real broker, and is said again until it is on the disk."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from edge_agent.local_broker import LocalBrokerSettings
from edge_agent.private import late_labels
from edge_agent.private.late_labels import BadLabelError, link_settings, listen, read
from edge_agent.private.settings import LateLabelSettings, StoreSettings
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.links.link import LinkSettings
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.samples import LabelError
from fd_runtime.storage.store import StoreFullError
from tests.edge_agent.private.artifacts import Bench, write_bundle
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until

TASK = Task(("ok", "worn"), (4,), "float32")
LOCAL = LocalBrokerSettings()


def settings(**changes):
    return LateLabelSettings(LOCAL, "plant/labels/#", **changes)


@pytest.mark.parametrize(
    ("payload", "changes", "expected"),
    [
        ('{"id": "press/7", "label": "worn"}', {}, ("press/7", 1)),
        ('{"id": 12, "label": 0}', {}, ("12", 0)),
        ('{"part": {"serial": "x"}, "verdict": ["worn"]}', {"id": "part.serial", "label": "verdict.0"}, ("x", 1)),
        ('{"label": "ok"}', {"id": ""}, ("press-9", 0)),
        ("worn", {"id": "", "label": ""}, ("press-9", 1)),
    ],
)
def test_a_message_names_a_sample_and_its_class(payload, changes, expected):
    assert read("plant/labels/press-9", payload.encode(), settings(**changes), TASK) == expected


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ("", BadLabelError),
        ("{", BadLabelError),
        ("[" * 100_000, BadLabelError),
        ('{"id": "x"}', BadLabelError),
        ('{"label": "ok"}', BadLabelError),
        ('{"id": null, "label": "ok"}', BadLabelError),
        ('{"id": true, "label": "ok"}', BadLabelError),
        ('{"id": "x", "label": null}', BadLabelError),
        ('{"id": "x", "label": "broken"}', LabelError),
        ('{"id": "x", "label": {"a": 1}}', LabelError),
        ("\xff", BadLabelError),
    ],
)
def test_anything_else_is_none(payload, error):
    with pytest.raises(error):
        read("plant/labels/1", payload.encode("latin-1"), settings(), TASK)


def test_late_labels_need_rows_that_wait_for_them():
    with pytest.raises(InvalidValueError, match="awaiting > 0"):
        StoreSettings(late_labels=settings())
    assert StoreSettings(late_labels=settings(), awaiting=100).late_labels.topic == "plant/labels/#"


@needs_mosquitto
def test_labels_said_while_the_device_was_away_reach_their_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(late_labels, "_RETRY_S", 0.01)
    bench = Bench(tmp_path, write_bundle(tmp_path / "bundle").manifest, awaiting=20)
    broker = plain_mosquitto(tmp_path).start()
    terms = LateLabelSettings(LocalBrokerSettings(port=broker.port), "plant/labels")
    speaker = MqttLink(LinkSettings("plant", port=broker.port))
    say = lambda **message: speaker.publish("plant/labels", json.dumps(message).encode())  # noqa: E731
    refusals = []

    def once_full(*arguments, **named):
        if len(refusals) < 2:
            refusals.append(arguments)
            raise StoreFullError(None, "full")
        return label(*arguments, **named)

    def life(claim):
        stop = threading.Event()
        link = MqttLink(link_settings(terms, "device-labels"))
        task = bench.manifest.task
        thread = threading.Thread(target=listen, args=(link, terms, task, bench.store, stop))
        thread.start()
        wait_until(claim)
        stop.set()
        thread.join(30)

    try:
        for number in range(3):
            bench.add(number)
        life(lambda: say(id="id-0", label="b") and bench.store.rows().labels.tolist() == [1])
        for message in (
            {"id": "id-9", "label": "a"},
            {"no": 1},
            {"id": "id-1", "label": "z"},
            {"id": "id-1", "label": 2},
        ):
            say(**message)
        label = bench.store.label
        monkeypatch.setattr(bench.store, "label", once_full)
        life(lambda: len(bench.store.rows()) == 2)
        np.testing.assert_array_equal(bench.open().rows().labels, [1, 2])
        assert len(refusals) == 2
    finally:
        speaker.close()
        broker.stop()
