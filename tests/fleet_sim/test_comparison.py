"""A comparison is the same however it is played: in one go or in pieces, in one process or in several."""

import csv
import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from broker_server.rules import RULES
from fd_protocol.errors import InvalidValueError
from fleet_sim.baselines.standings import Standing
from fleet_sim.baselines.tuning import Knobs
from fleet_sim.comparison.cells import Cell, read_cell
from fleet_sim.comparison.comparing import DEFAULT_METHODS, METHODS, Comparison, compare, compare_all, short
from fleet_sim.metrics.listening import ClassCoverage
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.metrics.scores import Scored, ScoreTerms
from fleet_sim.pool import pool
from fleet_sim.reports.comparison import report, sections, target_of, to_csv, to_json
from fleet_sim.reports.report import print_report, write_html
from fleet_sim.scenario import PRESETS
from fleet_sim.worlds import digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def compared(folder):
    return compare(short(), folder)


def files(folder: Path, kind: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / kind).iterdir()}


def test_every_method_is_played_with_every_seed(compared):
    comparison = short()
    places = [(cell.seed, cell.method) for cell in compared.cells]
    assert places == [(seed, name) for seed in comparison.seeds for name in comparison.methods]
    assert all(0 < standing.final < 1 for cell in compared.cells for standing in cell.standings)


def test_baselines_have_the_best_of_their_settings_and_coarse_weights_those_of_fine_ones(compared):
    assert set(compared.chosen) == {"local-only", "fedavg/tail", "centralised"}
    finals = {(cell.seed, cell.method): cell.standings[0].final for cell in compared.cells}
    for seed in short().seeds:
        assert finals[seed, "fedavg/tail/int8"] == pytest.approx(finals[seed, "fedavg/tail"], abs=0.02)


def test_rules_say_whom_they_listen_to(compared):
    for cell in compared.cells:
        if cell.method == "mean-probabilities":
            assert cell.last_round.voters == pytest.approx(4)
        elif cell.method == "competence":
            assert 1 < cell.last_round.voters < 4
            assert sum(cell.last_round.shares.values()) == pytest.approx(1)
            assert len(cell.last_round.gains) == 4
            assert sum(c.probes for c in cell.last_round.classes) == 600
        else:
            assert cell.last_round is None


def test_the_mean_device_is_the_mean_of_its_families(compared):
    ends = [cell.standings[1] for cell in compared.cells if cell.method == "competence"]
    for end in ends:
        of = dict(end.families)
        assert set(of) == {"mlp-s", "mlp-m", "mlp-l"}
        assert (2 * of["mlp-s"] + of["mlp-m"] + of["mlp-l"]) / 4 == pytest.approx(end.final)


