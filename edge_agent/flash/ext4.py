"""Files in an ext4 partition that is not mounted, through debugfs."""

from __future__ import annotations

from pathlib import Path

from edge_agent.flash import tools


class Ext4:
    """An ext4 file system that begins at byte `offset` of a file. It is only read.

    Names begin with '/', and hold no space: debugfs would see two words.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self._image = f"{path}?offset={offset}"

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None where there is none."""
        done = tools.run("debugfs", "-R", f"cat {name}", self._image)
        return None if _is_missing(done.stderr) else done.stdout

    def has(self, name: str) -> bool:
        done = tools.run("debugfs", "-R", f"stat {name}", self._image)
        return not _is_missing(done.stderr) and bool(done.stdout)

    def names(self, folder: str) -> frozenset[str]:
        """Return what lies in a folder; nothing where there is none."""
        said = tools.run("debugfs", "-R", f"ls -p {folder}", self._image).stdout.decode("utf-8", "replace")
        # /inode/mode/uid/gid/name/size/
        rows = [line.split("/") for line in said.splitlines() if line.startswith("/")]
        return frozenset(row[5] for row in rows if len(row) > 5) - {".", ".."}


def _is_missing(complaint: bytes) -> bool:
    return b"File not found" in complaint or b"Bad magic" in complaint
