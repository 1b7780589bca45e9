"""The broker that pip installs: iotcore (rumqttd), for demos and quick tests on loopback.

It speaks MQTT 5, and takes payloads above 20 kB, only when a configuration file says so. Beside Mosquitto it lacks
certificates and ACLs, so never let it listen beyond loopback; a memory that survives it; and retained messages for a
client that comes back to its session, which it sends at the session's first subscription only.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from broker_server.brokers.loopback import LOOPBACK, BrokerError, BrokerProcess, free_port

NOTICE = (
    "Broker: iotcore on loopback, for demos only. It keeps retained messages in memory, and no certificate is asked."
)

_CONFIG = """\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 10

[v5.1]
name = "loopback"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 2097152
max_inflight_count = 200
dynamic_filters = true
"""


def embedded_broker(folder: Path, port: int | None = None) -> BrokerProcess:
    """Return a broker whose files lie in `folder`, not started yet.

    Raises:
        BrokerError: iotcore is not installed.
    """
    if importlib.util.find_spec("iotcore") is None:
        raise BrokerError("the embedded broker is not installed: pip install 'fedistill[sim]'")
    port = int(port or free_port())
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "broker.toml"
    config.write_text(_CONFIG.format(host=LOOPBACK, port=port))
    return BrokerProcess([sys.executable, "-m", "iotcore", "--config", str(config)], port, folder / "broker.log")
