"""A server as a process: the aggregator's loop on the main thread, long work on one other, the link on its own."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from broker_server import transfer
from broker_server.aggregator import GROUP_MESSAGES, Aggregator
from broker_server.child import Child
from broker_server.config import Config
from broker_server.core.events import EpochBegun
from broker_server.equipment import Workshop, load_equipment
from broker_server.journal import Journal
from broker_server.orders import Spool
from broker_server.shelf import Shelf
from broker_server.sites.vouching import Tending, online_trust
from broker_server.worker import ThreadWorker
from fd_runtime.artifacts import MissingArtifactError
from fd_runtime.links.link import LinkSettings
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.starting import blame, close_soon, exclusive, until_signalled
from fd_runtime.storage.store import Store, StoreFullError

_PUMP_S = 5.0
_DISK_RETRY_S = 1.0
_RECEIVE_MAXIMUM = 2 * GROUP_MESSAGES
"""Messages that a broker may have under way to us: two groups, so that it sends while we commit."""

log = logging.getLogger("broker-server")


def run(path: Path, *, version: str) -> None:
    """Be the server that the settings file at `path` describes, until SIGINT or SIGTERM.

    Raises:
        ConfigError, StartError: it cannot start; says the key.
        StoreError: its database broke.
    """
    equipment = load_equipment(path)
    config, workshop = equipment.config, Workshop(equipment)
    kit = workshop.first()
    with ExitStack() as stack:
        store = _enter_store(stack, path, config)
        with blame(path, "broker.tls"):
            link = MqttLink(_link_settings(config))
        stack.callback(close_soon, link)
        worker = ThreadWorker()
        stack.callback(worker.close)
        with blame(path, "state.folder"):
            trust = online_trust(config)
            aggregator = Aggregator(
                config,
                store,
                link,
                utc_ms,
                kit.student,
                probes=kit.probes,
                canaries=kit.canaries,
                worker=worker,
                version=version,
                spool=Spool(config.state.orders),
                shelf=Shelf(equipment.bundle, config.state.releases, trust),
                gate=kit.gate,
                auto_release=config.release.automatic,
                staging=config.release.staging,
                canaries_sha256=equipment.canaries_sha256,
                make_kit=workshop.other,
            )
        stack.callback(aggregator.leave)
        log.info("federation %s, epoch %04x", config.federation, aggregator.state.epoch & 0xFFFF)
        if config.dashboard.enabled:
            _enter_child(stack, path, "dashboard")
        if config.packages.enabled or config.enrolment.enabled:
            _enter_child(stack, path, "packages")
        tending = None if trust is None else Tending(trust)
        until_signalled(lambda: _pump(aggregator, tending), aggregator.wake)


def restore(config: Config, path: Path, *, epoch: int, backup: Path | None = None) -> Path | None:
    """Begin a new epoch with the server stopped: of `backup`, or of a database that was put there by hand.

    Returns:
        Where the database lies in whose place the backup came; None = there was none.

    Raises:
        StartError: the server runs, there is no database, or the backup is no sound one.
    """
    begun = EpochBegun(epoch, utc_ms())
    with ExitStack() as stack, blame(path, "state.folder"):
        if backup is not None:
            config.state.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(config.state.lock))
            return transfer.restore(backup, config.federation, config.state.store, begun)
        if not config.state.store.is_file():
            raise MissingArtifactError(config.state.store)
        store = _enter_store(stack, path, config)
        Journal(store, config.federation).write([begun], begun.at_ms)
    return None


def utc_ms() -> int:
    return time.time_ns() // 1_000_000


def _enter_store(stack: ExitStack, path: Path, config: Config) -> Store:
    with blame(path, "state.folder"):
        config.state.folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(exclusive(config.state.lock))
        return stack.enter_context(closing(Store.open(config.state.store)))


def _enter_child(stack: ExitStack, path: Path, name: str) -> None:
    """A process of its own, `broker-server NAME`: what it does, or fails to do, never touches the aggregator."""
    program = "import sys; from broker_server.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, name, "--child", "--config", str(path.absolute())]
    child = Child(name, command)
    child.start()
    stack.callback(child.stop)


def _pump(aggregator: Aggregator, tending: Tending | None) -> None:
    if tending is not None:
        tending.turn(utc_ms() / 1000)
    try:
        aggregator.pump(_PUMP_S)
    except StoreFullError as error:
        log.error("%s; nothing is taken in until there is room", error)  # noqa: TRY400 - the trace says no more
        time.sleep(_DISK_RETRY_S)


def _link_settings(config: Config) -> LinkSettings:
    return LinkSettings(
        client_id=config.aggregator,
        host=config.broker.host,
        port=config.broker.port,
        username=config.broker.username,
        tls=config.broker.tls,
        proxy=config.broker.way,
        subscriptions=config.subscriptions,
        will=config.will,
        manual_ack=True,
        only_acknowledged=True,
        receive_maximum=_RECEIVE_MAXIMUM,
    )
