"""Predictions said to the federation, on `dev/{device}/prediction`, where the device's owner wants that.

News, not records: whoever hears one later than a minute is not interested, so nothing is kept for it. While the broker
is away or slow the newest are dropped and counted, and the link's memory stays bounded.
"""

from __future__ import annotations

import logging

from edge_agent.process.notices import Spoke
from fd_protocol import codec
from fd_protocol.messages import Prediction
from fd_runtime.links.link import MESSAGE_EXPIRED, Link

MOST_UNANSWERED = 16
EXPIRY_S = 60

log = logging.getLogger("edge-agent")


class Speaker:
    """Publishes what the worker says of live samples.

    Args:
        link: to the federation's broker.
        topic: `Topics.prediction` of this device.
    """

    def __init__(self, link: Link, topic: str) -> None:
        self._link, self._topic = link, topic
        self._unanswered: set[int] = set()
        self._refusal = ""
        self.dropped = 0

    def say(self, spoke: Spoke) -> None:
        """Publish a prediction, unless too many are on their way already."""
        if len(self._unanswered) >= MOST_UNANSWERED:
            self.dropped += 1
            return
        message = Prediction(spoke.sample_id, spoke.label, spoke.confidence)
        self._unanswered.add(self._link.publish(self._topic, codec.encode(message), expiry_s=EXPIRY_S))

    def settle(self, token: int, refusal: str = "") -> bool:
        """Note that the broker has taken a message, or why it refused it; return whether it was one of these."""
        if token not in self._unanswered:
            return False
        self._unanswered.remove(token)
        if refusal:
            self.dropped += 1
        if refusal not in ("", MESSAGE_EXPIRED, self._refusal):  # each reason once, not with every prediction
            log.warning("the broker refuses predictions: %s", refusal)
            self._refusal = refusal
        return True
