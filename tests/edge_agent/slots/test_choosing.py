"""Who runs a bundle that is for some devices first, and who goes back when it is halted."""

from dataclasses import replace

import pytest

from edge_agent.slots.choosing import wanted
from edge_agent.slots.machine import Offered, Phase, Slots
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import Release, StagedRelease

OLD, NEW, PACKAGE = sha256(b"old"), sha256(b"new"), sha256(b"package")
STAGED = StagedRelease(NEW, "2", PACKAGE, 100, share=0.25)
TOLD = Release("mlp-s", OLD, "1", package=sha256(b"old package"), package_bytes=50, staged=STAGED)
AT_REST = Slots(factory="f" * 64, active=OLD.hex())
FLEET = [f"device-{number}" for number in range(2000)]


def chosen(release, state=AT_REST):
    return {device for device in FLEET if wanted(release, device, state).bundle == NEW.hex()}


def with_share(share, **changes):
    return replace(TOLD, staged=replace(STAGED, share=share, **changes))


def test_a_share_of_the_devices_is_among_the_first_and_each_wider_share_holds_the_narrower():
    few, more, all_of_them = (chosen(with_share(share)) for share in (0.05, 0.25, 1.0))
    assert few < more < all_of_them == set(FLEET)
    assert 50 < len(few) < 160
    assert 400 < len(more) < 600


def test_another_bundle_begins_with_others():
    other = replace(STAGED, bundle=sha256(b"newer"), share=0.1)
    first = {device for device in FLEET if other.is_for(device)}
    assert first != {device for device in FLEET if replace(STAGED, share=0.1).is_for(device)}


def test_a_named_device_is_among_the_first_whatever_the_share():
    marks = (STAGED.mark("device-7"), STAGED.mark("device-8"))
    assert chosen(with_share(0.0, named=marks)) == {"device-7", "device-8"}
    assert b"device-7" not in codec.encode(with_share(0.0, named=marks))


def test_the_others_run_what_was_before():
    offered = wanted(with_share(0.0), "device-1", AT_REST)
    assert (offered.bundle, offered.package_bytes) == (OLD.hex(), 50)


@pytest.mark.parametrize(
    "state",
    [
        replace(AT_REST, active=NEW.hex()),
        replace(AT_REST, phase=Phase.REBOOT, release=Offered(NEW.hex(), "2", PACKAGE.hex(), 100)),
        replace(AT_REST, phase=Phase.COMMIT, release=Offered(NEW.hex(), "2", PACKAGE.hex(), 100)),
    ],
)
def test_whoever_has_switched_when_it_is_halted_stays(state):
    assert chosen(with_share(0.0), state) == set(FLEET)


@pytest.mark.parametrize("phase", [Phase.DOWNLOAD, Phase.INSTALL, Phase.COMPILING])
def test_whoever_is_on_the_way_when_it_is_halted_turns_back(phase):
    state = replace(AT_REST, phase=phase, release=Offered(NEW.hex(), "2", PACKAGE.hex(), 100))
    assert chosen(with_share(0.0), state) == set()


def test_where_nobody_knows_what_was_before_the_others_stay_with_what_they_have():
    nothing = Release("mlp-s", NEW, "2", staged=replace(STAGED, share=0.0))
    assert wanted(nothing, "device-1", AT_REST).bundle == OLD.hex()
    assert wanted(nothing, "device-1", replace(AT_REST, active="")).bundle == "f" * 64
    assert chosen(replace(nothing, staged=replace(STAGED, share=1.0))) == set(FLEET)


def test_an_agent_of_before_reads_what_all_run():
    """It passes over keys that it does not know."""
    assert codec.decode(codec.encode(TOLD), Release).bundle == OLD
