"""Clocks that are wrong, by libfaketime: 1970, 2001, ten years ahead, a step back in the middle; and then right again.

No clock makes a device believe what is not so, spend without a charge, or lose its key; once the clock is right it goes
on by itself. What it may cost: time.
"""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from edge_agent.slots import floor, verify
from tests.faults import enrolment as enrolments
from tests.faults import ledger as ledgers
from tests.faults.grounds import EnrolmentArea, LedgerArea, SlotsArea
from tests.faults.warm import Warm
from tests.support.clocks import WrongClock, needs_faketime

pytestmark = [pytest.mark.system, needs_faketime]

CLOCKS = {
    "1970": "@1970-01-01 00:00:10",
    "2001": "@2001-09-09 01:46:40",
    "ten years ahead": "+3650d",
    "a day behind": "-1d",
}
RIGHT = "+0"


class Skewed:
    """Functions of a module, in processes that go by a clock of ours; the area's own processes go by the right one."""

    def __init__(self, module, folder):
        folder.mkdir()
        self.clock = WrongClock(folder, RIGHT)
        self._warm = Warm(module.__name__, folder / "warm", self.clock.environment)

    def call(self, function, *arguments):
        return self._warm.run(function, *arguments)

    def close(self):
        self._warm.close()


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """By the name of a module: its processes, and their clock, which is right."""
    folder, made = tmp_path_factory.mktemp("skewed"), {}
    with ExitStack() as stack:

        def of(module):
            if module.__name__ not in made:
                made[module.__name__] = Skewed(module, folder / module.__name__)
                stack.callback(made[module.__name__].close)
            made[module.__name__].clock.set(RIGHT)
            return made[module.__name__]

        yield of


# Enrolment.


@pytest.fixture(scope="module")
def enrolment(tmp_path_factory):
    with EnrolmentArea.open(tmp_path_factory.mktemp("enrolment")) as area:
        yield area


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize("act", EnrolmentArea.acts)
def test_a_device_with_a_wrong_clock_keeps_its_key_and_gets_in_when_it_is_right(enrolment, skewed, act, name):
    place, device = enrolment.place(), skewed(enrolments)
    arguments = enrolment.prepare(place, act)
    device.clock.set(CLOCKS[name])
    first = device.call("act", *arguments)
    is_early_or_late = name != "a day behind"
    assert (first.returncode != 0) or not is_early_or_late or act == "renew"
    assert enrolment.wrong(place, arguments) == ""


# The update check.


@pytest.fixture(scope="module")
def slots(tmp_path_factory):
    with SlotsArea.open(tmp_path_factory.mktemp("slots")) as area:
        yield area


@pytest.mark.parametrize("name", CLOCKS)
def test_a_wrong_clock_makes_nothing_believed_and_nothing_known_bad(slots, skewed, name):
    place, device = slots.place(), skewed(verify)
    arguments = slots.prepare(place, "nudge")
    config, offered = arguments[:2]
    assert verdict(device, config, offered) == "verified"
    device.clock.set(CLOCKS[name])
    assert verdict(device, config, offered) == "undecided"
    device.clock.set(RIGHT)
    assert verdict(device, config, offered) == "verified"
    assert slots.wrong(place, arguments) == ""


def verdict(device, config, offered):
    done = device.call("main", [config, offered])
    assert done.returncode == 0, done.errors
    return json.loads(done.out)["outcome"]


def test_a_clock_that_was_believed_while_it_was_ahead_is_waited_for_and_no_longer(slots, skewed):
    """Within the time that a timestamp is good for, nothing tells a clock that is ahead from the right one."""
    place, device = slots.place(), skewed(verify)
    config, offered = slots.prepare(place, "nudge")[:2]
    device.clock.set("+2h")
    assert verdict(device, config, offered) == "verified"
    device.clock.set(RIGHT)
    assert verdict(device, config, offered) == "undecided"
    device.clock.set("+90m")
    assert verdict(device, config, offered) == "verified"
    kept = floor.load(place / "state" / "trust" / "floor.json")
    assert kept.asked_s > 0


# The ledger.


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    with LedgerArea.open(tmp_path_factory.mktemp("ledger")) as area:
        yield area


@pytest.mark.parametrize("name", CLOCKS)
def test_no_clock_makes_a_device_train_without_a_charge_or_charge_twice(ledger, skewed, name):
    place, device = ledger.place(), skewed(ledgers)
    arguments = ledger.prepare(place, "act")
    device.clock.set(CLOCKS[name])
    first = device.call("by_the_clock", *arguments)
    is_set = name not in ("1970", "2001")
    assert (first.returncode == 0) == is_set, first.errors[-2000:]
    device.clock.set(RIGHT)
    second = device.call("by_the_clock", *arguments)
    assert second.returncode == 0, second.errors[-2000:]
    ended = ledger.warm.run("check_one_charge", *arguments)
    assert ended.returncode == 0, ended.errors


@pytest.mark.parametrize("name", ["1970", "2001", "a day behind"])
def test_a_clock_that_steps_back_between_charge_and_training_opens_no_period(ledger, skewed, name):
    place, device = ledger.place(), skewed(ledgers)
    arguments = ledger.prepare(place, "act")
    first = device.call("until_charged", *arguments)
    assert first.returncode == 3, first.errors[-2000:]
    device.clock.set(CLOCKS[name])
    second = device.call("by_the_clock", *arguments)
    assert second.returncode == 0, second.errors[-2000:]
    ended = ledger.warm.run("check_one_charge", *arguments)
    assert ended.returncode == 0, ended.errors
