"""Bundles that were made elsewhere: what devices should run by an operator's word, and where they get it."""

import json
from contextlib import closing
from functools import reduce

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.config import Config
from broker_server.core.events import (
    EditionNamed,
    MakeRelease,
    Order,
    Ordered,
    PublishBundle,
    PublishRelease,
    Schedule,
)
from broker_server.core.federation import Federation, from_snapshot, outstanding, step, to_snapshot
from broker_server.core.releases import published_by
from broker_server.equipment import Workshop, load_equipment
from broker_server.journal import Journal
from broker_server.kits import Kits
from broker_server.service import utc_ms
from broker_server.shelf import Shelf
from broker_server.sites.vouching import Tending, online_trust
from broker_server.student import StudentWeights
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml
from fd_runtime.packages import pack, unpack
from fd_runtime.releases import release
from fd_runtime.storage.store import Store
from fd_runtime.tuf.target_facts import facts_of
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.broker_server.artifacts import TASK, build_artifacts
from tests.broker_server.core.test_releases import CLOSED, TEACHING, THETA, released, taught
from tests.broker_server.served import serving
from tests.support.trust import DAY, NOW
from tests.support.trust import Trust as Owner

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


def command(*words):
    return main([*map(str, words[:-1]), "--config", str(words[-1])])


@pytest.fixture
def deliver(config, made, tmp_path):
    """Vouch for bundles as the workstation does, and let the server take that in."""
    trust = Owner(tmp_path / "owner")
    trust.keys.joinpath("online").rename(config.parent / "state" / "signing.key")

    def deliver(*names, parent=None, is_taken_in=True):
        for name in names:
            bundle = load_bundle(made / name)
            base = None if parent is None else load_bundle(made / parent)
            trust.add(pack(bundle, parent=base), facts_of(bundle, base))
        return command("publish", trust.signed, config) if is_taken_in else 0

    deliver.trust = trust
    return deliver


def start(config, *words):
    return main(["release", "start", *words, "--config", str(config), *WAIT])


def test_what_was_signed_lies_where_devices_fetch_it_and_nobody_hears_of_it(config, deliver, made, tmp_path, capsys):
    assert deliver("large") == 0
    said = capsys.readouterr().out
    assert "mlp-m 3" in said
    assert "packages.enabled" in said  # nothing serves them here
    assert state_of(config).releases.published == ()
    web = tmp_path / "state" / "releases" / "web" / "v1"
    assert (web / "tuf" / "timestamp.json").exists()
    (blob,) = (web / "blobs").iterdir()
    assert unpack(blob.read_bytes(), tmp_path / "unpacked").digest == load_bundle(made / "large").digest


def test_what_is_started_is_told(config, deliver, made, capsys):
    deliver("large")
    assert start(config, "mlp-m", "3") == 0
    assert "3 is what devices of family mlp-m run from now on" in capsys.readouterr().out
    (one,) = state_of(config).releases.published
    assert one.bundle == load_bundle(made / "large").digest


def test_a_delta_leaves_out_what_devices_have(config, deliver, made, tmp_path):
    deliver("second")
    deliver("second", parent="bundle")
    assert start(config, "mlp-s", "2") == 0
    (one,) = state_of(config).releases.published
    assert (one.parent, one.is_own) == (load_bundle(made / "bundle").digest, True)  # of the two the smaller one
    package = tmp_path / "state" / "releases" / "web" / "v1" / "blobs" / one.package.hex()
    assert unpack(package.read_bytes(), tmp_path / "unpacked", parent=made / "bundle").digest == one.bundle


def test_a_running_server_tells_it_at_once(config, deliver, capsys):
    deliver("large")
    with serving(config.parent / "state"):
        assert start(config, "mlp-m", "3") == 0
    assert "run from now on" in capsys.readouterr().out
    assert runs(state_of(config)) == {"mlp-m": "3"}


