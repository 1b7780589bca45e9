"""A device on a bad day, as real processes: its model, its disk, its clock, its name, its network."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from broker_server.identity.certificates import Role
from edge_agent.agent import Agent
from edge_agent.presence import begin_life
from edge_agent.round.participant import NO_CONSENSUS, Phase
from edge_agent.spool import Spool, SpoolSettings
from edge_agent.worker import InlineWorker
from fd_protocol.manifest import Role as GraphRole
from fd_runtime.links.link import Arrived, LinkSettings, LinkUp
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.storage.store import Store
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.artifacts import TASK, clouds
from tests.edge_agent.processes import DEVICE, LONG, TERMS, TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.edge_agent.wire import PROFILE, ScriptedModel
from tests.support.brokers import AGGREGATOR, links, make_fleet, needs_mosquitto, next_event, plain_mosquitto
from tests.support.clocks import WrongClock, needs_faketime
from tests.support.hanging import copy_bundle, let_hang
from tests.support.patience import PATIENCE_S, wait_until
from tests.support.proxy import ConnectProxy

pytestmark = [pytest.mark.system, needs_mosquitto]

QUICK = {"process__restart_min_s": 0.1, "process__restart_max_s": 0.5}


@pytest.fixture
def broker(tmp_path):
    broker = plain_mosquitto(tmp_path).start()
    yield broker
    broker.stop()


@pytest.fixture
def new_agent(tmp_path, broker):
    agents = []

    def make(name="device", rows=600, environment=None, **changes):
        settings = settings_text(broker.port, **{**QUICK, **changes})
        agents.append(AgentProcess(tmp_path / name, 1, rows, settings, environment=environment))
        return agents[-1]

    yield make
    for agent in agents:
        agent.end()


@pytest.fixture
def new_server(broker):
    servers = []

    def make(agent, **changes):
        settings = LinkSettings("agg", port=broker.port, subscriptions=TOPICS.server_filters())
        quick = replace(settings, reconnect_min_s=0.05, reconnect_max_s=0.2)
        servers.append(ScriptedServer(replace(quick, **changes), agent.public))
        return servers[-1]

    yield make
    for server in servers:
        server.link.close()


def play(server, number=1, **changes):
    """Play a round to its end and return the report."""
    server.offer(number, **changes)
    server.receipt(server.contribution(number))
    server.consensus(number)
    return server.report(number)


# The worker.


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """A bundle for onnxruntime."""
    folder, (samples, labels) = tmp_path_factory.mktemp("factory"), clouds(200)
    data = FactoryData(samples[:0], labels[:0], calibration=samples)
    build(Recipe("clouds", "mlp-s", pretraining=None), TASK, data, folder / "bundle")
    return folder / "bundle"


def test_a_model_that_hangs_in_onnxruntime_costs_the_round_and_the_reason_is_told(factory, new_agent, new_server):
    agent = new_agent(rows=400, process__hang_s=2.0, model__runtime="onnxruntime")
    copy_bundle(factory, agent.folder / "bundle")
    let_hang(agent.folder / "bundle", GraphRole.TAIL, rows=60)  # the probes; nothing else has as many
    server = new_server(agent)
    agent.start()
    server.offer()
    report = server.report()
    assert report.consensus_sha256 == NO_CONSENSUS
    assert report.reason.startswith("predict: the worker died of hang: the job stood still for")
    assert report.reason.endswith("2 s allowed")
    assert agent.process.poll() is None
    assert "in logits" in agent.log.read_text()  # where it stood, by faulthandler
    assert agent.standing().vitals.worker_starts >= 3


def test_a_training_step_that_hangs_costs_the_training_and_not_the_contribution(factory, new_agent, new_server):
    agent = new_agent(rows=400, process__hang_s=2.0, model__runtime="onnxruntime")
    copy_bundle(factory, agent.folder / "bundle")
    let_hang(agent.folder / "bundle", GraphRole.TRAIN_STEP)
    take_private_rows_away(agent)
    server = new_server(agent)
    agent.start()
    report = play(server)
    assert (report.accepted, report.consensus_sha256 == NO_CONSENSUS) == (False, False)
    assert report.reason.startswith("train: the worker died of hang: the job stood still for")


def take_private_rows_away(agent):
    """Without private rows nothing is trained before the consensus."""
    agent.config.write_text(agent.config.read_text().replace('private = "private.npz"', ""))


def test_work_that_kills_its_worker_three_times_is_given_up_and_the_next_round_goes_on(new_agent, new_server):
    agent = new_agent()
    server = new_server(agent)
    agent.start()
    wait_until(agent.worker_ids)
    server.offer(1, training=replace(TERMS, warm_up_epochs=LONG))
    agent.wait_for(Phase.PREDICTING)
    end_s = time.monotonic() + 3 * PATIENCE_S
    while agent.state().phase is Phase.PREDICTING:
        assert time.monotonic() < end_s, agent.log.read_text()
        pid = agent.wait_for_standing(lambda standing: standing.vitals.is_worker_ready).worker_pid
        time.sleep(1.0)  # one that dies before it has begun costs no attempt
        kill_once(pid)
    report = server.report(1)
    assert report.reason.startswith("warm-up: the worker died of killed: SIGKILL")
    assert play(server, 2).accepted


def kill_once(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def let_train(agent, server, **changes):
    """Come to where a consensus would be trained on, the worker standing still; yields its process id."""
    server.offer(**changes)
    server.receipt(server.contribution())
    agent.wait_for(Phase.AWAITING)
    return wait_until(lambda: agent.standing().worker_pid)


def test_out_of_memory_in_a_training_ends_the_training_and_says_so(new_agent, new_server):
    agent = new_agent(rows=300_000)
    server = new_server(agent)
    agent.start()
    worker = let_train(agent, server, training=replace(TERMS, warm_up_epochs=1))
    resource.prlimit(worker, resource.RLIMIT_AS, (virtual_bytes(worker) + (1 << 20), resource.RLIM_INFINITY))
    server.consensus()
    report = server.report()
    assert not report.accepted
    assert report.reason.startswith("train: out_of_memory: ")
    assert agent.standing().worker_pid == worker  # it said so itself, and lives
    resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert play(server, 2).accepted


def virtual_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


MEMORY_GROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def memory_group():
    """A control group of version 1 that a test may squeeze."""
    group = MEMORY_GROUP / f"fedistill-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group of version 1 can be made here")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_a_worker_that_the_kernel_kills_for_want_of_memory_is_told_from_a_crash(memory_group, new_agent, new_server):
    agent = new_agent(rows=300_000)
    server = new_server(agent)
    agent.start()
    for pid in (agent.process.pid, *wait_until(agent.worker_ids)):
        (memory_group / "cgroup.procs").write_text(str(pid))
    worker = let_train(agent, server, training=replace(TERMS, warm_up_epochs=1))
    squeeze(memory_group)
    server.consensus()
    wait_until(lambda: worker != agent.standing().worker_pid)
    (memory_group / "memory.limit_in_bytes").write_text("-1")
    told = agent.wait_for_standing(lambda standing: standing.last_death).last_death
    assert told == "out_of_memory: the kernel killed it, the control group being short of memory"
    assert agent.process.poll() is None
    assert server.report().accepted  # the second attempt had the room


def squeeze(group):
    """Leave the processes of a group just what they have."""
    used = int((group / "memory.usage_in_bytes").read_text())
    for extra in range(1 << 20, 64 << 20, 1 << 20):
        try:
            (group / "memory.limit_in_bytes").write_text(str(used + extra))
        except OSError:  # it uses more by now
            continue
        return


# The broker.


def test_a_round_whose_deadline_passes_without_a_broker_is_reported_when_there_is_one(broker, new_agent, new_server):
    agent = new_agent()
    server = new_server(agent)
    agent.start()
    with agent.held_worker():
        server.offer(remaining_s=5)
        agent.wait_for(Phase.PREDICTING)
        broker.kill()
        agent.wait_for_standing(lambda standing: standing.hindrance)
    agent.wait_for(Phase.REPORTING)
    server.wait(lambda: not server.is_up)
    with agent.held():  # a broker that was killed knows no session: who is not back yet is told nothing
        broker.start()
        server.wait(lambda: server.is_up)
    report = server.report()
    assert report.reason.startswith("deadline: not connected: ")
    assert report.consensus_sha256 == NO_CONSENSUS
    assert play(server, 2).accepted


def test_a_broker_that_is_away_for_longer_than_the_outbox_lasts_costs_the_oldest_messages_and_no_more(tmp_path):
    broker = plain_mosquitto(tmp_path)
    quick = LinkSettings(DEVICE, port=broker.port, reconnect_min_s=0.05, reconnect_max_s=0.2)
    topic = TOPICS.device(DEVICE, "prediction")
    for life in range(2):  # the second finds what the first left
        store = Store.open(tmp_path / "agent.db")
        begin_life(store)
        link, spool = MqttLink(quick), Spool(tmp_path / "outbox", SpoolSettings(max_messages=20))
        worker = InlineWorker(ScriptedModel().handle, link.events.put)
        agent = Agent(PROFILE, store, link, worker, lambda: time.monotonic_ns() // 1_000_000, spool=spool)
        for number in range(50):
            agent.say(topic, b"%d.%02d" % (life, number))
            agent.pump(0)
        assert (agent.waiting, len(list((tmp_path / "outbox").iterdir()))) == (20, 20)
        assert agent.lost["dropped"] == 30 + 20 * life
        assert len(link._outbox) + len(link._commands) == 1  # the birth: nothing piles up in memory
        if life == 0:
            link.close()
            store.close()
    with broker, links(broker.port, LinkSettings("ear", subscriptions=(topic,))) as [ear]:
        next_event(ear, LinkUp, PATIENCE_S)  # what the device says before, nobody hears
        heard = []

        def hear():
            agent.pump(0.05)
            while not ear.events.empty():
                event = ear.events.get()
                if isinstance(event, Arrived):
                    heard.append(event.payload)
            return len(heard) >= 20

        wait_until(hear)
        wait_until(lambda: agent.pump(0.05) or agent.waiting == 0)
    link.close()
    assert heard == [b"1.%02d" % number for number in range(30, 50)]


def test_two_devices_of_one_id_stop_fighting_over_it_and_the_loser_says_what_to_do(new_agent):
    twins = [new_agent("first").start(), new_agent("second").start()]

    def loser():
        standings = [(twin, twin.standing()) for twin in twins]
        return next((one for one in standings if one[1] is not None and one[1].hindrance == "taken_over"), None)

    twin, standing = wait_until(loser)
    assert "another program or machine is connected under this device's id" in standing.advice
    assert "this one stays away for" in standing.advice
    told = status_of(twin)
    assert "not connected: " in told["connection"]
    assert told["what to do"] == standing.advice
    other = twins[twin is twins[0]]
    other.wait_for_standing(lambda one: one.vitals.is_connected or one.hindrance == "taken_over")


def status_of(agent):
    command = [sys.executable, "-m", "edge_agent.cli", "status", "--json", "--config", str(agent.config)]
    done = subprocess.run(command, cwd=agent.folder, capture_output=True, check=True)
    return json.loads(done.stdout)


# The clock.


@pytest.fixture
def fleet(tmp_path):
    fleet = make_fleet(tmp_path / "fleet", names=("broker.example",))
    fleet.broker.start()
    yield fleet
    fleet.broker.stop()


@pytest.fixture
def new_fleet_agent(tmp_path, fleet):
    """Devices with certificates; and a server for them."""
    opened = []

    def make(environment=None, **changes):
        tls = fleet.identity(DEVICE)
        text = settings_text(fleet.broker.port, **{"broker__host": "localhost", **QUICK, **changes})
        text += f'\n[broker.tls]\nca = "{tls.ca}"\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        agent = AgentProcess(tmp_path / "device", 1, settings=text, environment=environment)
        settings = fleet.settings(AGGREGATOR, *TOPICS.server_filters(), role=Role.AGGREGATOR)
        server = ScriptedServer(replace(settings, port=fleet.broker.port), agent.public)
        opened.append((agent, server))
        return agent, server

    yield make
    for agent, server in opened:
        agent.end()
        server.link.close()


@pytest.fixture
def folder_of_clock(tmp_path):
    folder = tmp_path / "time"
    folder.mkdir()
    return folder


@needs_faketime
def test_a_machine_without_a_clock_waits_says_why_and_connects_once_it_is_set(new_fleet_agent, folder_of_clock):
    clock = WrongClock(folder_of_clock, "@1970-01-01 00:00:10")
    agent, server = new_fleet_agent(clock.environment)
    agent.start()
    standing = agent.wait_for_standing(lambda standing: standing.hindrance)
    assert standing.hindrance == "clock"
    assert standing.vitals.link.startswith("the clock says 1970-01-01, the certificates begin on 20")
    assert standing.advice.startswith("set the clock")
    assert server.states == []
    set_s = time.monotonic()
    clock.set("+0")
    server.wait(lambda: server.states)
    print(f"\nconnected {time.monotonic() - set_s:.1f} s after the clock was set")  # noqa: T201
    assert play(server).accepted


@needs_faketime
def test_a_clock_that_is_set_back_a_day_in_a_round_changes_nothing(new_agent, new_server, folder_of_clock):
    clock = WrongClock(folder_of_clock, "+0")
    agent = new_agent(environment=clock.environment)
    server = new_server(agent)
    agent.start()
    server.offer(1)
    part = server.contribution(1)
    clock.set("-1d")
    server.receipt(part)
    server.consensus(1)
    assert server.report(1).accepted
    assert play(server, 2).accepted
    server.offer(3, remaining_s=2)  # deadlines count on another clock
    assert server.report(3).reason == "deadline: no receipt"


# The way out.


def test_a_device_in_a_closed_network_takes_part_through_the_proxy_of_its_environment(fleet, new_fleet_agent):
    proxy = ConnectProxy(fleet.broker.port)
    agent, server = new_fleet_agent(
        {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}, broker__host="broker.example", broker__port=443
    )
    try:
        agent.start()
        assert play(server).accepted
        assert proxy.asked == ["broker.example:443"]
    finally:
        agent.end()
        proxy.close()


# The disk.


@contextlib.contextmanager
def a_disk_that_takes_nothing(pid):
    """While inside, no file of a process can grow, as on a disk that fails."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_disk_that_fails_stops_the_round_and_not_the_device(new_agent, new_server):
    agent = new_agent()
    server = new_server(agent)
    agent.start()
    server.wait(lambda: server.states)
    with a_disk_that_takes_nothing(agent.process.pid):
        server.offer()
        server.wait(lambda: server.states[-1].problem == "disk_read_only")
        assert agent.process.poll() is None
    server.receipt(server.contribution())
    server.wait(lambda: server.states[-1].problem == "")
    server.consensus()
    assert server.report().accepted


