"""docs/asyncapi.yaml says what the code does: every message and key, every topic, who may use it, what is retained.

The document itself was checked against the official schema of AsyncAPI 3.0.0 (npm: @asyncapi/specs).
"""

import dataclasses
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

import pytest
import yaml

from broker_server.orders import Spool, new_order, place_order
from edge_agent.process.notices import Spoke
from fd_protocol import codec
from fd_protocol.codec import KINDS
from fd_protocol.identity import RoundId
from fd_protocol.messages import Kind, PrivacyTerms, PublicSetRef, Sampling, Slice, StagedRelease, Status, TrainingTerms
from fd_protocol.topics import Topics, acl_lines, parse
from tests.broker_server.world import World, fleet
from tests.edge_agent.commands.bench import Ordered
from tests.fd_protocol.test_topics import allowed, matches

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
CDDL_RULES = set(re.findall(r"^([a-z0-9-]+) = ", (DOCS / "fedistill.cddl").read_text(), re.MULTILINE))
SCHEMAS, CHANNELS, OPERATIONS = DOCUMENT["components"]["schemas"], DOCUMENT["channels"], DOCUMENT["operations"]
NUMBERS = {cls: number for number, cls in KINDS.items()}
NESTED = [RoundId, Slice, Sampling, TrainingTerms, PrivacyTerms, PublicSetRef, StagedRelease]
NAMES = {
    "federation": "demo",
    "device": "d1",
    "aggregator": "main",
    "block": "0",
    "shard": "0",
    "family": "cnn-s",
    "command": "diag",
}
WITHOUT_MESSAGES: set[str] = set()
"""Rights that the ACL gives for what is still to come."""


def resolve(reference):
    node = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def references(node):
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from [value] if key == "$ref" else references(value)
    if isinstance(node, list):
        for value in node:
            yield from references(value)


def described(hint):
    """The JSON schema of an annotation, as the document writes it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return {"type": "array", "items": described(arguments[0])}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": described(arguments[1])}
    if origin is UnionType:  # a key that may be absent
        return described(next(one for one in arguments if one is not NoneType))
    if dataclasses.is_dataclass(hint):
        return {"allOf": [{"$ref": f"#/components/schemas/{hint.__name__}"}]}
    if issubclass(hint, Enum):
        return {"type": "string", "enum": [member.value for member in hint]}
    if hint is bytes:
        return {"type": "string", "format": "binary"}
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[hint]}


def is_required(field):
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def channel_of(operation):
    return resolve(OPERATIONS[operation]["channel"]["$ref"])


def operation_on(topic, action):
    """The one operation of this direction on whose channel a message travels."""
    (name,) = [
        name
        for name, operation in OPERATIONS.items()
        if operation["action"] == action and matches(pattern_of(channel_of(name)["address"]), topic)
    ]
    return OPERATIONS[name]


def message_on(topic, action):
    """The Python class of the message that the document expects on a topic."""
    (message,) = resolve(operation_on(topic, action)["channel"]["$ref"])["messages"].values()
    schema = resolve(resolve(message["$ref"])["payload"]["$ref"])
    return KINDS[schema["properties"]["0"]["const"]]


def pattern_of(address):
    """An address as an MQTT filter."""
    return re.sub(r"\{\w+\}", "+", address)


def test_every_reference_leads_somewhere():
    assert DOCUMENT["asyncapi"] == "3.0.0"
    for reference in references(DOCUMENT):
        assert resolve(reference) is not None


@pytest.mark.parametrize("cls", [*NUMBERS, *NESTED], ids=lambda cls: cls.__name__)
def test_a_message_has_the_keys_names_and_types_of_the_code(cls):
    schema, hints = SCHEMAS[cls.__name__], get_type_hints(cls)
    numbered = {"0": {"const": NUMBERS[cls]}} if cls in NUMBERS else {}
    fields = {str(f.metadata["key"]): {"title": f.name, **described(hints[f.name])} for f in dataclasses.fields(cls)}
    written = {
        key: {k: v for k, v in table.items() if k != "description"} for key, table in schema["properties"].items()
    }
    assert written == numbered | fields
    required = {str(f.metadata["key"]) for f in dataclasses.fields(cls) if is_required(f)}
    assert set(schema.get("required", [])) == required | set(numbered)
    assert schema["x-cddl"] in CDDL_RULES


def test_nothing_is_described_that_is_not_in_the_code():
    assert set(SCHEMAS) == {cls.__name__ for cls in [*NUMBERS, *NESTED]}
    messages = DOCUMENT["components"]["messages"].values()
    assert {resolve(message["payload"]["$ref"])["x-cddl"] for message in messages} == {
        SCHEMAS[cls.__name__]["x-cddl"] for cls in NUMBERS
    }
    assert set(DOCUMENT["components"]["messages"]["part"]["x-carries"]) == {kind.value for kind in Kind}


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_is_a_topic_of_ours_and_says_what_stands_in_it(name):
    channel = CHANNELS[name]
    assert parse(channel["address"].format(**NAMES)).federation == "demo"
    assert set(re.findall(r"\{(\w+)\}", channel["address"])) == set(channel["parameters"])


def test_a_device_may_do_what_the_document_says_and_hears_all_that_is_for_it():
    filters = set(Topics("demo").device_filters("d1"))
    for name, operation in OPERATIONS.items():
        address = channel_of(name)["address"]
        if operation["action"] == "send":
            assert allowed("write", address.format(**NAMES), "d1")
        else:
            assert allowed("read", address.format(**NAMES), "d1")
            filters.remove(pattern_of(address.replace("{federation}", "demo").replace("{device}", "d1")))
    assert not filters


def test_every_right_of_a_device_is_an_operation_or_named_as_without_messages():
    rights = {tuple(line.split(" ")[1:]) for line in acl_lines("demo", "main") if line.startswith("pattern")}
    described = {
        ({"send": "write", "receive": "read"}[operation["action"]], pattern_of(channel_of(name)["address"]))
        for name, operation in OPERATIONS.items()
    }
    for verb, pattern in rights:
        right = pattern.replace("%u", "+").replace("/demo", "/+")
        is_described = any(verb == known and _covers(whole, right) for known, whole in described)
        assert is_described or any(pattern.endswith(leaf) for leaf in WITHOUT_MESSAGES), pattern


def _covers(whole, right):
    """Whether all that a right lets one do lies in an operation's topics."""
    wanted, found = whole.split("/"), right.split("/")
    return len(wanted) == len(found) and all(w in ("+", f) for w, f in zip(wanted, found, strict=True))


