"""What Home Assistant is told of a device: one retained JSON document, from which it makes the entities by itself.

    homeassistant/device/{id}/config       this document (device-based discovery, Home Assistant 2024.11 or newer)
    fedistill/{fed}/{device}/availability  online | offline, and the will
    fedistill/{fed}/{device}/state         {"label", "confidence", "sample_id"} of the newest prediction
    fedistill/{fed}/{device}/question      {"sample_id", "guess", "confidence"} that waits for a label; {} = none
    fedistill/{fed}/{device}/label         to the device: {"sample_id", "label"}, from the select entity or anybody
    fedistill/{fed}/{device}/ask           to the device, from the button

The answer of the select entity names the sample that the person saw, so it cannot be taken for another. A sample is
nowhere among these: a person answers from what they see around them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edge_agent.inference.seams import LivePrediction

AVAILABLE, NOT_AVAILABLE = b"online", b"offline"
SKIP = "can't tell"
"""The option of the select entity that is no class."""
MOST_OPTIONS = 250
"""Classes that a person can choose from a list; beyond, there is no list."""

_ANSWER = (
    '{"label": {{ value | to_json }}, '
    "\"sample_id\": {{ this.attributes.get('sample_id', '') | to_json }}}"  # of the entity's own attributes
)


@dataclass(frozen=True, slots=True)
class HomeTopics:
    """The topics of one device at the home's broker."""

    federation: str
    device: str
    discovery_prefix: str = "homeassistant"

    def _own(self, leaf: str) -> str:
        return f"fedistill/{self.federation}/{self.device}/{leaf}"

    @property
    def node(self) -> str:
        return f"fedistill_{self.federation}_{self.device}"

    @property
    def config(self) -> str:
        return f"{self.discovery_prefix}/device/{self.node}/config"

    @property
    def home(self) -> str:
        """Return where Home Assistant says that it has started: whoever lost the document gets it again."""
        return f"{self.discovery_prefix}/status"

    @property
    def availability(self) -> str:
        return self._own("availability")

    @property
    def state(self) -> str:
        return self._own("state")

    @property
    def question(self) -> str:
        return self._own("question")

    @property
    def label(self) -> str:
        return self._own("label")

    @property
    def ask(self) -> str:
        return self._own("ask")


def document(
    topics: HomeTopics, name: str, classes: tuple[str, ...], model: str, version: str, *, can_label: bool
) -> bytes:
    """Return the discovery document.

    Args:
        topics: of the device.
        name: of the device, for people.
        classes: of the task.
        model: name of the bundle.
        version: of this program.
        can_label: whether labels are of use: there is a store that keeps samples.
    """
    components: dict[str, Any] = {
        "label": _sensor(topics, "label", "Class", "{{ value_json.label }}", _options(classes)),
        "confidence": _sensor(
            topics,
            "confidence",
            "Confidence",
            "{{ (value_json.confidence * 100) | round(1) }}",
            {"unit_of_measurement": "%", "state_class": "measurement", "icon": "mdi:gauge"},
        ),
    }
    if can_label and len(classes) <= MOST_OPTIONS:
        components |= {"answer": _select(topics, classes), "ask": _button(topics)}
    return _json(
        {
            "device": {
                "identifiers": [topics.node],
                "name": name,
                "manufacturer": "fedistill",
                "model": model,
                "sw_version": version,
            },
            "origin": {"name": "fedistill edge-agent", "sw_version": version},
            "availability_topic": topics.availability,
            "payload_available": AVAILABLE.decode(),
            "payload_not_available": NOT_AVAILABLE.decode(),
            "qos": 1,
            "components": components,
        }
    )


def state_of(prediction: LivePrediction) -> bytes:
    """Return the payload of the state topic."""
    confidence = round(prediction.confidence, 4)
    return _json({"label": prediction.label, "confidence": confidence, "sample_id": prediction.sample_id})


def question_of(prediction: LivePrediction | None) -> bytes:
    """Return the payload of the question topic; empty braces: nothing is asked."""
    if prediction is None:
        return b"{}"
    confidence = round(prediction.confidence, 4)
    return _json({"sample_id": prediction.sample_id, "guess": prediction.label, "confidence": confidence})


def answer_in(payload: bytes) -> tuple[str, str] | None:
    """Return sample id and label of what came on the label topic; None: it is no answer."""
    try:
        item = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    match item:
        case {"sample_id": str(sample_id), "label": str(label)}:
            return sample_id, label
        case _:
            return None


def _sensor(topics: HomeTopics, part: str, name: str, template: str, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "platform": "sensor",
        "unique_id": f"{topics.node}_{part}",
        "name": name,
        "state_topic": topics.state,
        "value_template": template,
        **more,
    }


def _options(classes: tuple[str, ...]) -> dict[str, Any]:
    """An `enum` sensor lists its values; of too many it is plain text."""
    icon = {"icon": "mdi:tag-outline"}
    return icon if len(classes) > MOST_OPTIONS else {"device_class": "enum", "options": list(classes), **icon}


def _select(topics: HomeTopics, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "platform": "select",
        "unique_id": f"{topics.node}_answer",
        "name": "What is it?",
        "icon": "mdi:help-circle-outline",
        "options": [*classes, SKIP],
        "state_topic": topics.question,
        "value_template": "None",  # the word for no option: what was answered is over, what is asked is open
        "json_attributes_topic": topics.question,
        "command_topic": topics.label,
        "command_template": _ANSWER,
    }


def _button(topics: HomeTopics) -> dict[str, Any]:
    return {
        "platform": "button",
        "unique_id": f"{topics.node}_ask",
        "name": "Ask me what this is",
        "icon": "mdi:comment-question-outline",
        "command_topic": topics.ask,
    }


def _json(item: dict[str, Any]) -> bytes:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()
