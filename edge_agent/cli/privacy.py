"""`edge-agent privacy`: the device's privacy terms, and what it has spent under them."""

from __future__ import annotations

import argparse

from edge_agent.cli.output import facts, table, tell
from edge_agent.cli.place import config_path
from edge_agent.configuration import load_settings
from edge_agent.privacy.facts import facts as facts_of
from fd_runtime.starting import blame


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    settings = load_settings(path)
    with blame(path, "state.folder"):
        told = facts_of(settings.state.privacy, settings.privacy)
    text = facts({name: value for name, value in told.items() if name != "trainings"})
    if told["trainings"]:
        rows = [
            (one["at"], f"{one['epsilon']:g}", f"{one['delta']:g}", str(one["steps"]), one["bundle"][:16], one["state"])
            for one in told["trainings"]
        ]
        text += "\n\n" + table(("training at", "epsilon", "delta", "steps", "bundle", "state"), rows)
    tell(arguments, told, text)
    return 0
