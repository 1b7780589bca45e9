"""Files in a FAT partition that is not mounted, through mtools."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_agent.flash import tools
from edge_agent.flash.contents import Content, lay_out, read_tree, size_of
from edge_agent.flash.errors import NoRoomError

_FREE = re.compile(r"([\d ]+) bytes free")
_CLUSTER_BYTES = 64 * 1024  # the largest that FAT has; what a file takes is a whole number of them


class Fat:
    """A FAT file system that begins at byte `offset` of a file or a card.

    Names have '/' between folders, and none at the front.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._drive = f"{path}@@{offset}"

    @property
    def label(self) -> str:
        """Return the volume's name; empty where it has none."""
        said = tools.run("mlabel", "-s", "-i", self._drive, "::").stdout.decode("ascii", "replace")
        return said.partition("Volume label is ")[2].split("(")[0].strip()

    def names(self) -> frozenset[str]:
        """Return what lies in the root, files and folders."""
        said = tools.run("mdir", "-b", "-a", "-i", self._drive, "::/").stdout.decode("utf-8", "replace")
        return frozenset(line.removeprefix("::/").rstrip("/") for line in said.splitlines() if line.startswith("::/"))

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None where there is none of that name."""
        done = tools.run("mcopy", "-i", self._drive, f"::/{name}", "-", codes=(0, 1))
        return done.stdout if done.returncode == 0 else None

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield every file and its bytes."""
        with TemporaryDirectory(prefix="fat-") as name:
            folder = Path(name)
            if self.names():
                tools.run("mcopy", "-s", "-n", "-Q", "-i", self._drive, "::/*", folder)
            yield from read_tree(folder)

    def put(self, files: Mapping[str, Content], *, replaced_folder: str = "") -> None:
        """Write files over what is there; `replaced_folder` goes before.

        Raises:
            NoRoomError: they do not fit.
            ToolError: mtools failed.
        """
        if replaced_folder and replaced_folder in self.names():
            tools.run("mdeltree", "-i", self._drive, f"::/{replaced_folder}")
        needed = sum(-(-size_of(content) // _CLUSTER_BYTES) * _CLUSTER_BYTES for content in files.values())
        if needed > self.free_bytes():
            raise NoRoomError("the image's boot partition", needed, self.free_bytes())
        with TemporaryDirectory(prefix="fat-") as name:
            folder = Path(name)
            lay_out(files, folder)
            tools.run("mcopy", "-s", "-o", "-Q", "-i", self._drive, *sorted(folder.iterdir()), "::/")

    def free_bytes(self) -> int:
        said = tools.run("mdir", "-i", self._drive, "::/", codes=(0, 1)).stdout.decode("ascii", "replace")
        match = _FREE.search(said)
        return int(match[1].replace(" ", "")) if match else 0
