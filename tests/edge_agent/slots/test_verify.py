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
from fd_runtime.tuf import root as tuf_root
from fd_runtime.tuf import targets as tuf_targets
from fd_runtime.tuf.online import OnlineTrust
from fd_runtime.tuf.root import Changes
from fd_runtime.tuf.signing_keys import make_key
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


# The time that the server's key signed.


@pytest.fixture
def place(settings):
    return settings.state.trust / "floor.json"


@pytest.fixture
def poll(settings):
    def poll(now_s):
        return Trust(settings, now_s).poll()

    return poll


def later(s=0.0):
    """A time in the rightful clock, some seconds from now."""
    return time.time() + s


def root_end_s(owner):
    return max(Metadata.from_file(str(path)).signed.expires.timestamp() for path in owner.documents.glob("*.root.json"))


def say(owner, at, *, key="online", version=None):
    """What whoever holds the server's key can do: another word about when it was signed, a version later."""
    path = owner.documents / "timestamp.json"
    document = Metadata.from_file(str(path))
    document.signed.version = version or document.signed.version + 1
    document.signed.unrecognized_fields["at"] = int(at)
    document.sign(owner.signer(key))
    document.to_file(str(path))


def replace_the_servers_key(owner):
    """As docs/updates.md says it: rotate, trust renew, publish."""
    make_key(owner.keys / "online-2")
    tuf_root.draft(owner.signed, Changes(online=owner.public("online-2")), time.time())
    owner.sign("root-1", "root-2")
    tuf_targets.renew(owner.signed, owner.signer("targets"), now_s=time.time())
    OnlineTrust(owner.documents, owner.blobs, owner.signer("online-2")).take_in(owner.signed, time.time())


@pytest.mark.parametrize("at", [later(10 * 365 * DAY), 10**400], ids=["ten years", "beyond all numbers"])
def test_a_time_that_a_thief_signed_goes_with_the_key_that_was_stolen(owner, poll, place, at):
    owner.deliver()
    good = (owner.documents / "timestamp.json").read_bytes()
    say(owner, at, version=1 << 31)  # nothing that the server signs with that key will ever be newer
    assert isinstance(poll(later()), Verified)
    assert floor.load(place).at_least_s <= root_end_s(owner)
    (owner.documents / "timestamp.json").write_bytes(good)
    verdict = poll(later())
    assert isinstance(verdict, Undecided)
    assert "at least" in verdict.reason
    replace_the_servers_key(owner)
    assert isinstance(poll(later()), Verified)
    assert floor.load(place).at_least_s < later(DAY)


def test_it_goes_with_the_key_though_the_new_one_says_nothing_yet(owner, poll, place):
    owner.deliver()
    say(owner, later(10 * 365 * DAY))
    assert isinstance(poll(later()), Verified)
    replace_the_servers_key(owner)
    (owner.documents / "timestamp.json").rename(owner.documents / "held-back")
    assert isinstance(poll(later()), Undecided)
    assert floor.load(place).at_least_s < later(DAY)


def test_a_time_that_a_server_signed_by_a_wrong_clock_goes_with_its_next_word(owner, poll, place):
    owner.deliver()
    owner.online.tend(later(10 * 365 * DAY))
    assert isinstance(poll(later()), Verified)
    assert isinstance(poll(later()), Undecided)
    assert owner.online.tend(later())
    assert isinstance(poll(later()), Verified)
    assert floor.load(place).at_least_s < later(DAY)


@pytest.fixture
def built_long_ago(tmp_path, monkeypatch):
    path = tmp_path / "floor.py"
    path.write_bytes(b"")
    os.utime(path, (later(-90 * DAY),) * 2)
    monkeypatch.setattr(floor, "__file__", str(path))


