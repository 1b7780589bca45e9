"""What a broker has retained: the last message of each topic, found by filter."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fleet_sim.bus.link import Message
from fleet_sim.bus.topic_tree import TopicTree


class Retained:
    """Iterates over the messages."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._topics: TopicTree[str] = TopicTree()

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def keep(self, message: Message) -> None:
        """Keep `message` in the place of its topic's last one; an empty one clears the topic."""
        topic = message.topic
        if message.payload:
            self._messages[topic] = message
            self._topics.add(topic, topic)
        elif self._messages.pop(topic, None) is not None:
            self._topics.remove(topic, topic)

    def matching(self, patterns: Collection[str]) -> list[Message]:
        """Return the messages whose topics any of the filters covers, each once."""
        topics = dict.fromkeys(topic for pattern in patterns for topic in self._topics.under(pattern))
        return [self._messages[topic] for topic in topics]
