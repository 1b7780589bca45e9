"""Rules of other distributions: found by an entry point, never in the place of a built-in one."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from broker_server import methods
from broker_server.cli import main
from broker_server.config import Config
from broker_server.consensus import join
from broker_server.records.chronicle import Chronicle
from broker_server.rules import RULES, RuleTerms
from broker_server.settings import MethodSettings
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import Codec, Slice
from fd_runtime.config import load_toml
from tests.broker_server import builders
from tests.broker_server.world import World, fleet
from tests.laws.rule_laws import RuleLaws, fades_of, probabilities_of, voices_of, weighted_mean

# The example of docs/methods.md, word for word: a test below holds them together.
EXAMPLE = '''\
from dataclasses import dataclass

from broker_server.rules import Card, Promise, RowWeighted, probabilities_of, to_row_weights


@dataclass(frozen=True)
class Loudest(RowWeighted):
    """A voice weighs by the power of its largest probability."""

    power: float
    card = Card(
        name="loudest",
        formula="sum w_k p_k / sum w_k, w_k = max(p_k)^power",
        source="an example",
        fails="where anyone lies",
        promises=frozenset(Promise),
    )

    def row_weights(self, voice):
        return to_row_weights(probabilities_of(voice).max(axis=1) ** self.power, voice)


def make_loudest(terms):
    return Loudest(terms.custom.get("power", 2.0))
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution into a folder on the path, as `pip install --target` leaves it."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(entry_points, *, distribution="loud_rules", source=EXAMPLE):
        (tmp_path / f"{distribution}.py").write_text(source)
        info = tmp_path / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution.replace('_', '-')}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {distribution}:{value}\n" for name, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[{methods.GROUP}]\n{lines}")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, distribution, raising=False)

    return put


def test_a_rule_of_another_distribution_is_found_by_name_and_keeps_the_laws_that_it_promises(install):
    install({"loudest": "make_loudest"})

    class TestLoudest(RuleLaws):
        rule = methods.rule_named("loudest", RuleTerms())

        def oracle(self, voices):
            p = probabilities_of(voices)
            return weighted_mean(fades_of(voices)[:, 0] * p.max(axis=2) ** 2, p)

    laws = TestLoudest()
    laws.test_it_is_the_papers_formula(seed=1, count=9)
    laws.test_any_order_of_voices_gives_the_same_bits(seed=1)
    laws.test_it_lies_between_the_voices(seed=1)
    laws.test_it_is_the_mean_by_the_weights_that_it_tells(seed=1)


def test_its_constants_come_from_the_settings(install, tmp_path):
    install({"loudest": "make_loudest"})
    main(["init", str(tmp_path), "--federation", "demo"])
    path = tmp_path / "federation.toml"
    text = path.read_text().replace('name = "competence"', 'name = "loudest"')
    path.write_text(text.replace("[method.terms.custom] ", "[method.terms.custom]\npower = 3.5\n"))
    method = load_toml(path, Config).method
    assert methods.rule_named(method.name, method.terms).power == 3.5


def test_a_round_is_replayed_with_other_constants_of_it_and_keeps_those_that_are_not_named(install, tmp_path, capsys):
    install({"loudest": "make_loudest"})
    folder = tmp_path / "server"
    assert main(["init", str(folder), "--federation", builders.FED]) == 0
    (folder / "state").mkdir()
    terms = RuleTerms(custom={"power": 3.5, "other": 1.0})
    world = World(folder / "state" / "server.db", method=MethodSettings("loudest", terms=terms))
    for device in fleet(world):
        device.contribute()
    record = Chronicle(world.store, builders.FED).rounds()[0]
    assert json.loads(record.terms)["custom"] == {"power": 3.5, "other": 1.0}
    world.store.close()

    def replay(*terms):
        capsys.readouterr()
        assert main(["replay", "--config", str(folder / "federation.toml"), "--json", "--terms", *terms]) == 0
        (told,) = json.loads(capsys.readouterr().out)["rounds"]
        return told["metrics"]["entropy_nats"], told["published_metrics"]["entropy_nats"]

    loud, was = replay("custom.power=0.0")
    assert loud != was
    assert replay("custom.power=3.5") == replay("custom.other=9.0") == (was, was)


def test_it_makes_a_consensus(install):
    install({"loudest": "make_loudest"})
    rule, offer = methods.rule_named("loudest", RuleTerms()), builders.offer(slice=Slice(builders.PUBLIC_SET, 0, 17, 5))
    joined = join(voices_of(3), rule, offer, Codec.U8_SQRT, LabelledProbes())
    assert joined.metrics["voices"] == 6


def test_it_is_listed_with_its_distribution(install, capsys):
    install({"loudest": "make_loudest"})
    assert main(["methods", "--json"]) == 0
    *built_in, ours = json.loads(capsys.readouterr().out)
    assert [rule["name"] for rule in built_in] == list(RULES)
    assert (ours["name"], ours["origin"], ours["source"]) == ("loudest", "loud-rules 1.2", "an example")


def test_a_built_in_name_is_never_given_away(install, capsys):
    install({"competence": "make_loudest"})
    assert type(methods.rule_named("competence", RuleTerms())).__module__.startswith("broker_server.")
    assert main(["methods", "--json"]) == 0
    *_, ours = json.loads(capsys.readouterr().out)
    assert "built in" in ours["problem"]
    assert "loud_rules" not in sys.modules  # not even loaded


def test_two_distributions_with_one_name_are_both_refused(install):
    install({"loudest": "make_loudest"})
    install({"loudest": "make_loudest"}, distribution="louder_rules")
    with pytest.raises(InvalidValueError, match=r"lou.*_?-rules 1\.2 and in lou.*-rules 1\.2"):
        methods.rule_named("loudest", RuleTerms())


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise OSError('no such library')", "no such library"),
        ("make_loudest = 3", "not callable"),
        ("def make_loudest(terms): return object()", "has no attribute 'card'"),
        (EXAMPLE.replace('name="loudest"', 'name="other"'), "not a rule of that name"),
        ("def make_loudest(terms): return terms.custom['depth']", "depth"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_name_of_its_distribution(install, capsys, source, text):
    install({"loudest": "make_loudest"}, source=source)
    with pytest.raises(InvalidValueError, match=r"loud-rules 1\.2") as caught:
        methods.rule_named("loudest", RuleTerms())
    assert text in str(caught.value)
    assert main(["methods"]) == 0  # one that is broken hides no other
    assert "cannot be used" in capsys.readouterr().out


def test_what_is_no_consensus_of_the_slice_is_not_published():
    class Short:
        card = RULES["mean-probabilities"](RuleTerms()).card

        def consensus(self, voices):
            return np.full((3, 5), 0.2, np.float32)

    offer = builders.offer(slice=Slice(builders.PUBLIC_SET, 0, 17, 5))
    with pytest.raises(InvalidValueError, match=r"made a consensus of shape \[3, 5\]"):
        join(voices_of(3), Short(), offer, Codec.U8_SQRT, LabelledProbes())


def test_the_example_of_the_manual_is_the_one_that_is_tested():
    assert EXAMPLE in (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
