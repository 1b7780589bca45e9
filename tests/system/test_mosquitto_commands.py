"""From nothing to a fleet that talks, by the commands of deploy/mosquitto/README.md."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

import pytest

from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.brokers.mosquitto import mosquitto_process
from broker_server.commands.ca import add_ca_commands
from broker_server.commands.mosquitto import add_mosquitto_command
from fd_protocol.errors import InvalidValueError
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkSettings, LinkUp, TlsFiles
from tests.support.brokers import links, needs_mosquitto, next_event

pytestmark = [pytest.mark.system, needs_mosquitto]


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    add_ca_commands(subparsers)
    add_mosquitto_command(subparsers)
    arguments = parser.parse_args([str(word) for word in words])
    assert arguments.run(arguments) == 0


def identity(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


def test_a_broker_without_its_certificate_is_given_no_configuration(tmp_path):
    with pytest.raises(InvalidValueError, match=r"broker/ca\.pem is missing: `broker-server ca sign"):
        run(
            "mosquitto",
            tmp_path / "broker",
            "--federation",
            "lab",
            "--aggregator",
            "agg-1",
            "--crl",
            tmp_path / "crl.pem",
        )
    assert not (tmp_path / "broker").exists()


def test_the_commands_of_the_readme_make_a_fleet_that_talks(tmp_path):
    ca, broker, port = tmp_path / "ca", tmp_path / "broker", free_port()
    run("ca", "init", ca, "--fleet", "lab")
    run("ca", "sign", ca, "broker", "--role", "broker", "--host", "localhost", "--out", broker)
    run("ca", "sign", ca, "agg-1", "--role", "aggregator", "--out", tmp_path)
    run("ca", "sign", ca, "dev-1", "--out", tmp_path)
    listener = ("--host", LOOPBACK, "--port", port, "--user", getpass.getuser())
    run("mosquitto", broker, "--federation", "lab", "--aggregator", "agg-1", "--crl", ca / "crl.pem", *listener)
    topics = Topics("lab")
    settings = [
        LinkSettings("agg-1", "localhost", tls=identity(tmp_path, "agg-1"), subscriptions=topics.server_filters()),
        LinkSettings("dev-1", "localhost", tls=identity(tmp_path, "dev-1")),
    ]
    with mosquitto_process(broker / "mosquitto.conf", port), links(port, *settings) as [aggregator, device]:
        next_event(aggregator, LinkUp)
        device.publish(topics.upload("dev-1"), b"contribution")
        assert next_event(aggregator, Arrived).payload == b"contribution"
