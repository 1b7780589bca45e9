"""Images of cards, made here: stock Raspberry Pi OS cannot be fetched, so these have its layout, names and marks.

A table with a FAT partition from 4 MiB and an ext4 one behind it; on them what `flash` looks at. pi-gen names the files
and fills them so (issue.txt, cmdline.txt, user-data ...); real images were not seen, their sources were read.
No root and no mount: sfdisk, mkfs.vfat, mcopy, and mke2fs -d.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

MIB = 1 << 20
TOOLS = ("mcopy", "mdir", "mkfs.vfat", "sfdisk", "mke2fs", "debugfs")
_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin"


def lacking() -> str:
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_SBIN) is None]
    return f"not installed: {', '.join(missing)} (apt install mtools dosfstools fdisk e2fsprogs)" if missing else ""


needs_card_tools = pytest.mark.skipif(bool(lacking()), reason=lacking())

CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait quiet "
)
FIRSTBOOT = "init=/usr/lib/raspberrypi-sys-mods/firstboot"
PI_FIRMWARE = {
    "config.txt": b"arm_64bit=1\n",
    "bootcode.bin": bytes(range(256)) * 200,
    "start4.elf": b"\x7fELF" + bytes(50_000),
    "kernel8.img": bytes(range(256)) * 1000,
    "overlays/README": b"overlays\n",
    "overlays/disable-wifi.dtbo": b"dtbo",
}
ARM64_ROOT = {"usr/lib/aarch64-linux-gnu/libc.so.6": b"", "usr/lib/ld-linux-aarch64.so.1": b""}


def os_release(name: str, version: str, codename: str) -> bytes:
    pretty = f"Debian GNU/Linux {version} ({codename})" if name == "debian" else f"{name.title()} {version}"
    return f'ID={name}\nVERSION_ID="{version}"\nVERSION_CODENAME={codename}\nPRETTY_NAME="{pretty}"\n'.encode()


@dataclass(frozen=True)
class CardImage:
    """What is on an image: files of the boot partition, files of the root, and noise there of so many MiB.

    `system` is a folder whose root file system takes the place of those files.
    """

    boot: dict[str, bytes] = field(default_factory=dict)
    root: dict[str, bytes] = field(default_factory=dict)
    label: str = "bootfs"
    boot_mib: int = 64
    root_mib: int = 24
    noise_mib: int = 0
    table: str = "dos"
    system: Path | None = None

    def make(self, path: Path) -> Path:
        """Write the image."""
        work = path.parent / f".{path.name}.parts"
        work.mkdir()
        lay_out(self.boot, work / "boot")
        lay_out(self.root, work / "root")
        with (work / "root" / "noise").open("wb") as file:
            file.writelines(os.urandom(MIB) for _ in range(self.noise_mib))
        fat, ext = work / "fat", work / "ext"
        fat.write_bytes(b"")
        subprocess.run(["truncate", "-s", f"{self.boot_mib}M", fat], check=True)
        cluster = "1" if self.boot_mib < 256 else "4"  # as pi-gen has it; a small FAT32 needs small ones
        run("mkfs.vfat", "-F", "32", "-s", cluster, "-i", "4E639091", "-n", self.label, fat)
        for one in sorted((work / "boot").iterdir()):
            run("mcopy", "-s", "-i", fat, one, "::/")
        run("mke2fs", "-q", "-t", "ext4", "-d", self.system or work / "root", ext, f"{self.root_mib}M")
        first, second = 4 * MIB, (4 + self.boot_mib) * MIB
        with path.open("wb") as file:
            file.truncate((4 + self.boot_mib + self.root_mib + 1) * MIB)
        kinds = ("c", "83") if self.table == "dos" else ("U", "L")
        script = "label: dos\nlabel-id: 0x4e639091\n" if self.table == "dos" else "label: gpt\n"
        script += f"{first // 512},{self.boot_mib}M,{kinds[0]}\n{second // 512},{self.root_mib}M,{kinds[1]}\n"
        run("sfdisk", "-q", path, text=script)
        with path.open("r+b") as file:
            for start, part in ((first, fat), (second, ext)):
                file.seek(start)
                with part.open("rb") as source:
                    _copy(source, file)
        shutil.rmtree(work)
        return path


def _copy(source: BinaryIO, file: BinaryIO) -> None:
    """Append, and leave holes where nothing is: a root file system is mostly room."""
    while piece := source.read(MIB):
        if piece.count(0) == len(piece):
            file.seek(len(piece), os.SEEK_CUR)
        else:
            file.write(piece)


def lay_out(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(program: str, *words: str | Path, text: str | None = None) -> str:
    found = shutil.which(program, path=_SBIN)
    assert found, program
    done = subprocess.run(
        [found, *map(str, words)],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={"MTOOLS_SKIP_CHECK": "1", "PATH": _SBIN, "LC_ALL": "C"},
    )
    assert done.returncode == 0, f"{program} {words}: {done.stderr}"
    return done.stdout


PI_ROOT = {
    **ARM64_ROOT,
    "usr/lib/raspberrypi-sys-mods/firstboot": b"#!/bin/bash\n",
    "usr/lib/userconf-pi/userconf": b"#!/bin/sh\n",
}

BOOKWORM = CardImage(
    boot={
        **PI_FIRMWARE,
        "cmdline.txt": f"{CMDLINE}{FIRSTBOOT}\n".encode(),
        "issue.txt": b"Raspberry Pi reference 2025-05-13\nGenerated using pi-gen, stage2\n",
    },
    root={
        **PI_ROOT,
        "usr/lib/os-release": os_release("debian", "12", "bookworm"),
        "usr/bin/python3.11": b"\x7fELF",
        "usr/lib/raspberrypi-sys-mods/imager_custom": b"#!/bin/sh\n",
    },
)
STOCK_USER_DATA = (
    b"#cloud-config\n\n# This is the user-data configuration file\n#hostname: raspberrypi\nssh_pwauth: false\n"
)
TRIXIE = CardImage(
    boot={
        **PI_FIRMWARE,
        "cmdline.txt": f"{CMDLINE}resize\n".encode(),
        "issue.txt": b"Raspberry Pi reference 2025-11-24\nGenerated using pi-gen, stage2\n",
        "user-data": STOCK_USER_DATA,
        "meta-data": b"# comments\ndsmode: local\ninstance_id: rpios-image\n",
        "network-config": b"network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n      optional: true\n",
    },
    root={
        **PI_ROOT,
        "usr/lib/os-release": os_release("debian", "13", "trixie"),
        "usr/bin/python3.13": b"\x7fELF",
        "usr/bin/cloud-init": b"#!/usr/bin/python3\n",
    },
)
TRIXIE_FIRST = CardImage(  # of 2025-10-01: no cloud-init yet, and no imager_custom any more
    boot={**BOOKWORM.boot, "issue.txt": b"Raspberry Pi reference 2025-10-01\nGenerated using pi-gen, stage2\n"},
    root={**PI_ROOT, "usr/lib/os-release": os_release("debian", "13", "trixie"), "usr/bin/python3.13": b"\x7fELF"},
)
PRESEED = CardImage(
    boot={**BOOKWORM.boot, "issue.txt": b"Raspberry Pi reference 2026-09-01\nGenerated using pi-gen, stage2\n"},
    root={
        **PI_ROOT,
        "usr/lib/os-release": os_release("debian", "13", "trixie"),
        "usr/bin/python3.13": b"\x7fELF",
        "usr/lib/rpi-preseed/rpi-preseed": b"#!/bin/sh\n",
    },
)
UBUNTU = CardImage(
    boot={
        **PI_FIRMWARE,
        "cmdline.txt": b"console=serial0,115200 root=LABEL=writable rootfstype=ext4 rootwait fixrtc\n",
        "user-data": b"#cloud-config\nchpasswd:\n  expire: true\n",
        "meta-data": b"instance-id: cloud-image\n",
        "network-config": b"version: 2\nethernets:\n  eth0:\n    dhcp4: true\n    optional: true\n",
    },
    root={
        **ARM64_ROOT,
        "usr/lib/os-release": os_release("ubuntu", "24.04", "noble"),
        "usr/bin/python3.12": b"\x7fELF",
        "usr/bin/cloud-init": b"",
    },
    label="system-boot",
    table="gpt",
)
CIDATA = CardImage(
    boot={"user-data": b"#cloud-config\n", "meta-data": b"instance-id: nothing\n"},
    root={
        "usr/lib/x86_64-linux-gnu/libc.so.6": b"",
        "usr/lib/os-release": os_release("debian", "12", "bookworm"),
        "usr/bin/python3.11": b"\x7fELF",
        "usr/bin/cloud-init": b"",
    },
    label="CIDATA",
    table="gpt",
)
