"""From a nudge to another bundle, with a real web server and real trials; and what a bad one comes to."""

import errno
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge_agent.slots import floor
from edge_agent.slots import keeper as keepers
from edge_agent.slots.keeper import Health, Helpers, Keeper, begin, trial_command, verify_command
from edge_agent.slots.machine import Nudged, Offered, Phase
from edge_agent.slots.settings import ReleaseSettings
from edge_agent.slots.shelf import Shelf, Wish
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Release
from tests.edge_agent.slots.test_trial import device  # noqa: F401 - a fixture
from tests.support.patience import wait_until

WELL = Health(is_ready=True, deaths=0)


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(keepers, "_RETRY_S", (0.05, 0.2))
    monkeypatch.setattr(keepers, "_TURN_S", 0.05)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def url(shop):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shop.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def live(device, factory, shop, url):  # noqa: F811 - the fixture
    """Begin a life; the next one begins when the last has ended."""
    config, shelf = device
    config.write_text(f'{config.read_text()}\n[releases]\nurl = "{url}"\nroot = "{shop.root}"\n')
    lives = []

    def start(health=lambda: WELL, trial=None, **changes):
        for life in lives:
            life.close()
        begin(shelf, factory.digest.hex())
        settings = ReleaseSettings(**{"url": url, "root": shop.root, "health_s": 0.1, "trial_s": 60.0, **changes})
        helpers = Helpers(trial or trial_command(config), verify_command(config))
        lives.append(Keeper(shelf, settings, lambda: None, helpers, health, device="dev-1"))
        return lives[-1]

    yield start
    for life in lives:
        life.close()


def nudge(offered):
    return Release(
        "mlp-s",
        bytes.fromhex(offered.bundle),
        offered.version,
        package=bytes.fromhex(offered.package),
        package_bytes=offered.package_bytes,
    )


def test_a_release_is_fetched_tried_switched_to_and_kept(live, shop, device):  # noqa: F811
    offered, (_, shelf) = shop.good("2.r1"), device
    first = live()
    first.nudge(nudge(offered))
    wait_until(lambda: first.state.phase is Phase.REBOOT)
    assert first.state.active == ""  # nothing changes while the life lasts
    second = live()
    assert second.state.active == offered.bundle
    wait_until(lambda: second.state.phase is Phase.IDLE)
    assert second.state.succeeded
    wait_until(lambda: not shelf.part(offered.package).exists())
    assert shelf.slot(offered.bundle).is_dir()


def test_a_worker_that_keeps_dying_of_it_is_given_the_bundle_before(live, shop):
    offered = shop.good("2.r2", epochs=4)
    first = live()
    first.nudge(nudge(offered))
    wait_until(lambda: first.state.phase is Phase.REBOOT)
    second = live(lambda: Health(is_ready=False, deaths=2, last_death="SIGSEGV"))
    wait_until(lambda: second.state.phase is Phase.ROLLBACK)
    third = live()
    assert (third.state.active, third.state.phase) == ("", Phase.IDLE)
    assert "SIGSEGV" in third.state.outcome
    third.nudge(nudge(offered))
    assert third.state.phase is Phase.IDLE


def test_a_device_that_loses_power_again_and_again_goes_back(live, shop):
    first = live()
    first.nudge(nudge(shop.good("2.r3", epochs=5)))
    wait_until(lambda: first.state.phase is Phase.REBOOT)
    for _ in range(2):
        assert live(health_s=600.0).state.phase is Phase.COMMIT
    assert live(health_s=600.0).state.active == ""


