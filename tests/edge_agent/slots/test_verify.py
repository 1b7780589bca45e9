"""The one seam: what a device may fetch and unpack. Real documents over HTTP, real clocks that lie, a real process."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from edge_agent.settings import AgentSettings
from edge_agent.slots import floor
from edge_agent.slots import verify as seam
from edge_agent.slots.machine import Offered
from edge_agent.slots.verify import Refused, Trust, Undecided, Verified, verify
from fd_protocol.targets import TargetFacts
from fd_runtime.config import load_toml
from fd_runtime.tuf import targets as tuf_targets
from tests.edge_agent.artifacts import write_private, write_public_set
from tests.edge_agent.processes import settings_text
from tests.support.trust import DAY, serving
from tests.support.trust import Trust as Owner

YEAR_1970 = 86_400.0
PACKAGE = b"a package"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.fixture
def owner(tmp_path):
    return Owner(tmp_path / "owner")


@pytest.fixture
def url(owner):
    with serving(owner.web) as address:
        yield address


@pytest.fixture
def config(factory, owner, url, tmp_path):
    shutil.copytree(factory.folder, tmp_path / "bundle")
    write_public_set(tmp_path / "public")
    write_private(tmp_path / "private.npz", rows=30)
    root = tmp_path / "root.json"
    root.write_bytes(owner.root)
    text = settings_text(1883, model__runtime="onnxruntime")
    (tmp_path / "agent.toml").write_text(f'{text}\n[releases]\nurl = "{url}"\nroot = "root.json"\n')
    return tmp_path / "agent.toml"


@pytest.fixture
def settings(config):
    return load_toml(config, AgentSettings)


def facts(**changes):
    said = TargetFacts("a" * 64, "mlp-s", "2", ("onnxruntime", "litert"), 18, 1000, "b" * 64)
    return replace(said, **changes)


def offer(owner, package=PACKAGE, **changes):
    """Vouch for a package, and return what a nudge makes of it."""
    target = owner.add(package, facts(**changes))
    owner.deliver()
    return Offered(target.facts.bundle, target.facts.version, target.package, target.package_bytes)


def test_what_is_signed_may_be_fetched_and_unpacked(owner, settings):
    offered = offer(owner)
    assert verify(offered, settings, time.time()) == Verified(facts())
    assert verify(offered, settings, time.time(), PACKAGE) == Verified(facts())


def test_a_student_of_the_server_may_be_fetched(owner, settings):
    owner.deliver()
    target = owner.online.vouch(PACKAGE, facts(), time.time(), beside=())
    assert isinstance(verify(Offered("a" * 64, "2", target.package, len(PACKAGE)), settings, time.time()), Verified)


def test_other_bytes_are_refused_before_anybody_is_asked(owner, settings):
    offered = offer(owner)
    for wrong in (PACKAGE[:-1], PACKAGE[:-1] + b"?"):
        assert isinstance(verify(offered, settings, time.time(), wrong), Refused)
    assert not settings.state.trust.exists()


def test_what_the_owner_brings_is_asked_for_its_digest_alone(owner, settings):
    offered = replace(offer(owner), by_owner=True)
    assert verify(offered, settings, YEAR_1970, PACKAGE) == Verified()
    assert isinstance(verify(offered, settings, YEAR_1970, b"another"), Refused)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtimes": ("litert",)}, "proven on litert"),
        ({"opset": 99}, "opset 99"),
        ({"memory_bytes": 1 << 50}, "it needs"),
    ],
)
def test_what_this_device_cannot_run_is_refused_before_it_is_fetched(owner, settings, changes, words):
    verdict = verify(offer(owner, **changes), settings, time.time())
    assert isinstance(verdict, Refused)
    assert words in verdict.reason


def test_a_package_of_another_family_is_not_this_ones(owner, settings):
    verdict = verify(offer(owner, family="cnn-m"), settings, time.time())
    assert isinstance(verdict, Undecided)
    assert "nobody vouches" in verdict.reason


@pytest.mark.parametrize("changes", [{"bundle": "c" * 64}, {"package_bytes": 3}])
def test_a_nudge_that_says_otherwise_than_what_is_signed_is_refused(owner, settings, changes):
    assert isinstance(verify(replace(offer(owner), **changes), settings, time.time()), Refused)


def test_a_retired_bundle_cannot_be_had_any_more_whatever_a_broker_says(owner, settings):
    offered = offer(owner)
    assert isinstance(verify(offered, settings, time.time()), Verified)
    retire(owner, offered)
    assert isinstance(verify(offered, settings, time.time()), Undecided)


def retire(owner, offered):
    tuf_targets.retire(owner.signed, owner.signer("targets"), offered.bundle, now_s=time.time())
    owner.deliver()


def test_an_attack_on_the_documents_spoils_no_bundle(owner, settings):
    offered = offer(owner)
    stamp = owner.documents / "timestamp.json"
    good = stamp.read_bytes()
    stamp.write_bytes(good.replace(b'"version":', b'"version": 1'))
    verdict = verify(offered, settings, time.time())
    assert isinstance(verdict, Undecided)
    assert "not believed" in verdict.reason
    stamp.write_bytes(good)
    assert isinstance(verify(offered, settings, time.time()), Verified)


def test_without_a_server_nothing_is_decided(owner, settings):
    offered = offer(owner)
    nowhere = replace(settings, releases=replace(settings.releases, url="http://127.0.0.1:9"))
    assert isinstance(verify(offered, nowhere, time.time()), Undecided)
    lost = replace(settings, releases=replace(settings.releases, root=settings.releases.root.with_name("none")))
    assert isinstance(verify(offered, lost, time.time()), Undecided)
    settings.releases.root.write_text("no root")
    assert isinstance(verify(offered, settings, time.time()), Undecided)


# The clock.


def expire(owner, year=2021):
    """What an attacker has: an old word of the server, properly signed, that was the latest then."""
    for name in ("timestamp.json", f"{newest(owner, 'snapshot')}.snapshot.json"):
        document = Metadata.from_file(str(owner.documents / name))
        document.signed.expires = document.signed.expires.replace(year=year)
        document.signed.unrecognized_fields.pop("at", None)
        document.sign(owner.signer("online"))
        document.to_file(str(owner.documents / name))


def newest(owner, role):
    return max(int(path.name.partition(".")[0]) for path in owner.documents.glob(f"*.{role}.json"))


def test_a_clock_of_1970_believes_nothing(owner, settings):
    offered = offer(owner)
    expire(owner)
    for now_s in (YEAR_1970, 0.0):
        verdict = verify(offered, settings, now_s)
        assert isinstance(verdict, Undecided)
        assert "1970" in verdict.reason
    assert isinstance(verify(offered, settings, time.time()), Undecided)  # past its time


def test_without_the_floor_a_clock_of_1970_would_believe_it(owner, settings, monkeypatch):
    """The negative control: it is the floor that refuses, python-tuf by itself would not."""
    offered = offer(owner)
    expire(owner)
    monkeypatch.setattr(floor.Floor, "is_before", lambda *_: True)
    assert in_1970(settings, offered, without_floor=True)["outcome"] == "verified"
    assert in_1970(settings, offered)["outcome"] == "undecided"


def in_1970(settings, offered, *, without_floor=False):
    """Ask as the keeper does, in a process whose clock says 1970."""
    if FAKETIME is None:
        pytest.skip("libfaketime is not installed")
    code = "import sys; from edge_agent.slots import floor, verify\n"
    if without_floor:
        code += "floor.Floor.is_before = lambda *_: True\n"
    code += "sys.exit(verify.main(sys.argv[1:]))"
    clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "@1970-01-02 00:00:00", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    folder = settings.state.folder.parent
    command = [sys.executable, "-c", code, str(folder / "agent.toml"), json.dumps(asdict(offered))]
    done = subprocess.run(command, env={**os.environ, **clock}, capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_the_floor_rises_with_what_was_believed_and_outlives_a_power_cut(owner, settings):
    path = settings.state.trust / "floor.json"
    offered, now_s = offer(owner), time.time()
    assert isinstance(verify(offered, settings, now_s), Verified)
    assert floor.load(path).at_least_s >= now_s
    assert isinstance(verify(offered, settings, now_s - 2 * floor.SLACK_S), Undecided)
    assert isinstance(verify(offered, settings, now_s - floor.SLACK_S / 2), Verified)  # two good clocks may differ
    path.write_bytes(b"{damaged")
    built_s = Path(floor.__file__).stat().st_mtime
    assert floor.load(path).at_least_s == built_s
    assert isinstance(verify(offered, settings, built_s - DAY), Undecided)


def test_a_slow_clock_is_told_by_when_the_server_signed(owner, settings, tmp_path):
    """It is later than this program was built, and still before the word of the server that was believed."""
    owner.deliver(time.time())
    assert isinstance(Trust(settings, time.time() - 600).poll(), Verified)
    assert floor.load(settings.state.trust / "floor.json").at_least_s >= int(time.time()) - 60


# The process.


def ask(config, *offered):
    command = [sys.executable, "-m", "edge_agent.slots.verify", str(config), *offered]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_the_keeper_hears_one_line(owner, config):
    offered = json.dumps(asdict(offer(owner)))
    said = ask(config, offered)
    assert said["outcome"] == "verified"
    assert ask(config)["received_bytes"] < said["received_bytes"]
    owner.online.tend(time.time() + 2 * DAY)
    assert ask(config)["outcome"] == "verified"
    config.write_text("no settings")
    assert ask(config)["outcome"] == "undecided"


def test_the_verifier_loads_no_numpy_and_no_runtime(owner, config):
    """It runs beside everything else on a small board."""
    code = (
        "import sys; from edge_agent.slots import verify; verify._said(sys.argv[1:]);"
        "print([name for name in ('numpy', 'onnxruntime', 'paho') if name in sys.modules])"
    )
    offered = json.dumps(asdict(offer(owner)))
    done = subprocess.run(
        [sys.executable, "-c", code, str(config), offered], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert seam.NEWEST_OPSET >= 18
