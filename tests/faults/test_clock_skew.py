"""Clocks that are wrong, by libfaketime: 1970, 2001, ten years ahead, a step back in the middle; and then right again.

No clock makes a device believe what is not so, spend without a charge, or lose its key; once the clock is right it goes
on by itself. What it may cost: time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from edge_agent.slots import floor
from tests.faults.grounds import EnrolmentArea, LedgerArea, SlotsArea
from tests.support.clocks import WrongClock, needs_faketime

pytestmark = [pytest.mark.system, needs_faketime]

CLOCKS = {
    "1970": "@1970-01-01 00:00:10",
    "2001": "@2001-09-09 01:46:40",
    "ten years ahead": "+3650d",
    "a day behind": "-1d",
}
RIGHT = "+0"


@pytest.fixture
def clock(tmp_path):
    folder = tmp_path / "time"
    folder.mkdir()
    return WrongClock(folder, RIGHT)


def call(clock, code, *arguments):
    """Run a function of a module in a process whose clock is wrong; return its exit status and what it said."""
    module, function = code.split(":")
    command = [sys.executable, "-c", _CALL, module, function, json.dumps(arguments)]
    environment = {**os.environ, **clock.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


_CALL = """
import importlib, json, sys
module, function, arguments = sys.argv[1:]
sys.exit(getattr(importlib.import_module(module), function)(*json.loads(arguments)) or 0)
"""


# Enrolment.


@pytest.fixture(scope="module")
def enrolment(tmp_path_factory):
    with EnrolmentArea.open(tmp_path_factory.mktemp("enrolment")) as area:
        yield area


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize("act", EnrolmentArea.acts)
def test_a_device_with_a_wrong_clock_keeps_its_key_and_gets_in_when_it_is_right(enrolment, clock, act, name):
    place = enrolment.place()
    arguments = enrolment.prepare(place, act)
    clock.set(CLOCKS[name])
    first = call(clock, "tests.faults.enrolment:act", *arguments)
    is_early_or_late = name != "a day behind"
    assert (first.returncode != 0) or not is_early_or_late or act == "renew"
    clock.set(RIGHT)
    assert enrolment.wrong(place, arguments) == ""


# The update check.


@pytest.fixture(scope="module")
def slots(tmp_path_factory):
    with SlotsArea.open(tmp_path_factory.mktemp("slots")) as area:
        yield area


@pytest.mark.parametrize("name", CLOCKS)
def test_a_wrong_clock_makes_nothing_believed_and_nothing_known_bad(slots, clock, name):
    place = slots.place()
    arguments = slots.prepare(place, "nudge")
    config, offered = arguments[:2]
    assert verdict(clock, config, offered) == "verified"
    clock.set(CLOCKS[name])
    assert verdict(clock, config, offered) == "undecided"
    clock.set(RIGHT)
    assert verdict(clock, config, offered) == "verified"
    assert slots.wrong(place, arguments) == ""


def verdict(clock, config, offered):
    command = [sys.executable, "-m", "edge_agent.slots.verify", config, offered]
    environment = {**os.environ, **clock.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout)["outcome"]


def test_a_clock_that_was_believed_while_it_was_ahead_is_waited_for_and_no_longer(slots, clock):
    """Within the time that a timestamp is good for, nothing tells a clock that is ahead from the right one."""
    place = slots.place()
    config, offered = slots.prepare(place, "nudge")[:2]
    clock.set("+2h")
    assert verdict(clock, config, offered) == "verified"
    clock.set(RIGHT)
    assert verdict(clock, config, offered) == "undecided"
    clock.set("+90m")
    assert verdict(clock, config, offered) == "verified"
    kept = floor.load(place / "state" / "trust" / "floor.json")
    assert kept.asked_s > 0


# The ledger.


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    with LedgerArea.open(tmp_path_factory.mktemp("ledger")) as area:
        yield area


@pytest.mark.parametrize("name", CLOCKS)
def test_no_clock_makes_a_device_train_without_a_charge_or_charge_twice(ledger, clock, name):
    place = ledger.place()
    arguments = ledger.prepare(place, "act")
    clock.set(CLOCKS[name])
    first = call(clock, "tests.faults.ledger:by_the_clock", *arguments)
    is_set = name not in ("1970", "2001")
    assert (first.returncode == 0) == is_set, first.stderr[-2000:]
    clock.set(RIGHT)
    second = call(clock, "tests.faults.ledger:by_the_clock", *arguments)
    assert second.returncode == 0, second.stderr[-2000:]
    ended = ledger.warm.run("check_one_charge", *arguments)
    assert ended.returncode == 0, ended.errors


@pytest.mark.parametrize("name", ["1970", "2001", "a day behind"])
def test_a_clock_that_steps_back_between_charge_and_training_opens_no_period(ledger, clock, name):
    place = ledger.place()
    arguments = ledger.prepare(place, "act")
    first = call(clock, "tests.faults.ledger:until_charged", *arguments)
    assert first.returncode == 3, first.stderr[-2000:]
    clock.set(CLOCKS[name])
    second = call(clock, "tests.faults.ledger:by_the_clock", *arguments)
    assert second.returncode == 0, second.stderr[-2000:]
    ended = ledger.warm.run("check_one_charge", *arguments)
    assert ended.returncode == 0, ended.errors
