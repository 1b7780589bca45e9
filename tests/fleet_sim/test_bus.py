"""The broker in memory keeps the promises of `fd_runtime.links.link`, and breaks only what its faults name."""

from queue import Empty

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import (
    MESSAGE_EXPIRED,
    PACKET_TOO_LARGE,
    Arrived,
    LinkDown,
    LinkSettings,
    LinkUp,
    Published,
    PublishRefused,
    Will,
)
from fleet_sim.bus.bus import Faults, InMemoryBroker
from tests.laws.link_laws import LinkLaws
from tests.support.brokers import next_event


class Pulling:
    """A link whose queue moves the broker until something lies in it: what threads do for a real one."""

    def __init__(self, broker, link):
        self._broker, self._link = broker, link
        self.publish, self.ack, self.close = link.publish, link.ack, link.close

    @property
    def events(self):
        return self

    def get(self, timeout):
        for _ in range(1000):
            if not self._link.events.empty():
                return self._link.events.get_nowait()
            self._broker.turn()
        raise Empty


class TestLaws(LinkLaws):
    """The laws that hold over MQTT hold in memory."""

    @pytest.fixture(autouse=True)
    def broker(self):
        self.bus = broker_with()
        self.names = set()

    def connect(self, settings):
        self.names.add(settings.client_id)
        return Pulling(self.bus, self.bus.link(settings))

    def cut(self):
        settle(self.bus)
        for name in self.names:
            self.bus.cut(name)

    def shut(self):
        settle(self.bus)
        self.bus.stop()

    def reopen(self):
        self.bus.start()

    def test_a_link_whose_broker_is_away_says_so_and_keeps_trying(self):
        """It says so once: a clock that is turned by hand knows no "every few seconds"."""
        self.shut()
        link = self.connect(LinkSettings("early"))
        assert next_event(link, LinkDown).reason
        self.reopen()
        next_event(link, LinkUp)


def broker_with(seed=0, **faults):
    return InMemoryBroker(np.random.default_rng(seed), Faults(**faults))


def listener(broker, *filters, name="listener", **settings):
    link = broker.link(LinkSettings(name, subscriptions=filters, **settings))
    settle(broker)
    return link


def settle(broker, turns=10_000):
    for _ in range(turns):
        if not broker.turn():
            return
    raise AssertionError("the bus never came to rest")


def drain(link):
    events = []
    while True:
        try:
            events.append(link.events.get_nowait())
        except Empty:
            return events


def payloads(link):
    return [event.payload for event in drain(link) if isinstance(event, Arrived)]


def test_a_message_reaches_every_subscription_and_its_sender_learns_that_the_broker_has_it():
    broker = broker_with()
    one, two = listener(broker, "a/+"), listener(broker, "a/b", name="two")
    sender = listener(broker, name="sender")
    token = sender.publish("a/b", b"hello")
    settle(broker)
    assert payloads(one) == payloads(two) == [b"hello"]
    assert Published(token) in drain(sender)


def test_link_up_comes_before_everything_of_its_connection():
    broker = broker_with()
    listener(broker, name="sender").publish("a", b"kept", retain=True)
    settle(broker)
    link = listener(broker, "a")
    first, second = drain(link)
    assert isinstance(first, LinkUp)
    assert isinstance(second, Arrived)
    assert second.retained


def test_a_retained_message_is_the_last_one_and_comes_again_at_every_connection():
    broker = broker_with()
    sender, link = listener(broker, name="sender"), listener(broker, "a")
    for body in (b"old", b"new"):
        sender.publish("a", body, retain=True)
    settle(broker)
    assert payloads(link) == [b"old", b"new"]
    broker.cut("listener")
    settle(broker)
    assert payloads(link) == [b"new"]


def test_an_empty_retained_message_clears_its_topic():
    broker = broker_with()
    sender = listener(broker, name="sender")
    sender.publish("a", b"x", retain=True)
    sender.publish("a", b"", retain=True)
    settle(broker)
    assert not broker.retained