def test_what_has_been_played_is_not_played_again(compared, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    assert compare(short(), folder).cells == compared.cells
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")} == before


def test_a_cell_that_is_lost_comes_back_byte_for_byte(compared, folder):
    before = files(folder, "cells")
    lost = next(path for path in (folder / "cells").iterdir() if "competence" in path.name)
    lost.unlink()
    compare(short(), folder)
    assert files(folder, "cells") == before


def test_another_place_and_more_processes_change_nothing(compared, folder, tmp_path):
    few = replace(short(), methods=("competence", "fedavg/tail"))
    with pool(2) as mapped:
        compare(few, tmp_path, mapped=mapped)
    assert files(tmp_path, "cells").items() <= files(folder, "cells").items()
    assert files(tmp_path, "tuning").items() <= files(folder, "tuning").items()


def test_several_comparisons_side_by_side_come_to_what_each_comes_to(compared, folder):
    names = {name: replace(short(), methods=(name,)) for name in ("mean-probabilities", "competence", "local-only")}
    lost = next(path for path in (folder / "cells").iterdir() if path.name.startswith("101-competence"))
    lost.unlink()
    with pool(2) as mapped:
        results = compare_all(list(names.values()), folder, mapped=mapped)
    for name, result in zip(names, results, strict=True):
        assert result.chosen == compare(names[name], folder).chosen
        alone = [cell for cell in compared.cells if cell.method == name]
        assert list(map(repr, result.cells)) == list(map(repr, alone))  # NaN, read elsewhere, is not itself


def test_what_does_not_hold_any_more_is_played_anew_and_the_rest_is_kept(compared, folder):
    scenario = short().scenario
    changed = replace(short(), scenario=replace(scenario, method=replace(scenario.method, temperature=3.0)))
    before = files(folder, "cells")
    again = compare(replace(changed, methods=("competence", "local-only")), folder)
    new = files(folder, "cells").keys() - before.keys()
    assert {name.split("-")[1] for name in new} == {"competence"}
    for name in new:
        (folder / "cells" / name).unlink()
    assert [c for c in again.cells if c.method == "local-only"] == [
        c for c in compared.cells if c.method == "local-only"
    ]


def test_settings_that_are_known_are_not_tuned_again(tmp_path):
    known = {"fedavg/tail": Knobs(epochs=1, learning_rate=0.05)}
    one = replace(short(), methods=("fedavg/tail/int4",), seeds=(100,), settings=known)
    result = compare(one, tmp_path)
    assert result.chosen == known
    assert not (tmp_path / "tuning").exists()


def test_a_method_that_the_world_cannot_play_is_left_out(folder):
    methods = ("factory-model", "server-only")  # digits have no factory labels
    assert {cell.method for cell in compare(replace(short(), methods=methods), folder).cells} == {"factory-model"}


def test_where_the_tail_is_the_whole_model_baselines_of_the_whole_are_left_out(folder):
    methods = ("fedavg/tail/int8", "fedavg/whole/int8", "feddf/whole", "local-only", "local-only/whole")
    plan = replace(
        short(),
        methods=methods,
        seeds=(100,),
        settings=dict.fromkeys(("fedavg/tail", "feddf/whole", "local-only"), Knobs()),
    )
    kept = [cell.method for cell in compare(plan, folder).cells]
    assert kept == ["fedavg/tail/int8", "feddf/whole", "local-only"]


def test_a_comparison_that_makes_no_sense_is_refused():
    world = partial(digits, validation=100)
    for wrong in ({"methods": ("fedavg",)}, {"seeds": (0, 7)}, {"budget": 0}, {"seeds": ()}, {"chosen_by": "top-3"}):
        with pytest.raises(InvalidValueError):
            Comparison(world, PRESETS["digits"], **wrong)


def test_settings_are_not_chosen_by_a_score_of_which_less_is_better():
    scenario = replace(PRESETS["digits"], scores=ScoreTerms(("top-3", "perplexity")))
    assert Comparison(partial(digits, validation=100), scenario, chosen_by="top-3").chosen_by == "top-3"
    with pytest.raises(InvalidValueError, match="the more the better: not 'perplexity'"):
        Comparison(partial(digits, validation=100), scenario, chosen_by="perplexity")


def test_settings_of_baselines_are_chosen_by_what_the_comparison_says(tmp_path):
    """More rows have their label among the three likeliest than as the likeliest: so do the scores that are kept."""
    asking = replace(short().scenario, scores=ScoreTerms(("top-3",)))
    plan = replace(short(), scenario=asking, methods=("centralised",), seeds=(100,))
    tried = {}
    for by in ("", "top-3"):
        compare(replace(plan, chosen_by=by), tmp_path / by)
        (path,) = (tmp_path / by / "tuning").glob("centralised-*.json")
        tried[by] = [row["score"] for row in json.loads(path.read_text())]
    assert len(tried[""]) == len(tried["top-3"]) == plan.budget
    assert all(top_3 > accuracy for top_3, accuracy in zip(tried["top-3"], tried[""], strict=True))
    compare(replace(plan, chosen_by=""), tmp_path / "top-3")  # in the same folder neither stands for the other
    assert len([*(tmp_path / "top-3" / "tuning").glob("centralised-*.json")]) == 2


def test_defaults_name_each_method_once_and_none_that_some_scenario_cannot_play():
    assert len({*DEFAULT_METHODS}) == len(DEFAULT_METHODS)
    assert {*DEFAULT_METHODS} <= {*METHODS}
    assert {*RULES} - {*DEFAULT_METHODS} == {"per-label", "prototypes"}


def test_a_rule_that_the_scenario_cannot_play_is_refused():
    with pytest.raises(InvalidValueError, match="'prototypes' needs one int8 backbone"):
        Comparison(partial(digits, validation=100), PRESETS["digits"], methods=("prototypes",))


def test_a_rule_without_a_public_set_has_devices_and_no_student(tmp_path):
    (cell,) = compare(replace(short(), methods=("per-label",), seeds=(100,)), tmp_path).cells
    assert [standing.name for standing in cell.standings] == ["per-label FD, mean client"]
    assert cell.last_round.gains == {}
    assert cell.last_round.classes == ()


# Cells.


def test_a_cell_is_read_as_it_was_written(tmp_path):
    scores = (Scored("top-3", 0.5, (0.25, float("nan"))),)
    standing = Standing("x", (0.25, float("nan")), up_bytes=3.0, totals=((1.0, 2.0), (3.0, 4.5)), scores=scores)
    coverage = ClassCoverage(0, 0, float("nan"), float("nan"), 0)
    cell = Cell(3, "era", (standing,), RoundMetrics(2, 1.5, shares={"a": 1.0}, classes=(coverage,)))
    cell.write(tmp_path / "cell.json")
    assert repr(read_cell(tmp_path / "cell.json")) == repr(cell)  # NaN is no NaN's equal


# What it says.


def test_tables_tell_of_every_method(compared):
    ends, costs, differences, *_ = sections(compared)
    names = [standing.name for cell in compared.cells[:6] for standing in cell.standings]
    assert [row[0] for row in ends.rows] == names
    assert [row[0] for row in costs.rows] == [name for name in names if "FD" in name or "FedAvg" in name]
    assert [row[0] for row in differences.rows] == names[2:]
    assert all(len(row) == len(s.columns) for s in sections(compared) for row in s.rows)
    classes = next(section for section in sections(compared) if "coverage" in section.title)
    assert [row[0] for row in classes.rows] == list("0123456789")


def test_differences_are_those_of_the_first_method_seed_by_seed(compared):
    finals = {(cell.seed, s.name): s.final for cell in compared.cells for s in cell.standings}
    each = [finals[seed, "competence FD, student"] - finals[seed, "local only"] for seed in (100, 101)]
    row = next(row for row in sections(compared)[2].rows if row[0] == "local only")
    assert row[1] == f"{100 * np.mean(each):+.1f} ± {200 * np.std(each, ddof=1) / 2**0.5:.1f}"


def test_what_a_field_asks_besides_accuracy_is_asked_of_every_method(tmp_path):
    plain, methods = short(), ("competence", "local-only", "fedavg/tail", "centralised")
    scenario = replace(plain.scenario, scores=ScoreTerms(("top-3", "perplexity")))
    terms = {"methods": methods, "seeds": (100,), "settings": {name: Knobs(2, 3e-2) for name in methods[1:]}}
    compared = compare(replace(plain, scenario=scenario, **terms), tmp_path)
    table = next(section for section in sections(compared) if section.title == "What else was asked")
    kinds = ("all", "own", "worst")
    assert table.columns[1:] == tuple(f"{name}: {kind}" for name in scenario.scores.names for kind in kinds)
    standings = {s.name: s for cell in compared.cells for s in cell.standings}
    assert [row[0] for row in table.rows] == list(standings)
    for row in table.rows:
        top_3, perplexity = standings[row[0]].scores
        assert row[1] == f"{100 * top_3.all:.1f}"
        assert row[4] == f"{perplexity.all:.1f}"
        assert len(top_3.own) == (0 if "student" in row[0] else 4)
        assert standings[row[0]].final <= top_3.all <= 1 <= perplexity.all
    rows = list(csv.DictReader(io.StringIO(to_csv(compared))))
    assert float(rows[-1]["top-3: own"]) == pytest.approx(standings["centralised"].scores[0].own_mean, abs=1e-5)
    differences = next(section for section in sections(compared) if section.title == "Paired differences")
    assert "competence FD, mean client: top-3: worst" in differences.columns
    assert not any("perplexity" in column for column in differences.columns)


def test_the_target_is_the_callers_or_what_the_best_can_nearly_do(compared):
    ends = [s.final for c in compared.cells for s in c.standings if s.name == "competence FD, student"]
    assert target_of(compared) == pytest.approx(0.95 * np.mean(ends))
    assert target_of(replace(compared, comparison=replace(compared.comparison, target=0.5))) == 0.5


def test_a_spreadsheet_gets_a_row_per_seed_and_standing(compared):
    rows = list(csv.DictReader(io.StringIO(to_csv(compared))))
    assert len(rows) == sum(len(cell.standings) for cell in compared.cells)
    assert {row["own"] for row in rows if "student" in row["name"]} == {""}
    assert all(float(row["all"]) > 0 for row in rows)


def test_a_program_gets_everything(compared):
    told = json.loads(to_json(compared))
    assert len(told["cells"]) == len(compared.cells)
    assert told["settings"]["fedavg/tail"]["epochs"] == compared.chosen["fedavg/tail"].epochs


def test_a_person_gets_one_page(compared, tmp_path):
    said = report(compared, "fleet-sim compare")
    write_html(said, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page
    assert "competence FD, mean client" in page
    print_report(said, Console(file=io.StringIO(), width=200))


def test_a_method_that_diverged_is_a_dash(compared):
    lost = [
        replace(cell, standings=(Standing("centralised", (float("nan"),)),)) if cell.method == "centralised" else cell
        for cell in compared.cells
    ]
    broken = replace(compared, cells=tuple(lost))
    assert next(row for row in sections(broken)[0].rows if row[0] == "centralised")[1] == "-"
    assert "centralised" not in [curve.name for curve in report(broken, "x").curves]
