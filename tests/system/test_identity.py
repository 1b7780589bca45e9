"""A device's identity from blank to revoked, with the real programs and a real Mosquitto, as they are shipped."""

import contextlib
import getpass
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from broker_server.brokers.loopback import LOOPBACK, free_port
from broker_server.brokers.mosquitto import MosquittoSettings, mosquitto_process, write_config
from broker_server.cli import main
from broker_server.identity.ca import CRL_DAYS
from broker_server.identity.certificates import Identity, Role, new_key, next_update, requested_key
from broker_server.identity.keeping import signal_broker
from broker_server.identity.sessions import PROBE_LIFE, End, Pass, end_session
from edge_agent.enrolment.request import KeyInFile
from fd_runtime.links.certificate import outlook
from fd_runtime.links.knocking import knock
from fd_runtime.links.link import LinkDown, LinkSettings, LinkUp, TlsFiles
from fd_runtime.starting import BrokerSettings
from tests.edge_agent.builders import FEDERATION
from tests.edge_agent.processes import DEVICE, TOPICS, AgentProcess, ScriptedServer, settings_text
from tests.support.brokers import links, needs_mosquitto, next_event
from tests.support.clocks import WrongClock, needs_faketime
from tests.support.identity import Counter, now
from tests.support.patience import wait_until
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.system, needs_mosquitto]

AGGREGATOR = "agg-1"


class Town:
    """An authority, its HTTPS port, the shipped broker, an aggregator whose every word the test says."""

    def __init__(self, folder: Path, age=timedelta()):
        broker_port, agg = free_port(), folder / "agg"
        self.pid_file = folder / "broker" / "mosquitto.pid"
        lines = f"""host = "localhost"
port = {broker_port}
[broker.tls]
ca = "{agg}/ca.pem"
certificate = "{agg}/{AGGREGATOR}.pem"
key = "{agg}/{AGGREGATOR}.key"
"""
        self.folder = folder
        self.counter = Counter(folder, age, settings=f'broker_pid_file = "{self.pid_file}"', broker=lines)
        authority = self.counter.authority
        self.aggregator = authority.issue(Identity(AGGREGATOR, Role.AGGREGATOR), agg, now=now())
        names = Identity("broker", Role.BROKER, ("localhost", LOOPBACK))
        tls = authority.issue(names, folder / "broker", now=now())
        settings = MosquittoSettings(
            folder / "broker", tls, authority.crl_path, port=broker_port, user=getpass.getuser()
        )
        config = write_config(settings, federation=FEDERATION, aggregator=AGGREGATOR)
        self.broker = mosquitto_process(config, broker_port)
        self._opened = []

    def agent(self, folder=None, *, port=None, token=None, environment=None, **changes):
        """A blank device with a token."""
        folder = folder or self.folder / "device"
        text = settings_text(
            self.broker.port,
            broker__host="localhost",
            enrolment__url=f"https://{LOOPBACK}:{port or self.counter.port}",
            enrolment__ca_file="ca.pem",
            enrolment__token_file="enrolment.token",
            **changes,
        )
        agent = AgentProcess(folder, 1, settings=text, environment=environment)
        (folder / "ca.pem").write_bytes(self.counter.authority.root_path.read_bytes())
        (folder / "enrolment.token").write_text(token or self.counter.token(DEVICE))
        self._opened.append(agent.end)
        return agent

    def server(self, agent):
        settings = LinkSettings(
            AGGREGATOR,
            host="localhost",
            port=self.broker.port,
            tls=self.aggregator,
            subscriptions=TOPICS.server_filters(),
            reconnect_max_s=1.0,
        )
        server = ScriptedServer(settings, agent.public)
        self._opened.append(server.link.close)
        return server

    def sessions(self):
        """How often the broker took the device in."""
        return len(re.findall(rf"New client connected from \S+ as {DEVICE} ", self.broker.log_path.read_text()))

    def close(self):
        for end in reversed(self._opened):
            end()


@pytest.fixture
def town(tmp_path):
    town = Town(tmp_path)
    with town.broker, town.counter.open():
        yield town
        town.close()


def certificate_of(agent):
    return agent.folder / "state" / "identity" / "device.pem"


def is_connected(agent):
    return (standing := agent.standing()) is not None and standing.vitals.is_connected


