"""Settings are chosen with the same budget for all, on validation data, and no score is computed twice."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.fitting import FitTerms, TrainingDivergedError
from fleet_sim.baselines.catalogue import BASELINES, NEW_CLASS_SETTINGS
from fleet_sim.baselines.standings import NEW_CLASS_TERMS, Bench, asked
from fleet_sim.baselines.tuning import Knobs, search, tuned, validated
from fleet_sim.factory import build_bundles
from fleet_sim.lab import Lab
from fleet_sim.metrics.scores import ScoreTerms
from fleet_sim.scenario import ModelTerms
from fleet_sim.worlds import digits

TUNED = {name: baseline for name, baseline in BASELINES.items() if baseline.axes}


START = Knobs()
RATES, EPOCHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2), (2, 5, 10, 20)


def asked_for(budget, score, start=START, axes=None):
    """Return what is found, and what was tried, in order."""
    tried = []

    def ask(knobs):
        tried.append(knobs)
        return score(knobs)

    return search(start, axes or {"learning_rate": RATES, "epochs": EPOCHS}, budget, ask), tried


def nearness_to(rate, epochs):
    return lambda knobs: -abs(math.log(knobs.learning_rate / rate)) - abs(math.log(knobs.epochs / epochs))


def test_a_small_grid_is_tried_whole_and_no_point_twice():
    best, tried = asked_for(10, lambda knobs: -knobs.epochs, axes={"learning_rate": (0.1, 0.2), "epochs": (1, 2)})
    assert len(tried) == 4 == len({*tried})
    assert best.epochs == 1


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("epochs", EPOCHS)
def test_an_optimum_anywhere_on_the_grid_is_found_with_fewer_trials_than_it_has_points(rate, epochs):
    best, tried = asked_for(11, nearness_to(rate, epochs))
    assert (best.learning_rate, best.epochs) == (rate, epochs)
    assert len(tried) == 11 < len(RATES) * len(EPOCHS)


def test_six_trials_come_to_the_highest_rate_where_it_is_the_best():
    best, _ = asked_for(6, nearness_to(0.2, 5))
    assert best == Knobs(learning_rate=0.2)


def test_a_second_hill_is_found_where_the_budget_is_large():
    def score(knobs):
        return 2.0 if (knobs.learning_rate, knobs.epochs) == (0.2, 20) else nearness_to(0.01, 5)(knobs)

    assert asked_for(6, score)[0] == Knobs()
    assert asked_for(24, score)[0] == Knobs(epochs=20, learning_rate=0.2)


def test_a_method_gains_nothing_from_having_more_knobs():
    def ripples(knobs):
        return math.sin(1e4 * knobs.learning_rate + 7 * knobs.epochs)

    counts = {len(asked_for(9, ripples, axes=baseline.axes)[1]) for baseline in TUNED.values()}
    assert counts == {9}


def test_a_larger_budget_begins_with_the_trials_of_a_smaller_one():
    axes = TUNED["fedprox/tail"].axes
    (_, small), (_, large) = (asked_for(budget, nearness_to(0.1, 2), axes=axes) for budget in (5, 30))
    assert len(small) == 5
    assert large[:5] == small


def test_what_extends_another_baseline_first_tries_its_own_knob_where_that_one_is_best():
    start = Knobs(epochs=20, learning_rate=1e-1)
    axes = TUNED["fedprox/tail"].axes
    _, tried = asked_for(4, lambda knobs: -knobs.prox, start, axes)
    assert tried == [replace(start, prox=prox) for prox in (0.1, 1.0, 0.01, 0.001)]
    assert TUNED["fedprox/tail"].base == "fedavg/tail"


def test_what_is_no_axis_stays_as_it_starts():
    start = Knobs(epochs=7, learning_rate=0.25)
    _, tried = asked_for(8, lambda knobs: knobs.own_rate, start, TUNED["fedavg/tail/fine-tuned"].axes)
    assert {(p.epochs, p.learning_rate) for p in tried} == {(7, 0.25)}
    assert len({(p.own_epochs, p.own_rate) for p in tried}) == 8


def test_the_best_wins_and_what_diverges_never_does(tmp_path):
    def score(knobs):
        if knobs.learning_rate > 0.05:
            raise TrainingDivergedError(1, math.nan)
        return float(knobs.learning_rate < 0.04)

    axes, path = {"learning_rate": (0.1, 0.05, 0.03, 0.01)}, tmp_path / "t.json"
    assert tuned(Knobs(learning_rate=0.05), axes, 4, score, path).learning_rate == 0.03  # the first of equals
    assert [row["score"] for row in json.loads(path.read_text())] == [0.0, None, 1.0, 1.0]


def test_tuning_that_was_cut_short_goes_on_where_it_was(tmp_path):
    axes, asked = {"epochs": (1, 2, 3)}, []  # from the middle up first

    def score(knobs):
        if knobs.epochs == 1 and len(asked) < 3:
            asked.append("cut")
            raise KeyboardInterrupt
        asked.append(knobs.epochs)
        return float(knobs.epochs)

    path = tmp_path / "new" / "t.json"
    with pytest.raises(KeyboardInterrupt):
        tuned(START, axes, 3, score, path)
    assert tuned(START, axes, 3, score, path).epochs == 3
    assert asked == [2, 3, "cut", 1]


def test_settings_are_chosen_without_a_look_at_test_or_own_rows():
    world = digits(2, validation=150, own_fraction=0.2)
    judged = validated(world)
    assert judged.test is world.validation
    for before, private, own in zip(world.private, judged.private, judged.own, strict=True):
        assert len(own) == round(0.2 * len(before))
        together = np.concatenate([private.values, own.values])
        assert sorted(map(bytes, together)) == sorted(map(bytes, before.values))


def test_a_world_without_validation_rows_is_refused():
    with pytest.raises(InvalidValueError, match="no validation rows"):
        validated(digits(2))


# The catalogue.


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    world = digits(3, devices=4, own_fraction=0.2)
    models = ModelTerms(("mlp-m",), "mlp-m", every_layer_trains=True, pretraining=None)
    bundles = build_bundles(world, models, 3, tmp_path_factory.mktemp("bundles"), tflite=False)
    labelled = replace(world, factory=world.validation + world.probes.take(np.arange(40)))
    return Bench(Lab(labelled, bundles), "mlp-m", 2, seed=3)


def test_published_settings_are_those_of_the_published_tables():
    for name, terms in (
        ("local-only", NEW_CLASS_TERMS.local_only),
        ("centralised", NEW_CLASS_TERMS.centralised),
        ("fedavg/tail", NEW_CLASS_TERMS.tail_average),
        ("fedavg/whole", NEW_CLASS_TERMS.whole_average),
    ):
        knobs = NEW_CLASS_SETTINGS[name]
        assert FitTerms(epochs=knobs.epochs, learning_rate=knobs.learning_rate) == terms
    for part in ("tail", "whole"):
        knobs = NEW_CLASS_SETTINGS[f"fedavg/{part}/fine-tuned"]
        assert FitTerms(epochs=knobs.own_epochs, learning_rate=knobs.own_rate) == NEW_CLASS_TERMS.fine_tuning


def test_titles_tell_baselines_apart():
    titles = [baseline.title for baseline in BASELINES.values()]
    assert len({*titles}) == len(titles)


def test_who_has_the_settings_of_another_finds_one_that_is_tuned():
    assert all(BASELINES[baseline.base].axes for baseline in BASELINES.values() if baseline.base)


@pytest.mark.parametrize("name", [name for name in BASELINES if "whole" not in name])
def test_every_baseline_plays_and_says_what_it_costs(bench, name):
    standing = BASELINES[name].standing(bench, Knobs(epochs=3))
    assert standing.name == BASELINES[name].title
    assert 0 < standing.final <= 1
    assert 0 < standing.own <= 1
    assert 0 < standing.calibration < 1
    assert (standing.up_bytes > 0) == name.startswith("fed")
    assert len(standing.totals) == (0 if not name.startswith("fed") else len(standing.curve))


def test_totals_add_up_the_bytes_of_rounds(bench):
    standing = BASELINES["fedavgm/tail/int4"].standing(bench, Knobs(epochs=1, server_momentum=0.5))
    assert standing.totals[-1] == pytest.approx((2 * standing.up_bytes, 2 * standing.down_bytes))


def test_settings_that_diverge_end_nowhere(bench):
    standing = BASELINES["fedavg/tail"].standing(bench, Knobs(epochs=5, learning_rate=1e4))
    assert np.isnan(standing.final)


def test_the_average_that_devices_go_on_from_is_played_once(bench):
    fine_tuned = BASELINES["fedavg/tail/fine-tuned"]
    bench.averages.clear()
    first = fine_tuned.standing(bench, Knobs(epochs=1, own_epochs=0))
    (average,) = bench.averages.values()
    assert first.final == average[0].final  # nobody has gone anywhere yet
    fine_tuned.standing(bench, Knobs(epochs=1, own_epochs=3))
    assert list(bench.averages) == [FitTerms(epochs=1, learning_rate=1e-2)]


def test_a_world_without_factory_labels_has_no_server_that_learns_by_itself():
    assert not BASELINES["server-only"].is_possible(digits(3))
    assert BASELINES["centralised"].is_possible(digits(3))


def test_a_server_may_learn_from_its_canaries_where_it_has_some():
    world = digits(3)
    by_itself = BASELINES["server-only/canaries"]
    assert not by_itself.is_possible(world)
    assert by_itself.is_possible(replace(world, canaries=np.arange(20)))


def test_a_server_with_canaries_knows_more_than_one_with_the_factory_labels_alone(bench):
    world = replace(bench.lab.world, canaries=np.arange(100, 300))
    known = Bench(Lab(world, bench.lab.bundles), bench.family, bench.rounds, bench.seed)
    few, more = (BASELINES[name].score(known, Knobs(20, 3e-3)) for name in ("server-only", "server-only/canaries"))
    assert more > few + 0.02


def test_settings_may_be_chosen_by_a_score_that_the_bench_asks_for(bench):
    asking = replace(bench, scoring=ScoreTerms(("top-3",)))
    for name, kind in (("centralised", "all"), ("local-only", "own")):
        baseline, knobs = BASELINES[name], Knobs(2, 3e-3)
        standing = baseline.standing(asking, knobs)
        assert baseline.score(asking, knobs, "top-3") == asked(standing, f"top-3: {kind}") > asked(standing, kind)
    assert math.isnan(BASELINES["centralised"].score(bench, Knobs(1), "top-3"))  # nobody asks


def test_settings_that_validation_rows_cannot_judge_never_win(tmp_path):
    rates = (0.03, 0.05, 0.1)
    points = [Knobs(learning_rate=rate) for rate in rates]
    scores = dict(zip(points, (math.nan, 0.2, math.nan), strict=True))
    found = tuned(points[0], {"learning_rate": rates}, 3, scores.__getitem__, tmp_path / "scores.json")
    assert found == points[1]
