"""Tables of evidence: one command each, whose short form is played here; what they say is what was played."""

import math
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tables import (
    architectures,
    codecs,
    digits_splits,
    dirichlet,
    fashion,
    int8,
    liars,
    one_class,
    people,
    private_heads,
    rounds,
    weak_spots,
    wire_bytes,
)
from benchmarks.tables.worlds import thinned
from fd_protocol.errors import InvalidValueError
from fleet_sim.baselines.standings import Standing
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.comparison.cells import Cell, read_cell
from fleet_sim.comparison.comparing import Compared, Comparison
from fleet_sim.metrics.scores import Scored, ScoreTerms
from fleet_sim.partitions import Dirichlet, Natural, PartitionTerms
from fleet_sim.scenario import MeasuringTerms, ModelTerms, Scenario
from fleet_sim.tables import (
    CLIENTS,
    STUDENT,
    TUNING_SEEDS,
    Case,
    Choice,
    Goal,
    Outcome,
    Plan,
    beside,
    choice,
    chosen,
    play,
    publish,
    report,
    run,
    varied,
)
from fleet_sim.tables.picture import drawn
from fleet_sim.tables.real import played_by_programs
from fleet_sim.tables.saying import accuracies, break_even, chosen_how, costs, differences, goals, traffic
from fleet_sim.worlds import Cut, Samples, cut_world

TABLES = {
    module.__name__.rpartition(".")[2]: module.TABLE
    for module in (
        one_class,
        dirichlet,
        fashion,
        wire_bytes,
        int8,
        liars,
        architectures,
        rounds,
        digits_splits,
        weak_spots,
        private_heads,
        people,
    )
}
SMALL = Scenario(
    cut=Cut(probes=100, validation=100, test=200),
    devices=3,
    partition=PartitionTerms(dirichlet=Dirichlet(0.5)),
    rounds=1,
    models=ModelTerms(("mlp-s",), "mlp-s", pretraining=None, every_layer_trains=True),
)
RATES = {"training.learning_rate": (1e-4, 2e-2)}


@pytest.mark.parametrize("name", TABLES)
def test_a_command_plays_its_short_form_and_has_a_row_for_all_that_was_played(name, tmp_path):
    table, plan = TABLES[name], Plan(tmp_path, seeds=(100,), tuning_seeds=(0,))
    outcomes = play(table.cases({}, "short"), plan)
    text = (table.say or report)(table, outcomes, plan)
    for outcome in outcomes:
        for method, seeds in outcome.ends.items():
            assert len(seeds) == 1
            assert 0 < seeds[0].final <= 1, method
            parts = method.removesuffix(f", {STUDENT}").removesuffix(f", {CLIENTS}").split(" | ")
            assert all(part in text for part in parts), method
        for who, figure in outcome.case.published.items():
            assert f"| *published:* {who} | {figure} |" in text


@pytest.mark.parametrize("name", TABLES)
def test_a_full_form_can_be_played(name, tmp_path):
    """Scenarios and comparisons refuse to exist where they cannot be played."""
    for case in TABLES[name].cases({"mnist": tmp_path}, "full"):
        for federation, scenario in list(case.federations.items())[: 1 if case.is_tuned_once else None]:
            tried = [
                scenario,
                *(varied(scenario, path, v) for path, vs in case.axes_of(federation).items() for v in vs),
            ]
            for each in tried:
                Comparison(case.world, each, (each.method.name, *case.baselines), (100,), TUNING_SEEDS)


def world(seed, *, test=0, validation=0):
    """Digits; labels of test or validation rows are `test` or `validation` classes off."""
    made = cut_world(SMALL.data.load(), SMALL.cut, SMALL.partition.partition, SMALL.devices, seed)

    def off(samples, by):
        return Samples(samples.values, (samples.labels + by) % 10)

    return replace(made, test=off(made.test, test), validation=off(made.validation, validation))


def wrong_test(seed):
    return world(seed, test=1)


def wrong_validation(seed):
    return world(seed, validation=5)


def ends_in(folder):
    return sorted(read_cell(path).standings[0].final for path in (folder / "cells").iterdir())


def test_settings_are_chosen_on_validation_rows_and_never_on_test_rows(tmp_path):
    trials = {"budget": 3, "seeds": (0,)}
    folders = {make: tmp_path / make.__name__ for make in (world, wrong_test, wrong_validation)}
    choices = {make: chosen(make, SMALL, RATES, folder=folder, **trials) for make, folder in folders.items()}
    assert choices[world].values == choices[wrong_test].values == {"training.learning_rate": 2e-2}
    assert ends_in(folders[world]) == ends_in(folders[wrong_test]) != ends_in(folders[wrong_validation])


