"""Asking a person: one thing at a time, not too often, and never another thing while they read."""

from __future__ import annotations

import json

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.outputs.discovery import (
    MOST_OPTIONS,
    SKIP,
    HomeTopics,
    answer_in,
    document,
    question_of,
    state_of,
)
from edge_agent.inference.questions import Asking, answered, predicted, ticked, wanted
from edge_agent.inference.seams import LivePrediction
from edge_agent.inference.settings import AskingTerms, HomeAssistantSettings
from fd_protocol.errors import InvalidValueError

TERMS = AskingTerms(below=0.6, open_s=100.0, quiet_s=30.0)
TOPICS = HomeTopics("fleet", "dev-1")
CLASSES = ("cat", "dog", 'a "quoted" one')


def said(name="a", confidence=0.3, label="cat"):
    return LivePrediction(name, label, confidence, 1_700_000_000_000, "camera")


def test_an_unsure_prediction_is_asked_about_and_a_sure_one_is_not():
    assert predicted(Asking(), said(confidence=0.6), 0.0, TERMS).question is None
    assert predicted(Asking(), said(confidence=0.59), 0.0, TERMS).question == said(confidence=0.59)


def test_an_open_question_is_never_exchanged_for_another():
    asking = predicted(Asking(), said("a"), 0.0, TERMS)
    asking = predicted(asking, said("b", 0.1), 50.0, TERMS)
    asking = wanted(asking, 60.0, TERMS)
    assert asking.question.sample_id == "a"


def test_an_answer_closes_its_own_question_and_then_it_is_quiet():
    asking = predicted(Asking(), said("a"), 0.0, TERMS)
    assert answered(asking, "b", 1.0, TERMS) == asking
    asking = answered(asking, "a", 10.0, TERMS)
    assert asking.question is None
    assert predicted(asking, said("c"), 39.0, TERMS).question is None
    assert predicted(asking, said("c"), 40.0, TERMS).question.sample_id == "c"


def test_nobody_answers_and_the_question_is_given_up():
    asking = predicted(Asking(), said("a"), 0.0, TERMS)
    assert ticked(asking, 99.0, TERMS).question is not None
    assert ticked(asking, 100.0, TERMS).question is None


def test_a_person_who_wants_to_be_asked_is_asked_about_what_is_seen_now_at_once():
    asking = predicted(Asking(), said("a", 0.99), 0.0, TERMS)
    asking = predicted(asking, said("b", 0.98), 1.0, TERMS)
    assert wanted(asking, 2.0, TERMS).question.sample_id == "b"
    assert wanted(Asking(), 2.0, TERMS).question is None


EVENTS = st.one_of(
    st.tuples(st.just("predicted"), st.sampled_from("abc"), st.floats(0, 1)),
    st.tuples(st.just("wanted")),
    st.tuples(st.just("answered"), st.sampled_from("abc")),
    st.tuples(st.just("ticked")),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 60)), max_size=40))
def test_whatever_happens_a_question_ends_before_another_begins(events):
    asking, now_s = Asking(), 0.0
    for event, later_s in events:
        now_s += later_s
        before = asking
        match event:
            case "predicted", name, confidence:
                asking = predicted(asking, said(name, confidence), now_s, TERMS)
            case ("wanted",):
                asking = wanted(asking, now_s, TERMS)
            case "answered", name:
                asking = answered(asking, name, now_s, TERMS)
            case ("ticked",):
                asking = ticked(asking, now_s, TERMS)
        if before.question is not None and asking.question is not before.question:
            is_given_up = now_s >= before.until_s
            is_answered = event == ("answered", before.question.sample_id)
            assert is_given_up or is_answered
        if asking.question is not None:
            assert asking.until_s >= now_s


@pytest.mark.parametrize(
    "change", [{"ask_below": 1.1}, {"question_s": 0.0}, {"every_s": 0.0}, {"discovery_prefix": "a/#"}]
)
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(InvalidValueError):
        HomeAssistantSettings(**change)


# The discovery document, by the rules of Home Assistant's own schemas (homeassistant/components/mqtt, 2024.11 on).


def entities(**options):
    item = json.loads(document(TOPICS, "Kitchen", CLASSES, "small 1", "0.1.0", **{"can_label": True, **options}))
    return item, item["components"]


def test_the_document_has_what_device_based_discovery_asks_for():
    item, components = entities()
    assert set(item) == {
        "device", "origin", "availability_topic", "payload_available", "payload_not_available", "qos", "components",
    }  # fmt: skip
    assert item["device"]["identifiers"] == ["fedistill_fleet_dev-1"]
    assert set(item["device"]) <= {"identifiers", "name", "manufacturer", "model", "sw_version"}
    assert item["origin"]["name"]
    ids = [one["unique_id"] for one in components.values()]
    assert len(set(ids)) == len(ids) == 4
    assert all(one["platform"] in {"sensor", "select", "button"} and one["name"] for one in components.values())
    assert TOPICS.config == "homeassistant/device/fedistill_fleet_dev-1/config"


def test_an_enum_sensor_lists_every_class_and_has_no_unit_or_state_class():
    _, components = entities()
    sensor = components["label"]
    assert (sensor["device_class"], sensor["options"]) == ("enum", list(CLASSES))
    assert not {"unit_of_measurement", "state_class"} & set(sensor)


def test_of_too_many_classes_there_is_no_list_to_choose_from():
    many = tuple(f"class {number}" for number in range(MOST_OPTIONS + 1))
    item = json.loads(document(TOPICS, "x", many, "m", "v", can_label=True))
    assert set(item["components"]) == {"label", "confidence"}
    assert "options" not in item["components"]["label"]
    assert len(json.dumps(item)) < 60_000


def test_without_a_store_nobody_is_asked():
    _, components = entities(can_label=False)
    assert set(components) == {"label", "confidence"}


class This:
    """What a template of Home Assistant knows of its own entity."""

    def __init__(self, **attributes):
        self.attributes = attributes


def rendered(template, **known):
    environment = jinja2.Environment(autoescape=False)
    environment.filters["to_json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template).render(**known)


def test_the_sensors_read_what_the_state_topic_says():
    _, components = entities()
    state = json.loads(state_of(said(label=CLASSES[2], confidence=0.12345)))
    assert rendered(components["label"]["value_template"], value_json=state) == CLASSES[2]
    assert rendered(components["confidence"]["value_template"], value_json=state) == "12.3"


@pytest.mark.parametrize("label", [*CLASSES, SKIP])
def test_what_is_chosen_comes_back_with_the_sample_that_the_person_saw(label):
    _, components = entities()
    select = components["answer"]
    assert label in select["options"]
    attributes = json.loads(question_of(said('odd "name" / 1')))
    payload = rendered(select["command_template"], value=label, this=This(**attributes))
    assert answer_in(payload.encode()) == ('odd "name" / 1', label)


def test_what_is_chosen_while_nothing_is_asked_names_no_sample():
    _, components = entities()
    attributes = json.loads(question_of(None))
    payload = rendered(components["answer"]["command_template"], value="cat", this=This(**attributes))
    assert answer_in(payload.encode()) == ("", "cat")


def test_the_list_shows_no_option_of_an_earlier_answer():
    _, components = entities()
    assert rendered(components["answer"]["value_template"], value_json={}).lower() == "none"


@pytest.mark.parametrize(
    "payload",
    [b"", b"cat", b"{}", b"[1]", b'{"label": "cat"}', b'{"label": 1, "sample_id": "a"}', b"[" * 5000, b"\xff"],
)
def test_what_is_no_answer_is_none(payload):
    assert answer_in(payload) is None
