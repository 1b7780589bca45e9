"""`edge-agent doctor`: a verdict a line, and what to do about it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edge_agent.care import doctor
from edge_agent.cli.output import table, tell
from edge_agent.cli.place import config_path
from fd_runtime.findings import Finding


def run(arguments: argparse.Namespace) -> int:
    found = doctor.examine(lambda: config_path(arguments), doctor.utc_now(), offline=arguments.offline)
    findings = list(found)
    told = [{**asdict(one), "verdict": one.verdict.value} for one in findings]
    tell(
        arguments, told, table(("check", "verdict", "what was found, and what to do"), [_row(one) for one in findings])
    )
    return doctor.first_failure(findings)


def _row(one: Finding) -> tuple[str, str, str]:
    remedy = f" -> {one.remedy}" if one.remedy else ""
    return one.check, one.verdict.value, f"{one.found}{remedy}"
