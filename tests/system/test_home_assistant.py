"""Home Assistant's side of a real Mosquitto: what it discovers, sees and answers, through restarts of either."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from edge_agent.inference.outputs.discovery import SKIP, HomeTopics
from edge_agent.inference.outputs.home_assistant import HomeAssistant, Labelling
from edge_agent.inference.seams import LivePrediction
from edge_agent.inference.settings import HomeAssistantSettings
from edge_agent.local_broker import LocalBrokerSettings
from fd_runtime.links.link import LinkSettings
from tests.edge_agent.stores import until
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.homes import Home

pytestmark = [pytest.mark.system, needs_mosquitto]

TOPICS = HomeTopics("fleet", "dev-1")
CLASSES = ("cat", "dog", "fox")


class AskedHome(Home):
    """Whose people answer questions."""

    def answer(self, sample_id, label):
        self.say(TOPICS.label, {"sample_id": sample_id, "label": label})

    def wait_for_question(self, sample_id):
        self.wait(lambda: self.json(TOPICS.question).get("sample_id") == sample_id)


class Labels:
    """Where answers come home."""

    def __init__(self, kept=()):
        self.labelled, self.skipped, self.kept = [], [], set(kept)

    def label(self, sample_id, label, by):
        self.labelled.append((sample_id, label, by))
        return sample_id in self.kept

    def skip(self, sample_id):
        self.skipped.append(sample_id)
        return True

    def is_kept(self, sample_id):
        return sample_id in self.kept

    @property
    def labelling(self):
        return Labelling(self.label, self.skip, self.is_kept)


@pytest.fixture
def broker(tmp_path):
    with plain_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def home(broker):
    home = AskedHome(LinkSettings("home", port=broker.port, subscriptions=("homeassistant/#", "fedistill/#")))
    yield home
    home.link.close()


@contextmanager
def device(port, labels=None, **changes):
    settings = HomeAssistantSettings(
        LocalBrokerSettings("127.0.0.1", port), **{"every_s": 0.1, "quiet_s": 0.0, "name": "Kitchen", **changes}
    )
    labelling = None if labels is None else labels.labelling
    output = HomeAssistant(settings, TOPICS, CLASSES, model="small 1", version="0.1.0", labelling=labelling)
    try:
        yield output
    finally:
        output.close()


def said(name="a", confidence=0.9, label="cat"):
    return LivePrediction(name, label, confidence, 1_700_000_000_000, "camera")


def test_a_device_is_discovered_and_seen(broker, home):
    with device(broker.port) as output:
        home.wait_for(TOPICS.availability, b"online")
        item = home.json(TOPICS.config)
        assert item["device"]["name"] == "Kitchen"
        assert item["availability_topic"] == TOPICS.availability
        assert set(item["components"]) == {"label", "confidence"}
        output.say(said(label="fox", confidence=0.87))
        home.wait_for(TOPICS.state, b'{"label":"fox","confidence":0.87,"sample_id":"a"}')
    home.wait_for(TOPICS.availability, b"offline")


def test_what_is_retained_is_there_for_a_home_that_starts_later(broker):
    with device(broker.port, Labels({"a"})) as output:
        output.say(said("a", 0.3))
        late = AskedHome(LinkSettings("late", port=broker.port, subscriptions=("homeassistant/#", "fedistill/#")))
        late.wait_for_question("a")
        late.wait(lambda: TOPICS.state in late.known)
        assert {TOPICS.config, TOPICS.availability} <= late.known.keys()
        late.link.close()


def test_many_predictions_are_few_messages_and_the_last_one_comes_through(broker, home):
    with device(broker.port, every_s=0.3) as output:
        home.wait_for(TOPICS.availability, b"online")
        for number in range(500):
            output.say(said(str(number)))
        home.wait(lambda: home.json(TOPICS.state).get("sample_id") == "499")
        assert len([topic for topic, *_ in home.heard if topic == TOPICS.state]) <= 3


def test_a_person_labels_what_the_device_asks_about(broker, home):
    labels = Labels({"a", "b"})
    with device(broker.port, labels) as output:
        home.wait_for(TOPICS.availability, b"online")
        output.say(said("a", 0.35, "dog"))
        home.wait_for(TOPICS.question, b'{"sample_id":"a","guess":"dog","confidence":0.35}')
        output.say(said("b", 0.2))
        home.answer("a", "fox")
        until(lambda: labels.labelled == [("a", "fox", "home assistant")])
        home.wait_for(TOPICS.question, b"{}")
        assert output.facts()["labels"] == 1
        output.say(said("b", 0.2))
        home.wait_for_question("b")
        home.answer("b", SKIP)
        home.wait_for(TOPICS.question, b"{}")
        assert labels.skipped == ["b"]


def test_the_button_asks_about_what_is_seen_now(broker, home):
    with device(broker.port, Labels({"sure"})) as output:
        home.wait_for(TOPICS.availability, b"online")
        output.say(said("sure", 0.99))
        home.say(TOPICS.ask, b"PRESS")
        home.wait_for_question("sure")


def test_a_late_label_names_its_sample_and_needs_no_question(broker, home):
    labels = Labels({"yesterday"})
    with device(broker.port, labels):
        home.wait_for(TOPICS.availability, b"online")
        home.answer("yesterday", "dog")
        until(lambda: labels.labelled == [("yesterday", "dog", "home assistant")])


def test_a_label_that_came_while_the_device_was_away_is_not_lost(broker, home):
    labels = Labels({"a"})
    with device(broker.port, labels):
        home.wait_for(TOPICS.availability, b"online")
    home.wait_for(TOPICS.availability, b"offline")
    home.answer("a", "cat")
    with device(broker.port, labels):
        until(lambda: labels.labelled == [("a", "cat", "home assistant")])


def test_a_question_is_over_when_it_was_answered_elsewhere(broker, home):
    with device(broker.port, Labels({"a"})) as output:
        home.wait_for(TOPICS.availability, b"online")
        output.say(said("a", 0.3))
        home.wait_for_question("a")
        output.settle("a")
        home.wait_for(TOPICS.question, b"{}")


def test_a_sample_that_the_store_had_no_place_for_is_not_asked_about(broker, home):
    with device(broker.port, Labels({"kept"})) as output:
        home.wait_for(TOPICS.availability, b"online")
        output.say(said("gone", 0.1))
        home.wait(lambda: home.json(TOPICS.state).get("sample_id") == "gone")
        output.say(said("kept", 0.3))
        home.wait_for_question("kept")
        assert not any(b"gone" in payload for topic, payload, _ in home.heard if topic == TOPICS.question)


@pytest.mark.parametrize(
    "payload",
    [
        b"cat",
        b"{",
        b"",
        {"sample_id": "a", "label": "zebra"},
        {"sample_id": "a"},
        [],
        {"sample_id": "", "label": "cat"},
    ],
)
def test_nonsense_on_the_label_topic_labels_nothing_and_ends_nothing(broker, home, payload):
    labels = Labels({"a"})
    with device(broker.port, labels) as output:
        home.wait_for(TOPICS.availability, b"online")
        home.say(TOPICS.label, payload)
        home.answer("a", "cat")
        until(lambda: ("a", "cat", "home assistant") in labels.labelled)
        assert output.facts()["labels"] == 1


def test_a_retained_answer_is_nobodys(broker, home):
    home.say(TOPICS.label, {"sample_id": "a", "label": "cat"}, retain=True)
    home.wait(lambda: TOPICS.label in home.known)  # or the broker would have it after the device has subscribed
    labels = Labels({"a"})
    with device(broker.port, labels):
        home.wait_for(TOPICS.availability, b"online")
        home.answer("a", "dog")
        until(lambda: labels.labelled)
        assert labels.labelled == [("a", "dog", "home assistant")]


def test_a_home_that_restarts_is_told_everything_again(broker, home):
    with device(broker.port):
        home.wait_for(TOPICS.availability, b"online")
        home.known.clear()
        home.say(TOPICS.home, b"online")
        home.wait(lambda: {TOPICS.config, TOPICS.availability} <= home.known.keys())


def test_a_broker_that_forgets_everything_is_told_everything_again(tmp_path):
    with plain_mosquitto(tmp_path) as broker, device(broker.port) as output:
        until(lambda: output.facts()["is_connected"])
        broker.kill()
        until(lambda: not output.facts()["is_connected"])
        for number in range(2000):
            output.say(said(str(number)))
        broker.start()
        home = AskedHome(LinkSettings("home", port=broker.port, subscriptions=("homeassistant/#", "fedistill/#")))
        home.wait(lambda: home.json(TOPICS.state).get("sample_id") == "1999")
        home.wait_for(TOPICS.availability, b"online")
        assert TOPICS.config in home.known
        assert len([topic for topic, *_ in home.heard if topic == TOPICS.state]) <= 2  # it was away, and kept nothing
        home.link.close()


def test_a_broker_that_is_there_and_answers_nothing_costs_no_memory(broker, home):
    with device(broker.port) as output:
        home.wait_for(TOPICS.availability, b"online")
        os.kill(broker._process.pid, signal.SIGSTOP)
        try:
            end_s, number = time.monotonic() + 2.0, 0
            while time.monotonic() < end_s:  # twenty states would be due
                output.say(said(str(number := number + 1)))
                time.sleep(0.02)
        finally:
            os.kill(broker._process.pid, signal.SIGCONT)
        home.wait(lambda: home.json(TOPICS.state).get("sample_id") == str(number))
        assert len([topic for topic, *_ in home.heard if topic == TOPICS.state]) <= 3


def test_a_worker_that_is_killed_is_unavailable(broker, home):
    program = f"""
