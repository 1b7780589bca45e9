"""A scenario says everything that a federation is played with, and is told in TOML."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from broker_server.settings import MethodSettings
from fd_protocol.errors import InvalidValueError
from fd_runtime.config import ConfigError, load_toml
from fleet_sim import scenario as scenarios
from fleet_sim.attacks import ATTACKS
from fleet_sim.cli import main
from fleet_sim.data import AbsentDataError
from fleet_sim.data.terms import DataTerms
from fleet_sim.metrics.scores import SCORES
from fleet_sim.partitions import Classes, ImageShift, LabelNoise, Natural, PartitionTerms
from fleet_sim.scenario import PRESETS, AskTerms, AttackTerms, ModelTerms, ProbeTerms, Scenario
from fleet_sim.worlds import Cut, World, digits, new_class

MANUAL = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", MANUAL, re.DOTALL)
EXAMPLE = next(block for block in BLOCKS if block.startswith("# scenario.toml"))
PLAN = next(block for block in BLOCKS if block.startswith("# fleet.toml"))


def read(folder: Path, text: str) -> Scenario:
    path = folder / "scenario.toml"
    path.write_text(text)
    return load_toml(path, Scenario, {})


def same(one: World, two: World) -> bool:
    pairs = zip(
        [one.factory, one.probes, one.validation, one.test, *one.private, *one.own],
        [two.factory, two.probes, two.validation, two.test, *two.private, *two.own],
        strict=True,
    )
    return all(np.array_equal(a.values, b.values) and np.array_equal(a.labels, b.labels) for a, b in pairs)


@pytest.fixture
def walks(tmp_path) -> Path:
    """A file in the form of MotionSense: 24 people, six activities, ten windows of each."""
    subject, activity, _ = (axis.ravel() for axis in np.meshgrid(range(24), range(6), range(10), indexing="ij"))
    windows = np.random.default_rng(0).integers(-99, 99, (len(subject), 16, 6)).astype(np.int16)
    path = tmp_path / "walks.npz"
    np.savez(path, windows=windows, scale=np.float32(0.01), subject=subject, activity=activity)
    return path


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "natural"])
def test_every_preset_cuts_a_world(preset):
    scenario = PRESETS[preset]
    world = scenario.world(0)
    assert len(world.private) == scenario.devices
    assert (len(world.probes), len(world.test)) == (scenario.cut.probes, scenario.cut.test)


def test_the_presets_that_figures_are_published_of_have_the_published_worlds():
    assert same(PRESETS["digits"].world(3), digits(3))
    assert same(PRESETS["new-class"].world(3), new_class(3))


def test_the_preset_of_skewed_labels_gives_every_device_two_classes():
    assert {len(set(part.labels)) for part in PRESETS["label-skew"].world(0).private} == {2}


def test_the_natural_preset_says_where_to_get_its_data_and_plays_what_it_is_given(walks):
    natural = PRESETS["natural"]
    with pytest.raises(AbsentDataError, match="github"):
        natural.world(0)
    world = replace(natural, data=replace(natural.data, path=walks)).world(0)
    assert len(world.private) == 19
    assert len(world.unseen) == 5


def test_a_file_says_which_data_how_they_are_cut_and_what_is_wrong_with_them(tmp_path):
    scenario = read(
        tmp_path,
        """
        data = { name = "mnist-5k" }
        cut = { factory = 50, probes = 300, test = 200 }
        devices = 6
        partition = { classes = { per_device = 3 } }
        image_shift = { rotation_deg = 20 }
        label_noise = { share = 0.1 }
        probes = { lacking = [7] }
        """,
    )
    assert scenario.partition.partition == Classes(3)
    assert (scenario.image_shift, scenario.label_noise) == (ImageShift(rotation_deg=20.0), LabelNoise(0.1))
    world = scenario.world(1)
    assert (len(world.factory), len(world.private)) == (50, 6)
    assert 7 not in world.probes.labels


def test_data_of_ones_own_lie_beside_the_file(tmp_path):
    rng = np.random.default_rng(0)
    x, y, site = rng.normal(size=(90, 5)).astype(np.float32), rng.integers(0, 2, 90), np.repeat(["a", "b", "c"], 30)
    np.savez(tmp_path / "mine.npz", x=x, y=y, group=site)
    scenario = read(
        tmp_path,
        """
        data = { path = "mine.npz", task = { classes = ["ill", "well"], sample_shape = [5], sample_dtype = "float32" } }
        cut = { probes = 20, test = 10 }
        devices = 3
        partition = { natural = {} }
        """,
    )
    assert scenario.partition == PartitionTerms(natural=Natural())
    assert sum(map(len, scenario.world(0).private)) == 60


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("world = 'digits'", "world: unknown key"),
        ("data = { name = 'weather' }", "data: no data set 'weather'; there are digits"),
        ("data = { path = 'x.npz' }", "data: data are one that has a name"),
        ("partition = { iid = {}, natural = {} }", "partition: a partition is exactly one of"),
        ("cut = { probes = 0 }", "cut: there are probes"),
        ("image_shift = {}\nsensor_shift = {}", "image_shift or sensor_shift"),
        ("drift = { window = 0 }", "drift: window lies in"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_told_with_its_key(tmp_path, line, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, line)


def test_a_server_with_canaries_needs_some():
    with pytest.raises(InvalidValueError, match=r"cut\.canaries"):
        replace(PRESETS["digits"], canaries=True).world(0)


def test_a_data_set_is_loaded_once():
    assert DataTerms("digits").load() is DataTerms("digits").load()


def test_the_example_in_the_description_of_scenarios_is_one(tmp_path):
    example = read(tmp_path, "\n".join(line for line in scenarios.__doc__.splitlines() if " = " in line))
    assert (example.data.name, example.method.codec.value, example.faults.reorder) == ("mnist-5k", "u4-sqrt", 0.2)
    assert example.world(0).task.sample_shape == (1, 28, 28)


def test_the_example_of_the_manual_is_played_to_a_report(tmp_path):
    (tmp_path / "scenario.toml").write_text(EXAMPLE)
    arguments = ["run", str(tmp_path / "scenario.toml"), "--rounds", "2", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("classes partition", "mlxtend", "u4-sqrt", "faults.loss"):
        assert words in page


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != PLAN])
def test_every_scenario_in_the_manual_is_one(block, tmp_path):
    assert read(tmp_path, block) != Scenario()


def test_the_plan_in_the_manual_gets_advice(tmp_path, capsys):
    (tmp_path / "fleet.toml").write_text(PLAN)
    assert main(["advise", str(tmp_path / "fleet.toml")]) == 0
    assert "2 devices" in capsys.readouterr().out


def test_the_manual_names_every_key_preset_and_attack():
    cut_keys = [f"cut.{field.name}" for field in fields(Cut)]
    probe_keys = [f"probes.{field.name}" for field in fields(ProbeTerms)]
    keys = [field.name for field in fields(Scenario) if field.name not in {"cut", "probes"}]
    for name in (*cut_keys, *probe_keys, *keys, *PRESETS, *ATTACKS, *SCORES):
        assert f"`{name}`" in MANUAL
    for name in (*(field.name for field in fields(PartitionTerms)), *(field.name for field in fields(ImageShift))):
        assert name in MANUAL


WITHOUT = Scenario(models=ModelTerms(("tab-s",), "tab-s"), cut=Cut(factory=100), method=MethodSettings("prototypes"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"canaries": True},
        {"attack": AttackTerms(1)},
        {"ask": AskTerms(probes=100)},
    ],
)
@pytest.mark.parametrize("rule", ["per-label", "prototypes"])
def test_where_there_are_no_probes_nobody_checks_them_lies_about_them_or_chooses_them(rule, wrong):
    scenario = replace(WITHOUT, method=MethodSettings(rule))
    assert not scenario.has_public_set
    with pytest.raises(InvalidValueError, match=f"'{rule}' goes without a public set"):
        replace(scenario, **wrong)


TWO = ModelTerms(("tab-s", "tab-m"), "tab-s")


@pytest.mark.parametrize("models", [TWO, replace(WITHOUT.models, every_layer_trains=True)], ids=["two", "none"])
def test_prototypes_need_one_backbone(models):
    with pytest.raises(InvalidValueError, match="needs one int8 backbone"):
        replace(WITHOUT, models=models)
