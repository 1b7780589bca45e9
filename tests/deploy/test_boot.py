"""From a blank image to a receipt: a whole first boot, with a kernel, systemd and cloud-init, in an emulated arm64.

    make test-boot          (FEDISTILL_ROOTS=build/roots pytest -s tests/deploy/test_boot.py)

`edge-agent flash` makes the card: package, settings, authority, a token that works once. Power on; the rest is the
device's: it installs, enrols at the HTTPS port of a real `broker-server`, and takes part with a device of this machine.

Minutes, and root for making the blank image, once. It is Debian 12 for clouds, made here: Raspberry Pi OS cannot be had
where this is built, and no emulator has a Raspberry Pi's firmware; `test_first_boot` has its firstrun.sh in a chroot.
One machine serves all tests below, in their order; the first switches it on.
"""

import os
import re
import time
from pathlib import Path

import pytest

from deploy.deb import building
from deploy.deb.catalogue import targets
from tests.support.brokers import needs_mosquitto
from tests.support.machines import HOST, Machine, generic_image, needs_machine, new_key
from tests.support.plants import MINUTES_S, NEIGHBOUR, Plant

pytestmark = [pytest.mark.slow, pytest.mark.system, needs_machine, needs_mosquitto]

SUITE, PYTHON = "bookworm", "3.11"
DEVICE = "press-3"
UNIT = "edge-agent.service"
BOOT_S = 1800.0
"""Patience with a first boot; the figure is 6 minutes, and no test of time may fail a busy machine."""


@pytest.fixture(scope="module")
def deb(tmp_path_factory):
    kept = os.environ.get("FEDISTILL_DEBS")
    found = sorted(Path(kept).glob(f"fedistill-agent_*-1+py{PYTHON}_arm64.deb")) if kept else []
    if found:
        return found[-1]
    out = tmp_path_factory.mktemp("debs")
    (made,) = building.build(targets(["fedistill-agent"], [PYTHON], ["arm64"]), out)
    return made.path


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    with Plant(tmp_path_factory.mktemp("plant"), names=(HOST,)).open() as plant:
        yield plant


@pytest.fixture(scope="module")
def machine(tmp_path_factory, plant, deb):
    """A blank image, flashed for a device by the program, in a machine that is off."""
    folder = tmp_path_factory.mktemp("machine")
    blank, boot = generic_image(SUITE, folder)
    key = new_key(folder)
    card = plant.card(blank, DEVICE, package=deb, host=HOST, out=folder / "card.img", ssh_key=key.with_suffix(".pub"))
    blank.unlink()
    machine = Machine(card, boot, key)
    yield machine
    machine.off()
    card.unlink()


@pytest.fixture(scope="module")
def running(machine):
    """The machine after its first boot, with the agent in the federation."""
    if machine.process is None:
        machine.start()
    machine.wait_for(r"submitting -> awaiting", BOOT_S)
    return machine


def receipts(machine):
    return sum("submitting -> awaiting" in line for _, line in list(machine.lines))


def wait_for_receipt(machine, *, after):
    """Wait for one more receipt than `after`."""
    end_s = time.monotonic() + MINUTES_S
    while receipts(machine) <= after:
        assert time.monotonic() < end_s, machine.tail()
        time.sleep(0.2)


def main_pid(machine):
    return int(machine.properties(UNIT, "MainPID")["MainPID"])


def wait_until_active(machine, *, other_than):
    """Wait until the unit is active with another process; return that."""
    end_s = time.monotonic() + MINUTES_S
    while True:
        said = machine.properties(UNIT, "ActiveState", "MainPID")
        if said["ActiveState"] == "active" and int(said["MainPID"]) not in (0, other_than):
            return int(said["MainPID"])
        assert time.monotonic() < end_s, said
        time.sleep(1)


