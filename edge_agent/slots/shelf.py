"""The slots on disk.

slots/state.json        `machine.Slots`, replaced whole
slots/DIGEST/           a bundle; there is no such folder unless it is whole and proven
slots/DIGEST.new/       one that is being unpacked; left by a crash, it goes
slots/PACKAGE.part      a package on its way; a crash leaves what has come, and the rest follows
slots/wish.json         what the owner wants, left here by the command line for the program that runs

What is deliberately absent: when anything happens (`machine`), and who makes it happen (`keeper`).
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edge_agent.slots.machine import Offered, Slots
from fd_protocol.documents import InvalidDocumentError, Place, build, from_json, to_json
from fd_runtime.files import write_atomically

_HEX = 64

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the owner wants: the slot before, or the bundle in the package at `path`, absolute."""

    is_back: bool = False
    offered: Offered | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The folder of the slots; made by the first `save`."""

    folder: Path

    def load(self) -> Slots:
        """Return the state; a damaged one is set aside, and the device runs what its settings name.

        Keys of a later agent are passed over: who goes back to this version keeps its slots.
        """
        path = self.folder / "state.json"
        try:
            return _read(path)
        except FileNotFoundError:
            return Slots()
        except InvalidDocumentError as error:
            log.error("the slots are as at the beginning: %s", error)  # noqa: TRY400 - the line says it all
            path.replace(path.with_suffix(".damaged"))
            return Slots()

    def save(self, state: Slots) -> None:
        """Raises: OSError: no room; the state before stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "state.json", to_json(state), mode=0o600)

    def slot(self, digest: str) -> Path:
        return self.folder / digest

    def checkpoint(self, digest: str) -> Path:
        """What the device has learnt with this bundle."""
        return self.folder / f"{digest}.checkpoint"

    def part(self, package: str) -> Path:
        return self.folder / f"{package}.part"

    def leave_wish(self, wish: Wish) -> None:
        """Raises: OSError: no room."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "wish.json", to_json(wish), mode=0o600)

    def wish(self) -> Wish | None:
        """Return what the owner wants; what cannot be read is no wish."""
        path = self.folder / "wish.json"
        try:
            return from_json(Wish, path.read_bytes(), Place(path, InvalidDocumentError))
        except FileNotFoundError:
            return None
        except (InvalidDocumentError, OSError) as error:
            log.warning("no wish: %s", error)
            self.forget_wish()
            return None

    def forget_wish(self) -> None:
        (self.folder / "wish.json").unlink(missing_ok=True)

    def tidy(self, state: Slots) -> None:
        """Remove what no slot of `state` needs. What cannot be removed is left for the next time."""
        package = state.release.package if state.release else ""
        for path in self.folder.glob("*"):
            digest, _, kind = path.name.partition(".")
            is_needed = digest == package if kind == "part" else digest in state.kept and kind != "new"
            if is_needed or not _is_ours(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_ours(name: str) -> bool:
    digest, _, kind = name.partition(".")
    is_digest = len(digest) == _HEX and set(digest) <= set("0123456789abcdef")
    # What was learnt is in a family of files: that under privacy terms, and a training that is not over (`learned`).
    return is_digest and (kind in ("", "new", "part") or kind.startswith("checkpoint"))


def _read(path: Path) -> Slots:
    place = Place(path, InvalidDocumentError)
    data = path.read_bytes()
    try:
        return from_json(Slots, data, place)
    except InvalidDocumentError as error:
        try:
            table = json.loads(data)
        except ValueError:
            raise error from None
    return build(Slots, _known(table), place)


def _known(table: Any) -> Any:
    """Leave out keys that this version does not know, of the state and of the bundles that it names."""
    if not isinstance(table, dict):
        return table
    names = {field.name for field in fields(Slots)} | {field.name for field in fields(Offered)}
    return {key: _known(value) for key, value in table.items() if key in names}
