"""Values are found in the documents that zigbee2mqtt and Tasmota publish."""

from __future__ import annotations

import json

import pytest

from edge_agent.json_paths import NOTHING, find

# As their own documentation shows them ("MQTT topics and messages" of the one, "AM2301", "JSON status responses").
XIAOMI = '{"temperature": 27.34, "humidity": 44.72}'
AM2301 = '{"Time": "2019-01-01T00:00:00", "AM2301": {"Temperature": 24.6, "Humidity": 58.2}, "TempUnit": "C"}'
STATUS = '{"StatusSNS": {"Time": "2018.02.15 01:00:50", "Switch1": "OFF"}}'


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        (XIAOMI, "temperature", 27.34),
        (AM2301, "AM2301.Humidity", 58.2),
        (STATUS, "StatusSNS.Switch1", "OFF"),
        ('{"ENERGY": {"Power": [12, 40]}}', "ENERGY.Power.1", 40),
        ('{"a.b": {"c": 1}}', r"a\.b.c", 1),
        ('{"1": 5}', "1", 5),
        ('{"a": null}', "a", None),
        ("[[1, 2], [3, 4]]", "1.0", 3),
    ],
)
def test_a_value_is_found_by_its_path(document, path, value):
    assert find(json.loads(document), path) == value


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (XIAOMI, "pressure"),
        (AM2301, "AM2301"[:-1]),
        (AM2301, "TempUnit.C"),
        ("[1]", "1"),
        ("[1]", "-1"),
        ("[1]", "²"),
        ("5", "a"),
    ],
)
def test_where_nothing_stands_nothing_is_found(document, path):
    assert find(json.loads(document), path) is NOTHING