def play(server, number=1):
    """A whole round."""
    server.offer(number)
    part = server.contribution(number)
    server.receipt(part)
    server.consensus(number)
    return server.report(number)


def command(agent, *words):
    argv = [sys.executable, "-m", "edge_agent.cli", *words, "--config", str(agent.config)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=agent.folder, env=agent.environment)


# In.


def test_a_blank_device_enrols_by_itself_and_takes_part(town):
    agent = town.agent().start()
    assert play(town.server(agent)).accepted
    identity = agent.folder / "state" / "identity"
    assert (identity / "device.key").stat().st_mode & 0o777 == 0o600
    assert identity.stat().st_mode & 0o777 == 0o700
    assert outlook(certificate_of(agent).read_text()).name == DEVICE
    maps = Path(f"/proc/{agent.process.pid}/maps").read_text()
    assert "cryptography" not in maps, "requests are made in a process of their own"
    assert "numpy" not in maps
    told = command(agent, "doctor", "--json")
    assert f"of {DEVICE}, good until" in told.stdout
    assert "renewed from" in told.stdout


def test_a_device_that_is_there_before_its_server_waits_and_does_its_own_work(tmp_path):
    town = Town(tmp_path)
    with town.broker:
        agent = town.agent().start()
        standing = agent.wait_for_standing(lambda standing: standing.hindrance and standing.vitals.is_worker_ready)
        assert standing.hindrance == "identity"
        standing = agent.wait_for_standing(lambda standing: "refused" in standing.vitals.link)
        assert standing.vitals.link.startswith("not enrolled: https://")
        assert "token_file" in standing.advice
        with town.counter.open():
            agent.wait_for_standing(lambda standing: standing.vitals.is_connected)
            town.close()


def test_a_token_that_is_refused_is_told_with_the_remedy_and_a_new_one_is_taken_without_a_restart(town):
    agent = town.agent(token="nonsense").start()
    standing = agent.wait_for_standing(lambda standing: "no such token" in standing.vitals.link)
    assert f"broker-server devices token {DEVICE}" in standing.vitals.link
    assert command(agent, "enrol").returncode == 77
    (agent.folder / "enrolment.token").write_text(town.counter.token(DEVICE))
    agent.wait_for_standing(lambda standing: standing.vitals.is_connected)


@needs_faketime
def test_a_device_whose_clock_was_never_set_waits_for_it_and_says_why(town, tmp_path):
    (tmp_path / "time").mkdir()
    clock = WrongClock(tmp_path / "time", "@1970-01-01 00:00:10")
    agent = town.agent(environment=clock.environment).start()
    standing = agent.wait_for_standing(lambda standing: "1970" in standing.vitals.link)
    assert "waiting until it is set" in standing.vitals.link
    assert not certificate_of(agent).exists()
    assert command(agent, "enrol").returncode == 75
    clock.set("+0")
    agent.wait_for_standing(lambda standing: standing.vitals.is_connected)


def test_of_two_devices_with_one_token_the_second_stays_out(town):
    token = town.counter.token(DEVICE)
    first, second = (town.agent(town.folder / name, token=token) for name in ("first", "second"))
    assert command(first, "enrol").returncode == 0
    told = command(second, "enrol")
    assert told.returncode == 77
    assert "was this card copied?" in told.stdout


