"""The demo's broker: Mosquitto with TLS, certificates and ACL where it is installed, else the one that pip brings."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from broker_server.brokers.embedded import NOTICE, embedded_broker
from broker_server.brokers.loopback import LOOPBACK, BrokerError, BrokerProcess, free_port
from broker_server.brokers.mosquitto import MosquittoSettings, find_mosquitto, mosquitto_process, write_config
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from fd_runtime.links.link import TlsFiles

TLS_NOTICE = "Broker: Mosquitto on loopback, TLS with a certificate per device, ACL by certificate name."


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that is not started yet, and each client's certificate; without TLS there are none."""

    process: BrokerProcess
    identities: dict[str, TlsFiles]
    notice: str


def make_broker(
    folder: Path, federation: str, aggregator: str, devices: Sequence[str], now: datetime, *, embedded: bool
) -> Broker:
    """Prepare a broker in the new `folder`.

    Raises:
        BrokerError: neither Mosquitto nor the embedded broker is installed.
    """
    if embedded or not _has_mosquitto():
        return Broker(embedded_broker(folder), {}, NOTICE)
    authority = Authority.create(folder / "ca", fleet=federation, now=now)
    identities = {
        name: authority.issue(Identity(name, role), folder / "certificates" / name, now=now)
        for name, role in [(aggregator, Role.AGGREGATOR), *((device, Role.DEVICE) for device in devices)]
    }
    tls = authority.issue(Identity("broker", Role.BROKER, (LOOPBACK, "localhost")), folder / "certificates", now=now)
    port = free_port()
    settings = MosquittoSettings(
        folder / "mosquitto", tls, authority.crl_path, port=port, user=getpass.getuser()
    )  # our own user: a broker that root starts would become `mosquitto`, who may not read these files
    config = write_config(settings, federation=federation, aggregator=aggregator)
    return Broker(mosquitto_process(config, port), identities, TLS_NOTICE)


def _has_mosquitto() -> bool:
    try:
        find_mosquitto()
    except BrokerError:
        return False
    return True
