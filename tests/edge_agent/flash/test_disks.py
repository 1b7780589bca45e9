"""Which disk may be written over: a card, and nothing else unless told twice. sysfs is laid out as the kernel does."""

import os
import subprocess
from pathlib import Path

import pytest

from edge_agent.flash.disks import Disk, Kernel, check_may_be_written, look_at_disk
from edge_agent.flash.errors import NoRoomError, RefusedError

GB = 10**9
SDB = Path("/dev/sdb")


class Machine:
    """A machine's /sys and /proc, made of files."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "sys/dev/block").mkdir(parents=True)
        (folder / "mountinfo").write_text("")
        (folder / "swaps").write_text("Filename Type Size Used Priority\n")
        self.kernel = Kernel(folder / "sys", folder / "mountinfo", folder / "swaps")

    def disk(self, name, number, /, *, removable=False, parts=(), size=32 * GB, **device):
        place = self.folder / "sys/block" / name
        (place / "device").mkdir(parents=True)
        (place / "removable").write_text(f"{int(removable)}\n")
        (place / "size").write_text(f"{size // 512}\n")
        for key, text in device.items():
            (place / "device" / key).write_text(f"{text}\n")
        self._number(place, number)
        for index, part in enumerate(parts, 1):
            (place / part).mkdir()
            (place / part / "partition").write_text(f"{index}\n")
            major, minor = number.split(":")
            self._number(place / part, f"{major}:{int(minor) + index}")

    def _number(self, place, number):
        (place / "dev").write_text(f"{number}\n")
        (place / "holders").mkdir()
        (self.folder / "sys/dev/block" / number).symlink_to(place)

    def mount(self, number, place):
        with (self.folder / "mountinfo").open("a") as file:
            file.write(f"36 35 {number} / {place} rw,relatime shared:1 - ext4 /dev/x rw\n")

    def look(self, number, path=SDB):
        return look_at_disk(path, self.kernel, tuple(map(int, number.split(":"))))


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_card_in_a_reader_may_be_written(machine):
    machine.disk("sdb", "8:16", removable=True, parts=("sdb1", "sdb2"), model="STORAGE  DEVICE")
    disk = machine.look("8:16")
    assert disk == Disk(SDB, "STORAGE DEVICE", 32 * GB, True, ())
    check_may_be_written(disk, 3 * GB, told_twice=None)


def test_a_card_in_a_slot_on_the_board_is_a_card_though_the_kernel_calls_it_fixed(machine):
    machine.disk("mmcblk0", "179:0", type="SD", name="SC32G")
    assert machine.look("179:0").is_card
    machine.disk("mmcblk1", "179:8", type="MMC", name="eMMC")
    assert not machine.look("179:8").is_card


def refused(disk, why, told_twice=None, size=3 * GB):
    with pytest.raises(RefusedError, match=why):
        check_may_be_written(disk, size, told_twice=told_twice)


def test_a_disk_that_is_built_in_is_refused_until_told_twice(machine):
    machine.disk("sdb", "8:16", model="Samsung SSD")
    disk = machine.look("8:16")
    refused(disk, "is built in, 32 GB Samsung SSD; .* --overwrite /dev/sdb")
    check_may_be_written(disk, 3 * GB, told_twice=SDB)


def test_a_card_that_is_mounted_is_refused_until_told_twice(machine):
    machine.disk("sdb", "8:16", removable=True, parts=("sdb1",))
    machine.mount("8:17", "/media/me/boot\\040fs")
    disk = machine.look("8:16")
    assert disk.mounted == ("/media/me/boot fs",)
    refused(disk, "is in use .*/media/me/boot fs.*unmount it; .* --overwrite /dev/sdb")
    check_may_be_written(disk, 3 * GB, told_twice=SDB)


def test_telling_twice_names_the_same_disk_twice(machine):
    machine.disk("sdb", "8:16")
    refused(machine.look("8:16"), "which one", told_twice=Path("/dev/sda"))


@pytest.mark.parametrize("place", ["/", "/boot", "/usr"])
def test_the_disk_that_this_machine_runs_from_is_never_written(machine, place):
    machine.disk("sdb", "8:16", removable=True, parts=("sdb1",))
    machine.mount("8:17", place)
    refused(machine.look("8:16"), "this machine runs from it", told_twice=SDB)


def test_a_disk_that_is_swapped_to_is_never_written(machine):
    machine.disk("sdb", "8:16", removable=True, parts=("sdb1",))
    with (machine.folder / "swaps").open("a") as file:
        file.write("/dev/sdb1 partition 1048572 0 -2\n")
    refused(machine.look("8:16"), "this machine runs from it", told_twice=SDB)


def test_a_disk_that_something_stands_on_is_in_use(machine):
    machine.disk("sdb", "8:16", removable=True, parts=("sdb1",))
    (machine.folder / "sys/block/sdb/sdb1/holders/dm-0").mkdir()
    refused(machine.look("8:16"), "held by dm-0")


def test_a_card_that_is_too_small_is_refused_whatever_was_told(machine):
    machine.disk("sdb", "8:16", removable=True, size=2 * GB)
    with pytest.raises(NoRoomError, match=r"3000\.0 MB needed, 2000\.0 MB free"):
        check_may_be_written(machine.look("8:16"), 3 * GB, told_twice=SDB)


def test_a_slot_without_a_card_is_too_small(machine):
    machine.disk("sdb", "8:16", removable=True, size=0)
    with pytest.raises(NoRoomError):
        check_may_be_written(machine.look("8:16"), 3 * GB, told_twice=None)


def test_a_partition_is_refused(machine):
    machine.disk("sdb", "8:16", removable=True, parts=("sdb1",))
    with pytest.raises(RefusedError, match="is a partition; name the whole disk"):
        machine.look("8:17")


def test_what_is_no_disk_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match="is no disk"):
        look_at_disk(tmp_path / "file")
    with pytest.raises(RefusedError, match="no such disk"):
        look_at_disk(tmp_path / "nowhere")


def test_a_disk_that_the_kernel_does_not_know_is_refused(machine):
    with pytest.raises(RefusedError, match="knows no such disk"):
        machine.look("8:16")


@pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root")
def test_the_real_kernel_calls_a_loop_device_built_in(tmp_path):
    (tmp_path / "backing").write_bytes(bytes(1 << 20))
    done = subprocess.run(
        ["losetup", "-f", "--show", tmp_path / "backing"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    path = Path(done.stdout.strip())
    try:
        disk = look_at_disk(path)
        assert (disk.size, disk.is_card, disk.mounted) == (1 << 20, False, ())
        refused(disk, "is built in", size=1000)
    finally:
        subprocess.run(["losetup", "-d", path], check=True)