class Mute(Proxy):
    """Forwards what clients say, `lost` times without the answer: what the server says once it has heard a request."""

    HANDSHAKE_BYTES = 1000
    """Of a client's, at most; a request is longer than what is left."""

    def __init__(self, target_port, lost):
        self.left = lost
        super().__init__(target_port)

    def _forward(self, client):
        if self.left <= 0:
            super()._forward(client)
            return
        self.left -= 1
        server = socket.create_connection((LOOPBACK, self._target_port), timeout=5)
        server.settimeout(None)
        said = [0]
        threading.Thread(target=self._pass_on, args=(client, server, said), daemon=True).start()
        threading.Thread(target=self._lose, args=(server, client, said), daemon=True).start()

    @staticmethod
    def _pass_on(client, server, said):
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                said[0] += len(data)
                server.sendall(data)

    def _lose(self, server, client, said):
        with contextlib.suppress(OSError):
            while (data := server.recv(65_536)) and said[0] < self.HANDSHAKE_BYTES:
                client.sendall(data)
        for sock in (client, server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def test_an_answer_that_was_lost_is_asked_for_again(town):
    proxy = Mute(town.counter.port, lost=2)
    try:
        agent = town.agent(port=proxy.port).start()
        agent.wait_for_standing(lambda standing: standing.vitals.is_connected)
    finally:
        proxy.close()
    done = [line["done"] for line in town.counter.desk.audit.lines() if line["device"] == DEVICE]
    assert done == ["token", "enrolled", "claimed_again", "claimed_again"]
    assert len(town.counter.authority.issued(DEVICE)) == 1


# Renewal.


def age(agent, counter, days):
    """Put an older certificate of the same key in the place of the device's, as if time had passed."""
    identity = certificate_of(agent).parent
    key = requested_key(KeyInFile().make(DEVICE, identity / "device.key"))
    chain = counter.authority.sign(Identity(DEVICE, Role.DEVICE), key, now=now() - timedelta(days=days), days=30)
    part = identity / "older"
    part.write_bytes(chain)
    part.replace(certificate_of(agent))
    return outlook(chain.decode()).end


def test_a_certificate_is_renewed_under_load_and_neither_session_nor_contribution_is_lost(town):
    agent = town.agent().start()
    server = town.server(agent)
    assert play(server, 1).accepted
    assert town.sessions() == 1
    end = age(agent, town.counter, 24)
    number, renewed = 1, False
    while not renewed:
        number += 1
        assert number < 100
        server.offer(number)
        server.receipt(server.contribution(number))
        server.consensus(number)
        assert server.report(number).accepted
        renewed = outlook(certificate_of(agent).read_text()).end > end
    assert outlook(certificate_of(agent).read_text()).end > end + timedelta(days=20)
    assert all(len(server.payloads(one)) == 1 for one in range(1, number + 1))
    assert town.sessions() == 1, "nobody hung up"
    town.broker.kill()
    town.broker.start()
    wait_until(lambda: town.sessions() == 2)
    assert play(server, number + 1).accepted
    assert [one["done"] for one in town.counter.desk.audit.lines()].count("renewed") == 1


def test_a_device_that_slept_past_the_end_of_its_certificate_comes_back_by_itself(town):
    agent = town.agent()
    assert command(agent, "enrol").returncode == 0
    age(agent, town.counter, 35)
    agent.start()
    assert play(town.server(agent)).accepted


# Out.


def test_a_revoked_device_loses_its_session_at_once_and_does_not_come_back(town, capsys):
    agent = town.agent().start()
    server = town.server(agent)
    assert play(server).accepted
    assert main(["devices", "revoke", DEVICE, "--config", str(town.counter.config)]) == 0
    assert "its session has ended" in capsys.readouterr().out
    standing = agent.wait_for_standing(lambda standing: standing.hindrance in ("certificate", "taken_over"))
    assert not standing.vitals.is_connected
    server.wait(lambda: server.states and not server.states[-1].online)
    assert town.sessions() == 2, "its own, and the one that ended it"
    told = command(agent, "enrol", "--renew")
    assert told.returncode in (75, 77), told.stdout
    assert "has no new certificate" in told.stdout
    assert not is_connected(agent)
    assert town.sessions() == 2
    done = [line["done"] for line in town.counter.desk.audit.lines() if line["device"] == DEVICE]
    assert done == ["token", "enrolled", "revoked", "session_ended"]
    # An operator may let it in again: a new token, and nobody touches the device but for that.
    (agent.folder / "enrolment.token").write_text(town.counter.token(DEVICE))
    server.offer(2)
    server.receipt(server.contribution(2))


def test_another_device_notices_nothing_of_a_revocation(town):
    agent = town.agent().start()
    server = town.server(agent)
    assert play(server).accepted
    town.counter.enrolled("dev-9")
    assert main(["devices", "revoke", "dev-9", "--config", str(town.counter.config)]) == 0
    assert play(server, 2).accepted
    assert town.sessions() == 1


def is_refused(town, folder):
    files = TlsFiles(folder / "ca.pem", folder / "dev-9.pem", folder / "dev-9.key")
    try:
        knock("localhost", town.broker.port, files)
    except OSError:
        return True
    return False


def test_a_broker_that_was_not_told_of_the_list_is_found_out(tmp_path, capsys):
    town = Town(tmp_path)
    town.counter.authority.issue(Identity("dev-9", Role.DEVICE), tmp_path / "dev-9", now=now())
    config = town.counter.config
    config.write_text(config.read_text().replace("broker_pid_file", "# broker_pid_file"))
    with town.broker:
        assert main(["devices", "revoke", "dev-9", "--config", str(config), "--wait", "1"]) == 75
        assert "it must read the new list" in capsys.readouterr().out
        town.broker.reload()
        wait_until(lambda: is_refused(town, tmp_path / "dev-9"))  # it has the list of the first command, and no other
        assert main(["devices", "revoke", "dev-9", "--config", str(config)]) == 0
    assert not list((town.counter.authority.folder / "probes").iterdir())
    assert main(["devices", "revoke", "dev-9", "--config", str(config), "--wait", "1"]) == 75
    assert "could not be asked" in capsys.readouterr().out


class Cutting(Proxy):
    """Resets the first `left` connections once the client has spoken, as firewalls do; forwards the others."""

    def __init__(self, target_port, left):
        self.left = left
        super().__init__(target_port)

    def _admits(self, client):
        if self.left <= 0:
            return True
        self.left -= 1
        client.recv(10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


def test_a_connection_that_is_cut_on_the_way_is_no_refusal(tmp_path):
    town = Town(tmp_path)
    authority, desk = town.counter.authority, town.counter.desk
    authority.issue(Identity("dev-9", Role.DEVICE), tmp_path / "dev-9", now=now())
    probe, victim = Pass.mint(authority, "dev-9", now(), PROBE_LIFE), Pass.mint(authority, "dev-9", now())

    def end(cuts, patience_s):
        with contextlib.closing(Cutting(town.broker.port, cuts)) as proxy:
            way = BrokerSettings(host="localhost", port=proxy.port)
            return end_session(authority, way, "dev-9", probe, victim, patience_s=patience_s)

    with town.broker:
        assert not is_refused(town, tmp_path / "dev-9")  # it has read its list, the old one
        desk.revoke("dev-9", now=now(), who="test", also=(probe.serial,))
        assert end(1, 3.0) is End.LIST_NOT_READ, "the broker was told of no list"
        assert end(1_000, 1.0) is End.UNREACHABLE
        town.broker.reload()
        assert end(1, 60.0) is End.ENDED


def test_a_list_that_has_expired_is_renewed_and_the_broker_lets_everybody_in_again(tmp_path):
    town = Town(tmp_path, age=timedelta(days=CRL_DAYS + 1))
    with town.broker:
        key = new_key()
        chain = town.counter.authority.sign(Identity(DEVICE, Role.DEVICE), key.public_key(), now=now())
        files = town.counter.files(DEVICE, key, chain.decode())
        settings = LinkSettings(DEVICE, host="localhost", tls=files)
        with links(town.broker.port, settings) as [link]:
            assert isinstance(link.events.get(timeout=10), LinkDown)
            with town.counter.open():
                next_event(link, LinkUp, deadline_s=60)
        assert next_update(town.counter.authority.crl_path.read_bytes()) > now() + timedelta(days=29)


def test_a_tls_session_of_before_a_revocation_is_of_no_use_at_the_broker(town):
    _, files = town.counter.enrolled("dev-8")
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)

    def greet(session):
        """Whether the broker takes an MQTT client in, and the TLS session that it may come back with."""
        hello = bytes.fromhex("101700044d5154540502003c00000a") + b"dev-8-resu"
        plain = socket.create_connection((LOOPBACK, town.broker.port), timeout=10)
        with plain, context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
            secure.sendall(hello)
            answer = secure.recv(100)
            return answer[:1] == b"\x20" and answer[3] == 0, secure.session

    kept = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.maximum_version = version
        is_in, kept[version] = greet(None)
        assert is_in
    town.counter.desk.revoke("dev-8", now=now(), who="test")
    assert signal_broker(town.pid_file)

    def is_refused():
        with contextlib.suppress(OSError):
            return not greet(None)[0]
        return True

    wait_until(is_refused)
    for version, session in kept.items():
        context.maximum_version = version
        is_in = False
        with contextlib.suppress(OSError):
            is_in, _ = greet(session)
        assert not is_in, version
