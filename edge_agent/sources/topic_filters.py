"""Does a topic match a filter? MQTT 5, section 4.7: `+` is one level, `#` all that follow, the parent included.

Topics that begin with `$` are the broker's own, and match no filter that begins with a wildcard.
"""

from __future__ import annotations


def matches(topic_filter: str, topic: str) -> bool:
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(levels) or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)
