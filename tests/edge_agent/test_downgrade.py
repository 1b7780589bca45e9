"""Back to the version before: what a later agent has written is read, and nothing is lost.

The version before is here by what it knows: schema versions of databases, and keys of states. Raise these numbers and a
downgrade of the package loses the device's memory: then say so in CHANGELOG.md, and let the version before learn first.
"""

import json
import sqlite3

import pytest

from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from edge_agent.slots.machine import Downloaded, Installed, Nudged, Offered, Phase, Slots, Started, step
from edge_agent.slots.shelf import Shelf
from fd_protocol.documents import to_json
from fd_runtime.artifacts import load_bundle
from fd_runtime.storage.store import Store
from tests.edge_agent.artifacts import write_bundle

KNOWN_BEFORE = 1
"""Schema version of each database of a device, in every agent so far."""
SLOTS_BEFORE = {
    "factory",
    "active",
    "phase",
    "release",
    "previous",
    "starts",
    "waiting",
    "known_bad",
    "outcome",
    "succeeded",
    "note",
    "keeps_tail",
}
OFFERED = Offered("b" * 64, "2", "p" * 64, 100)


def version_of(path):
    with sqlite3.connect(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version


def test_the_agents_database_is_one_that_the_version_before_reads(tmp_path):
    Store.open(tmp_path / "agent.db").close()
    assert version_of(tmp_path / "agent.db") == KNOWN_BEFORE


def test_the_private_store_is_one_that_the_version_before_reads(tmp_path):
    manifest = load_bundle(write_bundle(tmp_path / "bundle")).manifest
    PrivateStore.open(tmp_path / "private.db", StoreSettings(rows=100), manifest, clock=lambda: 0).close()
    assert version_of(tmp_path / "private.db") == KNOWN_BEFORE


def test_the_slots_of_a_release_under_way_are_written_in_words_of_before():
    state = Slots()
    for event in (Started("f" * 64), Nudged(OFFERED), Downloaded(), Installed("a note", keeps_tail=True)):
        state = step(state, event)
        table = json.loads(to_json(state))
        assert set(table) <= SLOTS_BEFORE
        assert set(table.get("release") or {}) <= {"bundle", "version", "package", "package_bytes"}


def test_keys_of_a_later_agent_are_passed_over(tmp_path):
    shelf = Shelf(tmp_path / "slots")
    state = Slots(factory="f" * 64, active="a" * 64, phase=Phase.DOWNLOAD, release=OFFERED, known_bad=("c" * 64,))
    shelf.save(state)
    path = shelf.folder / "state.json"
    table = json.loads(path.read_bytes())
    table["colour"] = "blue"
    table["release"]["urgency"] = 9
    path.write_text(json.dumps(table))
    assert shelf.load() == state
    assert not path.with_suffix(".damaged").exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"phase": "sleeping"}', '{"active": 7}', "7"])
def test_what_is_damaged_is_still_set_aside(tmp_path, text):
    shelf = Shelf(tmp_path / "slots")
    shelf.folder.mkdir()
    (shelf.folder / "state.json").write_text(text)
    assert shelf.load() == Slots()
    assert (shelf.folder / "state.damaged").exists()
