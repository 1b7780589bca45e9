"""`doctor` at a real broker's door, with the shipped configuration."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker_server.identity.ca import CRL_DAYS, Authority
from broker_server.identity.certificates import Identity, Role
from fd_runtime.links.knocking import knock
from fd_runtime.links.link import LinkDown, LinkUp
from tests.support.brokers import AGGREGATOR, links, make_fleet, needs_mosquitto, next_event, now

pytestmark = [pytest.mark.system, needs_mosquitto]


@pytest.fixture
def fleet(tmp_path):
    fleet = make_fleet(tmp_path)
    with fleet.broker:
        yield fleet


def test_a_broker_that_lets_us_in_answers_with_its_tls(fleet):
    tls = fleet.identity(AGGREGATOR, Role.AGGREGATOR)
    assert knock("localhost", fleet.broker.port, tls).startswith("TLSv1.")


def test_a_revoked_certificate_is_turned_down(fleet):
    tls = fleet.identity(AGGREGATOR, Role.AGGREGATOR)
    fleet.authority.revoke(AGGREGATOR, now=now())
    fleet.broker.reload()
    with pytest.raises(OSError, match=r"(?i)revoked|closed|reset|alert"):
        knock_until_refused(fleet.broker.port, tls)


def knock_until_refused(port, tls):
    """A broker takes a moment to load its list."""
    for _ in range(30):
        knock("localhost", port, tls)


def test_a_certificate_of_another_fleet_is_turned_down(fleet, tmp_path):
    foreign = Authority.create(tmp_path / "other", fleet="other", now=now())
    theirs = foreign.issue(Identity(AGGREGATOR, Role.AGGREGATOR), tmp_path / "theirs", now=now())
    own = fleet.identity(AGGREGATOR, Role.AGGREGATOR)
    with pytest.raises(OSError, match=r"(?i)unknown|closed|reset|alert"):
        knock("localhost", fleet.broker.port, replace(theirs, ca=own.ca))
    with pytest.raises(OSError, match=r"(?i)verify failed"):
        knock("localhost", fleet.broker.port, replace(own, ca=theirs.ca))


def test_a_revocation_list_that_has_ended_locks_us_out_and_is_seen(tmp_path):
    fleet = make_fleet(tmp_path, crl_age=timedelta(days=CRL_DAYS + 1))
    with fleet.broker, pytest.raises(OSError, match=r"(?i)expired|closed|reset|alert"):
        knock("localhost", fleet.broker.port, fleet.identity(AGGREGATOR, Role.AGGREGATOR))


def test_knocking_takes_nobodys_session_over(fleet):
    settings = fleet.settings(AGGREGATOR, role=Role.AGGREGATOR)
    with links(fleet.broker.port, settings) as [link]:
        next_event(link, LinkUp)
        knock("localhost", fleet.broker.port, settings.tls)
        link.publish("fd/v1/x/round", b"x")
        assert not isinstance(next_event(link, object), LinkDown)
