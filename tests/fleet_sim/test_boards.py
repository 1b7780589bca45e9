"""Boards: every time and every joule follows from rates by hand; who is there is drawn as the scenario says."""

import math
from collections import deque
from dataclasses import replace
from itertools import islice, pairwise, takewhile

import numpy as np
import pytest

from edge_agent.jobs import CompetenceJob, PredictJob, TrainJob, WarmUpJob
from edge_agent.round.events import Task, Work
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import RoundId
from fd_protocol.messages import TrainingTerms
from fleet_sim.boards.catalogue import BOARDS, LINKS
from fleet_sim.boards.fleet import BoardFleet
from fleet_sim.boards.line import Line
from fleet_sim.boards.meter import Meter
from fleet_sim.boards.outages import outages
from fleet_sim.boards.terms import Attendance, BoardTerms
from fleet_sim.boards.totals import totals
from fleet_sim.boards.workload import Workload
from fleet_sim.reports.boards import duration
from model_export.planning.flops import Work as Counted
from model_export.planning.profiles import PROFILES
from tests.edge_agent.builders import offer

STEP, SAMPLE = Counted(flops=9_600_000, bytes=0, nodes=0), Counted(flops=96_000, bytes=0, nodes=0)
WORK = Workload(STEP, SAMPLE, rows=100, probes=1000)
ROUND = RoundId("fleet", 1, 1)


class Clock:
    def __init__(self):
        self.now_ms = 0.0

    def __call__(self):
        return self.now_ms


def fleet(clock, devices=20, rounds=10, seed=0, boards=(), **attendance):
    boards = boards or (BoardTerms(),)
    return BoardFleet(boards, Attendance(**attendance), [WORK] * devices, rounds=rounds, seed=seed, now_ms=clock)


# What jobs take.


@pytest.mark.parametrize(
    ("job", "milliseconds"),
    [
        # A Pi 4 multiplies at 9.6 GFLOP/s: a step of 9.6 MFLOP takes 1 ms, a sample of 96 kFLOP 10 us.
        (WarmUpJob(Work(Task.WARM_UP, ROUND), TrainingTerms(warm_up_epochs=5)), 5 * 2),
        (TrainJob(Work(Task.TRAIN, ROUND), bytes(32), (), TrainingTerms(epochs=3)), 3 * 18),
        (CompetenceJob(Work(Task.MAP_COMPETENCE, ROUND), 0, bytes(32)), 11.0),
    ],
    ids=["warm-up", "train", "map"],
)
def test_a_job_takes_its_steps_and_samples_at_the_rates_of_the_board(job, milliseconds):
    assert WORK.milliseconds(job, PROFILES["pi-4"]) == pytest.approx(milliseconds)


def test_a_prediction_takes_its_slice():
    asked = offer()
    job = PredictJob(Work(Task.PREDICT, asked.round), asked)
    assert WORK.milliseconds(job, PROFILES["pi-4"]) == pytest.approx(0.01 * asked.slice.count)


def test_jobs_of_a_board_are_done_one_after_the_other_and_a_straggler_takes_its_time():
    clock = Clock()
    here = fleet(clock, devices=2, stragglers=0.5, slowdown=10)
    slow, fast = sorted(here.places, key=lambda place: -place.slowdown)
    job = TrainJob(Work(Task.TRAIN, ROUND), bytes(32), (), TrainingTerms(epochs=50))  # 900 ms
    assert [slow.slowdown, fast.slowdown] == [10, 1]
    assert fast.done_at(job, 0) == 900
    assert fast.done_at(job, 0) == 1800
    assert slow.done_at(job, 0) == 9000
    clock.now_ms = 5000
    assert fast.done_at(job, 5000) == 5900
    fast.restart()
    assert fast.done_at(job, 5000) == 5900


# Links.


