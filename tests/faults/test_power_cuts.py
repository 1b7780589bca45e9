"""Power cuts on an ext4 of one's own: after each, whatever was promised before it holds, and the program goes on.

Two kinds of run (`cuts`): nothing reaches the disk but what the program asks for; or other things too, in any order.
And a life that was killed at some call, without a cut, and one after it that loses power: what the first left in memory
must not be taken for what is on the disk. FEDISTILL_CUTS=all takes every moment, and a first life killed at every call.
"""

from __future__ import annotations

import random

import pytest

from tests.faults.area import ALL
from tests.faults.cuts import LAZY, MIXED, run
from tests.faults.disk import needs_disk
from tests.faults.grounds import EnrolmentArea, LedgerArea, OutboxArea, SlotsArea
from tests.faults.injection import KILL, needs_strace
from tests.support.brokers import needs_mosquitto

pytestmark = [pytest.mark.system, needs_disk, needs_strace, needs_mosquitto]

SHORT = 2
"""Moments of each run, where not all are wanted."""


@pytest.fixture(scope="module", params=[SlotsArea, OutboxArea, LedgerArea, EnrolmentArea], ids=lambda area: area.name)
def area(request, tmp_path_factory):
    with request.param.open(tmp_path_factory.mktemp("cuts")) as opened:
        yield opened


def some(moments, seed):
    return moments if ALL else random.Random(seed).sample(moments, min(SHORT, len(moments)))


def wrong_of(played, moments):
    return [wrong for moment in moments if (wrong := played.wrong_after(moment))]


@pytest.mark.parametrize("mode", [LAZY, MIXED])
def test_what_was_promised_holds_after_a_power_cut(area, mode, says):
    for act in area.acts if ALL else area.acts[:1]:
        with run(area, act, mode=mode, seed=act) as played:
            moments = some(played.moments, f"{area.name} {act}")
            bad = wrong_of(played, moments)
        says(f"power cuts, {area.name}, {act}, {mode}: {len(moments)} of {len(played.moments)}, {len(bad)} bad")
        assert bad == []


@pytest.mark.skipif(not ALL, reason="FEDISTILL_CUTS=all: many runs")
def test_what_a_killed_life_left_in_memory_is_not_taken_for_the_disk(area, says):
    count = lives = 0
    for case in area.cases():
        if case.fault == KILL and case.act == area.acts[0] and case.point.call in {"fsync", "rename", "write"}:
            with run(area, case.act, after=case) as played:
                bad = wrong_of(played, played.moments)
            assert bad == [], str(case)
            count, lives = count + len(played.moments), lives + 1
    says(f"power cuts, {area.name}, after a life that was killed: {count} in {lives} lives, 0 bad")


CUT_SHORT = {"ledger": ("fsync", "privacy/ledger"), "enrolment": ("fsync", "identity")}
"""Where a life ends that leaves in memory alone what the next one reads."""


@pytest.fixture
def cut_short(area):
    if area.name not in CUT_SHORT:
        pytest.skip("nothing that it promises rests on what a life before has left")
    found = [case for case in area.cases() if (case.point.call, case.point.what) == CUT_SHORT[area.name]]
    return min(case for case in found if case.fault == KILL and case.act == area.acts[0])


def test_what_one_killed_life_left_in_memory_is_made_durable_before_it_counts(area, cut_short):
    with run(area, cut_short.act, after=cut_short) as played:
        assert wrong_of(played, some(played.moments, area.name)) == []


def test_the_harness_sees_a_program_that_takes_what_it_reads_for_what_is_on_the_disk(area, cut_short):
    with run(area, cut_short.act, after=cut_short, function="trusting") as played:
        assert any(played.wrong_after(moment) for moment in played.moments)


def test_the_harness_sees_a_program_that_does_not_sync(area):
    with run(area, area.acts[0], function="without_sync") as played:
        moments = played.moments[::-1]  # the more was promised, the sooner
        assert any(played.wrong_after(moment) for moment in moments)
