"""Bundles that were made elsewhere: what devices should run by an operator's word, and where they get it."""

import json
from contextlib import closing
from functools import reduce

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.config import Config
from broker_server.equipment import Workshop, load_equipment
from broker_server.events import (
    EditionNamed,
    MakeRelease,
    Order,
    Ordered,
    PublishBundle,
    PublishRelease,
    Schedule,
)
from broker_server.federation import Federation, from_snapshot, outstanding, step, to_snapshot
from broker_server.journal import Journal
from broker_server.kits import Kits
from broker_server.releases import published_by
from broker_server.service import utc_ms
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml
from fd_runtime.packages import unpack
from fd_runtime.releases import release
from fd_runtime.store import Store
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.broker_server.artifacts import TASK, build_artifacts
from tests.broker_server.served import serving
from tests.broker_server.test_releases import CLOSED, TEACHING, THETA, released, taught

FED = "demo"
WAIT = ("--wait", "30")


def order(number=1, command="publish", **changes):
    said = {
        "family": "cnn-m",
        "bundle": sha256(b"bundle %d" % number).hex(),
        "version": str(number),
        "package": sha256(b"package %d" % number).hex(),
        "package_bytes": "100",
        **changes,
    }
    if command == "withdraw":
        said = changes
    return Ordered(Order(f"{command}-{number}-{len(changes)}", 0, "ann", "operator", command, said), 7)


def told(*events, schedule=TEACHING):
    return reduce(step, events, Federation(schedule=schedule))


def effects(state, kind):
    return [effect for effect in outstanding(state) if isinstance(effect, kind)]


def runs(state):
    """What devices of each family should run, as the effects say it."""
    return {effect.published.family: effect.published.version for effect in effects(state, PublishBundle)}


# The rules.


def test_what_is_published_is_told_to_its_family_and_survives_a_snapshot():
    state = told(order(1), order(2, family="mlp-s"), order(3))
    assert runs(state) == {"cnn-m": "3", "mlp-s": "2"}
    assert from_snapshot(to_snapshot(state)) == state
    assert all(answer.is_obeyed for answer in state.answers)


def test_a_state_of_before_has_nothing_published():
    old = to_snapshot(told(*CLOSED, taught(is_better=True), released()))
    assert from_snapshot(old).releases.published == ()


def test_what_runs_already_is_not_published_twice():
    state = told(order(1), order(1, own=""))
    assert not state.answers[-1].is_obeyed
    assert len(state.releases.published) == 1


def test_withdrawing_goes_back_to_the_one_before():
    state = told(order(1), order(2), order(9, "withdraw", family="cnn-m"))
    assert runs(state) == {"cnn-m": "1"}
    assert state.answers[-1].outcome == "2 withdrawn, 1 is current"


@pytest.mark.parametrize(("family", "words"), [("cnn-m", "were born with"), ("mlp-s", "nothing is published")])
def test_what_cannot_be_taken_back_stands(family, words):
    state = told(order(1), order(9, "withdraw", family=family))
    assert runs(state) == {"cnn-m": "1"}
    assert not state.answers[-1].is_obeyed
    assert words in state.answers[-1].outcome


def test_few_of_a_family_are_remembered_and_all_families():
    state = told(order(1, family="mlp-s"), *(order(number) for number in range(2, 12)))
    assert [one.version for one in state.releases.published] == ["1", "8", "9", "10", "11"]


def test_what_is_published_for_the_students_family_stands_before_its_releases():
    state = told(*CLOSED, taught(is_better=True), released())
    assert effects(state, PublishRelease)
    state = step(state, order(1, own="yes"))
    assert not effects(state, PublishRelease)
    assert runs(state) == {"cnn-m": "1"}
    again = step(state, order(5, "release", family=""))
    assert "withdraw it first" in again.answers[-1].outcome
    back = step(state, order(9, "withdraw"))
    assert effects(back, PublishRelease) == [PublishRelease(released().release)]
    assert back.answers[-1].outcome == "1 withdrawn, 1.r1 is current"


def test_a_better_student_does_not_replace_what_an_operator_has_published():
    state = told(*CLOSED, order(1, own="yes"), taught(THETA, is_better=True))
    assert not effects(state, MakeRelease)
    other = told(*CLOSED, order(1), taught(THETA, is_better=True))
    assert effects(other, MakeRelease)


def test_after_the_last_one_of_the_students_family_its_devices_hear_of_the_first_bundle():
    assert not effects(told(*CLOSED), PublishRelease)
    state = told(*CLOSED, order(1, own="yes"), order(9, "withdraw"))
    assert effects(state, PublishRelease) == [PublishRelease(None)]
    assert state.answers[-1].outcome == "1 withdrawn, the first bundle is current"


def test_nobody_of_the_students_family_hears_anything_for_another_one():
    assert not effects(told(*CLOSED, order(1), schedule=Schedule()), PublishRelease)


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle": "zz"},
        {"bundle": "00"},
        {"package": ""},
        {"package_bytes": "many"},
        {"package_bytes": "0"},
        {"family": "NO NAME"},
        {"version": ""},
        {"parent": "ab"},
    ],
)
def test_an_order_that_names_no_bundle_is_none(changes):
    with pytest.raises((ValueError, KeyError, InvalidValueError)):
        published_by(order(1, **changes).order, 0)


