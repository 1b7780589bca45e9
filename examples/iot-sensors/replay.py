"""Plays what a person's phone recorded through a broker: a reading a message, in real time or faster.

    python replay.py --data A_DeviceMotion_data.zip --person 4 [--topic phones/1/motion] [--speed 20] [--port 1883]

    {"gravity_x": 0.74, ..., "acceleration_z": -0.02, "activity": "wlk"}     while the person says what they do
    {"gravity_x": 0.75, ..., "acceleration_z": -0.03}                        afterwards

One recording after the other, with a pause between them in which the phone says nothing: it is not shortened by
`--speed`, so that a device whose `gap_s` is below it begins its windows anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from fleet_sim.data.sensors import ACTIVITIES, Recording, recordings

RATE_HZ = 50.0
COLUMNS = tuple(f"{sensor}_{axis}" for sensor in ("gravity", "rotation", "acceleration") for axis in "xyz")
"""As recipe.toml and agent.toml have them, in the order of the recordings."""
IN_FLIGHT = 200
"""Messages on the way at most: a broker drops what its queue does not hold."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="replay.py")
    parser.add_argument("--data", type=Path, required=True, help="MotionSense: whole recordings")
    parser.add_argument("--person", type=int, required=True, help="number of the subject")
    parser.add_argument("--topic", default="phones/1/motion")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--speed", type=float, default=1.0, help="times as fast as it was recorded")
    parser.add_argument("--pause-s", type=float, default=2.0, help="between two recordings")
    parser.add_argument("--labelled-s", type=float, default=20.0, help="of each recording: it says the activity")
    asked = parser.parse_args()
    own = [recording for recording in recordings(asked.data) if recording.subject == asked.person]
    if not own:
        parser.error(f"nobody is number {asked.person} in {asked.data}")
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect(asked.host, asked.port)
    client.loop_start()
    try:
        for recording in own:
            sent = play(client, asked.topic, messages(recording, asked.labelled_s), 1 / (RATE_HZ * asked.speed))
            sys.stdout.write(f"{ACTIVITIES[recording.activity]}: {sent} readings\n")
            sys.stdout.flush()
            time.sleep(asked.pause_s)
    finally:
        client.disconnect()
        client.loop_stop()


def messages(recording: Recording, labelled_s: float) -> Iterator[dict[str, Any]]:
    """Yield the readings of a recording; those of its first seconds say what the person does."""
    for number, reading in enumerate(recording.signals.tolist()):
        said = {"activity": ACTIVITIES[recording.activity]} if number < labelled_s * RATE_HZ else {}
        yield {**dict(zip(COLUMNS, reading, strict=True)), **said}


def play(client: Client, topic: str, readings: Iterable[dict[str, Any]], period_s: float) -> int:
    """Publish a reading every `period_s`, each when it is due; return how many. The broker has all of them then."""
    begun_s, on_the_way, number = time.monotonic(), deque[MQTTMessageInfo](), 0
    for number, reading in enumerate(readings, start=1):
        time.sleep(max(0.0, begun_s + (number - 1) * period_s - time.monotonic()))
        on_the_way.append(client.publish(topic, json.dumps(reading), qos=1))
        if len(on_the_way) > IN_FLIGHT:
            on_the_way.popleft().wait_for_publish()
    for sent in on_the_way:
        sent.wait_for_publish()
    return number


if __name__ == "__main__":
    main()