def test_a_blank_image_becomes_a_device_that_takes_part(machine, plant, says):
    machine.start()
    moments = {
        "the kernel speaks": r"Booting Linux|Linux version",
        "systemd has the system": r"systemd\[1\]: .*(Detected|running in system mode)",
        "cloud-init has read the card": r"fedistill: checking what the card holds",
        "package installed, agent started": r"Started .*edge-agent|Started edge-agent.service",
        "enrolled": rf"certificate of {DEVICE}: ",
        "connected to the broker": r"edge-agent.*\bconnected$",
        "the card says that all is done": r"fedistill: installed fedistill-agent",
        "its contribution is receipted": r"submitting -> awaiting",
        "the consensus is learned": r"training -> reporting",
    }
    machine.wait_for(moments["its contribution is receipted"], BOOT_S)
    work_s, load = machine.work_s, os.getloadavg()[0]
    machine.wait_for(moments["the consensus is learned"], BOOT_S)
    machine.wait_for(moments["the card says that all is done"], BOOT_S)
    says("seconds since power on, Debian 12 arm64 in qemu (TCG):")
    for what, words in moments.items():
        at = machine.at(words)
        says(f"  {'never seen' if at is None else format(at, '10.1f')}  {what}")
    says(
        f"until the receipt the emulator took {work_s:.0f} s of processor time;"
        f" load here {load:.1f} on {os.cpu_count()} cores"
    )
    assert plant.audit(DEVICE)[:2] == ["token", "enrolled"]
    assert "install ok installed" in machine.ask("dpkg-query -W -f '${Status}' fedistill-agent")
    assert [NEIGHBOUR, DEVICE] in plant.heard().values()


def test_systemd_takes_the_unit_as_it_is_meant(running, says):
    facts = running.properties(
        UNIT,
        *("Type", "NotifyAccess", "ActiveState", "SubState", "Result", "NRestarts", "StatusText", "User"),
        *("WatchdogUSec", "MemoryHigh", "MemoryMax", "MemoryCurrent", "TasksCurrent", "TasksMax", "OOMPolicy"),
        *("UnitFileState", "KillMode", "ProtectSystem", "NoNewPrivileges", "PrivateUsers", "ExecMainStatus"),
    )
    for name, value in sorted(facts.items()):
        says(f"  {name}={value}")
    assert facts["Type"] == "notify"
    assert (facts["ActiveState"], facts["SubState"], facts["Result"]) == ("active", "running", "success")
    assert (facts["NRestarts"], facts["UnitFileState"], facts["User"]) == ("0", "enabled", "fedistill")
    assert facts["WatchdogUSec"] == "1min"
    assert "connected" in facts["StatusText"]
    assert int(facts["MemoryMax"]) == 256 << 20
    assert int(facts["MemoryCurrent"]) < int(facts["MemoryHigh"]) == 192 << 20
    peak = int(running.ask(f"cat /sys/fs/cgroup/system.slice/{UNIT}/memory.peak"))
    says(f"  memory.peak={peak / 2**20:.1f} MiB")
    assert peak < 192 << 20
    failed = running.ask("systemctl list-units --failed --no-legend --plain")
    says(f"  failed units: {failed.strip() or 'none'}")
    for unit in (line.split()[0] for line in failed.splitlines()):  # of the image; why, for whoever looks into it
        says(running.ask(f"journalctl --no-pager --output cat --lines 12 --unit {unit}"))
    assert "edge-agent" not in failed
    assert "fedistill" not in failed