def test_no_more_settings_are_tried_than_the_budget_has(tmp_path):
    choice = chosen(world, SMALL, RATES, budget=2, seeds=(0,), folder=tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert choice.values["training.learning_rate"] in {SMALL.training.learning_rate, 1e-4}


def test_a_table_goes_on_where_it_was_cut_short(tmp_path):
    case = Case("digits", world, {"ours": SMALL}, axes={}, baselines=("factory-model",))
    play([case], Plan(tmp_path, (100,), (0,)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    [outcome] = play([case], Plan(tmp_path, (100, 101), (0,)))
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert [len(seeds) for seeds in outcome.ends.values()] == [2, 2, 2]


def test_a_federation_may_have_the_settings_of_another(tmp_path):
    like, other = replace(SMALL, rounds=2), replace(SMALL, rounds=3)
    case = Case("digits", world, {"ours": SMALL, "other": other, "like": like}, axes=RATES, baselines=(), budget=3)
    case = replace(case, tuned_as={"like": "ours"}, own_axes={"other": {"training.epochs": (1,)}})
    choices = play([case], Plan(tmp_path, (100,), (0,)))[0].choices
    assert choices["like"].values == choices["ours"].values
    assert choices["like"].scenario.rounds == 2
    assert [*choices["other"].values] == ["training.epochs"]


def test_a_case_may_have_the_settings_of_another(tmp_path):
    """Those of federations and of baselines; by itself it would have chosen others."""
    first = Case("first", world, {"ours": SMALL}, axes=RATES, baselines=("local-only",), budget=3)
    later = {"axes": {"training.learning_rate": (1e-4,)}, "federations": {"ours": replace(SMALL, rounds=2)}}
    cases, plan = [first, replace(first, name="later", **later, tuned_in="first")], Plan(tmp_path, (100,), (0,))
    before, after = play(cases, plan)
    assert before.choices["ours"].values == after.choices["ours"].values == {"training.learning_rate": 2e-2}
    assert after.choices["ours"].scenario.rounds == 2
    assert before.knobs == after.knobs
    assert [*after.knobs] == ["local-only"]
    [alone] = play([replace(cases[1], tuned_in="")], plan)
    assert alone.choices != after.choices
    with pytest.raises(InvalidValueError, match="'later' has the settings of 'first': that comes first"):
        play(cases[::-1], plan)
    assert "*later* has the settings of *first*." in chosen_how([before, after], plan)
    shared = replace(first, federations={"ours": SMALL, "other": SMALL}, is_tuned_once=True)
    others = "The other federations have the settings of the first."
    assert others in chosen_how([replace(before, case=shared)], plan)
    assert others not in chosen_how([before], plan)


def test_settings_of_a_federation_may_be_chosen_by_a_score(tmp_path, monkeypatch):
    """Here the accurate setting is the one that ranks worst."""

    def compared(comparison, *_args, **_options):
        rate = comparison.scenario.training.learning_rate
        standing = Standing("ours", (rate,), scores=(Scored("auroc", 1 - rate),))
        return Compared(comparison, (Cell(0, "competence", (standing,)),), {})

    monkeypatch.setattr(choice, "compare", compared)
    found = {by: chosen(world, SMALL, RATES, 3, seeds=(0,), folder=tmp_path, by=by).values for by in ("", "auroc")}
    assert found == {"": {"training.learning_rate": 2e-2}, "auroc": {"training.learning_rate": 1e-4}}


def test_settings_of_a_federation_may_be_chosen_by_its_devices(tmp_path, monkeypatch):
    """Here the student gains by what makes devices worse."""

    def compared(comparison, *_args, **_options):
        rate = comparison.scenario.training.learning_rate
        standings = (Standing("student", (rate,)), Standing("mean client", (1 - rate,)))
        return Compared(comparison, (Cell(0, "competence", standings),), {})

    monkeypatch.setattr(choice, "compare", compared)
    by = {
        judged: chosen(world, SMALL, RATES, 3, seeds=(0,), folder=tmp_path, judged=judged).values
        for judged in (STUDENT, CLIENTS)
    }
    assert by == {STUDENT: {"training.learning_rate": 2e-2}, CLIENTS: {"training.learning_rate": 1e-4}}


def test_each_device_is_put_beside_itself():
    """A mean of 0 hides that one pays for it."""
    own = {"local only": (0.5, 0.6, 0.7, math.nan), "ours, mean device": (0.6, 0.7, 0.5, 0.9), "ours, student": ()}
    ends = {name: [Standing(name, (0.5,), scores=(Scored("auroc", 0.5, each),))] for name, each in own.items()}
    ends["diverged"] = [Standing("diverged", (math.nan,))]
    outcome = replace(outcome_of({}), ends=ends)
    _, _, *rows = beside(outcome, "local only", "auroc").splitlines()
    assert rows == ["| ours, mean device | 66.7 | +0.0 | -20.0 |", "| diverged | - | - | - |"]


def outcome_of(ends, **of_case):
    case = Case("mnist", world, {}, axes={}, baselines=(), **of_case)
    standings = {name: [Standing(name, (final,)) for final in finals] for name, finals in ends.items()}
    return Outcome(case, standings, {}, {}, {})


def test_differences_are_paired_and_to_the_first():
    outcome = outcome_of({"ours, student": [0.9, 0.8], "FedAvg": [0.8, 0.7], "centralised": [0.95, math.nan]})
    text = differences([outcome])
    assert "| FedAvg | +10.0 ± 0.0 |" in text
    assert "| centralised | - |" in text


def test_where_nothing_was_chosen_no_budget_is_told():
    plan, bare = Plan(Path(), (100,), (0,)), outcome_of({"a": [0.5]})
    assert "none was chosen" in chosen_how([bare], plan)
    chose = replace(bare, choices={"a": Choice(SMALL, {"training.epochs": 4})})
    how = "found on validation rows of 1 other seed, one knob after the other, by accuracy"
    assert f"settings each, {how}, a federation's by that of its student." in chosen_how([chose], plan)
    knobs = {"fedavg/tail": Knobs(), "local-only": Knobs()}
    tuned = chosen_how([replace(chose, knobs=knobs)], plan)
    assert tuned.startswith("Federations and baselines have the best of at most 8")
    assert "its student, those of *local only* by a device's own kind of rows." in tuned
    assert chosen_how([replace(bare, knobs=knobs)], plan).startswith("Federations are as set, baselines have the best")


def test_a_goal_that_is_missed_says_so():
    ahead = Goal("int8", -0.5, "ours", than="float")
    found = {"int8": [0.9, 0.9], "float": [0.91, 0.91]}
    assert "**missed**" in goals([outcome_of(found, goals=(ahead,))])
    assert "reached" in goals([outcome_of(found, goals=(replace(ahead, least=-1.5),))])
    assert "| 90.0 ± 0.0 | **missed** |" in goals([outcome_of(found, goals=(Goal("int8", 90.1, "theirs"),))])


def test_a_method_that_was_not_played_in_a_case_keeps_its_row():
    text = accuracies([outcome_of({"a": [0.5]}), outcome_of({"b": [0.25]}, published={"they": "71.56 ± 2.57"})])
    assert "| a | 50.0 | - |" in text
    assert "| b | - | 25.0 |" in text
    assert "| *published:* they |  | 71.56 ± 2.57 |" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--short", "--write"], "only a whole table"),
        (["--short", "--write", "--real"], "only a whole table"),
        (["--short", "--only", "nothing"], "no column 'nothing'; there are digits, a class each"),
        (["--data", "mnist=nowhere.npz"], "nowhere.npz"),
    ],
)
def test_what_cannot_be_played_is_a_line_and_an_exit_code(monkeypatch, tmp_path, capsys, words, said):
    monkeypatch.setattr("sys.argv", ["one_class", "--folder", str(tmp_path), *words])
    with pytest.raises(SystemExit) as ended:
        run(one_class.TABLE)
    assert ended.value.code not in (0, None)
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m benchmarks.tables.one_class: ")
    assert said in line
    assert not list(tmp_path.iterdir())


def test_a_table_that_takes_rows_off_its_devices_is_not_played_by_programs(tmp_path):
    fewer = Case("digits", thinned(SMALL, share=0.5), {"ours": SMALL}, axes={}, baselines=())
    with pytest.raises(InvalidValueError, match="takes rows off"):
        played_by_programs(fewer, Plan(tmp_path, (100,), (0,)))
    assert not list(tmp_path.iterdir())


def test_a_section_is_put_into_its_page_again_and_again(tmp_path):
    page = tmp_path / "page.md"
    publish("one", "make one", "1\n", page)
    publish("two", "make two", "2", page)
    publish("one", "make one", "3", page)
    one, two = (f"<!-- begin {n} -->\n    make {n}\n\n{v}\n<!-- end {n} -->\n" for n, v in (("one", 3), ("two", 2)))
    assert page.read_text() == f"{one}\n{two}"
    page.write_text(one.replace("<!-- end one -->", ""))
    with pytest.raises(ValueError, match="lacks"):
        publish("one", "make one", "4", page)


def test_equal_accuracy_costs_what_was_sent_and_received_until_then():
    """Where the best of those with rounds ends, less a twentieth; who has no rounds sets no target and has no row."""
    totals = ((10.0, 20.0), (20.0, 40.0), (30.0, 60.0))
    curves = {"ours, student": (0.5, 0.9, 0.8), "FedAvg": (0.5, 0.6, 0.7), "local only": (0.95,)}
    ends = {
        name: [Standing(name, curve, totals=totals), Standing(name, (*curve[:-1], curve[-1] - 0.1), totals=totals)]
        for name, curve in curves.items()
    }
    ends["FedAvg"][1] = Standing("FedAvg", (0.5, 0.6, 0.75), totals=totals)
    head, _, *rows = costs([replace(outcome_of({}), ends=ends)]).splitlines()
    assert "mnist, to 71.2 %" in head
    assert rows == ["| ours, student | 20 / 40 (2.0) |", "| FedAvg | 30 / 60 (3.0, 1 of 2 seeds) |"]
    with_set = costs([replace(outcome_of({}), ends=ends, public_set_bytes=214_700)])
    assert with_set.splitlines()[-1] == "| *the public set, once* | 214,700 |"


def test_equal_accuracy_is_seen_where_somebody_measures():
    """Between two measurements nobody knows: what an accuracy costs is rounded up, and the table says so."""
    scenario = replace(SMALL, rounds=4, measuring=MeasuringTerms(every=2))
    totals = tuple((10.0 * number, 10.0 * number) for number in range(1, 5))
    ours = [Standing("ours", (math.nan, 0.9, math.nan, 0.9), totals=totals)]
    outcome = replace(outcome_of({}), ends={"ours, student": ours})
    assert "measured" not in costs([outcome])
    case = replace(outcome.case, federations={"ours": scenario})
    head, _, row = costs([replace(outcome, case=case)]).splitlines()
    assert "(rounds; federations are measured every 2 rounds)" in head
    assert row == "| ours, student | 20 / 20 (2.0) |"


def test_the_break_even_is_told_in_parameters():
    """A model of 1,000 parameters costs 8,000 bytes both ways; ours costs 2,000, as much as 250 of them."""
    sent = {
        "ours, student": (500, 1500),
        "FedAvg, whole model, f32": (4000, 4000),
        "FedAvg, whole model, int4": (500, 500),
    }
    ends = {
        name: [
            Standing(name, (0.5,), up_bytes=up, down_bytes=down, totals=((up, down),)),
            Standing(name, (math.nan,)),  # as one that diverged: nobody knows what it would have sent
        ]
        for name, (up, down) in sent.items()
    }
    played = replace(outcome_of({}), ends=ends)
    assert break_even([outcome_of({}), played]).splitlines()[2:] == [
        "| FedAvg, whole model, f32 | 250 |",
        "| FedAvg, whole model, int4 | 2,000 |",
        "| *parameters of the whole model here* | 1,000 |",
    ]
    assert not break_even([outcome_of({})])
    assert "| FedAvg, whole model, f32 | 4,000 / 4,000 |" in traffic([played])


def test_a_picture_shows_every_method_of_cases_with_baselines(tmp_path):
    """Seen by its size: a line more makes it higher; where accuracy says nothing there is no second column."""
    plan = Plan(tmp_path, (100, 101), (0,))
    [outcome] = play([Case("digits", world, {"ours": SMALL}, axes={}, baselines=("factory-model",))], plan)
    bare = replace(outcome, case=replace(outcome.case, baselines=()))
    rare = replace(SMALL, scores=ScoreTerms(prevalence=0.01))
    balanced = replace(SMALL, partition=PartitionTerms(natural=Natural(most=10, balanced=True)))
    sizes = {
        name: size_of(drawn(outcomes))
        for name, outcomes in {
            "one": [outcome],
            "with a bare one": [outcome, bare],
            "two": [outcome, outcome],
            "rare": [replace(outcome, case=replace(outcome.case, federations={"ours": rare}))],
            "balanced": [replace(outcome, case=replace(outcome.case, federations={"ours": balanced}))],
        }.items()
    }
    width, height = sizes["one"]
    assert sizes["with a bare one"] == (width, height)
    assert sizes["two"] == (width, 2 * height)
    assert sizes["rare"][0] == sizes["balanced"][0] < width


def size_of(png):
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def test_worlds_without_liars_have_all_others_as_they_were():
    alone = liars.without_first(world, 1)(100)
    whole = world(100)
    assert len(alone.private) == len(whole.private) - 1
    assert np.array_equal(alone.private[0].values, whole.private[1].values)
    assert np.array_equal(alone.test.values, whole.test.values)


def test_a_codec_is_judged_by_the_entropy_of_its_codes_where_that_is_more_than_an_envelope():
    logits = np.random.default_rng(0).normal(0, 3, (2, 2, 300, 10)).astype(np.float32)
    rows = {row[1]: row for row in codecs.rows_of("random", logits)}
    assert rows["u8-sqrt"][-1] == "holds"
    assert rows["top-1"][-1] == ""
    entropy, body, wire = (float(rows["u8-sqrt"][place]) for place in (2, 3, 5))
    assert 0.95 * entropy < body < wire
    assert codecs.verdict(1000, 1251) == "**missed**"
