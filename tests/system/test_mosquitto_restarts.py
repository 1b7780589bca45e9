"""Mosquitto and its clients come and go: what still arrives."""

from __future__ import annotations

import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker_server.identity.certificates import Role
from edge_agent import presence, service
from edge_agent.settings import AgentSettings, DeviceSettings, ModelSettings, StateSettings
from fd_protocol.codec import decode
from fd_protocol.messages import DeviceState
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkDown, LinkSettings, LinkUp, Published
from fd_runtime.links.mqtt_link import MqttLink
from tests.support.brokers import AGGREGATOR, FEDERATION, Fleet, links, make_fleet, needs_mosquitto, next_event

pytestmark = [pytest.mark.system, needs_mosquitto]

TOPICS = Topics(FEDERATION)

# A device's whole life: it says that it is there, and is until somebody kills it.
A_LIFE = """
import sys, time
from pathlib import Path
from fd_protocol.codec import encode
from fd_protocol.messages import DeviceState
from fd_runtime.links.link import LinkSettings, TlsFiles, Will
from fd_runtime.links.mqtt_link import MqttLink

port, boot, topic, *files = sys.argv[1:]
state = lambda online: encode(DeviceState(boot=int(boot), online=online))
tls = TlsFiles(*map(Path, files))
link = MqttLink(LinkSettings("dev-1", host="localhost", port=int(port), tls=tls, will=Will(topic, state(False))))
link.publish(topic, state(True), retain=True)
time.sleep(60)
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = make_fleet(tmp_path)
    with fleet.broker:
        yield fleet


def aggregator(fleet: Fleet, *subscriptions: str) -> LinkSettings:
    return fleet.settings(AGGREGATOR, *subscriptions, role=Role.AGGREGATOR)


def live(fleet: Fleet, boot: int) -> subprocess.Popen[bytes]:
    identity = fleet.identity("dev-1")
    files = [str(path) for path in (identity.ca, identity.certificate, identity.key)]
    return subprocess.Popen(
        [sys.executable, "-c", A_LIFE, str(fleet.broker.port), str(boot), TOPICS.state("dev-1"), *files]
    )


def test_a_killed_device_leaves_a_will_with_the_boot_counter_of_its_birth(fleet):
    with links(fleet.broker.port, aggregator(fleet, *TOPICS.server_filters())) as [agg]:
        next_event(agg, LinkUp)
        for boot in (7, 8):
            life = live(fleet, boot)
            birth = decode(next_event(agg, Arrived, 20).payload, DeviceState)
            life.kill()
            life.wait()
            will = decode(next_event(agg, Arrived).payload, DeviceState)
            assert (birth.boot, birth.online, will.boot, will.online) == (boot, True, boot, False)
    with links(fleet.broker.port, aggregator(fleet, TOPICS.state("+"))) as [later]:
        retained = next_event(later, Arrived)
        assert retained.retained
        assert decode(retained.payload, DeviceState) == will


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_is_published_while_the_broker_is_down_arrives_after_it_is_back(fleet, end):
    filters = TOPICS.server_filters()
    with links(fleet.broker.port, aggregator(fleet, *filters), fleet.settings("dev-1")) as [agg, dev]:
        for link in (agg, dev):
            next_event(link, LinkUp)
        getattr(fleet.broker, end)()
        for link in (agg, dev):
            next_event(link, LinkDown)
        sent = [dev.publish(TOPICS.upload("dev-1"), b"%d" % number) for number in range(20)]
        with fleet.broker:
            assert [next_event(dev, Published).token for _ in sent] == sent
            next_event(agg, LinkUp)
            if end == "stop":  # its saved session queued for the aggregator; a killed broker forgot the session
                assert [next_event(agg, Arrived).payload for _ in sent] == [b"%d" % number for number in range(20)]


def test_retained_messages_survive_a_restart(fleet):
    with links(fleet.broker.port, aggregator(fleet)) as [agg]:
        agg.publish(TOPICS.round, b"offer", retain=True)
        next_event(agg, Published)
    fleet.broker.stop()
    with fleet.broker, links(fleet.broker.port, fleet.settings("dev-1", TOPICS.round)) as [dev]:
        arrived = next_event(dev, Arrived)
        assert (arrived.payload, arrived.retained) == (b"offer", True)


def test_what_the_aggregator_did_not_acknowledge_comes_again_after_a_restart(fleet):
    settings = LinkSettings(
        AGGREGATOR,
        host="localhost",
        tls=fleet.identity(AGGREGATOR, Role.AGGREGATOR),
        subscriptions=TOPICS.server_filters(),
        manual_ack=True,
    )
    with links(fleet.broker.port, settings, fleet.settings("dev-1")) as [agg, dev]:
        next_event(agg, LinkUp)
        dev.publish(TOPICS.upload("dev-1"), b"contribution")
        next_event(agg, Arrived)
        next_event(dev, Published)
        fleet.broker.stop()
        next_event(agg, LinkDown)
        with fleet.broker:
            again = next_event(agg, Arrived)
            assert again.payload == b"contribution"
            agg.ack(again)
            agg.publish(TOPICS.round, b"goes the way of the acknowledgement, after it")
            next_event(agg, Published)
            fleet.broker.stop()
            fleet.broker.start()
            dev.publish(TOPICS.report("dev-1"), b"last")
            assert next_event(agg, Arrived).topic == TOPICS.report("dev-1")


def test_a_broker_killed_in_the_middle_of_many_messages_confirms_each_of_them_once(fleet):
    with links(fleet.broker.port, fleet.settings("dev-1")) as [dev]:
        next_event(dev, LinkUp)
        sent = [dev.publish(TOPICS.upload("dev-1"), b"x" * 20_000) for _ in range(300)]
        confirmed = [next_event(dev, Published).token for _ in range(50)]
        fleet.broker.kill()
        with fleet.broker:
            confirmed += [next_event(dev, Published).token for _ in range(250)]
    assert confirmed == sent


# Who was away.


def consensuses(link: MqttLink, last: str) -> list[bytes]:
    """Publish five consensuses, one over the other, and a last word on another topic."""
    tokens = [link.publish(TOPICS.consensus(0), b"consensus %d" % number, retain=True) for number in range(1, 6)]
    tokens.append(link.publish(last, b"x", retain=True))
    for token in tokens:
        assert next_event(link, Published).token == token
    return [b"consensus %d" % number for number in range(1, 6)]


@pytest.mark.parametrize(("session_s", "is_flooded"), [(1, False), (3_600, True)])
def test_a_device_gets_the_last_consensus_once_when_its_session_has_ended_and_all_of_them_before(
    fleet, session_s, is_flooded
):
    """What is retained comes at every connection; what went by only to a session that still stands."""
    device = replace(
        fleet.settings("dev-1", TOPICS.round, f"{TOPICS.base}/consensus/+"), session_expiry_s=session_s, manual_ack=True
    )
    with links(fleet.broker.port, device) as [link]:
        next_event(link, LinkUp)
    with links(fleet.broker.port, aggregator(fleet)) as [server]:
        next_event(server, LinkUp)
        published = consensuses(server, TOPICS.round)
    time.sleep(session_s + 1.5 if not is_flooded else 0)
    with links(fleet.broker.port, device) as [link]:
        assert next_event(link, LinkUp).session_present is is_flooded
        heard = []
        while (arrived := next_event(link, Arrived)).topic != TOPICS.round or not arrived.retained:
            heard += [arrived.payload] if arrived.topic == TOPICS.consensus(0) else []
            link.ack(arrived)
        if not is_flooded and not heard:  # the two retained topics come in any order
            heard.append(next_event(link, Arrived).payload)
    assert sorted(set(heard)) == (published if is_flooded else published[-1:])
    assert len(heard) >= 5 if is_flooded else len(heard) == 1


def test_an_expiry_takes_the_retained_consensus_too(fleet):
    """Why consensus blocks have none: a device that comes after it would find nothing until the next round."""
    with links(fleet.broker.port, aggregator(fleet)) as [server]:
        next_event(server, LinkUp)
        for topic, expiry_s in ((TOPICS.consensus(0), 1), (TOPICS.consensus(1), None)):
            token = server.publish(topic, b"consensus", retain=True, expiry_s=expiry_s)
            assert next_event(server, Published).token == token
    time.sleep(2.5)
    with links(fleet.broker.port, fleet.settings("dev-1", f"{TOPICS.base}/consensus/+")) as [link]:
        assert next_event(link, Arrived).topic == TOPICS.consensus(1)
        with pytest.raises(queue.Empty):
            next_event(link, Arrived, deadline_s=0.5)


def test_an_agents_link_lets_its_session_end_soon(tmp_path):
    settings = AgentSettings(DeviceSettings("dev-1", FEDERATION), ModelSettings(tmp_path), StateSettings(tmp_path))
    assert service._link_settings(settings, boot=1, identity=None).session_expiry_s == presence.SESSION_S <= 600
