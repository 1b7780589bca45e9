"""A fault at every call that a device, or its server's desk, makes on its own files: what must hold holds.

Killed at the call; the call fails with ENOSPC, or with EIO; then the program begins anew. The short form takes a few
cases of each kind, by a seed; FEDISTILL_CUTS=all takes all, as does `python -m tests.faults`, which counts them.
"""

from __future__ import annotations

import pytest

from tests.faults.area import ALL, sample
from tests.faults.grounds import AREAS, DeviceArea
from tests.faults.injection import KILL, needs_strace, tally
from tests.support.brokers import needs_mosquitto

pytestmark = [pytest.mark.system, needs_strace, needs_mosquitto]

SHORT = {"slots": 4, "outbox": 5, "ledger": 6, "enrolment": 6, "authority's desk": 8}
SHORT_AREAS = [area for area in AREAS if area is not DeviceArea or ALL]


@pytest.fixture(scope="module", params=SHORT_AREAS, ids=lambda area: area.name)
def area(request, tmp_path_factory):
    with request.param.open(tmp_path_factory.mktemp("faults")) as opened:
        opened.found = opened.cases()
        yield opened


def test_what_must_hold_holds_after_a_fault_at_any_call(area, says):
    played = sample(area.found, SHORT.get(area.name, 0), area.name)
    assert played
    bad = {str(case): wrong for case in played if (wrong := area.play(case))}
    counts = ", ".join(f"{fault} {call} {count}" for (call, fault), count in sorted(tally(played).items()))
    says(f"faults, {area.name}: {len(played)} of {len(area.found)} cases, {len(bad)} bad ({counts})")
    assert bad == {}


def test_the_harness_sees_a_program_that_writes_in_the_wrong_order(area):
    if "careless" not in area.controls:
        pytest.skip("the parts of this one have controls of their own")
    kills = [case for case in area.found if case.fault == KILL and case.act == area.acts[0]]
    tried = sorted(kills, key=lambda case: case.point.when, reverse=True)  # what it puts off it does late
    found = next((wrong for case in tried if (wrong := area.play(case, "careless"))), "")
    assert found