def test_a_session_queues_while_its_client_is_away():
    broker = broker_with()
    sender = listener(broker, name="sender")
    listener(broker, "a")
    broker.kill("listener")
    sender.publish("a", b"meanwhile")
    settle(broker)
    again = listener(broker, "a")
    up, arrived = drain(again)
    assert up.session_present
    assert arrived.payload == b"meanwhile"


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not():
    broker = broker_with()
    sender, link = listener(broker, name="sender"), listener(broker, "a", manual_ack=True)
    sender.publish("a", b"1")
    sender.publish("a", b"2")
    settle(broker)
    one, _two = [event for event in drain(link) if isinstance(event, Arrived)]
    link.ack(one)
    settle(broker)
    broker.cut("listener")
    settle(broker)
    assert payloads(link) == [b"2"]


def test_the_broker_keeps_to_the_receive_maximum():
    broker = broker_with()
    sender, link = listener(broker, name="sender"), listener(broker, "a", manual_ack=True, receive_maximum=2)
    for number in range(5):
        sender.publish("a", bytes([number]))
    settle(broker)
    first = [event for event in drain(link) if isinstance(event, Arrived)]
    assert len(first) == 2
    link.ack(first[0])
    settle(broker)
    assert payloads(link) == [b"\2"]


@pytest.mark.parametrize(
    ("end", "wills"),
    [("kill", [b"gone"]), ("cut", [b"gone"]), ("close", [])],
)
def test_a_will_is_published_for_those_who_vanish_alone(end, wills):
    broker = broker_with()
    watcher = listener(broker, "state")
    link = listener(broker, name="device", will=Will("state", b"gone"))
    if end == "close":
        link.close()
    else:
        getattr(broker, end)("device")
    settle(broker)
    assert payloads(watcher) == wills


def test_a_client_that_closes_and_comes_back_at_once_leaves_no_will():
    broker = broker_with()
    watcher = listener(broker, "state")
    listener(broker, name="device", will=Will("state", b"gone")).close()
    listener(broker, name="device", will=Will("state", b"gone"))
    assert payloads(watcher) == []


def test_a_publish_survives_a_broker_that_is_not_there_yet():
    broker = broker_with()
    broker.stop()
    link = broker.link(LinkSettings("early"))
    token = link.publish("a", b"x", retain=True)
    settle(broker)
    assert drain(link) == [LinkDown("no broker")]
    broker.start()
    settle(broker)
    assert Published(token) in drain(link)


def test_a_forgetful_restart_loses_retained_messages_and_sessions():
    broker = broker_with()
    link = listener(broker, "a")
    listener(broker, name="sender").publish("a", b"x", retain=True)
    settle(broker)
    drain(link)
    broker.stop(forget=True)
    broker.start()
    settle(broker)
    down, up = drain(link)
    assert isinstance(down, LinkDown)
    assert not up.session_present
    assert not broker.retained


def test_an_expired_message_is_refused_or_dropped_never_delivered():
    now_s = [0.0]
    broker = InMemoryBroker(np.random.default_rng(0), now_s=lambda: now_s[0])
    sender, _ = listener(broker, name="sender"), listener(broker, "a")
    broker.kill("listener")
    sender.publish("a", b"queued too long", expiry_s=5)
    settle(broker)
    now_s[0] = 6.0
    assert payloads(listener(broker, "a")) == []
    broker.stop()
    token = sender.publish("a", b"never sent", expiry_s=5)
    now_s[0] = 12.0
    broker.start()
    settle(broker)
    assert PublishRefused(token, MESSAGE_EXPIRED) in drain(sender)


def test_a_packet_over_the_limit_is_refused_once_and_hurts_nobody():
    broker = InMemoryBroker(np.random.default_rng(0), max_packet_bytes=100)
    sender = listener(broker, name="sender")
    big, small = sender.publish("a", bytes(200)), sender.publish("a", b"x")
    settle(broker)
    assert drain(sender)[1:] == [PublishRefused(big, PACKET_TOO_LARGE), Published(small)]


