"""Sizes of devices: stated by the operator, claimed by nobody."""

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.config import Config
from broker_server.records.chronicle import Chronicle
from broker_server.replaying import Rerun, remake
from broker_server.rules import RuleTerms
from broker_server.settings import MethodSettings, Settings
from fd_protocol.errors import InvalidValueError
from fd_runtime.config import load_toml
from tests.broker_server.builders import FED
from tests.broker_server.world import World, fleet

SIZES = {"a": 300, "b": 100}
METHOD = MethodSettings("size-weighted", terms=RuleTerms(sizes=SIZES))


def played(tmp_path):
    world = World(tmp_path / "server.db", method=METHOD)
    said = [device.contribute()[1].probabilities() for device in fleet(world)]
    return world, said


def test_without_stated_sizes_the_method_is_refused():
    with pytest.raises(InvalidValueError, match=r"size-weighted needs \[method\.terms\.sizes\]"):
        Settings(FED, method=MethodSettings("size-weighted"))
    Settings(FED, method=MethodSettings("size-weighted", terms=RuleTerms(sizes={"a": 5})))


def test_sizes_are_read_from_the_servers_own_file(tmp_path):
    main(["init", str(tmp_path), "--federation", "demo"])
    path = tmp_path / CONFIG_NAME
    text = path.read_text().replace('name = "competence"', 'name = "size-weighted"')
    path.write_text(text.replace("[method.terms.sizes] ", "[method.terms.sizes]\npress-1 = 4000\npress-2 = 250\n"))
    assert load_toml(path, Config).method.terms.sizes == {"press-1": 4000, "press-2": 250}


def test_a_round_weighs_devices_as_stated_and_one_that_is_not_as_the_smallest(tmp_path):
    world, (a, b, c) = played(tmp_path)
    np.testing.assert_allclose(world.consensus()[1], (3 * a + b + c) / 5, atol=0.02)
    shares = {one.device: one.share for one in Chronicle(world.store, FED).hearings(world.state.epoch, 1)}
    assert shares == pytest.approx({"a": 0.6, "b": 0.2, "c": 0.2})


def test_a_kept_round_knows_the_sizes_that_it_was_made_with(tmp_path):
    world, _ = played(tmp_path)
    chronicle = Chronicle(world.store, FED)
    (record,) = (one for one in chronicle.rounds() if one.consensus_sha256)
    assert remake(chronicle, record).sha256 == record.own_sha256
    equal = remake(chronicle, record, Rerun(terms={"sizes": {"a": 1, "b": 1}}))
    assert [one.share for one in equal.standings] == pytest.approx([1 / 3] * 3)
