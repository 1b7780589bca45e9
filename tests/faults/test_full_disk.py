"""A small ext4 that is full: nobody stops, nothing is lost, and all go on when there is room."""

from __future__ import annotations

import signal
import time
from collections import Counter
from dataclasses import replace

import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.records.chronicle import Chronicle
from fd_runtime.links.link import LinkSettings
from fd_runtime.storage.store import Store
from tests.broker_server.artifacts import build_artifacts
from tests.edge_agent.processes import TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.faults.area import ACT, ALL
from tests.faults.disk import Disk, needs_disk
from tests.faults.grounds import EnrolmentArea, LedgerArea, OutboxArea, SlotsArea
from tests.support.brokers import links, needs_mosquitto, plain_mosquitto
from tests.support.patience import PATIENCE_S
from tests.system import test_server_crashes as crashes

pytestmark = [pytest.mark.system, needs_disk, needs_mosquitto]

LEFT_BYTES = (0, 4096, 16_384, 65_536, 262_144) if ALL else (0,)


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "small").mkdir()
    disk = Disk(tmp_path / "small")
    yield disk
    disk.close()


def test_a_device_whose_disk_is_full_stays_up_and_goes_on_by_itself(tmp_path, disk):
    broker = plain_mosquitto(tmp_path).start()
    agent = AgentProcess(tmp_path / "device", broker.port, settings=settings_text(broker.port))
    (agent.folder / "state").symlink_to(disk.mount)
    settings = LinkSettings("agg", port=broker.port, subscriptions=TOPICS.server_filters())
    server = ScriptedServer(replace(settings, reconnect_min_s=0.05, reconnect_max_s=0.2), agent.public)
    try:
        agent.start()
        play(server, 1)
        filler = disk.fill()
        server.offer(2)
        server.wait(lambda: server.states[-1].problem == "disk_full")
        assert agent.process.poll() is None
        filler.unlink()
        server.receipt(server.contribution(2))
        server.wait(lambda: server.states[-1].problem == "")
        server.consensus(2)
        assert server.report(2).accepted
        assert agent.process.poll() is None  # the same process all the time
    finally:
        agent.end()
        server.link.close()
        broker.stop()


def play(server, number):
    server.offer(number)
    server.receipt(server.contribution(number))
    server.consensus(number)
    assert server.report(number).accepted


def test_a_server_whose_disk_is_full_promises_nothing_and_goes_on_by_itself(tmp_path, disk):
    folder = tmp_path / "server"
    assert main(["init", str(folder), "--federation", "demo", "--trust", "none"]) == 0
    build_artifacts(folder)
    (folder / "state").symlink_to(disk.mount)
    config, count = folder / CONFIG_NAME, len(crashes.DEVICES)
    with plain_mosquitto(tmp_path) as broker:
        crashes.write(
            config, port=(8883, broker.port), minimum_online=(2, count), quorum=(2, count), pause_s=("0.0", "0.05")
        )
        settings = [LinkSettings(name, subscriptions=crashes.TOPICS.device_filters(name)) for name in crashes.DEVICES]
        with links(broker.port, *settings) as opened:
            senders = [crashes.Sender(name, link) for name, link in zip(crashes.DEVICES, opened, strict=True)]
            server = crashes.start(config)
            try:
                crashes.until(senders, lambda: last_round(senders) >= 1, server)
                filler = disk.fill()
                crashes.until(senders, lambda: "full" in (folder / "server.log").read_text(), server)
                filler.unlink()
                goal = last_round(senders) + 2
                crashes.until(senders, lambda: last_round(senders) >= goal, server)
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(PATIENCE_S)
    check_kept(folder, senders)


def last_round(senders):
    """The last round in which every device was promised that its contribution is kept."""
    return min(max((number for _, number in one.promised), default=0) for one in senders)


def check_kept(folder, senders):
    with Store.view(folder / "state" / "server.db") as store:
        chronicle = Chronicle(store, "demo")
        heard = [one for each in chronicle.rounds(-1) for one in chronicle.hearings(each.epoch, each.number)]
        assert store.faults() == []
    stored = [one for one in heard if one.status == "stored" and one.kind == "contribution"]
    kept = {(one.device, one.epoch, one.round): one.sha256 for one in stored}
    promised = {(one.name, *key): digest for one in senders for key, digest in one.promised.items()}
    assert {key: kept.get(key) for key in promised} == promised
    assert max(Counter((one.device, one.epoch, one.round) for one in stored).values()) == 1


@pytest.fixture(scope="module", params=[SlotsArea, OutboxArea, LedgerArea, EnrolmentArea], ids=lambda area: area.name)
def area(request, tmp_path_factory):
    if not ALL and request.param not in (LedgerArea, EnrolmentArea):
        pytest.skip("FEDISTILL_CUTS=all: it takes its time")
    with request.param.open(tmp_path_factory.mktemp("full")) as opened:
        yield opened


@pytest.mark.parametrize("left_bytes", LEFT_BYTES)
def test_what_no_room_was_left_for_is_done_when_there_is_some(area, left_bytes, says):
    for act in area.acts:
        place = area.place()
        disk = Disk(place)
        try:
            (disk.mount / "state").mkdir()
            (place / "state").symlink_to(disk.mount / "state")
            arguments = area.prepare(place, act)
            filler = disk.fill(left_bytes)
            with area.warm.started(ACT, *arguments) as fork:
                area.between(fork, arguments)
                wait_for(fork, area.patience_s)
                fork.kill()
            filler.unlink()
            assert area.wrong(place, arguments) == ""
        finally:
            area.leave()
            disk.close()
    says(f"full disk, {area.name}: {left_bytes} bytes left, {len(area.acts)} cases, 0 bad")


def wait_for(fork, patience_s):
    """Wait until a fork has ended; or not so long, where it waits for room itself."""
    end_s = time.monotonic() + min(patience_s, 5.0)
    while fork.is_alive() and time.monotonic() < end_s:
        time.sleep(0.01)