def test_a_message_takes_latency_and_its_bytes_one_at_a_time_in_each_direction():
    clock, due = Clock(), deque()
    meter = Meter(BoardTerms(link="nb-iot"), 0)
    line = Line(LINKS["nb-iot"], meter, lambda ms: due.append(ms) or clock() + ms, clock)
    up_ms, down_ms = 1600 + 8 * 1000 / 20, 1600 + 8 * 1000 / 25
    assert not line.carried_up(1000)
    assert not line.carried_down(1000)
    assert list(due) == [up_ms, down_ms]
    clock.now_ms = down_ms
    assert line.carried_down(1000)
    assert not line.carried_up(1000)
    clock.now_ms = up_ms
    assert line.carried_up(1000)
    assert not line.carried_up(1000)  # the next one begins now
    assert due[-1] == up_ms
    radio_ms = 2 * up_ms + down_ms
    assert meter.spent.radio_j == pytest.approx(radio_ms / 1000 * LINKS["nb-iot"].active_w)


def test_what_an_outage_interrupts_begins_anew():
    clock = Clock()
    line = Line(LINKS["nb-iot"], Meter(BoardTerms(link="nb-iot"), 0), lambda ms: clock() + ms, clock)
    assert not line.carried_up(1000)
    clock.now_ms = 1999
    line.interrupt()
    assert not line.carried_up(1000)
    clock.now_ms = 2000
    assert not line.carried_up(1000)
    clock.now_ms = 1999 + 2000
    assert line.carried_up(1000)


@pytest.mark.parametrize("online", [0.9, 0.5])
def test_a_link_works_its_share_of_the_time_in_outages_of_the_mean_length(online):
    spells = list(islice(outages(online, 600, np.random.default_rng(1)), 20_000))
    lengths = np.array([end - begin for begin, end in spells])
    assert lengths.mean() == pytest.approx(600, rel=0.03)
    assert lengths.std() == pytest.approx(600, rel=0.05)  # as an exponential law has it
    assert 1 - lengths.sum() / spells[-1][1] == pytest.approx(online, abs=0.01)
    assert all(begin < end for begin, end in spells)
    assert all(end < begin for (_, end), (begin, _) in pairwise(spells))


def test_a_link_that_always_works_has_no_outage():
    assert list(outages(1.0, 600, np.random.default_rng(0))) == []


def test_lines_are_down_during_outages_and_up_between_them():
    clock = Clock()
    here = fleet(clock, devices=1, boards=(BoardTerms(online=0.5, outage_s=100),), seed=3)
    (place,) = here.places
    spells = outages(0.5, 100, np.random.default_rng([3, 10, 2, 0]))
    expected = [(1000 * begin, 1000 * end) for begin, end in takewhile(lambda spell: spell[0] < 5000, spells)]
    for clock.now_ms in range(0, 5_000_000, 1000):
        here.pass_time()
        assert place.line.is_down == any(begin <= clock.now_ms < end for begin, end in expected)


# Energy.


def test_a_board_on_mains_draws_its_idle_power_always_and_more_when_it_computes():
    meter = Meter(BoardTerms("pi-4"), 1000)
    meter.computed(2000)
    meter.advance(11_000)
    board = BOARDS["pi-4"]
    assert meter.spent.idle_j == pytest.approx(10 * board.idle_w)
    assert meter.spent.compute_j == pytest.approx(2 * (board.busy_w - board.idle_w))
    assert meter.spent.total_j == pytest.approx(meter.spent.idle_j + meter.spent.compute_j)
    assert math.isnan(meter.battery)


def test_a_battery_runs_empty_and_a_board_comes_back_at_a_tenth():
    meter = Meter(BoardTerms("pi-4", battery_wh=1, charge_w=1), 0)  # draws 2.3 W, so 1.3 W net: 3600 J last 2769 s
    meter.advance(2_760_000)
    assert meter.is_on
    meter.advance(2_780_000)
    assert not meter.is_on
    assert meter.level_j == 0
    idle_j = meter.spent.idle_j
    meter.advance(2_780_000 + 359_000)
    assert not meter.is_on
    meter.advance(2_780_000 + 361_000)
    assert meter.is_on
    assert meter.battery == pytest.approx(361 / 3600)
    assert meter.spent.idle_j == idle_j  # it was off meanwhile


def test_a_full_battery_takes_no_more_charge():
    meter = Meter(BoardTerms("pi-zero-2w", battery_wh=2, charge_w=50), 0)
    meter.advance(3_600_000)
    assert meter.battery == 1


# Who is there.


