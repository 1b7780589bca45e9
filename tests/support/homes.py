"""A home's side of a broker: what it heard, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace

from fd_runtime.links.link import Arrived
from fd_runtime.links.mqtt_link import MqttLink
from tests.edge_agent.stores import until


class Home:
    """What Home Assistant would know: the last payload of each topic."""

    def __init__(self, settings):
        self.link = MqttLink(replace(settings, reconnect_min_s=0.05, reconnect_max_s=0.2))
        self.known, self.heard = {}, []

    def hear(self):
        while not self.link.events.empty():
            match self.link.events.get():
                case Arrived(topic, payload, retained):
                    self.known[topic] = payload
                    self.heard.append((topic, payload, retained))

    def wait(self, claim):
        def check():
            self.hear()
            return claim()

        return until(check)

    def say(self, topic, payload, *, retain=False):
        self.link.publish(topic, payload if isinstance(payload, bytes) else json.dumps(payload).encode(), retain=retain)

    def json(self, topic):
        return json.loads(self.known.get(topic) or b"{}")

    def wait_for(self, topic, payload):
        self.wait(lambda: self.known.get(topic) == payload)