CRASHES = {
    "a crash": (f"import os, signal; os.kill(os.getpid(), {signal.SIGSEGV.value})", "SIGSEGV"),
    "no verdict": ("pass", "status 0"),
    "a program that fails": ("import sys; sys.exit(3)", "status 3"),
    "killed for memory, twice": (f"import os; os.kill(os.getpid(), {signal.SIGKILL.value})", "killed"),
    "for ever": ("import time; time.sleep(600)", "too long"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_trial_that_ends_badly_is_a_verdict(live, shop, name):
    code, reason = CRASHES[name]
    life = live(trial=[sys.executable, "-c", code], trial_s=1.0 if name == "for ever" else 60.0)
    life.nudge(nudge(shop.good(f"3.r{len(name)}", epochs=2)))
    wait_until(lambda: life.state.phase is Phase.IDLE and not life.state.succeeded)
    assert reason in life.state.outcome
    assert life.state.active == ""


def test_a_package_that_the_server_does_not_have_yet_is_waited_for(live, shop):
    offered = shop.good("2.r4", epochs=6)
    package = (shop.blobs / offered.package).read_bytes()
    (shop.blobs / offered.package).unlink()
    life = live()
    life.nudge(nudge(offered))
    wait_until(lambda: life._failures > 1)
    (shop.blobs / offered.package).write_bytes(package)
    wait_until(lambda: life.state.phase is Phase.REBOOT)


def test_what_comes_is_counted_and_nothing_comes_where_the_month_is_used_up(live, shop):
    offered = shop.good("2.r8", epochs=10)
    life = live()
    life.is_data_spent = True
    life.nudge(nudge(offered))
    wait_until(lambda: life._failures > 1)
    assert life.received_bytes == 0
    life.is_data_spent = False
    wait_until(lambda: life.state.phase is Phase.REBOOT)
    assert offered.package_bytes < life.received_bytes < offered.package_bytes + 10_000  # and what is signed of it


def test_a_package_that_is_here_costs_no_data(live, shop, device):  # noqa: F811
    _, shelf = device
    offered = shop.good("2.r9", epochs=11)
    life = live()
    life.is_data_spent = True
    shelf.leave_wish(Wish(offered=replace(offered, by_owner=True), path=str(shop.blobs / offered.package)))
    wait_until(lambda: life.state.phase is Phase.REBOOT)
    assert life.received_bytes == 0


def test_another_package_under_that_name_is_not_taken_and_spoils_nothing(live, shop):
    offered = shop.good("2.r5", epochs=7)
    package = (shop.blobs / offered.package).read_bytes()
    (shop.blobs / offered.package).write_bytes(b"z" * offered.package_bytes)
    life = live()
    life.nudge(nudge(offered))
    wait_until(lambda: life._failures > 1)
    assert life.state.known_bad == ()
    (shop.blobs / offered.package).write_bytes(package)
    wait_until(lambda: life.state.phase is Phase.REBOOT)


def test_what_nobody_signed_is_not_even_fetched(live, shop):
    """Whoever writes to the broker and to the web server, and has no key, gets nothing onto a device."""
    forged = b"a package of the attacker's"
    offered = Offered("f" * 64, "6.6.6", sha256(forged).hex(), len(forged))
    (shop.blobs / offered.package).write_bytes(forged)
    life = live()
    life.nudge(nudge(offered))
    wait_until(lambda: life._failures > 1)
    assert (life.state.phase, life.state.known_bad) == (Phase.DOWNLOAD, ())
    assert not life._shelf.part(offered.package).exists()
    good = shop.good("2.r10", epochs=2)
    life.nudge(nudge(good))  # and the next honest word is followed
    wait_until(lambda: life.state.phase is Phase.REBOOT)
    assert life.state.release == good


def test_a_bundle_under_anothers_name_is_refused(live, shop):
    one, other = shop.good("2.r11", epochs=2), shop.good("2.r12", epochs=3)
    life = live()
    life.nudge(nudge(replace(one, package=other.package, package_bytes=other.package_bytes)))
    wait_until(lambda: not life.state.succeeded)
    assert "signed as bundle" in life.state.outcome


def test_a_device_asks_now_and_then_whether_what_it_believes_is_the_latest(live, shop, device):  # noqa: F811
    _, shelf = device
    life = live(poll_s=0.2)
    wait_until(lambda: life.received_bytes > 0)
    known = floor.load(shelf.folder.parent / "trust" / "floor.json")
    assert abs(known.asked_s - time.time()) < 600


def test_a_package_that_is_lost_on_the_card_is_fetched_again(live, shop, device):  # noqa: F811
    offered, (_, shelf) = shop.good("3.r1", epochs=9), device
    life = live()
    life.close()
    shelf.save(replace(life.state, phase=Phase.INSTALL, release=offered))
    second = live()
    wait_until(lambda: second.state.phase is Phase.REBOOT)


def test_a_full_disk_makes_a_release_wait_and_nobody_stop(live, shop, monkeypatch):
    offered, save, refused = shop.good("3.r2", epochs=9), Shelf.save, []

    def full(_self, state):
        refused.append(state)
        raise OSError(errno.ENOSPC, "No space left on device")

    life = live()
    monkeypatch.setattr(Shelf, "save", full)
    life.nudge(nudge(offered))
    life.took_part()
    wait_until(lambda: len(refused) > 2)  # it goes on trying
    assert life.state.phase is Phase.IDLE
    monkeypatch.setattr(Shelf, "save", save)
    wait_until(lambda: life.state.phase is Phase.REBOOT)


def test_the_owner_goes_back_by_a_wish(live, shop, device):  # noqa: F811
    _, shelf = device
    first = live()
    first.nudge(nudge(shop.good("2.r6", epochs=8)))
    wait_until(lambda: first.state.phase is Phase.REBOOT)
    second = live()
    wait_until(lambda: second.state.phase is Phase.IDLE)
    shelf.leave_wish(Wish(is_back=True))
    wait_until(lambda: second.state.phase is Phase.ROLLBACK)
    wait_until(lambda: shelf.wish() is None)
    assert live().state.active == ""


def test_the_owner_installs_a_package_from_a_stick(live, shop, device):  # noqa: F811
    _, shelf = device
    offered = shop.good("2.r7", epochs=9)
    life = live(url=None)
    shelf.leave_wish(Wish(offered=replace(offered, by_owner=True), path=str(shop.blobs / offered.package)))
    wait_until(lambda: life.state.phase is Phase.REBOOT)


def test_a_wish_that_cannot_be_read_is_none(device):  # noqa: F811
    _, shelf = device
    (shelf.folder / "wish.json").write_bytes(b"{")
    assert shelf.wish() is None
    assert not (shelf.folder / "wish.json").exists()


@pytest.mark.parametrize("changes", [{"automatic": False}, {"url": None}, {"max_mb": 1e-6}])
def test_nudges_that_the_settings_do_not_allow_are_not_followed(live, shop, changes):
    life = live(**changes)
    life.nudge(nudge(shop.good(f"4.r{len(str(changes))}", epochs=2)))
    assert life.state.phase is Phase.IDLE


def test_a_damaged_state_runs_what_the_settings_name(device, factory):  # noqa: F811
    _, shelf = device
    (shelf.folder / "state.json").write_bytes(b"\x00" * 40)
    state = begin(shelf, factory.digest.hex())
    assert (state.active, state.factory) == ("", factory.digest.hex())
    assert (shelf.folder / "state.damaged").exists()


def test_a_slot_that_somebody_deleted_is_not_run(device, factory):  # noqa: F811
    _, shelf = device
    begin(shelf, factory.digest.hex())
    state = keepers.machine.step(shelf.load(), Nudged(Offered("a" * 64, "1.r1", "b" * 64, 1)))
    for event in (keepers.Downloaded(), keepers.Installed()):
        state = keepers.machine.step(state, event)
    shelf.save(state)
    assert begin(shelf, factory.digest.hex()).active == ""


@pytest.mark.parametrize("url", ["http://releases.example", "ftp://releases.example", "https://", "x"])
def test_packages_come_by_https(url):
    with pytest.raises(InvalidValueError):
        ReleaseSettings(url=url, root=Path("root.json"))


def test_who_follows_releases_says_whom_to_believe():
    with pytest.raises(InvalidValueError, match="root"):
        ReleaseSettings(url="https://releases.example")
