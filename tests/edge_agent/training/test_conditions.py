"""May this machine train now? Limits as values, sensors on a real folder tree."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.training.conditions import BATTERY, CLOCK, HEAT, WINDOW, Limits, Reading
from edge_agent.training.sensors import SET_SINCE_S, Sensors
from edge_agent.training.settings import TrainingSettings
from edge_agent.training.window import Window
from fd_protocol.errors import InvalidValueError

NIGHT = Window.parse("22:00-06:00")
minutes = st.integers(0, 1439)


def minute(text):
    hours, rest = text.split(":")
    return 60 * int(hours) + int(rest)


# The window.


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        ("09:30-17:00", ["09:30", "16:59"], ["09:29", "17:00", "00:00"]),
        ("00:00-00:01", ["00:00"], ["00:01", "23:59"]),
    ],
)
def test_a_window_holds_its_first_minute_and_not_its_last(window, inside, outside):
    parsed = Window.parse(window)
    assert all(parsed.holds(minute(text)) for text in inside)
    assert not any(parsed.holds(minute(text)) for text in outside)


@given(minutes, minutes, minutes)
def test_a_window_and_the_one_from_its_end_to_its_start_share_the_day(start, end, now):
    if start != end:
        assert Window(start, end).holds(now) != Window(end, start).holds(now)


@pytest.mark.parametrize("wrong", ["22-6", "22:00-24:00", "22:00 - 06:00", "06:00-06:00", "night"])
def test_a_window_that_means_nothing_is_refused(wrong):
    with pytest.raises(InvalidValueError, match="window"):
        TrainingSettings(window=wrong)


def test_without_a_window_any_minute_will_do_and_no_clock_is_needed():
    assert Window.parse("") is None
    assert Limits().obstacle(Reading(minute=None)) == ""


def test_a_window_needs_a_clock_that_has_been_set():
    limits = Limits(window=NIGHT)
    assert limits.obstacle(Reading(minute=None)) == CLOCK
    assert limits.obstacle(Reading(minute=minute("12:00"))) == WINDOW
    assert limits.obstacle(Reading(minute=minute("23:00"))) == ""


# Heat and power.


def test_heat_must_go_down_further_than_to_where_it_stopped_the_training():
    limits = Limits(max_c=80, resume_below_c=5)
    word, words = "", []
    for hottest_c in (79, 80, 80.5, 79, 75.1, 75, 79):
        word = limits.obstacle(Reading(hottest_c=hottest_c), word)
        words.append(word)
    assert words == ["", "", HEAT, HEAT, HEAT, "", ""]


def test_a_machine_that_tells_no_temperature_is_not_too_hot():
    assert Limits(max_c=80).obstacle(Reading(hottest_c=None)) == ""
    assert Limits(max_c=0).obstacle(Reading(hottest_c=120)) == ""


@pytest.mark.parametrize(
    ("on_mains", "percent", "least", "expected"),
    [
        (True, 5, 50, ""),
        (False, 49, 50, BATTERY),
        (False, 50, 50, ""),
        (False, 100, 100, BATTERY),
        (True, 100, 100, ""),
        (False, 5, 0, ""),
        (False, None, 50, ""),
    ],
)
def test_on_battery_training_waits_below_a_charge(on_mains, percent, least, expected):
    reading = Reading(is_on_mains=on_mains, battery_percent=percent)
    assert Limits(battery_min_percent=least).obstacle(reading) == expected


def test_the_settings_limits_are_those_of_the_rules():
    limits = TrainingSettings(max_c=70, resume_below_c=3, battery_min_percent=30, window="22:00-06:00").limits()
    assert limits == Limits(NIGHT, 70, 3, 30)


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_mb": -1.0},
        {"max_c": -1.0},
        {"battery_min_percent": 101.0},
        {"cpu_share": 0.0},
        {"cpu_share": 0.009},
        {"cpu_share": 1.1},
        {"checkpoint_s": 0.0},
        {"data_mb_per_month": -1.0},
    ],
)
def test_settings_outside_the_limits_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        TrainingSettings(**wrong)


# Sensors.


class Machine:
    """A sysfs of its own."""

    def __init__(self, root):
        self.root = root

    def zone(self, number, text):
        self.write(f"class/thermal/thermal_zone{number}/temp", text)
        return self

    def supply(self, name, **files):
        for file, text in files.items():
            self.write(f"class/power_supply/{name}/{file}", text)
        return self

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(f"{text}\n")

    def read(self, utc_s=SET_SINCE_S):
        return Sensors(self.root, lambda: utc_s, lambda _: 90).read()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_machine_that_tells_nothing_is_on_mains_and_not_hot(machine):
    assert machine.read() == Reading(None, is_on_mains=True, battery_percent=None, minute=90)


def test_the_hottest_zone_counts(machine):
    machine.zone(0, 48_312).zone(1, 61_000).zone(2, 20_000)
    assert machine.read().hottest_c == 61.0


@pytest.mark.parametrize("broken", ["", "N/A", "-273000", "2000000"])
def test_a_zone_without_a_sensor_does_not_count(machine, broken):
    machine.zone(0, 48_000).zone(1, broken)
    assert machine.read().hottest_c == 48.0


def test_a_zone_that_cannot_be_read_does_not_count(machine):
    """As those of Wi-Fi cards and modems that sleep."""
    machine.zone(0, 48_000)
    (machine.root / "class/thermal/thermal_zone1/temp").mkdir(parents=True)
    assert machine.read().hottest_c == 48.0


def test_a_laptop_on_its_charger_is_on_mains(machine):
    machine.supply("BAT0", type="Battery", capacity=80, status="Discharging")
    assert not machine.read().is_on_mains
    machine.supply("AC", type="Mains", online=1)
    assert machine.read().is_on_mains
    machine.supply("AC", online=0)
    assert (machine.read().is_on_mains, machine.read().battery_percent) == (False, 80)


def test_a_usb_charger_is_mains(machine):
    machine.supply("battery", type="Battery", capacity=40, status="Charging").supply("usb", type="USB", online=1)
    assert machine.read().is_on_mains


@pytest.mark.parametrize(("status", "expected"), [("Charging", True), ("Full", True), ("Discharging", False)])
def test_without_an_entry_for_the_charger_the_battery_tells(machine, status, expected):
    machine.supply("battery", type="Battery", capacity=40, status=status)
    assert machine.read().is_on_mains == expected


def test_the_battery_of_a_mouse_is_none_of_ours(machine):
    machine.supply("hidpp_battery_0", type="Battery", scope="Device", capacity=3, status="Discharging")
    assert machine.read() == Reading(None, is_on_mains=True, battery_percent=None, minute=90)


def test_of_two_batteries_the_emptier_counts(machine):
    machine.supply("BAT0", type="Battery", capacity=80, status="Discharging")
    machine.supply("BAT1", type="Battery", capacity=20, status="Discharging")
    assert machine.read().battery_percent == 20


def test_a_clock_from_before_this_program_has_not_been_set(machine):
    assert machine.read(utc_s=1000.0).minute is None
    assert machine.read(utc_s=SET_SINCE_S).minute == 90


@pytest.mark.parametrize(
    ("zone", "expected"), [("Europe/Berlin", "03:40"), ("America/New_York", "21:40"), ("UTC", "02:40")]
)
def test_the_minute_is_that_of_the_place_where_the_device_is(zone, expected, monkeypatch):
    monkeypatch.setitem(os.environ, "TZ", zone)
    time.tzset()
    try:
        assert Sensors(clock=lambda: 1_770_000_000).read().minute == minute(expected)
    finally:
        monkeypatch.undo()
        time.tzset()
