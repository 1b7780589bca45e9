"""What every `Link` promises, whatever carries it. An implementation inherits `LinkLaws` and says how to connect."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import (
    MESSAGE_EXPIRED,
    Arrived,
    Link,
    LinkDown,
    LinkSettings,
    LinkUp,
    Published,
    PublishRefused,
    Will,
)
from tests.support.brokers import next_event


class LinkLaws(ABC):
    """The laws. Clients of one test share one broker."""

    @abstractmethod
    def connect(self, settings: LinkSettings) -> Link:
        """Return a new link of these settings; host and port are the implementation's."""

    @abstractmethod
    def cut(self) -> None:
        """Break every connection; links may come back at once."""

    @abstractmethod
    def shut(self) -> None:
        """Break every connection and let nobody back until `reopen`."""

    @abstractmethod
    def reopen(self) -> None: ...

    def up(self, settings: LinkSettings) -> Link:
        link = self.connect(settings)
        next_event(link, LinkUp)
        return link

    def test_a_message_reaches_its_subscriber_and_its_publisher_hears_of_it(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a/+",)))
        mouth = self.up(LinkSettings("mouth"))
        token = mouth.publish("a/b", b"payload")
        arrived = next_event(ear, Arrived)
        assert (arrived.topic, arrived.payload, arrived.retained) == ("a/b", b"payload", False)
        assert next_event(mouth, Published) == Published(token)

    def test_what_nobody_subscribed_to_does_not_arrive(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a/+", "last")))
        mouth = self.up(LinkSettings("mouth"))
        for topic in ("b", "a", "a/b/c", "last"):
            mouth.publish(topic, b"")
        assert next_event(ear, Arrived).topic == "last"

    def test_five_hundred_messages_arrive_in_order_each_acknowledged_once(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a",)))
        mouth = self.up(LinkSettings("mouth"))
        tokens = [mouth.publish("a", b"%d" % i) for i in range(500)]
        assert [next_event(ear, Arrived).payload for _ in tokens] == [b"%d" % i for i in range(500)]
        assert [next_event(mouth, Published).token for _ in tokens] == tokens

    def test_a_retained_message_arrives_again_at_every_connection(self):
        mouth = self.up(LinkSettings("mouth"))
        mouth.publish("a", b"kept", retain=True)
        next_event(mouth, Published)
        ear = self.up(LinkSettings("ear", subscriptions=("a",)))
        assert next_event(ear, Arrived).retained
        self.cut()
        next_event(ear, LinkUp)
        assert next_event(ear, Arrived).payload == b"kept"

    def test_an_empty_retained_message_clears_the_topic(self):
        mouth = self.up(LinkSettings("mouth"))
        mouth.publish("a", b"kept", retain=True)
        mouth.publish("a", b"", retain=True)
        mouth.publish("b", b"other", retain=True)
        for _ in range(3):
            next_event(mouth, Published)
        ear = self.up(LinkSettings("ear", subscriptions=("a", "b")))
        assert next_event(ear, Arrived).topic == "b"

    def test_what_is_published_while_the_broker_is_away_arrives_in_order_later(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a",)))
        mouth = self.up(LinkSettings("mouth"))
        self.shut()
        next_event(mouth, LinkDown)
        tokens = [mouth.publish("a", b"%d" % i) for i in range(5)]
        self.reopen()
        assert [next_event(ear, Arrived).payload for _ in tokens] == [b"%d" % i for i in range(5)]
        assert [next_event(mouth, Published).token for _ in tokens] == tokens

    def test_what_was_under_way_when_the_connection_broke_is_sent_again_in_order(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a",)))
        mouth = self.up(LinkSettings("mouth"))
        sent = [mouth.publish("a", b"%03d" % i + b"x" * 10_000) for i in range(200)]
        confirmed = [next_event(mouth, Published).token for _ in range(20)]
        self.cut()
        confirmed += [next_event(mouth, Published).token for _ in range(180)]
        assert confirmed == sent
        heard = [next_event(ear, Arrived).payload[:3]]
        while heard[-1] != b"199":
            heard.append(next_event(ear, Arrived).payload[:3])
        assert list(dict.fromkeys(heard)) == [b"%03d" % i for i in range(200)]

    def test_an_older_retained_message_never_overwrites_a_newer_one(self):
        mouth = self.up(LinkSettings("mouth"))
        self.shut()
        next_event(mouth, LinkDown)
        mouth.publish("a", b"old", retain=True)
        self.reopen()
        newest = mouth.publish("a", b"new", retain=True)
        while next_event(mouth, Published).token != newest:
            pass
        ear = self.up(LinkSettings("ear", subscriptions=("a",)))
        assert next_event(ear, Arrived).payload == b"new"

    def test_what_is_sent_to_a_client_that_is_away_waits_for_it(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a",)))
        mouth = self.up(LinkSettings("mouth"))
        ear.close()
        mouth.publish("a", b"waiting")
        next_event(mouth, Published)
        again = self.connect(LinkSettings("ear", subscriptions=("a",)))
        assert next_event(again, LinkUp).session_present
        assert next_event(again, Arrived).payload == b"waiting"

    def test_a_message_that_was_not_acknowledged_comes_again_and_an_acknowledged_one_does_not(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a",), manual_ack=True))
        mouth = self.up(LinkSettings("mouth"))
        for payload in (b"acknowledged", b"forgotten"):
            mouth.publish("a", payload)
        ear.ack(next_event(ear, Arrived))
        assert next_event(ear, Arrived).payload == b"forgotten"
        ear.publish("b", b"goes the way of the acknowledgement, after it")
        next_event(ear, Published)
        self.cut()
        next_event(ear, LinkUp)
        assert next_event(ear, Arrived).payload == b"forgotten"

    def test_an_ack_of_an_earlier_connection_confirms_nothing(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a",), manual_ack=True))
        mouth = self.up(LinkSettings("mouth"))
        mouth.publish("a", b"message")
        stale = next_event(ear, Arrived)
        for _ in range(2):
            self.cut()
            next_event(ear, LinkUp)
            ear.ack(stale)
            assert next_event(ear, Arrived).payload == b"message"

    def test_the_will_is_published_when_the_client_vanishes(self):
        ear = self.up(LinkSettings("ear", subscriptions=("w",)))
        self.up(LinkSettings("patient", will=Will("w", b"gone")))
        self.cut()
        assert next_event(ear, Arrived).payload == b"gone"

    def test_a_client_that_closes_leaves_no_will(self):
        ear = self.up(LinkSettings("ear", subscriptions=("w", "last")))
        self.up(LinkSettings("patient", will=Will("w", b"gone"))).close()
        self.up(LinkSettings("mouth")).publish("last", b"")
        assert next_event(ear, Arrived).topic == "last"

    def test_what_was_published_just_before_closing_is_still_sent(self):
        ear = self.up(LinkSettings("ear", subscriptions=("a",)))
        mouth = self.up(LinkSettings("mouth"))
        mouth.publish("a", b"last words")
        mouth.close()
        assert next_event(ear, Arrived).payload == b"last words"

    def test_a_message_that_expired_before_it_could_be_sent_is_refused(self):
        mouth = self.up(LinkSettings("mouth"))
        self.shut()
        next_event(mouth, LinkDown)
        token = mouth.publish("a", b"", expiry_s=0)
        self.reopen()
        assert next_event(mouth, PublishRefused) == PublishRefused(token, MESSAGE_EXPIRED)

    def test_a_link_whose_broker_is_away_says_so_and_keeps_trying(self):
        self.shut()
        link = self.connect(LinkSettings("early"))
        for _ in range(3):
            assert next_event(link, LinkDown).reason
        self.reopen()
        next_event(link, LinkUp)

    @pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "a" * 65_536, "\ud800"])
    def test_a_topic_that_cannot_be_published_to_is_the_callers_mistake(self, topic):
        link = self.connect(LinkSettings("mouth"))
        with pytest.raises(InvalidValueError, match="topic"):
            link.publish(topic, b"")
