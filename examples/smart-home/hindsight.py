"""Says in which third of its day each hour was, once it is over: the labels that teach the device, and nobody gives.

    python hindsight.py [--meter zigbee2mqtt/meter] [--topic home/meter/third] [--host localhost] [--port 1883]

    zigbee2mqtt/meter    {"power": 231.4, "last_seen": "2026-11-30T08:15:00+01:00"}     a reading every quarter hour
    home/meter/third     {"id": "2026-11-30T07:15:00+01:00", "label": "high"}           of the hour after that reading

The id is `last_seen` of the last reading of a day, as in agent.toml. Readings are counted, not timed: a meter that
skips some makes a day longer, as it does for the device. It wants paho-mqtt and nothing of ours.
"""

from __future__ import annotations

import argparse
import json
from collections import deque

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

THIRDS = ("low", "usual", "high")
HOURS, QUARTERS = 24, 4
DAY = HOURS * QUARTERS


class Hindsight:
    """A day and the hour after it, as they come by."""

    def __init__(self) -> None:
        self._readings = deque[tuple[str, float]](maxlen=DAY + QUARTERS)

    def told(self, reading: object) -> dict[str, str] | None:
        """Take what a plug said; return the label of the day that ended an hour ago."""
        if not isinstance(reading, dict):
            return None
        drawn, seen = reading.get("power"), reading.get("last_seen")
        if not isinstance(drawn, (int, float)) or not isinstance(seen, str):
            return None
        self._readings.append((seen, float(drawn)))
        if len(self._readings) < DAY + QUARTERS:
            return None
        power = [power for _, power in self._readings]
        *day, after = (sum(power[begin : begin + QUARTERS]) for begin in range(0, len(power), QUARTERS))
        below = sum(hour < after for hour in day)
        return {"id": self._readings[DAY - 1][0], "label": THIRDS[min(below * 3 // HOURS, 2)]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="hindsight.py")
    parser.add_argument("--meter", default="zigbee2mqtt/meter")
    parser.add_argument("--topic", default="home/meter/third")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    asked = parser.parse_args()
    hindsight = Hindsight()

    def connected(client: Client, *_: object) -> None:
        client.subscribe(asked.meter, qos=1)

    def arrived(client: Client, _: object, message: MQTTMessage) -> None:
        try:
            reading = json.loads(message.payload)
        except ValueError:  # not of a plug
            return
        if (told := hindsight.told(reading)) is not None:
            client.publish(asked.topic, json.dumps(told), qos=1)

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect, client.on_message = connected, arrived
    client.connect(asked.host, asked.port)
    client.loop_forever()


if __name__ == "__main__":
    main()
