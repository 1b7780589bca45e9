"""A client's place at a broker: MQTT 5 over TLS, through proxies, and what to do when the link is gone."""
