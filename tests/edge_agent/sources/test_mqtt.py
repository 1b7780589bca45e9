"""What zigbee2mqtt and Tasmota publish becomes samples, over a real broker too."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.local_broker import LocalBrokerSettings, LocalTls
from edge_agent.sources.mqtt import MqttSource, Sensors
from edge_agent.sources.readings import number_of
from edge_agent.sources.settings import FieldSettings, MqttSettings
from edge_agent.sources.source import SourceError
from edge_agent.sources.topic_filters import matches
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.links.link import LinkSettings
from fd_runtime.links.mqtt_link import MqttLink
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until

# Documents as the two projects' own documentation shows them.
XIAOMI = {"temperature": 27.34, "humidity": 44.72}
SWITCH = {"action": "single"}
AQARA = {"temperature": 22.75, "linkquality": 97, "humidity": 55.43, "pressure": 1000.6, "battery": 86}
AM2301 = {"Time": "2018-03-02T18:25:03", "AM2301": {"Temperature": 22.6, "Humidity": 32.4}, "TempUnit": "C"}
LEAK = {"battery": "100.00", "voltage": 3045, "linkquality": 99, "water_leak": False}
POWER = {"Time": "2018-03-02T18:25:02", "Uptime": "0T00:00:19", "Vcc": 3.151, "POWER": "OFF"}

CLIMATE = Task(("empty", "used"), (2,), "float32", columns=("temperature", "humidity"))
TEMPERATURE, HUMIDITY = FieldSettings("temperature"), FieldSettings("humidity")


def sensors(task=CLIMATE, fields=(TEMPERATURE, HUMIDITY), topics=("zigbee2mqtt/+",), **settings):
    return Sensors(MqttSettings(topics, tuple(fields), **settings), task)


def heard(sensors, document, topic="zigbee2mqtt/room", now_s=0.0):
    return [ready.sample.tolist() for ready in sensors.hear(topic, document, now_s)]


def f32(*numbers):
    return np.array(numbers, np.float32).tolist()


def test_a_message_of_zigbee2mqtt_is_a_reading():
    assert heard(sensors(), XIAOMI) == [f32(27.34, 44.72)]
    assert heard(sensors(), AQARA) == [f32(22.75, 55.43)]


def test_a_message_of_tasmota_is_a_reading():
    fields = [
        FieldSettings("AM2301.Humidity", name="humidity"),
        FieldSettings("AM2301.Temperature", name="temperature"),
    ]
    assert heard(sensors(fields=fields, topics=("tele/+/SENSOR",)), AM2301, "tele/TH16/SENSOR") == [f32(22.6, 32.4)]


def test_messages_about_something_else_are_no_readings():
    stream = sensors()
    assert heard(stream, SWITCH) == []
    assert heard(stream, POWER) == []
    for document in ([], 5, None, "online", [XIAOMI]):
        assert heard(stream, document) == []


@pytest.mark.parametrize(
    ("value", "field", "number"),
    [
        (3045, {}, 3045.0),
        ("100.00", {}, 100.0),
        (False, {}, 0.0),
        ("OFF", {"words": {"ON": 1.0, "OFF": 0.0}}, 0.0),
        (212, {"scale": 5 / 9, "offset": -160 / 9}, pytest.approx(100.0)),
        ("OFF", {}, None),
        (None, {}, None),
        ([1], {}, None),
        ({"a": 1}, {}, None),
        (math.nan, {}, None),
        (math.inf, {}, None),
        ("nan", {}, None),
        (10**400, {}, None),
        (1e308, {"scale": 10.0}, None),
    ],
)
def test_a_value_is_a_number_or_missing(value, field, number):
    assert number_of(value, FieldSettings("x", **field)) == number


def test_words_and_strings_of_real_documents_are_numbers():
    fields = [
        FieldSettings("battery"),
        FieldSettings("water_leak"),
        FieldSettings("POWER", words={"ON": 1, "OFF": 0}, missing="default", default=-1),
    ]
    assert heard(sensors(Task(("a", "b"), (3,), "float32"), fields), LEAK) == [[100.0, 0.0, -1.0]]


@pytest.mark.parametrize(
    ("missing", "made"),
    [("skip", []), ("last", [f32(21.0, 44.72)]), ("nan", [f32(21.0, math.nan)]), ("default", [f32(21.0, 5.0)])],
)
def test_a_reading_without_a_field_is_what_the_rule_says(missing, made):
    stream = sensors(fields=(TEMPERATURE, FieldSettings("humidity", missing=missing, default=5.0)))
    heard(stream, XIAOMI)
    np.testing.assert_array_equal(heard(stream, {"temperature": 21.0}), made)


def test_the_last_of_nothing_is_missing():
    stream = sensors(fields=(TEMPERATURE, FieldSettings("humidity", missing="last")))
    assert heard(stream, {"temperature": 21.0}) == []


WINDOW = Task(("empty", "used"), (2, 3), "float32", time_axis=1, columns=("temperature", "humidity"))


def test_every_topic_is_a_stream_of_its_own():
    stream = sensors(WINDOW)
    for number in range(3):
        one = heard(stream, {"temperature": number, "humidity": 0}, "zigbee2mqtt/kitchen", number)
        other = heard(stream, {"temperature": -number, "humidity": 1}, "zigbee2mqtt/cellar", number)
    assert (one, other) == ([[[0, 1, 2], [0, 0, 0]]], [[[0, -1, -2], [1, 1, 1]]])


def test_fields_with_topics_make_one_stream_of_what_was_last_said():
    fields = [
        FieldSettings("temperature", topic="zigbee2mqtt/room"),
        FieldSettings("ENERGY.Power", name="humidity", topic="tele/+/SENSOR"),
    ]
    stream = sensors(fields=fields, topics=("zigbee2mqtt/room", "tele/+/SENSOR"))
    assert heard(stream, {"temperature": 20.0}) == []
    assert heard(stream, {"ENERGY": {"Power": 99}}) == []
    assert heard(stream, {"ENERGY": {"Power": 7}}, "tele/washer/SENSOR") == [[20.0, 7.0]]
    assert heard(stream, {"temperature": 21.0}) == [[21.0, 7.0]]


def test_a_reading_every_so_many_seconds_is_of_the_latest():
    stream = sensors(every_s=10.0)
    assert heard(stream, {"temperature": 20.0}, now_s=0.0) == []
    assert list(stream.tick(9.0)) == []
    assert stream.wait_s(9.5) == 0.5
    assert list(stream.tick(10.0)) == []  # humidity was never said
    heard(stream, {"humidity": 50.0}, now_s=15.0)
    heard(stream, {"temperature": 21.0}, now_s=16.0)
    assert [ready.sample.tolist() for ready in stream.tick(20.0)] == [[21.0, 50.0]]
    assert list(stream.tick(21.0)) == []
    assert [ready.sample.tolist() for ready in stream.tick(30.5)] == [[21.0, 50.0]]
    assert stream.wait_s(39.5) == 0.5
    assert [len(list(stream.tick(now_s))) for now_s in (500.0, 500.5, 501.0, 510.0)] == [1, 0, 0, 1]


def test_what_was_said_too_long_ago_is_missing():
    stream = sensors(every_s=10.0, stale_s=25.0)
    heard(stream, XIAOMI, now_s=0.0)
    assert [len(list(stream.tick(now_s))) for now_s in (10.0, 20.0, 30.0, 40.0)] == [1, 1, 0, 0]


def test_a_device_that_slept_begins_its_windows_anew():
    stream = sensors(WINDOW, every_s=10.0)
    heard(stream, XIAOMI, now_s=0.0)
    made = [len(list(stream.tick(now_s))) for now_s in (10.0, 20.0, 500.0, 510.0, 520.0)]
    assert made == [0, 0, 0, 0, 1]


def test_labels_and_ids_come_with_the_message_or_beside_it():
    stream = sensors(label="state.name", id="cycle")
    (ready,) = stream.hear("zigbee2mqtt/a", {**XIAOMI, "state": {"name": "used"}, "cycle": 17}, 0.0)
    assert (ready.label, ready.own_id) == ("used", 17)
    (ready,) = stream.hear("zigbee2mqtt/a", XIAOMI, 0.0)
    assert (ready.label, ready.own_id) == (None, None)
    joined = sensors(
        fields=(FieldSettings("temperature", topic="a"), FieldSettings("humidity", topic="a")),
        topics=("a", "state"),
        label="state",
    )
    assert [ready.label for ready in joined.hear("a", XIAOMI, 0.0)] == [None]
    list(joined.hear("state", {"state": "used"}, 1.0))
    assert [ready.label for ready in joined.hear("a", XIAOMI, 2.0)] == ["used"]


def test_a_whole_town_of_topics_does_not_take_the_memory():
    stream = sensors()
    for number in range(1000):
        heard(stream, XIAOMI, f"zigbee2mqtt/{number}")
        heard(stream, SWITCH, f"zigbee2mqtt/switch-{number}")
    assert len(stream._flows) == 1000
    with pytest.raises(SourceError, match="more than 1000 topics"):
        heard(stream, XIAOMI, "zigbee2mqtt/one-more")
    assert heard(stream, XIAOMI, "zigbee2mqtt/5") != []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["temperature", "humidity", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=10))
def test_no_document_breaks_a_stream(documents):
    stream = sensors(label="x", id="x.0")
    for document in documents:
        with contextlib.suppress(SourceError):  # a number that float32 does not hold
            for ready in stream.hear("t", document, 0.0):
                assert np.isfinite(ready.sample).all()
    assert heard(stream, XIAOMI, "t") == [f32(27.34, 44.72)]


@pytest.mark.parametrize(
    ("topic_filter", "topic", "fits"),
    [
        ("zigbee2mqtt/+", "zigbee2mqtt/room", True),
        ("zigbee2mqtt/+", "zigbee2mqtt/room/availability", False),
        ("zigbee2mqtt/#", "zigbee2mqtt/kitchen/light", True),
        ("zigbee2mqtt/#", "zigbee2mqtt", True),
        ("tele/+/SENSOR", "tele/TH16/SENSOR", True),
        ("tele/+/SENSOR", "tele/TH16/STATE", False),
        ("+/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("a", "a/b", False),
        ("a/b", "a", False),
    ],
)
def test_filters_match_as_the_standard_says(topic_filter, topic, fits):
    assert matches(topic_filter, topic) is fits


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"topics": ()}, "has topics"),
        ({"fields": ()}, "has fields"),
        ({"fields": (TEMPERATURE, TEMPERATURE)}, "one name"),
        ({"fields": (TEMPERATURE, FieldSettings("x", topic="a"))}, "either all fields name their topic"),
        ({"stride": -1}, "0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, complaint):
    with pytest.raises(InvalidValueError, match=complaint):
        MqttSettings(**{"topics": ("a",), "fields": (TEMPERATURE,), **changes})


def test_a_broker_elsewhere_needs_tls_or_a_word():
    with pytest.raises(InvalidValueError, match="allow_plain"):
        LocalBrokerSettings("192.168.1.5")
    assert LocalBrokerSettings("192.168.1.5", allow_plain=True).link("x").tls is None
    assert LocalBrokerSettings("192.168.1.5", tls=LocalTls()).link("x").tls is not None
    with pytest.raises(InvalidValueError, match="username"):
        LocalBrokerSettings(password_file="x")


# At a real broker.


@pytest.fixture
def broker(tmp_path):
    (tmp_path / "passwords").write_text("")
    broker = plain_mosquitto(tmp_path).start()
    yield broker
    broker.stop()


class Running:
    """A source that runs at a broker, and a sensor that speaks there."""

    def __init__(self, port, task=CLIMATE, fields=(TEMPERATURE, HUMIDITY), **settings):
        self.captured, self.stop = [], threading.Event()
        terms = MqttSettings(("zigbee2mqtt/+",), tuple(fields), LocalBrokerSettings(port=port), **settings)
        self.source = MqttSource("room", terms, task, client_id="dev-1-room")
        self.sensor = MqttLink(LinkSettings("sensor", port=port))
        self.thread = threading.Thread(target=self.source.run, args=(self.captured.append, self.stop))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(30)
        self.sensor.close()
        assert not self.thread.is_alive()

    def say(self, document, **options):
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.sensor.publish("zigbee2mqtt/room", payload, **options)

    def until(self, count):
        """Speak until something was heard: the subscription comes when it comes."""
        return wait_until(lambda: len(self.captured) >= count)


@needs_mosquitto
def test_samples_come_from_a_real_broker(broker):
    with Running(broker.port, label="occupancy", id="serial") as running:
        wait_until(lambda: running.say(XIAOMI) or len(running.captured) >= 1)
        running.say(b"no JSON")
        running.say({**XIAOMI, "occupancy": "used", "serial": "part-7"})
        running.say({**XIAOMI, "occupancy": "never heard of"})
        wait_until(lambda: any(one.sample_id == "part-7" for one in running.captured))
    first = running.captured[0]
    np.testing.assert_array_equal(first.sample, np.array([27.34, 44.72], np.float32))
    assert (first.source, first.label) == ("room", None)
    assert first.sample_id.startswith(f"room/{first.at_ms}-")
    assert [one.label for one in running.captured if one.sample_id == "part-7"] == [1]
    assert len({one.sample_id for one in running.captured}) == len(running.captured)


@needs_mosquitto
def test_what_the_broker_kept_from_before_is_no_news(broker):
    with Running(broker.port) as running:
        running.say({"temperature": 1.0, "humidity": 1.0}, retain=True)
        wait_until(lambda: running.say(XIAOMI) or len(running.captured) >= 1)
    with Running(broker.port) as again:
        wait_until(lambda: again.say(XIAOMI) or len(again.captured) >= 1)
    assert all(one.sample[0] != 1.0 for one in again.captured)
    with Running(broker.port, retained=True) as taking:
        wait_until(lambda: taking.captured)
    assert taking.captured[0].sample.tolist() == [1.0, 1.0]


@needs_mosquitto
def test_readings_are_taken_in_time_where_nobody_speaks(broker):
    with Running(broker.port, every_s=0.05) as running:
        wait_until(lambda: running.say(XIAOMI) or running.captured)
        running.until(5)


@needs_mosquitto
def test_a_broker_that_asks_for_a_password_is_given_it(tmp_path):
    (tmp_path / "words").write_text("sensor-hub:correct horse\n")
    subprocess.run(["mosquitto_passwd", "-U", tmp_path / "words"], check=True)
    (tmp_path / "words").chmod(0o644)
    broker = plain_mosquitto(tmp_path, "allow_anonymous false", f"password_file {tmp_path / 'words'}").start()
    try:
        for password, is_right in (("correct horse", True), ("wrong horse", False)):
            (tmp_path / "password").write_text(f"{password}\n")
            terms = LocalBrokerSettings(port=broker.port, username="sensor-hub", password_file=tmp_path / "password")
            link = MqttLink(terms.link("x", ("a",)))
            event = link.events.get(timeout=30)
            assert (type(event).__name__ == "LinkUp") is is_right
            link.close()
    finally:
        broker.stop()


def test_fields_that_make_no_sample_are_refused_before_anything_runs():
    terms = MqttSettings(("a",), (TEMPERATURE,))
    with pytest.raises(SourceError, match="without a field"):
        MqttSource("room", terms, CLIMATE, client_id="x")