def test_the_share_that_is_offline_is_drawn_anew_for_each_round():
    here = fleet(Clock(), offline=0.3)
    away = []
    for number in range(1, 9):
        here.begin_round(number)
        away.append(frozenset(index for index, place in enumerate(here.places) if place.line.is_down))
    assert {len(each) for each in away} == {6}
    assert len(set(away)) > 4


def test_latecomers_join_in_a_later_round_and_stay():
    here = fleet(Clock(), late=0.25)
    assert sum(place.is_present for place in here.places) == 15
    counts = []
    for number in range(2, 11):
        here.begin_round(number)
        counts.append(sum(place.is_present for place in here.places))
        assert all(place.is_present == (place.joins <= number) for place in here.places)
    assert counts == sorted(counts)
    assert counts[-1] == 20


def test_who_leaves_is_gone_for_good_at_the_rate_that_is_asked_for():
    here = fleet(Clock(), devices=2000, leave=0.1)
    left = [0]
    for number in range(2, 11):
        here.begin_round(number)
        gone = sum(place.has_left for place in here.places)
        assert gone >= left[-1]
        left.append(gone)
    assert 1 - left[-1] / 2000 == pytest.approx(0.9**9, abs=0.04)


def test_a_board_that_is_not_there_draws_nothing():
    clock = Clock()
    here = fleet(clock, devices=4, late=0.25, leave=0.0)
    (latecomer,) = (index for index, place in enumerate(here.places) if not place.is_present)
    clock.now_ms = 60_000
    assert here.spent()[latecomer].total_j == 0
    here.begin_round(here.places[latecomer].joins)
    clock.now_ms = 61_000
    assert here.spent()[latecomer].idle_j == pytest.approx(BOARDS["pi-4"].idle_w)


def test_equal_seeds_draw_the_same_fleet_and_others_another():
    def history(seed):
        here = fleet(Clock(), seed=seed, offline=0.2, stragglers=0.2, late=0.2, leave=0.1)
        seen = []
        for number in range(1, 6):
            here.begin_round(number)
            seen.append([(p.slowdown, p.joins, p.has_left, p.line.is_down) for p in here.places])
        return seen

    assert history(1) == history(1) != history(2)


def test_a_large_fleet_has_coarser_ticks():
    for devices, tick in ((1, 10), (100, 10), (1000, 100)):
        assert fleet(Clock(), devices=devices).due_at(1) == tick


def test_totals_are_means_over_the_devices_of_a_kind():
    clock = Clock()
    kinds = (BoardTerms("pi-4"), BoardTerms("pi-5", "lte"))
    here = fleet(clock, devices=4, boards=kinds)
    clock.now_ms = 1000
    here.spent()
    here.places[0].meter.computed(1000)
    pi4, pi5 = totals(here.places, heard=[4, 1, 2, 3], rounds=4)
    assert (pi4.board, pi4.link, pi4.devices) == ("pi-4", "wifi", 2)
    assert pi4.compute_j == pytest.approx((BOARDS["pi-4"].busy_w - BOARDS["pi-4"].idle_w) / 2)
    assert pi4.heard == 0.75
    assert pi5.heard == 0.5
    assert pi5.idle_j == pytest.approx(BOARDS["pi-5"].idle_w)


# Words.


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: BoardTerms("pi-9"),
        lambda: BoardTerms(link="pigeon"),
        lambda: BoardTerms(online=0),
        lambda: BoardTerms(outage_s=0),
        lambda: BoardTerms(charge_w=1),
        lambda: Attendance(offline=1),
        lambda: Attendance(slowdown=0.5),
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidValueError):
        wrong()


def test_every_board_has_rates_and_every_figure_a_source():
    assert set(BOARDS) <= set(PROFILES)
    for known in (*BOARDS.values(), *LINKS.values()):
        assert known.source
    for board in BOARDS.values():
        assert 0 < board.idle_w < board.busy_w
    assert replace(LINKS["wifi"], latency_ms=0).up_ms(2500) == pytest.approx(1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (42, "42.0 s"), (425, "7 min 5 s"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_durations_are_said_as_a_person_would(seconds, words):
    assert duration(seconds) == words
