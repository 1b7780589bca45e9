from __future__ import annotations

import pytest

from edge_agent.process.remedies import remedy
from fd_runtime.links.link import Hindrance, LinkDown


@pytest.mark.parametrize("kind", [kind for kind in Hindrance if kind not in (Hindrance.LOST, Hindrance.HUNG_UP)])
def test_whatever_time_alone_does_not_heal_has_a_remedy_in_one_line(kind):
    advice = remedy(LinkDown("reason", kind, 200.0))
    assert advice.isprintable()
    assert len(advice) > 20


def test_what_heals_by_itself_asks_for_nothing():
    assert remedy(LinkDown("reason", Hindrance.LOST, 1.0)) == ""


def test_a_device_whose_id_another_uses_says_for_how_long_it_stays_away():
    assert remedy(LinkDown("reason", Hindrance.TAKEN_OVER, 200.0)).endswith("this one stays away for 3 min")