@pytest.mark.usefixtures("built_long_ago")
def test_whoever_has_the_network_alone_cannot_lower_the_floor(owner, poll, place, settings):
    """Neither by an older word of the server, nor where the card has lost the newer one, nor by a root of their own."""
    slow_s = later(-20 * DAY)
    owner.deliver()
    say(owner, later(-30 * DAY))
    old = (owner.documents / "timestamp.json").read_bytes()
    say(owner, later())
    assert isinstance(poll(slow_s), Verified)  # and the device is told that its clock is slow
    known = place.read_bytes()
    assert floor.load(place).at_least_s > later(-DAY)
    (owner.documents / "timestamp.json").write_bytes(old)
    assert isinstance(poll(slow_s), Undecided)
    (settings.state.trust / "tuf" / "timestamp.json").write_bytes(b"")
    assert isinstance(poll(slow_s), Undecided)
    assert (settings.state.trust / "tuf" / "timestamp.json").read_bytes() == old
    forged = Owner(settings.state.trust.parent / "thief")
    root = Metadata.from_file(str(forged.signed / "1.root.json"))
    root.signed.version = 2
    root.sign(forged.signer("root-1"))
    root.sign(forged.signer("root-2"), append=True)
    root.to_file(str(owner.documents / "2.root.json"))
    say(owner, later(-30 * DAY), key=forged.keys / "online", version=99)
    assert isinstance(poll(slow_s), Undecided)
    assert place.read_bytes() == known


def test_what_the_devices_own_clock_said_outlives_the_servers_key(owner, poll, place):
    owner.deliver()
    asked_s = later()
    assert isinstance(poll(asked_s), Verified)
    replace_the_servers_key(owner)
    verdict = poll(asked_s - 2 * floor.SLACK_S)
    assert isinstance(verdict, Undecided)
    assert floor.load(place).at_least_s >= asked_s
    assert isinstance(poll(YEAR_1970), Undecided)
    assert isinstance(poll(later()), Verified)


def test_before_the_floor_roots_are_followed_and_no_package_is_vouched_for(owner, settings, place):
    offered = offer(owner)
    assert isinstance(verify(offered, settings, later()), Verified)
    replace_the_servers_key(owner)
    known = {path.name: path.read_bytes() for path in (settings.state.trust / "tuf").glob("[st]*.json")}
    verdict = verify(offered, settings, YEAR_1970)
    assert isinstance(verdict, Undecided)
    assert "1970" in verdict.reason
    assert (settings.state.trust / "tuf" / "root.json").read_bytes() == (owner.signed / "2.root.json").read_bytes()
    now = {path.name: path.read_bytes() for path in (settings.state.trust / "tuf").glob("[st]*.json")}
    assert {name for name in now if now[name] != known.get(name)} == {"timestamp.json"}


def test_before_the_floor_it_is_the_clock_that_is_named_whatever_the_link_does(owner, settings, place):
    owner.deliver()
    nowhere = replace(settings, releases=replace(settings.releases, url="http://127.0.0.1:9"))
    assert "1970" in Trust(nowhere, YEAR_1970).poll().reason
    assert not place.exists()  # a board that waits for its clock wears out no card


def test_a_floor_of_before_is_read_and_is_as_good(owner, poll, place):
    owner.deliver()
    asked_s = later()
    place.parent.mkdir(parents=True)
    place.write_bytes(f'{{\n "asked_s": {asked_s},\n "at_least_s": {asked_s}\n}}\n'.encode())
    assert floor.load(place) == floor.Floor(asked_s, asked_s)
    assert isinstance(poll(asked_s - 2 * floor.SLACK_S), Undecided)
    assert isinstance(poll(asked_s), Verified)


def test_a_floor_of_before_that_a_wrong_word_had_raised_comes_down_with_the_key(owner, poll, place):
    owner.deliver()
    say(owner, later(10 * 365 * DAY))
    assert isinstance(poll(later()), Verified)
    place.write_bytes(f'{{\n "asked_s": {later()},\n "at_least_s": {later(10 * 365 * DAY)}\n}}\n'.encode())
    assert isinstance(poll(later()), Undecided)
    replace_the_servers_key(owner)
    assert isinstance(poll(later()), Verified)


def test_a_power_cut_between_the_new_root_and_the_floor_costs_a_question(owner, poll, place, monkeypatch):
    owner.deliver()
    say(owner, later(10 * 365 * DAY))
    assert isinstance(poll(later()), Verified)
    replace_the_servers_key(owner)

    def cut(*_, **__):
        raise OSError("cut")

    with monkeypatch.context() as patched:
        patched.setattr(floor, "write_atomically", cut)
        assert poll(later()) == Undecided("cut")
    assert isinstance(poll(later()), Verified)


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
