"""The computer that a device runs on: heat, memory, disk, clock. What a system does not tell is None."""

from __future__ import annotations

import shutil
from pathlib import Path

_THERMAL = Path("/sys/class/thermal")
_MEMORY = Path("/proc/meminfo")
_MIB = 1 << 20
FIRST_YEAR_UTC_S = 1_735_689_600
"""Start of 2025: no clock that was ever set says less."""


def temperature_c(folder: Path = _THERMAL) -> float | None:
    """Return what the hottest thermal zone says."""
    readings = []
    for zone in sorted(folder.glob("thermal_zone*/temp")):
        try:
            readings.append(int(zone.read_text()) / 1000)
        except (OSError, ValueError):  # a sensor that is off says so by an error
            continue
    return max(readings, default=None)


def memory_mb(name: str, path: Path = _MEMORY) -> float | None:
    """Return a line of /proc/meminfo such as `MemAvailable`, in MiB."""
    return _line_mb(path, name)


def resident_mb(pid: int | str = "self") -> float | None:
    """Return the resident memory of a process, in MiB."""
    return _line_mb(Path(f"/proc/{pid}/status"), "VmRSS")


def free_disk_mb(folder: Path) -> float:
    """Return what is free where `folder` lies or would lie, in MiB; raises OSError where that cannot be told."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    return shutil.disk_usage(existing).free / _MIB


def _line_mb(path: Path, name: str) -> float | None:
    """Return the line `Name:   123 kB`, in MiB."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)
    except (OSError, ValueError, IndexError):
        return None