import sys, time
from edge_agent.inference.outputs.home_assistant import HomeAssistant
from edge_agent.inference.outputs.discovery import HomeTopics
from edge_agent.inference.settings import HomeAssistantSettings
from edge_agent.local_broker import LocalBrokerSettings
settings = HomeAssistantSettings(LocalBrokerSettings("127.0.0.1", {broker.port}))
HomeAssistant(settings, HomeTopics("fleet", "dev-1"), ("a", "b"), model="m", version="v")
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        home.wait_for(TOPICS.availability, b"online")
        process.kill()
        home.wait_for(TOPICS.availability, b"offline")
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="no mosquitto_passwd")
def test_a_broker_that_asks_for_a_password_gets_it_and_a_wrong_one_is_told(tmp_path):
    users, right, wrong = tmp_path / "users", tmp_path / "password", tmp_path / "wrong"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "kitchen", "s3cret"], check=True, capture_output=True)
    right.write_text("s3cret\n")
    wrong.write_text("guess\n")
    with plain_mosquitto(tmp_path, "allow_anonymous false", f"password_file {users}") as broker:
        settings = LocalBrokerSettings("127.0.0.1", broker.port, username="kitchen", password_file=right)
        with opened(settings) as output:
            until(lambda: output.facts()["is_connected"])
        with opened(replace(settings, password_file=wrong)) as output:
            assert "authori" in until(lambda: output.facts().get("problem")).lower()


@contextmanager
def opened(broker):
    output = HomeAssistant(HomeAssistantSettings(broker), TOPICS, CLASSES, model="m", version="v")
    try:
        yield output
    finally:
        output.close()
