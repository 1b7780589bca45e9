"""Between two steps: naps, waits, beats, savings; with a clock that a test turns."""

import pytest

from edge_agent.process.notices import Measured
from edge_agent.training.between import Between, BrokenOffError, DeferredError
from edge_agent.training.conditions import Reading
from edge_agent.training.pace import PATIENCE_S, Pace
from edge_agent.training.savings import Savings
from edge_agent.training.settings import TrainingSettings

COOL, HOT = Reading(hottest_c=50), Reading(hottest_c=90)


class Stage:
    """A machine whose time passes by sleeping, and whose temperature a test decides."""

    def __init__(self, **settings):
        self.now_s, self.slept_s, self.beats, self.told = 1000.0, 0.0, 0, []
        self.reading = COOL
        self.settings = TrainingSettings(**settings)
        self.pace = Pace(
            self.settings,
            self.read,
            tell=self.told.append,
            went_on=self.beat,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )
        self.pace.begin()

    def read(self):
        return self.reading() if callable(self.reading) else self.reading

    def sleep(self, seconds):
        self.now_s += seconds
        self.slept_s += seconds

    def beat(self):
        self.beats += 1

    def step(self, seconds=0.1):
        self.now_s += seconds
        return self.pace.after_step()


def test_a_machine_where_all_is_well_is_not_held_up():
    stage = Stage()
    assert [stage.step() for _ in range(50)] == [""] * 50
    assert stage.slept_s == 0
    assert stage.told == []


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_training_takes_its_share_of_the_time(share):
    stage = Stage(cpu_share=share)
    begin_s = stage.now_s
    for _ in range(200):
        stage.step(0.05)
    assert 200 * 0.05 / (stage.now_s - begin_s) == pytest.approx(share, abs=0.01)


def test_short_steps_are_slept_off_together():
    stage, naps = Stage(cpu_share=0.5), []
    stage.pace._sleep = lambda seconds: (naps.append(seconds), stage.sleep(seconds))
    for _ in range(100):
        stage.step(0.001)
    assert len(naps) in (4, 5)
    assert min(naps) >= 0.02


def test_time_before_a_training_is_not_slept_off():
    stage = Stage(cpu_share=0.1)
    stage.now_s += 10_000
    stage.pace.begin()
    stage.step(0.1)
    assert stage.slept_s == pytest.approx(0.9)


def test_a_hot_machine_is_waited_for_and_the_wait_is_told():
    stage = Stage()
    stage.reading = lambda: HOT if stage.now_s < 1010 else COOL
    assert stage.step(1.0) == ""
    assert 1010 <= stage.now_s < 1012
    assert [told.values["training_waits_for_heat"] for told in stage.told] == [1.0, 0.0]
    assert stage.told[0].values["hottest_c"] == 90
    assert all(isinstance(told, Measured) for told in stage.told)


def test_nobody_can_take_a_wait_for_a_hang():
    stage = Stage()
    stage.reading = HOT
    stage.step(1.0)
    assert stage.beats >= PATIENCE_S


def test_a_long_nap_beats_too():
    stage = Stage(cpu_share=0.01)
    stage.step(1.0)
    assert stage.slept_s == pytest.approx(99, abs=0.1)
    assert stage.beats >= 90


def test_a_wait_that_lasts_is_given_up_with_its_reason():
    stage = Stage()
    stage.reading = HOT
    assert stage.step(1.0) == "heat"
    assert stage.slept_s == pytest.approx(PATIENCE_S, abs=1)


def test_the_machine_is_looked_at_once_a_second_and_not_at_every_step():
    stage, looks = Stage(), []
    stage.reading = lambda: looks.append(stage.now_s) or COOL
    for _ in range(1000):
        stage.step(0.01)
    assert 9 <= len(looks) <= 11


def test_a_wait_ends_with_whoever_asked():
    stage = Stage()
    stage.reading = HOT
    stage.now_s += 1
    stage.pace.after_step(lambda: stage.slept_s >= 2)
    assert stage.slept_s == 2


# What happens then.


def between(stage, savings=None, should_stop=lambda: False):
    return Between(should_stop, stage.pace, savings)


def test_a_training_laid_aside_is_saved_first():
    stage, saved = Stage(), []
    stage.reading = HOT
    stage.now_s += 1
    with pytest.raises(DeferredError) as deferred:
        between(stage).after_step(1000, lambda: saved.append(stage.now_s))
    assert deferred.value.reason == "heat"
    assert len(saved) == 1


def test_a_training_whose_supervisor_is_gone_is_broken_off_even_in_a_wait():
    stage = Stage()
    stage.reading = HOT
    stage.now_s += 1
    with pytest.raises(BrokenOffError):
        between(stage, should_stop=lambda: stage.slept_s >= 3).after_step(1000, pytest.fail)
    assert stage.slept_s == 3


class StubWear:
    """So many seconds for every byte."""

    def __init__(self, seconds):
        self.seconds = seconds

    def checkpoint_interval_s(self, size_bytes, least_s):
        return max(least_s, self.seconds)


@pytest.mark.parametrize(("wear", "expected"), [(None, 10), (StubWear(0), 10), (StubWear(50), 2), (StubWear(1e9), 0)])
def test_progress_is_saved_every_so_often_and_rarer_where_the_flash_asks_for_it(wear, expected):
    stage = Stage()
    saved = []
    savings = Savings(10.0, wear, lambda: stage.now_s)
    savings.begin()
    watched = between(stage, savings)
    for _ in range(100):
        stage.now_s += 1.05
        watched.after_step(1000, lambda: saved.append(stage.now_s))
    assert len(saved) == expected


def test_each_training_counts_its_own_seconds():
    stage, saved = Stage(), []
    savings = Savings(10.0, None, lambda: stage.now_s)
    watched = between(stage, savings)
    for _ in range(30):
        watched.begin()
        for _ in range(9):
            stage.now_s += 1
            watched.after_step(1000, lambda: saved.append(1))
    assert saved == []
