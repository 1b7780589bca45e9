"""The brokers that we configure or start: Mosquitto, and the one that pip installs."""
