"""The comparison with Flower: its pieces, and where flwr is installed in build/flower-venv its short form."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tomllib
from flower.lines import lines_of
from flower.measured import Alone, Idle, Mark, Played, Recovery, revived
from flower.rows import alone_rows, firsts, floor, recovery_rows, updates
from flower.tables import Row, curves, table
from flower.theirs import from_torch, to_torch
from gauges import quiet_tree, used_s

from fd_protocol.layout import ParameterSlot, ThetaLayout
from fleet_sim.real.wire_meter import Traffic
from model_export.cli import main as model_export
from tests.support.programs import running

PROJECT = Path(__file__).parents[2]
BENCHMARKS = PROJECT / "benchmarks"
ENVIRONMENT = PROJECT / "build" / "flower-venv"
APPS = [BENCHMARKS / "flower" / name for name in ("app", "light", "floor")]


def test_a_line_is_what_someone_had_to_write(tmp_path):
    python, plain = tmp_path / "a.py", tmp_path / "a.toml"
    python.write_text(
        '"""What\nit is."""\n\n# why\nx = 1\n\n\ndef f():\n    """Return."""\n    return """\n    text"""\n'
    )
    plain.write_text("# a comment\n\n[table]\nkey = 1\n")
    assert lines_of([python]) == 4
    assert lines_of([plain]) == 2
    assert lines_of([python, plain]) == 6


def test_torch_has_the_weights_of_theta_and_gives_them_back():
    layout = ThetaLayout(
        (ParameterSlot("conv", 0, (2, 1, 3, 3)), ParameterSlot("dense", 18, (4, 3)), ParameterSlot("bias", 30, (3,)))
    )
    theta = np.arange(33, dtype=np.float32)
    arrays = to_torch(layout, theta)
    assert arrays["dense"].shape == (3, 4)
    assert arrays["dense"][0].tolist() == [18, 21, 24, 27]
    np.testing.assert_array_equal(from_torch(layout, arrays), theta)


def test_the_table_says_who_is_better_and_is_fair_to_both():
    assert Row("bytes", [120, 100, 300, 200]).better == "Flower"
    assert Row("bytes", [120, 100, 300, 90]).better == "fedistill"
    assert Row("accuracy", [91.0, 90.0, 90.5, None], "more", ".1f").better == "Flower"
    assert Row("accuracy", [91.04, 90.0, 91.0, 12.0], "more", ".1f").better == "the same"
    assert Row("fate", ["failed", None, "went on", None], "").better == ""
    assert Row("bytes", [100, None, None, None]).better == ""
    assert str(Row("bytes", [1200, None, "few", 90])) == "| bytes | 1,200 | - | few | 90 | fedistill |"


def test_processor_time_of_a_child_that_has_ended_is_not_lost():
    burn = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
    code = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}], check=True)\n"
        "print('done', flush=True)\nsys.stdin.read()\n"
    )
    with running([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "done\n"
        assert list(quiet_tree(parent.pid)) == [parent.pid]
        assert used_s([parent.pid]) >= 0.5
        parent.stdin.close()
    assert quiet_tree(parent.pid) == {}


def test_what_was_found_is_read_back_as_it_was(tmp_path):
    marks = (Mark(1.0, Traffic(1, 2), 3.0, 4.0), Mark(11.0, Traffic(101, 22), 5.0, 4.5))
    played = Played((0.5, 0.9), (), 0.8, marks, rounds=3, clients=5)
    alone = Alone(played, Idle(1, 2, 3, 4, 5, 6, 7), 8)
    for value in (played, alone):
        assert revived(type(value), json.loads(json.dumps(asdict(value)))) == value
    assert (played.further.up, played.further.down, played.round_s) == (10, 2, 5)
    assert (played.further.client_s, played.further.server_s) == (0.2, 0.05)


def test_what_a_client_sends_while_it_waits_is_taken_off():
    marks = (Mark(0.0, Traffic(), 0.0, 0.0), Mark(864.0, Traffic(20_000, 4_000), 10.0, 6.0))
    played = Played((), (), 0.0, marks, rounds=2, clients=2)
    net = played.net(Idle(0, 0, 0, up_mb_a_day=0.5, down_mb_a_day=0.1, client_s_a_day=200.0, server_s_a_day=200.0))
    assert (net.up, net.down) == pytest.approx((5_000, 1_000))
    assert (net.client_s, net.server_s) == pytest.approx((3.0, 2.0))


MARKS = (Mark(0.0, Traffic(10, 20), 1.0, 1.0), Mark(86.4, Traffic(50_010, 40_020), 3.0, 2.0))
PLAYED = Played((0.5, 0.9), (0.4, 0.8), 0.75, MARKS, rounds=2, clients=1)
ALONE = Alone(PLAYED, Idle(270, 200, 140, 10.0, 5.0, 800.0, 400.0), 300)
RECOVERY = Recovery("went on", 2.0, "nothing", "none")


def test_the_table_has_a_row_for_every_figure_and_a_gap_where_nothing_was_measured():
    def rows(plays, floors, alone, recoveries):
        parts = {
            "an update": updates(plays, alone),
            "the first": firsts(plays, alone),
            "the floor": floor(floors, alone),
            "alone": alone_rows(alone),
            "killed": recovery_rows(recoveries),
        }
        return list(table(("Flower", "light", "shipped", "every layer"), parts))

    whole = rows([PLAYED] * 3, [PLAYED] * 2, [ALONE] * 3, [RECOVERY] * 2)
    nothing = rows([None] * 3, [None] * 2, [None] * 3, [None] * 2)
    part = rows([PLAYED, None, PLAYED], [None, PLAYED], [ALONE, None, ALONE], [RECOVERY, None])
    assert len(whole) == len(nothing) == len(part)
    assert {line.count("|") for line in whole + nothing + part} == {7}
    assert "| bytes up | 40,000 | 40,000 | 40,000 | 40,000 | the same |" in whole
    assert "| bytes up | 40,000 | - | - | 40,000 | the same |" in part
    assert "| idle, PSS, MB | 200 | - | 200 | - | the same |" in part
    assert "| what is lost | nothing | - | - | - |  |" in part


def test_a_curve_that_ends_before_the_others_has_gaps():
    lines = list(curves((1, 2, 5), {"short": (0.5, 0.75), "long": (0.1, 0.2, 0.3, 0.4, 0.999)}))
    assert lines[2:] == ["| short | 50.0 | 75.0 | - |", "| long | 10.0 | 20.0 | 99.9 |"]


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_an_app_names_parts_that_it_has(app):
    told = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    for component in told["components"].values():
        module, _, name = component.partition(":")
        source = (app / Path(*module.split("."))).with_suffix(".py").read_text()
        compile(source, module, "exec")
        assert f"\n{name} = " in source


def test_our_recipe_is_one_that_model_export_builds(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "probes.npz", x=images)
    np.savez(tmp_path / "factory.npz", x=images, y=np.arange(40) % 10)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text((BENCHMARKS / "flower" / "recipe.toml").read_text())
    assert model_export(["plan", str(recipe)]) == 0
    assert "cnn-m" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.skipif(
    not (ENVIRONMENT / "complete").exists(), reason="no Flower: benchmarks/flower_comparison.py makes it"
)
def test_the_short_form_plays_both_sides_to_the_end(tmp_path):
    command = [sys.executable, BENCHMARKS / "flower_comparison.py", "--short", "--folder", tmp_path]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "| next finished round, s |" in table
    assert "0 of" in table.split("what is lost")[1].splitlines()[0]
