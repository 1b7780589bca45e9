"""Where a program's settings file lies: it is named, or lies where one looks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_CONFIG


class NoSettingsError(FedistillError):
    """No settings file was named, and none lies where one looks.

    Attributes:
        remedy: what to do once there is one; empty: nothing.
    """

    exit_code = EX_CONFIG

    def __init__(self, message: str, remedy: str = "") -> None:
        self.remedy = remedy
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class SettingsPlace:
    """Where one program looks.

    Attributes:
        name: of the file.
        variable: of the environment, which may name it.
        system: where the service has it that systemd runs.
        writer: the command that writes one here.
        remedy: what its reader must change in a new one.
    """

    name: str
    variable: str
    system: Path
    writer: str
    remedy: str = ""

    @property
    def told(self) -> str:
        """Return where it looks, for a help text."""
        return f"else ${self.variable}, {self.name} here, or {self.system}"

    def find(self, named: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
        """Return `named`, what the environment names, or the first that there is: here, the system's.

        Raises:
            NoSettingsError: nothing is named, and there is none.
        """
        if named is not None:
            return named
        if environ.get(self.variable):
            return Path(environ[self.variable])
        for path in (Path(self.name), self.system):
            if path.is_file():
                return path
        raise NoSettingsError(
            f"no {self.name} here, none at {self.system}: `{self.writer}` writes one, --config FILE names one",
            self.remedy,
        )
