"""`edge-agent diag collect`: one archive for whoever helps, without secrets and without a private row."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.care import doctor
from edge_agent.care.archive import collect
from edge_agent.care.look import look
from edge_agent.cli.config import values
from edge_agent.cli.output import tell
from edge_agent.cli.place import config_path
from fd_runtime.version import VERSION


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    seen, now = look(path), doctor.utc_now()
    out = arguments.out or Path(f"diag-{seen.settings.device.id}-{now:%Y%m%dT%H%M%S}.tar.gz")
    findings = list(doctor.examine(lambda: path, now, offline=True))
    names = collect(seen, values(path), findings, out, version=VERSION, now_utc_s=now.timestamp())
    told = {"archive": str(out), "bytes": out.stat().st_size, "holds": names}
    lines = [f"{out}, {out.stat().st_size} bytes: {', '.join(names)}", "look into it before you hand it on: tar -xOzf"]
    tell(arguments, told, "\n".join(lines))
    return 0
