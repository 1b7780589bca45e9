"""What is on an image or a mounted card: the facts by which it is recognised. Reads, and writes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.flash import tools
from edge_agent.flash.boards import Facts, is_boot_partition
from edge_agent.flash.errors import NotRecognisedError
from edge_agent.flash.ext4 import Ext4
from edge_agent.flash.fat import Fat
from edge_agent.flash.partitions import Kind, Partition, partitions

_PYTHON = re.compile(r"python3\.(\d+)")
_LIBRARIES = {"arm64": "/usr/lib/aarch64-linux-gnu", "amd64": "/usr/lib/x86_64-linux-gnu"}
_TOOLS = {"cloud-init": "/usr/bin/cloud-init", "rpi-preseed": "/usr/lib/rpi-preseed/rpi-preseed"}


@dataclass(frozen=True, slots=True)
class Seen:
    """An image, the partition that a first boot reads, and what it is recognised by."""

    boot: Partition
    facts: Facts


def look_at_image(image: Path) -> Seen:
    """Look at an image of a whole card.

    Raises:
        NotRecognisedError: no partition that a first boot reads.
        ToolError: mtools is not installed.
    """
    table = partitions(image)
    for part in (one for one in table if one.kind is Kind.FAT):
        fat = Fat(image, part.start)
        names, label = fat.names(), fat.label
        if is_boot_partition(names, label):
            issue = (fat.read("issue.txt") or b"").decode("utf-8", "replace")
            return Seen(part, _with_root(Facts(names, label, issue), image, table))
    raise NotRecognisedError(
        f"{image.name}: no boot partition of a Raspberry Pi, none with user-data and meta-data, none labelled CIDATA"
    )


def look_at_card(folder: Path) -> Facts:
    """Look at a boot partition that is mounted at `folder`. Its label is that of the folder, as desktops have it.

    Raises:
        NotRecognisedError: no such folder.
    """
    if not folder.is_dir():
        raise NotRecognisedError(f"{folder}: no such folder")
    issue = folder / "issue.txt"
    text = issue.read_text("utf-8", "replace") if issue.is_file() else ""
    return Facts(frozenset(path.name for path in folder.iterdir()), folder.absolute().name, text)


def python_of(names: Iterable[str]) -> str:
    """Return the newest Python of the programs in a folder, such as 3.13; empty where there is none."""
    minors = [int(match[1]) for name in names if (match := _PYTHON.fullmatch(name))]
    return f"3.{max(minors)}" if minors else ""


def _with_root(facts: Facts, image: Path, table: tuple[Partition, ...]) -> Facts:
    """Return the facts with those of the root file system, where one is there and debugfs is."""
    if not tools.has("debugfs"):
        return facts
    for part in (one for one in table if one.kind is Kind.EXT):
        root = Ext4(image, part.start)
        release = root.read("/usr/lib/os-release")
        if release is None:
            continue
        return Facts(
            facts.boot_files,
            facts.label,
            facts.issue,
            release=_release(release.decode("utf-8", "replace")),
            tools=frozenset(name for name, path in _TOOLS.items() if root.has(path)),
            python=python_of(root.names("/usr/bin")),
            architectures=frozenset(name for name, path in _LIBRARIES.items() if root.has(path)),
        )
    return facts


def _release(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip().strip('"') for key, _, value in pairs}
