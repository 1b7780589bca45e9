from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.spool import Message, Spool, SpoolSettings, listing
from tests.edge_agent.wire import Wire


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outbox"


def message(number, **changes):
    return Message("topic", b"%03d" % number, **changes)


def sent(wire):
    return [payload for _, _, payload, _ in wire.published]


def deliver(spool, wire, now_ms=0):
    """Send until nothing more goes out, the broker confirming everything."""
    done = 0
    spool.send(wire, now_ms)
    while len(wire.published) > done:
        for token, *_ in wire.published[done:]:
            assert spool.confirm(token)
        done = len(wire.published)
        spool.send(wire, now_ms)


def test_messages_go_out_oldest_first_and_are_gone_when_the_broker_has_them(folder):
    spool, wire = Spool(folder), Wire()
    for number in range(50):
        spool.put(message(number))
    deliver(spool, wire)
    assert sent(wire) == [b"%03d" % number for number in range(50)]
    assert (len(spool), list(folder.iterdir())) == (0, [])


def test_the_link_holds_few_of_many(folder):
    spool, wire = Spool(folder), Wire()
    for number in range(50):
        spool.put(message(number))
    for _ in range(3):
        spool.send(wire, 0)
    assert len(wire.published) == 20


def test_what_was_not_confirmed_goes_out_again_in_the_next_life_in_the_same_order(folder):
    spool, wire = Spool(folder), Wire()
    for number in range(5):
        spool.put(message(number))
    spool.send(wire, 0)
    spool.confirm(wire.published[0][0])
    again = Wire()
    deliver(Spool(folder), again)
    assert sent(again) == [b"001", b"002", b"003", b"004"]


def test_what_was_handed_to_a_link_that_is_gone_goes_out_again_in_the_same_order(folder):
    spool, wire = Spool(folder), Wire()
    for number in range(3):
        spool.put(message(number))
    spool.send(wire, 0)
    token = wire.published[1][0]
    spool.recall()
    assert not spool.confirm(token)
    again = Wire()
    deliver(spool, again)
    assert sent(again) == [b"000", b"001", b"002"]


def test_what_is_not_worth_the_disk_is_not_on_it(folder):
    spool, wire = Spool(folder), Wire()
    spool.put(message(1), durable=False)
    spool.put(message(2))
    assert len(list(folder.iterdir())) == 1
    deliver(spool, wire)
    assert sent(wire) == [b"001", b"002"]


@given(st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=30), st.integers(1, 8))
def test_no_more_waits_than_the_bounds_allow_and_it_is_the_newest(sizes, most):
    with tempfile.TemporaryDirectory() as name:
        spool = Spool(Path(name), SpoolSettings(most, max_mb=0.006))
        for number, (size, durable) in enumerate(sizes):
            spool.put(Message("topic", b"%03d" % number + b"x" * size), durable=durable)
            assert len(spool) <= most
            assert spool.waiting_bytes <= 6000
            assert sum(path.stat().st_size for path in Path(name).iterdir()) <= 6000 + 100 * most
        wire = Wire()
        deliver(spool, wire)
        numbers = [int(payload[:3]) for payload in sent(wire)]
        assert numbers == list(range(len(sizes)))[len(sizes) - len(numbers) :]
        assert spool.losses.dropped == len(sizes) - len(numbers)


def test_of_a_retained_topic_only_the_last_waits(folder):
    spool, wire = Spool(folder), Wire()
    for number in range(3):
        spool.put(message(number, retain=True))
    spool.put(Message("other", b"x", retain=True))
    spool.put(message(9))  # news on the same topic
    deliver(spool, wire)
    assert sent(wire) == [b"002", b"x", b"009"]
    assert spool.losses.dropped == 0


def test_what_has_expired_is_not_sent_and_counted(folder):
    spool, wire = Spool(folder), Wire()
    spool.put(message(1, expires_at_ms=1000))
    spool.put(message(2, expires_at_ms=9000))
    deliver(spool, wire, now_ms=1000)
    assert (sent(wire), spool.losses.expired) == ([b"002"], 1)


def test_what_the_broker_refuses_is_counted_and_not_sent_again(folder):
    spool, wire = Spool(folder), Wire()
    spool.put(message(1))
    spool.send(wire, 0)
    assert spool.confirm(wire.published[0][0], refusal="Not authorized")
    assert (len(spool), spool.losses.refused, list(folder.iterdir())) == (0, 1, [])
    assert not spool.confirm(wire.published[0][0])


def test_a_file_that_the_disk_does_not_give_stops_nobody_and_keeps_its_number(folder):
    spool = Spool(folder)
    for number in range(3):
        spool.put(message(number))
    lost = sorted(folder.iterdir())[2]
    lost.unlink()
    lost.mkdir()  # to read a folder is an OSError, for root too
    (folder / ".left").mkdir()
    again, wire = Spool(folder), Wire()
    again.put(message(9))
    deliver(again, wire)
    assert sent(wire) == [b"000", b"001", b"009"]
    assert lost.is_dir()


def test_a_file_that_cannot_be_read_any_more_waits_for_the_next_start(folder):
    spool, wire = Spool(folder), Wire()
    spool.put(message(0))
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    deliver(spool, wire)
    assert (sent(wire), len(spool)) == ([], 0)
    path.rmdir()
    path.write_bytes(content)
    deliver(Spool(folder), wire)
    assert sent(wire) == [b"000"]


def test_half_written_and_damaged_files_go_and_the_others_stay(folder):
    spool = Spool(folder)
    for number in range(3):
        spool.put(message(number))
    first, second, _ = sorted(folder.iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    (folder / f".{second.name}.a1b2c3d4").write_bytes(b"half")
    wire = Wire()
    deliver(Spool(folder), wire)
    assert sent(wire) == [b"001", b"002"]
    assert list(folder.iterdir()) == []


def test_what_its_owner_deletes_is_not_sent(folder):
    spool, wire = Spool(folder), Wire()
    for number in range(3):
        spool.put(message(number))
    waiting = list(listing(folder))
    assert [one.payload for _, one in waiting] == [b"000", b"001", b"002"]
    waiting[1][0].unlink()
    deliver(spool, wire)
    assert sent(wire) == [b"000", b"002"]


def test_a_disk_that_takes_nothing_costs_the_file_and_not_the_message(folder, monkeypatch):
    spool, wire = Spool(folder), Wire()

    def full(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_agent.spool.write_atomically", full)
    spool.put(message(1))
    deliver(spool, wire)
    assert sent(wire) == [b"001"]


def test_numbers_go_on_after_a_restart(folder):
    Spool(folder).put(message(1))
    spool, wire = Spool(folder), Wire()
    spool.put(message(2))
    deliver(spool, wire)
    assert sent(wire) == [b"001", b"002"]