class Recorder:
    """Wraps a link's `publish` and remembers (topic, payload, retain)."""

    def __init__(self, link):
        self.packets, self._publish = [], link.publish
        link.publish = self

    def __call__(self, topic, payload, *, retain=False, expiry_s=None):
        self.packets.append((topic, payload, retain))
        return self._publish(topic, payload, retain=retain, expiry_s=expiry_s)


def packets_of_a_server(folder):
    """Presence, an offer, receipts, a consensus and a command."""
    world = World(folder / "server.db", spool=Spool(folder / "orders"))
    recorder = Recorder(world.link)
    for device in fleet(world):
        device.contribute()
    order = new_order("device-command", who="ada", at_ms=0, arguments={"device": "a", "command": "diag"})
    place_order(folder / "orders", order)
    world.drop()
    return recorder.packets


def packets_of_a_device(folder):
    """Birth, map, contribution, report, a prediction, and how a command goes on."""
    device = Ordered(folder / "device")
    device.connect()
    device.hear_offer(competence=True)
    for kind in Kind:
        device.hear_receipt(device.parts(kind)[-1], Status.STORED)
    device.hear_consensus()
    device.wire.events.put(Spoke("8c1f2a90d3b74e65", "b", 0.75))
    device.pump()
    device.order("diag")
    return [(topic, payload, retain) for _, topic, payload, retain in device.wire.published]


@pytest.mark.parametrize(
    ("packets", "action", "expected"),
    [
        (packets_of_a_server, "receive", {"hearOffer", "hearConsensus", "hearServer", "hearReceipt", "hearCommand"}),
        (packets_of_a_device, "send", {"sayState", "upload", "report", "sayPrediction", "answerCommand"}),
    ],
)
def test_what_a_program_publishes_is_what_the_document_says(packets, action, expected, tmp_path):
    seen = set()
    for topic, payload, retain in packets(tmp_path):
        operation = operation_on(topic, action)
        assert operation["bindings"]["mqtt"] == {"qos": 1, "retain": retain, "bindingVersion": "0.2.0"}
        codec.decode(payload, message_on(topic, action))
        seen |= {name for name, value in OPERATIONS.items() if value is operation}
    assert seen == expected
