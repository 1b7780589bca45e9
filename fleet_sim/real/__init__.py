"""A federation of real processes on one machine: broker, `broker-server`, `edge-agent`s, watched from outside."""