def test_a_rollout_by_the_command_line(config, deliver, capsys):
    deliver("large")
    assert start(config, "mlp-m", "3", "--percent", "5", "--tag", "canary", "--stages", "50", "--soak", "60") == 0
    assert "5 % of devices and tag canary, then 50 %" in capsys.readouterr().out
    for words, found in (
        (("halt", "mlp-m", "--reason", "smoke"), "halted (smoke)"),
        (("resume", "mlp-m"), "5 % of devices"),
        (("widen", "mlp-m", "--percent", "100"), "100 % of devices"),
    ):
        assert main(["release", *words, "--config", str(config), *WAIT]) == 0
        assert found in capsys.readouterr().out
    assert main(["release", "widen", "mlp-m", "--percent", "50", "--config", str(config), *WAIT]) == 1
    assert command("releases", config) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "100 % of" in told
    assert "no more" not in told
    deliver("second")
    assert start(config, "mlp-s", "2") == 0
    capsys.readouterr()
    assert command("releases", config) == 0
    assert "no more" not in capsys.readouterr().out, "each family has its own"


def test_withdraw_by_the_command_line(config, deliver, capsys):
    deliver("second")
    assert start(config, "mlp-s", "2") == 0
    assert main(["withdraw", "--config", str(config), "--wait", "0"]) == 75  # the server is stopped: it waits for it
    with serving(config.parent / "state"):
        assert main(["withdraw", "--family", "mlp-m", "--config", str(config), *WAIT]) == 1
    assert "nothing is published for family mlp-m" in capsys.readouterr().out
    assert state_of(config).releases.published == ()  # the first order has been obeyed too


def test_what_is_published_is_listed(config, deliver, capsys):
    deliver("large")
    start(config, "mlp-m", "3")
    capsys.readouterr()
    assert main(["releases", "--config", str(config), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["published"]
    assert (one["family"], one["version"], one["current"]) == ("mlp-m", "3", True)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("mlp-m", "4"), "is not vouched for; of family mlp-m there is 3"),
        (("cnn-m", "3"), "there is nothing"),
        (("mlp-s", "1"), "another task"),
    ],
)
def test_what_no_device_could_run_is_not_started(config, deliver, capsys, words, problem):
    deliver("large", "foreign")
    assert start(config, *words) > 1
    assert problem in capsys.readouterr().err
    assert state_of(config).releases.published == ()


def test_an_unsigned_folder_and_a_server_without_a_key_bring_nothing(config, made, tmp_path, capsys):
    assert command("publish", made / "large", config) > 1
    assert "signing-key" in capsys.readouterr().err
    assert command("signing-key", config) == 0
    public = capsys.readouterr().out.strip()
    assert public.endswith("state/signing.key.pub")
    assert command("signing-key", config) == 0  # the same again
    assert command("publish", made / "large", config) > 1
    assert "no root" in capsys.readouterr().err
    assert not (tmp_path / "state" / "releases" / "web" / "v1" / "blobs").exists()


def test_a_bundle_that_may_not_take_part_is_not_started(config, deliver, made, capsys):
    first = load_bundle(made / "bundle").digest.hex()
    config.write_text(config.read_text().replace("bundles = []", f'bundles = ["{first}"]'))
    deliver("large")
    assert start(config, "mlp-m", "3") == 1
    assert "`bundles` does not name" in capsys.readouterr().out


def test_a_release_of_the_student_is_signed_by_the_server(config, deliver, made):
    deliver()
    first = load_bundle(made / "bundle")
    trust = online_trust(load_toml(config, Config))
    shelf = Shelf(first, load_toml(config, Config).state.releases, trust)
    theta = np.full(first.manifest.layout.size, 0.02, "<f4").tobytes()
    shelved = shelf.put(1, StudentWeights(first.digest, theta), NOW)
    (student,) = trust.listed()
    assert (student.package, student.facts.version) == (shelved.package.hex(), "1.r1")
    assert student.name.startswith("students/mlp-s/")


def test_the_server_signs_again_every_day_and_tells_what_others_must_sign(config, deliver, caplog):
    deliver()
    tending = Tending(online_trust(load_toml(config, Config)), monotonic=iter(range(0, 10**6, 1000)).__next__)
    stamp = config.parent / "state" / "releases" / "web" / "v1" / "tuf" / "timestamp.json"
    before = stamp.read_bytes()
    tending.turn(NOW + 3600)
    assert stamp.read_bytes() == before
    tending.turn(NOW + 340 * DAY)
    assert stamp.read_bytes() != before
    assert "model-export trust renew" in caplog.text
    (stamp.parent / "2.targets.json").write_text("damaged")
    for name in stamp.parent.glob("*.targets.json"):
        name.write_text("damaged")
    tending.turn(NOW + 342 * DAY)
    assert "cannot be signed again" in caplog.text
