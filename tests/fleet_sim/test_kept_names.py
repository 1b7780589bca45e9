"""What was played before there was a key keeps its name while the key says nothing."""

from dataclasses import replace

from fleet_sim.data.terms import DataTerms
from fleet_sim.metrics.scores import ScoreTerms
from fleet_sim.scenario import ProbeTerms, Scenario

SOURCE = DataTerms("digits")


def test_a_key_that_came_later_is_named_where_it_says_something():
    assert repr(ScoreTerms()) == "ScoreTerms(names=(), prevalence=None)"
    assert repr(ScoreTerms(local_prior=False)) == "ScoreTerms(names=(), prevalence=None, local_prior=False)"
    assert repr(ProbeTerms()) == "ProbeTerms(source=None, lacking=())"
    assert repr(ProbeTerms(SOURCE, teaches_factory=True)).endswith("lacking=(), teaches_factory=True)")


def test_other_settings_have_other_names():
    scenario = Scenario()
    others = [replace(scenario, scores=ScoreTerms(local_prior=False)), replace(scenario, probes=ProbeTerms(SOURCE))]
    assert len({repr(each) for each in (scenario, *others)}) == 3
