"""A device's way to another bundle, life after life, as a program that can be killed at any moment.

    python -m tests.edge_agent.slots.journey SETTINGS OFFERED

A trial, or a verifier, that is killed takes this program with it: to a machine without power they are one.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from edge_agent.equipment import load_equipment
from edge_agent.settings import AgentSettings
from edge_agent.slots import keeper as keepers
from edge_agent.slots.keeper import Health, Helpers, Keeper, begin, trial_command, verify_command
from edge_agent.slots.machine import Nudged, Offered, Phase
from edge_agent.slots.shelf import Shelf
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import load_toml

AS_ONE = '"$@"; status=$?; [ $status -eq 137 ] && kill -9 $PPID; exit $status'
WELL = Health(is_ready=True, deaths=0)


def main(config: Path, offered: Offered) -> None:
    keepers._RETRY_S, keepers._TURN_S = (0.02, 0.05), 0.02
    settings = load_toml(config, AgentSettings)
    shelf = Shelf(settings.state.slots)
    while True:
        begin(shelf, load_bundle(settings.model.bundle).digest.hex())
        load_equipment(config)
        releases = replace(settings.releases, health_s=0.05, trial_s=60.0)
        as_one = ["sh", "-c", AS_ONE, "sh"]
        helpers = Helpers([*as_one, *trial_command(config)], [*as_one, *verify_command(config)])
        life = Keeper(shelf, releases, lambda: None, helpers, lambda: WELL, device="dev-1")
        while True:
            try:
                life.take(Nudged(offered))
                break
            except OSError:  # the disk is full: the broker would bring the nudge again
                time.sleep(0.02)
        while not (life.state.awaits_restart or life.state.phase is Phase.IDLE):
            time.sleep(0.01)
        state = life.state
        life.close()
        if state.phase is Phase.IDLE:
            sys.stdout.write(json.dumps({"active": state.active, "outcome": state.outcome, "bad": state.known_bad}))
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Offered(**json.loads(sys.argv[2])))
