"""examples/healthcare-imaging: each of its commands, in a copy of the folder, as a user begins who brings own scans."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from edge_agent.settings import AgentSettings
from fd_protocol.manifest import Role
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml
from fleet_sim.data import DATASETS
from tests.examples import folders
from tests.examples.folders import MODEL_EXPORT, SHARED, check_full_form, module_of, script, table_whose_head_begins
from tests.examples.scans import write_scans

EXAMPLE = folders.example("healthcare-imaging")
ORIGINAL = SHARED / "healthcare" / "pneumoniamnist_rebuilt.npz"
FEDERATIONS = ("epsilon 8", "epsilon 4", "epsilon 2", "no terms", "epsilon 8, float backbones")
ROWS = (
    *(f"{name}, {who}" for name in FEDERATIONS for who in ("student", "mean device")),
    *("factory model", "local only", "FedAvg, tail, f32", "FedAvg, tail + fine-tuning", "FedAvg, whole model, f32"),
    *("server only, with the canaries' labels", "centralised"),
)


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("scans") / "pneumoniamnist.npz")


@pytest.fixture(scope="session")
def mine(scans, tmp_path_factory):
    """A copy of the folder, its models built from few images."""
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("copied") / "mine")
    fleet = folder / "fleet.toml"
    fleet.write_text(few_images(fleet.read_text()))
    script(folder, "data.py", "--data", scans)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 100", "epochs = 5"))
    script(folder, "-c", MODEL_EXPORT, "build", "recipe.toml", "--out", "artifacts")
    return folder


def few_images(fleet):
    """Return the fleet of three hospitals."""
    text = fleet.replace("devices = 8", "devices = 3").replace("minimum = 120", "minimum = 30")
    for key, count in {"factory": 24, "probes": 60, "canaries": 20, "validation": 10}.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {count}", text, flags=re.MULTILINE)
    return text


def short_form(results, data):
    return folders.short_form(EXAMPLE, results, f"pneumoniamnist={data}")


def test_the_short_form_says_what_radiologists_ask_of_all_that_is_compared(scans, tmp_path):
    said = short_form(tmp_path, scans)
    head, _, *rows = table_whose_head_begins(said, "chest X-rays | auroc: all")
    assert [name.strip() for name in head.strip("|").split("|")][1::3] == [
        *("auroc: all", "sensitivity-at-95-specificity: all", "calibration error")
    ]
    assert tuple(row.split(" | ")[0].removeprefix("| ") for row in rows) == ROWS
    assert all(re.match(r"\| [^|]+ \| \d+\.\d ± ", row) for row in rows)
    beside = table_whose_head_begins(said, "auroc, own rows, beside *local only*")
    assert len(beside) - 2 == len([row for row in ROWS if not row.endswith(("student", "local only"))])


@pytest.mark.system
def test_real_programs_play_it_under_privacy_terms(scans, tmp_path):
    """With noise of their own: the same rounds, other consensuses."""
    assert folders.real_form(EXAMPLE, tmp_path, f"pneumoniamnist={scans}") == 0


def test_the_full_form_can_be_played(monkeypatch):
    cases = module_of(EXAMPLE, monkeypatch).cases({}, "full")
    check_full_form(cases, ROWS)
    epsilons = [federation.privacy.epsilon for federation in cases[0].federations.values()]
    assert epsilons == [8, 4, 2, 0, 8]


def test_data_are_cut_for_hospitals_and_nobody_holds_what_is_anothers(mine):
    made = mine / "made"
    parts = {str(path.relative_to(made)): np.load(path)["x"] for path in sorted(made.rglob("*.npz"))}
    assert {*parts} == {
        *("factory.npz", "probes.npz", "canaries.npz", "unseen.npz"),
        *(f"{kind}/device-{number}.npz" for kind in ("private", "own") for number in range(3)),
    }
    rows = [row.tobytes() for part in parts.values() for row in part]
    assert len(rows) == len(set(rows))
    assert "y" not in np.load(made / "probes.npz")


def test_images_of_ones_own_are_cut_as_fleet_toml_names_them(scans, tmp_path):
    folder = shutil.copytree(EXAMPLE, tmp_path / "mine")
    there = DATASETS["pneumoniamnist"].load(scans)
    is_test = np.arange(len(there)) >= len(there) - there.published_test
    np.savez(folder / "scans.npz", x=there.samples, y=there.labels, test=is_test)
    written = re.search(r"data = (\{ path = .* \})`", (EXAMPLE / "README.md").read_text()).group(1)
    own = written.replace("...", json.dumps(there.task.classes)[1:-1]).replace("H, W", "28, 28")
    fleet = few_images((folder / "fleet.toml").read_text())
    (folder / "fleet.toml").write_text(re.sub(r"^data = .*", f"data = {own}", fleet, flags=re.MULTILINE))
    assert script(folder, "data.py") == "3 devices\n"
    assert np.load(folder / "made" / "unseen.npz")["x"].tobytes() == there.samples[is_test].tobytes()


def test_the_recipe_builds_three_sizes_that_can_learn_under_privacy_terms(mine, scans):
    bundles = [load_bundle(mine / "artifacts" / f"chest-{size}") for size in "sml"]
    assert {bundle.manifest.task for bundle in bundles} == {DATASETS["pneumoniamnist"].load(scans).task}
    assert all(Role.TRAIN_STEP_PRIVATE in bundle.manifest.files for bundle in bundles)


def test_the_agents_settings_are_what_the_program_reads(mine):
    settings = load_toml(mine / "agent.toml", AgentSettings)
    assert settings.privacy.epsilon == settings.privacy.epsilon_max == 8
    assert settings.data.private == mine / "made" / "private" / "device-0.npz"


def test_the_short_form_plays_with_the_real_images(tmp_path):
    if not ORIGINAL.is_file():
        pytest.skip(f"no {ORIGINAL.name} beside the checkout")
    assert "| epsilon 8, student |" in short_form(tmp_path, ORIGINAL)
