from __future__ import annotations

from edge_agent.private.epochs import Epoch


def test_an_epoch_ends_when_enough_rows_have_changed():
    assert Epoch(3, 0).after(19, 19) == Epoch(3, 19)
    assert Epoch(3, 19).after(1, 20) == Epoch(4)
    assert Epoch(3, 99).after(0, 1000) == Epoch(3, 99)
    assert Epoch(3, 98).after(2, 1000) == Epoch(4)
    assert Epoch(3, 0).after(99, 1000) == Epoch(3, 99)