@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.4), duplicate=st.floats(0, 0.4), reorder=st.floats(0, 0.9))
def test_whatever_the_faults_every_message_arrives_in_the_order_of_its_topic(seed, loss, duplicate, reorder):
    broker = broker_with(seed, loss=loss, duplicate=duplicate, reorder=reorder)
    link = listener(broker, "+")
    senders = [listener(broker, name=f"sender{i}") for i in range(3)]
    for number in range(6):
        for sender in senders:
            sender.publish(sender.settings.client_id, bytes([number]))
    settle(broker)
    arrived = [event for event in drain(link) if isinstance(event, Arrived)]
    for sender in senders:
        bodies = [event.payload[0] for event in arrived if event.topic == sender.settings.client_id]
        firsts = sorted(set(bodies), key=bodies.index)
        assert firsts == list(range(6))
        assert sum(isinstance(event, Published) for event in drain(sender)) == 6


def test_equal_seeds_give_equal_histories():
    def history(seed):
        broker = broker_with(seed, loss=0.3, duplicate=0.3, reorder=0.5)
        link, sender = listener(broker, "+"), listener(broker, name="sender")
        for number in range(20):
            sender.publish(f"t{number % 3}", bytes([number]))
        settle(broker)
        return payloads(link)

    assert history(1) == history(1) != history(2)


def test_loss_duplication_and_reordering_do_happen():
    def delivered(**faults):
        broker = broker_with(3, **faults)
        link, sender = listener(broker, "+"), listener(broker, name="sender")
        for number in range(50):
            sender.publish(f"t{number}", bytes([number]))
        settle(broker)
        return payloads(link), drain(sender)

    (twice, _), (shuffled, _), (resent, events) = (
        delivered(duplicate=0.5),
        delivered(reorder=0.9),
        delivered(loss=0.5),
    )
    assert len(twice) > 60
    assert shuffled != sorted(shuffled)
    assert len(resent) > 50
    assert any(isinstance(event, LinkDown) for event in events)


def test_a_certain_fault_is_refused():
    with pytest.raises(InvalidValueError):
        Faults(loss=1.0)


def test_of_every_topic_the_last_retained_message_comes_once():
    broker = broker_with()
    sender = listener(broker, name="sender")
    for topic, body in (("b", b"1"), ("a", b"2"), ("c", b"3"), ("b", b"4"), ("a", b""), ("a", b"5")):
        sender.publish(topic, body, retain=True)
    settle(broker)
    assert sorted(payloads(listener(broker, "+", "a"))) == [b"3", b"4", b"5"]


def test_who_subscribes_anew_hears_what_the_new_subscriptions_say():
    broker = broker_with()
    sender = listener(broker, name="sender")
    listener(broker, "a", "b")
    link = listener(broker, "b", "c")
    for topic in "abc":
        sender.publish(topic, topic.encode())
    settle(broker)
    assert payloads(link) == [b"b", b"c"]


def test_overlapping_subscriptions_bring_a_message_once():
    broker = broker_with()
    link = listener(broker, "a/+", "a/#", "a/b", "a/b")
    listener(broker, name="sender").publish("a/b", b"x")
    settle(broker)
    assert payloads(link) == [b"x"]
    link = listener(broker, "c")
    assert payloads(link) == []


@pytest.mark.parametrize(("away_s", "heard"), [(59, ["news 1", "news 2"]), (60, ["news 2"])])
def test_a_session_ends_when_its_client_has_been_away_for_long_and_what_is_retained_comes_all_the_same(away_s, heard):
    now = [0.0]
    bus = InMemoryBroker(np.random.default_rng(0), now_s=lambda: now[0])
    settings = LinkSettings("device", subscriptions=("news",), session_expiry_s=60, manual_ack=True)
    bus.link(settings)
    settle(bus)
    now[0] = 1_000.0
    bus.kill("device")
    server = bus.link(LinkSettings("server"))
    for number in (1, 2):
        server.publish("news", b"news %d" % number, retain=True)
    settle(bus)
    now[0] += away_s
    link = bus.link(settings)
    settle(bus)
    events = []
    while not link.events.empty():
        events.append(link.events.get_nowait())
    assert events[0] == LinkUp(away_s < 60, events[0].max_packet_bytes)
    told = [event.payload.decode() for event in events[1:]]
    assert list(dict.fromkeys(told)) == heard
