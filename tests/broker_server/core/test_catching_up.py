"""A round whose deadline passes while the server is away is closed over what was sent in time all the same."""

from __future__ import annotations

import pytest

from broker_server.core.catching_up import MOST_MS, QUIET_MS, CatchingUp
from broker_server.core.round import Phase
from broker_server.orders import Spool, new_order
from fd_protocol import codec
from fd_protocol.messages import Kind, Status
from fd_protocol.parts import split
from fd_runtime.links.link import LinkDown, LinkUp
from tests.broker_server.world import TOPICS, World, fleet


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "server.db", spool=Spool(tmp_path / "orders"))


def queued(world, device):
    """The broker delivers what a device has sent; nobody waits for the answer."""
    payload, _ = device.contribution()
    for part in split(payload, world.offer.round, Kind.CONTRIBUTION):
        world.arrive(TOPICS.upload(device.name), codec.encode(part))
    world.settle()


def die(world, away_s):
    """The server is killed, and another starts so much later."""
    world.now_ms += 1000 * away_s
    world.restart()


def test_what_was_queued_for_a_dead_server_counts_in_its_round(world):
    a, b, c = fleet(world)
    a.contribute()
    number = world.offer.round.number
    die(world, away_s=3600)
    assert world.state.round.is_open
    queued(world, b)
    world.wait(1)
    queued(world, c)
    assert (world.state.round.id.number, world.state.round.phase) == (number, Phase.CLOSED)
    assert world.state.round.heard == 3


def test_a_round_is_closed_once_nothing_more_comes(world):
    a, b, _ = fleet(world)
    a.contribute()
    die(world, away_s=3600)
    world.wait(QUIET_MS / 1000 - 0.1)
    queued(world, b)
    world.wait(QUIET_MS / 1000 - 0.1)
    assert world.state.round.is_open
    world.wait(0.1)
    assert (world.state.round.phase, world.state.round.heard) == (Phase.CLOSED, 2)


def test_a_round_that_nobody_has_spoken_in_is_aborted_after_a_restart_as_ever(world):
    fleet(world)[0].contribute()
    die(world, away_s=3600)
    world.wait(QUIET_MS / 1000)
    assert (world.state.round.phase, world.state.round.reason.partition(":")[0]) == (Phase.ABORTED, "quorum")


def test_without_a_broker_no_deadline_passes_and_the_loop_does_not_spin(world):
    a, b, _ = fleet(world)
    a.contribute()
    world.link.events.put(LinkDown("gone"))
    world.settle()
    world.wait(3600)
    assert world.state.round.is_open
    assert world.server._wait_s(5.0) > 0
    world.link.events.put(LinkUp(session_present=True, max_packet_bytes=1 << 16))
    world.settle()
    assert 0 < world.server._wait_s(5.0) <= QUIET_MS / 1000
    queued(world, b)
    world.wait(QUIET_MS / 1000)
    assert (world.state.round.phase, world.state.round.heard) == (Phase.CLOSED, 2)


def test_an_operator_can_end_such_a_round(world):
    fleet(world)[0].contribute()
    world.link.events.put(LinkDown("gone"))
    world.wait(3600)
    world.place(new_order("abort", who="ada", at_ms=world.now_ms))
    world.settle()
    assert world.state.round.phase is Phase.ABORTED


def test_a_server_that_was_there_keeps_the_deadline_to_the_moment(world):
    a, b, _ = fleet(world)
    a.contribute()
    b.contribute()
    world.wait(59.9)
    assert world.state.round.is_open
    world.wait(0.1)
    assert world.state.round.phase is Phase.CLOSED


def test_what_comes_after_it_was_closed_is_late_as_ever(world):
    a, b, c = fleet(world)
    a.contribute()
    b.contribute()
    offer = world.offer
    die(world, away_s=3600)
    world.wait(QUIET_MS / 1000)
    (receipt,) = c.send(c.contribution(offer=offer)[0], round_id=offer.round)
    assert (receipt.status, world.state.round.heard) == (Status.STORED, 2)
    assert world.server.counters["contribution.late"] == 1


# The rule by itself.


def test_nothing_is_heard_without_a_connection():
    catching_up = CatchingUp()
    assert catching_up.done_ms is None
    catching_up.come_up(10)
    catching_up.go_down()
    catching_up.hear(11)
    assert catching_up.done_ms is None


def test_a_fleet_that_is_never_quiet_is_not_waited_for_without_end():
    catching_up = CatchingUp()
    catching_up.come_up(0)
    for at_ms in range(0, 2 * MOST_MS, QUIET_MS // 2):
        catching_up.hear(at_ms)
    assert catching_up.done_ms == MOST_MS


def test_what_comes_after_all_was_heard_is_news_and_holds_nothing_up():
    catching_up = CatchingUp()
    catching_up.come_up(0)
    catching_up.hear(QUIET_MS)
    assert catching_up.done_ms == QUIET_MS
