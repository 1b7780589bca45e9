"""When rounds open by the clock on the wall."""

from datetime import datetime, timezone

import pytest

from broker_server.core.events import Timetable
from broker_server.settings import RoundSettings
from broker_server.timetable import next_time_ms
from fd_protocol.errors import InvalidValueError
from tests.broker_server.world import World, fleet


def ms(text):
    return round(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000)


def next_time(cron, after, zone="UTC"):
    return next_time_ms(Timetable(cron, zone), ms(after))


def test_the_next_time_lies_after_the_given_one():
    assert next_time("0 3 * * *", "2026-03-01T02:59:59") == ms("2026-03-01T03:00:00")
    assert next_time("0 3 * * *", "2026-03-01T03:00:00") == ms("2026-03-02T03:00:00")
    assert next_time("*/15 * * * 1-5", "2026-03-07T12:00:00") == ms("2026-03-09T00:00:00")


def test_a_time_is_meant_in_its_zone_through_summer_and_winter():
    assert next_time("0 3 * * *", "2026-01-10T12:00:00", "Europe/Berlin") == ms("2026-01-11T02:00:00")
    assert next_time("0 3 * * *", "2026-07-10T12:00:00", "Europe/Berlin") == ms("2026-07-11T01:00:00")


def test_on_the_days_when_clocks_change_a_daily_round_opens_once():
    spring = next_time("30 2 * * *", "2026-03-28T12:00:00", "Europe/Berlin")
    assert ms("2026-03-29T00:00:00") < spring <= ms("2026-03-29T02:00:00")
    assert next_time_ms(Timetable("30 2 * * *", "Europe/Berlin"), spring) == ms("2026-03-30T00:30:00")
    autumn = next_time("30 2 * * *", "2026-10-24T12:00:00", "Europe/Berlin")
    assert next_time_ms(Timetable("30 2 * * *", "Europe/Berlin"), autumn) == ms("2026-10-26T01:30:00")


@pytest.mark.parametrize(
    ("when", "zone", "text"),
    [
        ("on-demand", "UTC", "no cron expression"),
        ("61 * * * *", "UTC", "no cron expression"),
        ("0 0 30 2 *", "UTC", "no cron expression|never comes"),
        ("0 3 * * *", "Europe/Atlantis", "no time zone"),
        ("0 3 * * *", "../etc", "no time zone"),
    ],
)
def test_a_timetable_that_cannot_be_kept_is_refused(when, zone, text):
    with pytest.raises(InvalidValueError, match=text):
        RoundSettings(when=when, time_zone=zone)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "s.db", rounds=RoundSettings(when="0 3 * * *", minimum_online=3, duration_s=60))


def test_a_round_opens_at_its_time_and_the_next_one_a_day_later(world):
    devices = fleet(world)
    world.wait(2 * 3_600)
    assert world.state.number == 0
    world.now_ms = ms("1970-01-02T03:00:00")
    world.settle()
    assert world.state.number == 1
    for device in devices:
        device.contribute()
    world.wait(23 * 3_600)
    assert world.state.number == 1
    world.wait(3_600)
    assert world.state.number == 2


def test_a_time_that_passed_while_the_server_was_down_is_made_up_for_once(world):
    fleet(world)
    world.now_ms = ms("1970-01-09T12:00:00")
    world.restart()
    assert world.state.number == 1
    world.wait(60)
    assert world.state.next_round_ms == ms("1970-01-10T03:00:00")


def test_a_new_timetable_is_kept_from_the_next_start_on(world):
    fleet(world)
    world.settings = World(rounds=RoundSettings(when="0 5 * * *", minimum_online=3)).settings
    world.restart()
    assert world.state.next_round_ms == ms("1970-01-01T05:00:00")
