"""Which system an image holds, and how it takes what its owner wants: rules over what lies on it.

    rpi-preseed in the root, no user-data on the boot partition    -> rpi-preseed.toml
    user-data and meta-data on the boot partition                  -> cloud-init (Trixie since 2025-11, Ubuntu, CIDATA)
    a Raspberry Pi's boot partition without them                   -> firstrun.sh (Bookworm, Trixie of 2025-10-01)

Image and card are told by what is on them, never by their file's name. Where only the boot partition can be seen, as on
a card that a desktop has mounted, pi-gen's issue.txt gives the date and that the release; what it does not tell, the
owner says. Nothing here reads a disk.

Source: raspberrypi/rpi-imager doc/os_customisation_formats.md, RPi-Distro/pi-gen stage2/04-cloud-init,
raspberrypi/rpi-preseed, cloud-init's NoCloud.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from edge_agent.flash.errors import NotRecognisedError

_PI_FILES = frozenset({"config.txt", "cmdline.txt"})
_CLOUD_FILES = frozenset({"user-data", "meta-data"})
_ISSUE = re.compile(r"reference (\d{4}-\d{2}-\d{2})")
_TRIXIE_SINCE = "2025-10-01"  # release of the first image of Trixie
_PYTHON_OF = {"bookworm": "3.11", "trixie": "3.13"}
_OLDEST = 10  # of Python 3
_PI_BOOT, _OWN_BOOT = "/boot/firmware", "/boot/fedistill"


class BoardName(Enum):
    """What an owner may call it."""

    RPI_BOOKWORM = "rpi-bookworm"
    RPI_TRIXIE = "rpi-trixie"
    GENERIC_CLOUDINIT = "generic-cloudinit"
    JETSON_JP6 = "jetson-jp6"
    JETSON_JP7 = "jetson-jp7"


class Mechanism(Enum):
    """What reads the boot partition at the first boot."""

    CLOUD_INIT = "cloud-init"
    FIRSTRUN = "firstrun.sh"
    PRESEED = "rpi-preseed"
    ROOTFS = "its root file system"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen on an image or card.

    Attributes:
        boot_files: names in the root of the boot partition.
        label: of the boot partition.
        issue: its issue.txt; empty where there is none.
        release: os-release of the root file system; empty where that could not be looked at.
        tools: of cloud-init and rpi-preseed those that the root file system has.
        python: the newest, such as 3.13; empty where none was seen.
        architectures: Debian's names of the processors that it has libraries for.
    """

    boot_files: frozenset[str]
    label: str = ""
    issue: str = ""
    release: Mapping[str, str] = field(default_factory=dict)
    tools: frozenset[str] = frozenset()
    python: str = ""
    architectures: frozenset[str] = frozenset()

    @property
    def is_pi(self) -> bool:
        return boot_has(self.boot_files, _PI_FILES)

    @property
    def has_cloud_files(self) -> bool:
        return boot_has(self.boot_files, _CLOUD_FILES)


@dataclass(frozen=True, slots=True)
class Board:
    """A system that can be flashed.

    Attributes:
        name: as an owner calls it.
        mechanism: how it takes settings.
        system: for people.
        boot: where the device mounts the partition that is written.
        label: of that partition.
        is_pi: has firmware, cmdline.txt and a radio that waits for its country.
        python: its Python, such as 3.13; empty where that was not seen.
        architecture: Debian's name; empty where that was not seen.
    """

    name: BoardName
    mechanism: Mechanism
    system: str
    boot: str
    label: str
    is_pi: bool
    python: str = ""
    architecture: str = ""

    @property
    def is_boot_mounted(self) -> bool:
        """Return whether the system mounts that partition by itself."""
        return self.boot != _OWN_BOOT


def boot_has(names: frozenset[str], wanted: frozenset[str]) -> bool:
    return wanted <= {name.lower() for name in names}


def is_boot_partition(names: frozenset[str], label: str) -> bool:
    """Return whether a FAT partition is one that a first boot reads."""
    return boot_has(names, _PI_FILES) or boot_has(names, _CLOUD_FILES) or label.upper() == "CIDATA"


def recognise(facts: Facts, said: BoardName | None = None) -> Board:
    """Return what `facts` are of.

    Args:
        facts: what was seen.
        said: what its owner takes it for; it fills gaps, and is never believed against the facts.

    Raises:
        NotRecognisedError: nothing that we know, a system that the agent does not run on, or not what was said.
    """
    if not is_boot_partition(facts.boot_files, facts.label):
        raise NotRecognisedError("no boot partition of a Raspberry Pi, and none that cloud-init reads")
    _check_runs_there(facts)
    name = _name(facts, said)
    if said not in (None, name):
        raise NotRecognisedError(f"this is {name.value}, not {said.value if said else ''}")
    return Board(
        name=name,
        mechanism=_mechanism(facts),
        system=facts.release.get("PRETTY_NAME") or name.value,
        boot=_PI_BOOT if facts.is_pi else _OWN_BOOT,
        label=facts.label,
        is_pi=facts.is_pi,
        python=facts.python or _PYTHON_OF.get(name.value.removeprefix("rpi-"), ""),
        architecture=min(facts.architectures) if facts.architectures else "arm64" if facts.is_pi else "",
    )


def _check_runs_there(facts: Facts) -> None:
    if facts.release and not facts.architectures:
        raise NotRecognisedError("its root file system is of no 64-bit processor that the agent runs on (arm64, amd64)")
    if facts.python and int(facts.python.removeprefix("3.")) < _OLDEST:
        raise NotRecognisedError(f"its Python is {facts.python}; the agent needs 3.{_OLDEST} or newer")
    if facts.release and not facts.python:
        raise NotRecognisedError("its root file system has no Python 3")
    if facts.release and not facts.is_pi and "cloud-init" not in facts.tools:
        raise NotRecognisedError("its root file system has no cloud-init: nothing would read what is written")


def _name(facts: Facts, said: BoardName | None) -> BoardName:
    if not facts.is_pi or facts.label == "system-boot" or facts.release.get("ID") == "ubuntu":
        return BoardName.GENERIC_CLOUDINIT
    codename = facts.release.get("VERSION_CODENAME", "")
    if not codename:
        codename = _codename_by_boot(facts)
    if not codename and said in (BoardName.RPI_BOOKWORM, BoardName.RPI_TRIXIE, BoardName.GENERIC_CLOUDINIT):
        return said
    if codename not in _PYTHON_OF:
        known = f"{BoardName.RPI_BOOKWORM.value}, {BoardName.RPI_TRIXIE.value} or, for Ubuntu, generic-cloudinit"
        raise NotRecognisedError(f"Raspberry Pi OS {codename or 'of unknown release'}: say --board {known}")
    return BoardName(f"rpi-{codename}")


def _codename_by_boot(facts: Facts) -> str:
    match = _ISSUE.search(facts.issue)
    if match is None:  # Ubuntu's boot partition has the same names, and no issue.txt
        return ""
    return "trixie" if match[1] >= _TRIXIE_SINCE else "bookworm"


def _mechanism(facts: Facts) -> Mechanism:
    if facts.has_cloud_files or not facts.is_pi:
        return Mechanism.CLOUD_INIT
    return Mechanism.PRESEED if "rpi-preseed" in facts.tools else Mechanism.FIRSTRUN
