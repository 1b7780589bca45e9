"""An engine is compiled while a bundle is on trial, reported, and found by the worker that runs the bundle afterwards.

There is no GPU here: TensorRT is faked where onnxruntime is asked (`tests.support.fake_tensorrt`), in the trial's
process too. All else is real: keeper, trial, slots, the folder of engines.
"""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.equipment import load_equipment
from edge_agent.slots import keeper as keepers
from edge_agent.slots.backbones import backbones
from edge_agent.slots.keeper import Health, Helpers, Keeper, begin, verify_command
from edge_agent.slots.machine import Compiling, Downloaded, Installed, Nudged, Offered, Phase, Started, step
from edge_agent.slots.settings import ReleaseSettings
from edge_agent.slots.shelf import Shelf, Wish
from edge_agent.slots.telling import command_of
from edge_agent.slots.trial import Outcome, put_on_trial
from fd_protocol.identity import sha256
from fd_protocol.manifest import Role
from fd_runtime.models.engines import Hardware, keep_only
from fd_runtime.models.placing import open_placed
from fd_runtime.packages import pack
from tests.edge_agent.processes import settings_text
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.patience import wait_until
from tests.support.small_bundles import pictures, small_bundle

ORIN = Hardware("100300", "Orin 8.7 driver 12060")


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(keepers, "_TURN_S", 0.05)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The bundle that the device was born with, and one of another backbone."""
    folder = tmp_path_factory.mktemp("bundles")
    return small_bundle(folder / "first"), small_bundle(folder / "second", seed=5, version="2")


@pytest.fixture
def board(bundles, tmp_path):
    """A device with a GPU, and the package that it is offered, downloaded."""
    first, second = bundles
    shutil.copytree(first.folder, tmp_path / "bundle")
    samples, labels = pictures(300, seed=3)
    np.savez(tmp_path / "private.npz", x=samples, y=labels)
    text = settings_text(1883, model__runtime="onnxruntime").replace('public_set = "public"\n', "")
    text = text.replace("[model]\n", '[model]\nproviders = ["tensorrt", "cpu"]\n')
    (tmp_path / "agent.toml").write_text(text)
    shelf = Shelf(tmp_path / "state" / "slots")
    shelf.folder.mkdir(parents=True)
    package = pack(second)
    offered = Offered(second.digest.hex(), "2", sha256(package).hex(), len(package), by_owner=True)
    for place in (tmp_path / "package", shelf.part(offered.package)):
        place.write_bytes(package)
    return tmp_path / "agent.toml", shelf, offered


@pytest.fixture
def live(board, bundles, tmp_path):
    """Begin a life of the device."""
    config, shelf, _ = board
    command = [sys.executable, "-m", "tests.support.fake_tensorrt", str(tmp_path / "mark"), str(config)]
    lives = []

    def start(on_change=lambda _: None):
        begin(shelf, bundles[0].digest.hex())
        settings = ReleaseSettings(trial_s=120.0)
        well = Health(is_ready=True, deaths=0)
        helpers = Helpers(command, verify_command(config))
        lives.append(Keeper(shelf, settings, lambda: None, helpers, lambda: well, device="dev-1", on_change=on_change))
        return lives[-1]

    yield start
    for life in lives:
        life.close()


def want(shelf, offered):
    """As the owner does who has the package on a stick."""
    shelf.leave_wish(Wish(offered=offered, path=str(shelf.folder.parent.parent / "package")))


def test_compiling_is_a_step_that_is_told_and_the_worker_finds_the_engine(live, board, bundles, tmp_path, monkeypatch):
    config, shelf, offered = board
    told = []
    life = live(told.append)
    want(shelf, offered)
    wait_until(lambda: life.state.phase is Phase.REBOOT)
    steps = [command_of(state, 1000).step for state in told]
    assert steps == ["download", "install", "compiling", "reboot"]
    # One for the bundle that is on trial, one for that which runs: nobody had opened it here before.
    assert (tmp_path / "mark").read_text() == "compiled\n" * 2
    faked = FakeTensorRt(ORIN).installed(monkeypatch)
    placement = load_equipment(config).settings.placement
    assert open_placed(bundles[1], "onnxruntime", threads=1, placement=placement).provider == "tensorrt"
    assert faked.compiled == 0


def test_a_compilation_that_lost_power_is_begun_again(live, board, bundles):
    _, shelf, offered = board
    state = begin(shelf, bundles[0].digest.hex())
    for event in (Nudged(offered), Downloaded(), Compiling()):
        state = step(state, event)
    shelf.save(state)
    told = []
    life = live(told.append)
    wait_until(lambda: life.state.phase is Phase.REBOOT)
    assert [state.phase for state in told] == [Phase.REBOOT]  # it was compiling before, and is still


def test_a_newer_release_ends_a_compilation(live, board):
    _, shelf, offered = board
    newer = replace(offered, bundle="c" * 64, package="d" * 64)
    told, lives = [], []

    def hear(state):
        told.append(state.phase)
        if state.phase is Phase.COMPILING:
            lives[0].take(Nudged(newer))

    lives.append(live(hear))
    want(shelf, offered)
    wait_until(lambda: lives[0].state.release == newer)
    wait_until(lambda: lives[0]._failures > 0)  # the new one is fetched by now, from nowhere
    assert Phase.REBOOT not in told


def test_a_trial_on_a_processor_compiles_nothing(board, bundles):
    config, _, offered = board
    said = []
    verdict = put_on_trial(config, offered, said.append)  # TensorRT is not offered here
    assert (verdict.outcome, said) == (Outcome.PROVEN, [])
    assert not (config.parent / "state" / "engines").exists()


def test_engines_are_kept_for_what_may_run_and_no_longer(board, bundles, monkeypatch):
    config, shelf, offered = board
    FakeTensorRt(ORIN).installed(monkeypatch)
    assert put_on_trial(config, offered).outcome is Outcome.PROVEN
    engines = config.parent / "state" / "engines"
    both = {bundle.manifest.files[Role.BACKBONE].sha256 for bundle in bundles}
    state = begin(shelf, bundles[0].digest.hex())
    for event in (Nudged(offered), Downloaded(), Installed()):
        state = step(state, event)
    shelf.save(step(state, Started(bundles[0].digest.hex())))
    assert backbones(load_equipment(config)) == both
    keep_only(engines, backbones(load_equipment(config)))
    assert len(list(engines.glob("*/key.json"))) == 2
    shelf.save(begin(Shelf(config.parent / "nowhere"), bundles[0].digest.hex()))  # it was taken back
    shelf.tidy(shelf.load())
    keep_only(engines, backbones(load_equipment(config)))
    (left,) = engines.glob("*/key.json")
    assert left.parent.name.startswith(bundles[0].manifest.files[Role.BACKBONE].sha256[:32])
