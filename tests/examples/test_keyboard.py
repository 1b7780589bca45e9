"""examples/keyboard: each of its commands, in a copy of the folder, as a user begins who brings own texts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from edge_agent.private.settings import StoreSettings
from edge_agent.private.store import PrivateStore
from edge_agent.settings import AgentSettings
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml
from fd_runtime.words import Vocabulary, words_of
from tests.examples import folders
from tests.examples.folders import (
    MODEL_EXPORT,
    SHARED,
    agent,
    check_full_form,
    module_of,
    script,
    table_whose_head_begins,
)
from tests.examples.speeches import WORDS, write_plays, write_speakers
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until

EXAMPLE = folders.example("keyboard")
SPEAKERS, PLAYS = SHARED / "text" / "tinyshakespeare_input.txt", SHARED / "text" / "nltk_shakespeare.zip"
MADE = ("texts", "made", "artifacts", "state")
"""Of what a checkout may have made itself."""
ROWS = (
    *("competence, student", "competence, mean device"),
    *("competence, float backbones, student", "competence, float backbones, mean device"),
    *("competence, epsilon 8, student", "competence, epsilon 8, mean device"),
    *("factory model", "local only", "FedAvg, tail, f32", "FedAvg, tail + fine-tuning"),
    *("FedAvg, whole model, f32", "FedAvg, whole model, int4"),
    *("server only, with the canaries' labels", "centralised"),
)


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    speakers = write_speakers(folder / "input.txt")
    return speakers, write_plays(folder / "shakespeare.zip", speakers)


@pytest.fixture(scope="session")
def mine(sources, tmp_path_factory):
    """A copy of the folder with few people of few words, its texts made."""
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("copied") / "mine", ignore=shutil.ignore_patterns(*MADE))
    for name in ("fleet.toml", "recipe.toml"):
        written = folder / name
        written.write_text(few_people(written.read_text()))
    make_texts(folder, *sources)
    return folder


def few_people(text):
    """Return a TOML file with so few words, two devices, and two people whom nobody sees."""
    counts = {"factory": 200, "probes": 100, "canaries": 10, "validation": 20, "unseen_groups": 2, "devices": 2}
    text = text.replace("vocabulary = 2002", f"vocabulary = {WORDS + 2}").replace("epochs = 5", "epochs = 2")
    text = text.replace("minimum = 800, most = 800", "minimum = 100, most = 200").replace("probes = 250", "probes = 50")
    for key, count in counts.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {count}", text, flags=re.MULTILINE)
    return text


def make_texts(folder, speakers, plays, *more):
    return script(folder, "texts.py", "--speakers", speakers, "--plays", plays, *(more or ("--words", WORDS)))


@pytest.fixture(scope="session")
def built(mine):
    script(mine, "data.py")
    script(mine, "-c", MODEL_EXPORT, "build", "recipe.toml", "--out", "artifacts")
    return mine


def test_a_line_that_is_somebodys_own_is_in_no_public_text(mine):
    people, public = (
        {path.stem: path.read_text() for path in (mine / "texts" / kind).iterdir()} for kind in ("people", "public")
    )
    assert {*people} == {"anna", "ben", "carl", "dora", "emil", "fay", "first-guest", "second-guest"}
    assert {*public} == {"one", "two"}
    own, everybodys = (
        {" ".join(words_of(line)) for text in texts.values() for line in text.split("\n")} for texts in (people, public)
    )
    assert {line for line in own & everybodys if line.count(" ") >= 3} == set()
    known = (mine / "texts" / "words.txt").read_text().splitlines()
    assert len(known) == WORDS
    said = words_of(" ".join(public.values()))
    assert said.count(known[0]) >= said.count(known[1]) >= said.count(known[-1]) > 0


def test_texts_of_ones_own_are_refused_where_public_ones_tell_what_somebody_said(mine, tmp_path):
    folder = shutil.copytree(mine, tmp_path / "mine")
    public = folder / "texts" / "public" / "two.txt"
    public.write_text(f"{public.read_text()}\nWhat is it that we all want?\n")
    assert "8 people" in script(folder, "texts.py", "--words", WORDS)
    (folder / "texts" / "people" / "ben.txt").write_text("Nobody asks.\nWhat is it that WE all want\n")
    done = subprocess.run([sys.executable, "texts.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "1 lines of public texts are somebody's own: 'what is it that we all want'" in done.stderr


def test_the_short_form_has_a_row_for_all_that_is_compared_and_the_size_of_a_round(mine, tmp_path):
    said = folders.short_form(mine, tmp_path)
    head, _, *rows = table_whose_head_begins(said, "unseen people | top-3: all")
    assert "perplexity: own" in head
    assert tuple(row.split(" | ")[0].removeprefix("| ") for row in rows) == ROWS
    assert all(re.match(r"\| [^|]+ \| \d+\.\d ± ", row) for row in rows)
    _, _, up, down = table_whose_head_begins(said, "a device, a round of ours")
    assert re.search(rf"\| up: 20 distributions over {WORDS} words \| \d+\.\d ± \d+\.\d \| reached \|", up)
    assert down.startswith("| down: ")


@pytest.mark.system
def test_real_programs_play_it_as_the_simulation_does(mine, tmp_path):
    assert folders.real_form(mine, tmp_path) == 2


def test_the_full_form_can_be_played(mine, monkeypatch):
    cases = module_of(mine, monkeypatch).cases({}, "full")
    check_full_form(cases, ROWS)
    (case,) = cases
    assert case.federations["competence"].method.codec.value == "top-k-zipf"
    assert {*case.grids} <= {*case.baselines}


def test_texts_are_cut_for_devices_and_nobody_is_both_a_device_and_unseen(built):
    made, task = built / "made", load_bundle(built / "artifacts" / "words-s").manifest.task
    parts = {str(path.relative_to(made)): np.load(path) for path in sorted(made.rglob("*.npz"))}
    assert {*parts} == {
        *("factory.npz", "probes.npz", "canaries.npz", "unseen.npz"),
        *(f"{kind}/device-{number}.npz" for kind in ("private", "own") for number in range(2)),
    }
    vocabulary = Vocabulary.of(task)
    rows_of = {
        kind: {path.stem: rows(*vocabulary.rows(path.read_text())) for path in (built / "texts" / kind).iterdir()}
        for kind in ("people", "public")
    }
    public = set().union(*rows_of["public"].values())
    for name in ("factory.npz", "canaries.npz"):
        assert rows(parts[name]["x"], parts[name]["y"]) <= public
    assert "y" not in parts["probes.npz"]
    for number in range(2):
        held = rows(
            *(
                np.concatenate([parts[f"{kind}/device-{number}.npz"][key] for kind in ("private", "own")])
                for key in "xy"
            )
        )
        assert sum(held <= theirs for theirs in rows_of["people"].values()) == 1


def rows(samples, labels):
    return {(tuple(sample), int(label)) for sample, label in zip(samples.tolist(), labels, strict=True)}


def test_the_recipe_builds_two_sizes_that_carry_the_words(built):
    known = tuple((built / "texts" / "words.txt").read_text().splitlines())
    bundles = [load_bundle(built / "artifacts" / f"words-{size}") for size in "sm"]
    assert {bundle.manifest.task.classes for bundle in bundles} == {known}
    assert {bundle.manifest.task.tokens for bundle in bundles} == {"words"}


def test_the_agents_settings_are_what_the_program_reads():
    settings = load_toml(EXAMPLE / "agent.toml", AgentSettings)
    assert not settings.inference.local_prior
    assert settings.api is not None


TEXT = "The cook brings the kettle. Zebras! Who\nwon't see my letter? She wants zebras"


@pytest.mark.system
@needs_mosquitto
def test_what_a_person_types_is_suggested_before_and_kept_after(built, tmp_path):
    """A line for each word that is known; the store has these words with what stands before them, and nothing else."""
    folder = shutil.copytree(built, tmp_path / "device")
    (folder / "letter.txt").write_text(TEXT)
    with plain_mosquitto(tmp_path) as broker, agent(folder, broker.port):
        wait_until((folder / "state" / "api.sock").exists)
        *lines, summary = script(folder, "type.py", "--text", "letter.txt").splitlines()
    manifest = load_bundle(folder / "artifacts" / "words-s").manifest
    samples, labels = Vocabulary.of(manifest.task).rows(TEXT)
    known = [manifest.task.classes[label] for label in labels]
    assert [line.split("|")[1].split()[0] for line in lines] == known
    assert all(len(line.split("->")[1].split("|")[0].split()) == 3 for line in lines)
    assert re.match(rf"14 words, {len(known)} of them known; the first suggestion .* \d+\.\d ms a word", summary)
    with closing(PrivateStore.open(folder / "state" / "private.db", StoreSettings(rows=6000), manifest)) as store:
        kept = set().union(*(rows(batch.samples, batch.labels) for batch in store.batches()))
    assert kept == rows(samples, labels)


def test_the_short_form_plays_with_the_real_texts(tmp_path):
    if not (SPEAKERS.is_file() and PLAYS.is_file()):
        pytest.skip("no texts beside the checkout")
    folder = shutil.copytree(EXAMPLE, tmp_path / "mine", ignore=shutil.ignore_patterns(*MADE))
    told = make_texts(folder, SPEAKERS, PLAYS, "--words", "2000")
    assert "among the 2000 known ones" in told
    assert len(list((folder / "texts" / "public").iterdir())) == 7
    assert "| competence, student |" in folders.short_form(folder, tmp_path / "results")