def test_its_sandbox_is_as_tight_in_a_running_system_and_leaves_the_processor_in_sight(running, says):
    said = running.ask(f"systemd-analyze security --no-pager {UNIT}")
    (exposure,) = re.findall(r"Overall exposure level for edge-agent.service: ([\d.]+)", said)
    says(f"  systemd-analyze security: {exposure}")
    assert float(exposure) <= 2.0
    log = running.ask(f"journalctl --no-pager --output=cat --unit {UNIT}")
    assert "cpuinfo" not in log
    assert "Traceback" not in log
    assert "WARNING" not in log.upper(), log
    pid = main_pid(running)
    status = running.ask(f"cat /proc/{pid}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert running.ask(f"stat -c %U /proc/{pid}").strip() == "fedistill"
    inside = f"nsenter --target {pid} --mount --"
    assert "CPU implementer" in running.ask(f"{inside} cat /proc/cpuinfo")
    running.ask(f"{inside} touch /etc/fedistill/x", code=1)  # for root, as the file system is for it


def test_health_gate_passes_as_root_and_as_the_services_user(running):
    running.ask("edge-agent health --gate --steady 5")
    running.ask("sudo -u fedistill edge-agent health --gate --steady 2")
    doctor = running.ask("sudo -u fedistill edge-agent doctor; echo code $?")
    assert "failed" not in doctor, doctor


def test_a_device_that_is_killed_comes_back_by_itself_and_gets_its_next_receipt(running, says):
    before, since, pid = receipts(running), time.monotonic(), main_pid(running)
    running.ask(f"kill -KILL {pid}")
    again = wait_until_active(running, other_than=pid)
    says(f"  killed by SIGKILL: ready again after {time.monotonic() - since:.0f} s, process {pid} -> {again}")
    assert running.properties(UNIT, "NRestarts")["NRestarts"] == "1"
    running.ask("edge-agent health --gate --steady 3 --wait 300")
    wait_for_receipt(running, after=before)


def test_a_loop_that_stands_still_is_ended_by_the_watchdog_which_has_it_say_where_it_stood(running, says):
    pid, since = main_pid(running), time.monotonic()
    running.ask(f"kill -STOP {pid}")
    wait_until_active(running, other_than=pid)
    says(f"  stood still: ended by the watchdog and ready again after {time.monotonic() - since:.0f} s")
    log = running.ask(f"journalctl --no-pager --output=cat --unit {UNIT}")
    assert "Watchdog timeout" in log
    assert "most recent call first" in log  # faulthandler's, at SIGABRT
    assert running.properties(UNIT, "NRestarts")["NRestarts"] == "2"


def test_a_stop_is_a_goodbye_and_takes_the_worker_along(running, plant, says):
    pid, since = main_pid(running), time.monotonic()
    running.ask(f"systemctl stop {UNIT}")
    says(f"  systemctl stop: {time.monotonic() - since:.1f} s, the way there and back included")
    said = running.properties(UNIT, "ActiveState", "Result", "ExecMainStatus")
    assert said == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert running.ask("pgrep -u fedistill", code=1) == ""
    running.ask(f"systemctl start {UNIT}")
    assert main_pid(running) not in (0, pid)


def test_settings_that_are_wrong_stop_it_for_good_until_somebody_mends_them(running):
    running.ask("cp /etc/fedistill/agent.toml /root/kept && echo 'nonsense = 1' >> /etc/fedistill/agent.toml")
    running.ask(f"systemctl restart {UNIT}", code=1)
    time.sleep(12)  # two RestartSec
    said = running.properties(UNIT, "ActiveState", "Result", "ExecMainStatus")
    assert said == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"}
    running.ask("cp /root/kept /etc/fedistill/agent.toml")
    running.ask(f"systemctl start {UNIT}")


def test_an_upgrade_ends_it_starts_it_again_and_keeps_what_it_knows(running, deb, tmp_path, says):
    before = receipts(running)
    other = tmp_path / deb.name.replace("-1+py", "-2+py")
    (made,) = building.build(targets(["fedistill-agent"], [PYTHON], ["arm64"]), tmp_path, revision=2)
    assert made.path == other
    running.give(other, "/tmp/")
    since, pid = time.monotonic(), main_pid(running)
    running.ask(f"DEBIAN_FRONTEND=noninteractive apt-get install --yes /tmp/{other.name}", patience_s=MINUTES_S)
    wait_until_active(running, other_than=pid)
    says(f"  upgraded in {time.monotonic() - since:.0f} s")
    assert "-2+py" in running.ask("dpkg-query -W -f '${Version}' fedistill-agent")
    wait_for_receipt(running, after=before)


def test_after_a_reboot_it_is_there_by_itself_and_nothing_is_set_up_twice(running, plant, says):
    before = receipts(running)
    identity = running.ask("sha256sum /var/lib/fedistill/identity/*")
    running.ask("sync; systemctl --no-block reboot")
    started = len(running.lines)
    wait_for_receipt(running, after=before)
    second = [line for _, line in running.lines[started:]]
    assert not [line for line in second if "checking what the card holds" in line]
    assert running.ask("sha256sum /var/lib/fedistill/identity/*") == identity
    assert plant.audit(DEVICE) == ["token", "enrolled"]
    card = running.ask("ls /boot/fedistill/fedistill").split()
    assert card == ["first-boot.service", "first-boot.sh", "installed", "status.txt"]


def test_what_was_on_the_card_is_where_it_belongs_and_secrets_have_left_it(running):
    owners = running.ask("stat -c '%n %U:%G %a' /etc/fedistill /etc/fedistill/*.toml /etc/fedistill/*.token")
    assert sorted(owners.splitlines()) == [
        "/etc/fedistill root:fedistill 750",
        "/etc/fedistill/agent.toml root:fedistill 640",
        "/etc/fedistill/enrolment.token fedistill:fedistill 600",
    ]
    assert running.ask("hostname").strip() == DEVICE


def test_power_off_ends_it_well(running, plant):
    running.ask("systemctl --no-block poweroff")
    running.wait_off(MINUTES_S)
    assert running.process.returncode == 0
