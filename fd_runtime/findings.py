"""What a doctor finds: a verdict a line, and what to do about it. Shared by the programs that have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from fd_protocol.errors import FedistillError
from fd_runtime.config import exit_code_for


class Verdict(str, Enum):
    """Of one look."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found; `remedy` is empty where nothing is to be done, `exit_code` 0 where it has not failed."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""
    exit_code: int = 0


class FaultError(FedistillError):
    """What a look found must not be so; `remedy` replaces the usual one where it is not empty."""

    def __init__(self, found: str, exit_code: int, remedy: str = "") -> None:
        self.exit_code, self.remedy = exit_code, remedy
        super().__init__(found)


Look: TypeAlias = Callable[[], Finding]


def examine_one(check: str, look: Look, remedy: str) -> Finding:
    """Return what `look` finds; what it raises is a failure, with its own `remedy` where it has one, else this."""
    try:
        return look()
    except (FedistillError, OSError, ImportError) as error:
        own = getattr(error, "remedy", "")
        return Finding(check, Verdict.FAILED, " ".join(str(error).split()), own or remedy, exit_code_for(error))