# The command.


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    build_artifacts(folder)
    samples = np.random.default_rng(3).integers(0, 256, (30, 12), dtype=np.uint8)
    data = FactoryData(samples[:0], np.empty(0, np.int64), samples)
    build(Recipe("large", "mlp-m", tflite="none", version="3"), TASK, data, folder / "large")
    other = Task(("a", "b"), (12,), "uint8", Preprocessing(1 / 255))
    build(Recipe("foreign", "mlp-s", tflite="none"), other, data, folder / "foreign")
    first = load_bundle(folder / "bundle")
    theta = np.full(first.manifest.layout.size, 0.01, np.float32)
    release(first, theta, folder / "second", version="2", keeps_tail=True)
    return folder


@pytest.fixture
def config(tmp_path, made):
    """Settings of a server that has run."""
    assert main(["init", str(tmp_path), "--federation", FED, "--trust", "none"]) == 0
    path = tmp_path / CONFIG_NAME
    text = path.read_text().replace('"bundle"', f'"{made}/bundle"').replace('"public_set"', f'"{made}/public_set"')
    path.write_text(text)
    (tmp_path / "state").mkdir()
    edition = Kits(Workshop(load_equipment(path), with_student=False).first(), b"").first_edition
    with closing(Store.open(tmp_path / "state" / "server.db")) as store:
        Journal(store, FED).write([EditionNamed(edition)], utc_ms())
    return path


def state_of(config):
    with Store.view(load_toml(config, Config).state.store) as store:
        return Journal(store, FED).replay()


def publish(config, *arguments):
    return main(["publish", *map(str, arguments), "--config", str(config), *WAIT])


def test_a_bundle_lies_where_devices_fetch_it_before_they_hear_of_it(config, made, tmp_path, capsys):
    assert publish(config, made / "large") == 0
    said = capsys.readouterr().out
    assert "3 is what devices of family mlp-m run from now on" in said
    assert "packages.enabled" in said  # nothing serves them here
    (one,) = state_of(config).releases.published
    package = (tmp_path / "state" / "releases" / "web" / "v1" / "blobs" / one.package.hex()).read_bytes()
    assert (sha256(package), len(package)) == (one.package, one.package_bytes)
    assert unpack(package, tmp_path / "unpacked").digest == load_bundle(made / "large").digest == one.bundle


def test_a_delta_leaves_out_what_devices_have(config, made, tmp_path, capsys):
    assert publish(config, made / "second", "--parent", made / "bundle", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    (one,) = state_of(config).releases.published
    assert (one.parent, one.is_own) == (load_bundle(made / "bundle").digest, True)
    package = tmp_path / "state" / "releases" / "web" / "v1" / "blobs" / said["package"]
    parent = made / "bundle"
    assert unpack(package.read_bytes(), tmp_path / "unpacked", parent=parent).digest.hex() == said["bundle"]


def test_a_running_server_tells_it_at_once(config, made, capsys):
    with serving(config.parent / "state"):
        assert publish(config, made / "large") == 0
    assert "run from now on" in capsys.readouterr().out
    assert runs(state_of(config)) == {"mlp-m": "3"}


def test_withdraw_by_the_command_line(config, made, capsys):
    assert publish(config, made / "second") == 0
    assert main(["withdraw", "--config", str(config), "--wait", "0"]) == 75  # the server is stopped: it waits for it
    with serving(config.parent / "state"):
        assert main(["withdraw", "--family", "mlp-m", "--config", str(config), *WAIT]) == 1
    assert "nothing is published for family mlp-m" in capsys.readouterr().out
    assert state_of(config).releases.published == ()  # the first order has been obeyed too


def test_what_is_published_is_listed(config, made, capsys):
    assert publish(config, made / "large") == 0
    capsys.readouterr()
    assert main(["releases", "--config", str(config), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["published"]
    assert (one["family"], one["version"], one["current"]) == ("mlp-m", "3", True)
    assert main(["releases", "--config", str(config)]) == 0
    assert "mlp-m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("foreign",), "another task"),
        (("large", "--parent", "bundle"), "no device of family mlp-m was born with"),
        (("nothing",), "nothing"),
    ],
)
def test_what_no_device_could_run_is_refused_and_nothing_is_told(config, made, capsys, arguments, words):
    paths = [argument if argument.startswith("--") else made / argument for argument in arguments]
    assert publish(config, *paths) > 1
    assert words in capsys.readouterr().err
    assert state_of(config).releases.published == ()
    assert not (config.parent / "state" / "releases").exists()


def test_a_bundle_that_may_not_take_part_is_not_published(config, made, capsys):
    first = load_bundle(made / "bundle").digest.hex()
    config.write_text(config.read_text().replace("bundles = []", f'bundles = ["{first}"]'))
    assert publish(config, made / "large") == 1
    assert "`bundles` does not name" in capsys.readouterr().out