def test_a_disk_that_is_read_only_at_the_start_is_refused_in_one_line_that_a_retry_may_heal(tmp_path, new_agent):
    agent = new_agent()
    state = agent.folder / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", state]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk needs root")
    try:
        agent.start()
        assert agent.process.wait(60) == 74  # EX_IOERR: systemd tries again
    finally:
        subprocess.run(["umount", "--lazy", state], check=False)
    lines = agent.log.read_text().splitlines()
    assert len([line for line in lines if line.startswith("edge-agent: ")]) == 1
    assert "Read-only file system" in lines[-1]
    agent.start()
    agent.wait_for_standing(lambda standing: standing.vitals.is_connected)


# systemd.


@pytest.fixture
def systemd(tmp_path):
    """What systemd hears; two lines of what a service says."""
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind(str(tmp_path / "notify"))
    ear.settimeout(120)
    yield ear
    ear.close()


def hear_until(ear, wanted):
    """Return everything that is said, up to and with the first line `wanted`."""
    heard, end_s = [], time.monotonic() + PATIENCE_S
    while wanted not in heard:
        assert time.monotonic() < end_s, heard  # a watchdog is fed for ever
        heard += ear.recv(4096).decode().splitlines()
    return heard


def test_systemd_hears_that_the_device_is_ready_that_it_turns_and_that_it_stops(tmp_path, broker, new_agent, systemd):
    broker.stop()
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    agent = new_agent(environment=environment).start()
    before = hear_until(systemd, "EXTEND_TIMEOUT_USEC=60000000")
    assert "READY=1" not in before
    broker.start()
    heard = hear_until(systemd, "READY=1")
    assert any(line.startswith("STATUS=idle; connected") for line in [*heard, *hear_until(systemd, "WATCHDOG=1")])
    hear_until(systemd, "WATCHDOG=1")
    (worker,) = wait_until(agent.worker_ids)
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_bytes()
    agent.process.terminate()
    hear_until(systemd, "STOPPING=1")
    assert agent.process.wait(30) == 0


def test_the_watchdog_starves_where_the_loop_stands_still(tmp_path, new_agent, systemd):
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    agent = new_agent(environment=environment).start()
    hear_until(systemd, "READY=1")
    hear_until(systemd, "WATCHDOG=1")
    agent.process.send_signal(signal.SIGSTOP)
    with contextlib.suppress(TimeoutError):
        systemd.settimeout(0.2)
        while True:  # what was under way
            systemd.recv(4096)
    systemd.settimeout(3)
    with pytest.raises(TimeoutError):
        systemd.recv(4096)
    agent.process.send_signal(signal.SIGABRT)  # as systemd does then
    agent.process.send_signal(signal.SIGCONT)
    assert agent.process.wait(30) == -signal.SIGABRT
    assert "in turn" in agent.log.read_text()  # where it stood
    wait_until(lambda: not agent.worker_ids())


UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "edge-agent.service"


def test_the_unit_is_as_closed_as_it_says():
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNIT)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed")
    assert done.returncode == 0, done.stdout[-400:]
