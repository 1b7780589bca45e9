"""Every row of the table: an attack gets nothing and costs nothing, and without what keeps it off it succeeds."""

from __future__ import annotations

import pytest

from tests.attacks import web
from tests.attacks.ground import ground
from tests.attacks.payloads import KILLED
from tests.attacks.row import Attack
from tests.attacks.table import BOARD, DOCS, GROUND, GROUPS, SITE, VICTIMS, lines, rows, section
from tests.attacks.victims import victims
from tests.support.brokers import needs_mosquitto
from tests.support.clocks import LIBRARY

pytestmark = pytest.mark.system


def each(kind):
    found = [row for row in rows(kind) if LIBRARY is not None or "clock" not in row.name]
    return pytest.mark.parametrize("row", found, ids=[row.name for row in found])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A broker as it is shipped, a server and a device in rounds."""
    with ground(tmp_path_factory.mktemp("ground")) as stage, victims(stage) as ready:
        yield ready


def check(row: Attack, seen, harm):
    assert (seen.says, seen.got_through, harm) == (row.sees, False, [])


@needs_mosquitto
@each(GROUND)
def test_an_attack_on_the_broker_gets_nothing_and_costs_nothing(shipped, row):
    shipped.ground.listen()
    check(row, row.run(shipped.ground), shipped.harm())


@needs_mosquitto
@each(VICTIMS)
def test_an_attack_by_messages_gets_nothing_and_costs_nothing(shipped, row, says):
    check(row, row.run(shipped), shipped.harm())
    for counted in shipped.counted.values():
        says(counted)
    shipped.counted.clear()


@needs_mosquitto
@each(GROUND)
def test_without_what_keeps_it_off_an_attack_on_the_broker_succeeds(tmp_path, row):
    with ground(tmp_path, row.control) as weak:
        weak.listen()
        assert row.run(weak).got_through


@needs_mosquitto
@pytest.mark.parametrize("row", [row for row in rows(VICTIMS) if row.control is not KILLED], ids=lambda row: row.name)
def test_without_what_keeps_it_off_an_attack_by_messages_succeeds(shipped, row):
    shipped.is_weak = True
    try:
        assert row.run(shipped).got_through
    finally:
        shipped.is_weak = False
    shipped.play()


@needs_mosquitto
def test_a_victim_that_is_harmed_is_noticed(tmp_path):
    with ground(tmp_path) as stage, victims(stage) as ready:
        ready.is_weak = True
        for row in rows(VICTIMS):
            assert row.control is not KILLED or row.run(ready).got_through


@each(SITE)
@pytest.mark.parametrize("is_weak", [False, True], ids=["shipped", "control"])
def test_an_attack_on_the_packages_site(tmp_path, row, is_weak):
    with web.site(tmp_path, row.control if is_weak else None, row.name) as stage:
        seen = row.run(stage)
        if not is_weak:
            check(row, seen, [] if stage.is_open_to() else ["the site"])
    assert seen.got_through is is_weak


@each(BOARD)
@pytest.mark.parametrize("is_weak", [False, True], ids=["shipped", "control"])
def test_an_attack_on_the_dashboard(tmp_path, row, is_weak):
    seen = row.run(web.Board(tmp_path, is_weak))
    if not is_weak:
        check(row, seen, [])
    assert seen.got_through is is_weak


def test_the_documentation_has_this_table():
    assert section(DOCS.read_text()) == "\n".join(lines()).strip(), "run `python -m tests.attacks --write`"


def test_no_two_rows_have_one_name():
    names = [row.name for _, found in GROUPS.values() for row in found]
    assert len(names) == len(set(names))
