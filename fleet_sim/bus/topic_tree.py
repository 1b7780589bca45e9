"""Values by topic or by filter, found in as many steps as a topic has levels, however many there are.

    tree of filters   `along(topic)`     which filters cover this topic
    tree of topics    `under(pattern)`   which topics this filter covers

MQTT 5, section 4.7: `+` stands for one level, `#` for any number of them, and it stands last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(slots=True)
class _Node(Generic[V]):
    """A level: what lies exactly here, and what lies below."""

    values: dict[V, None] = field(default_factory=dict)  # a set that keeps its order
    below: dict[str, _Node[V]] = field(default_factory=dict)


class TopicTree(Generic[V]):
    """Several values may lie at one place, each once; one value may lie at several."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def add(self, path: str, value: V) -> None:
        node = self._root
        for level in path.split("/"):
            node = node.below.setdefault(level, _Node())
        node.values[value] = None

    def remove(self, path: str, value: V) -> None:
        """Take `value` away from where it was added, and every level that holds nothing more."""
        trail, node = [], self._root
        for level in path.split("/"):
            trail.append((node, level))
            node = node.below[level]
        del node.values[value]
        for parent, level in reversed(trail):
            if parent.below[level].values or parent.below[level].below:
                return
            del parent.below[level]

    def along(self, topic: str) -> Iterator[V]:
        """Yield the values of all filters that cover `topic`."""
        return _along(self._root, topic.split("/"), 0)

    def under(self, pattern: str) -> Iterator[V]:
        """Yield the values of all topics that the filter `pattern` covers."""
        return _under(self._root, pattern.split("/"), 0)


def _along(node: _Node[V], levels: list[str], depth: int) -> Iterator[V]:
    if "#" in node.below:
        yield from node.below["#"].values
    if depth == len(levels):
        yield from node.values
        return
    for level in (levels[depth], "+"):
        if level in node.below:
            yield from _along(node.below[level], levels, depth + 1)


def _under(node: _Node[V], levels: list[str], depth: int) -> Iterator[V]:
    if depth == len(levels):
        yield from node.values
        return
    level = levels[depth]
    if level == "#":
        yield from _everything(node)
    elif level == "+":
        for child in node.below.values():
            yield from _under(child, levels, depth + 1)
    elif level in node.below:
        yield from _under(node.below[level], levels, depth + 1)


def _everything(node: _Node[V]) -> Iterator[V]:
    yield from node.values
    for child in node.below.values():
        yield from _everything(child)
