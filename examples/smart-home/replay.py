"""Plays what a building drew through a broker, as a plug of zigbee2mqtt says it: a reading a quarter hour, or faster.

python replay.py --data simbench-1.6.3-py3-none-any.whl --building H0-A [--days 14] [--period-s 0.05] [--port 1883]

zigbee2mqtt/meter    {"power": 231.4, "last_seen": "2016-01-01T00:15:00+01:00"}
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from fleet_sim.data.loads import HOURS, QUARTERS, Load, loads

BEGIN = datetime(2016, 1, 1, tzinfo=timezone(timedelta(hours=1)))
MEAN_W = 250.0
"""Of a home. agent.toml's `scale` is one over it."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="replay.py")
    parser.add_argument("--data", type=Path, required=True, help="SimBench: its wheel, or a LoadProfile.csv")
    parser.add_argument("--building", required=True, help="such as H0-A")
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--topic", default="zigbee2mqtt/meter")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--period-s", type=float, default=0.05, help="from a reading to the next; in earnest 900")
    asked = parser.parse_args()
    own = {load.building: load for load in loads(asked.data)}
    if asked.building not in own:
        parser.error(f"{asked.building} is none of {', '.join(own)}")
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect(asked.host, asked.port)
    client.loop_start()
    sent = 0
    try:
        for reading in readings(own[asked.building], asked.days):
            client.publish(asked.topic, json.dumps(reading), qos=1).wait_for_publish()
            sent += 1
            time.sleep(asked.period_s)
    finally:
        client.disconnect()
        client.loop_stop()
    sys.stdout.write(f"{asked.building}: {sent} readings\n")


def readings(load: Load, days: int) -> Iterator[dict[str, object]]:
    """Yield what a plug says, a quarter hour after another."""
    for number, power in enumerate(load.power[: days * HOURS * QUARTERS].tolist(), start=1):
        seen = BEGIN + timedelta(minutes=15 * number)
        yield {"power": round(power * MEAN_W, 1), "last_seen": seen.isoformat()}


if __name__ == "__main__":
    main()
