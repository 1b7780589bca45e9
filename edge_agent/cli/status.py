"""`edge-agent status`: where the device stands, once or again and again."""

from __future__ import annotations

import argparse
import json
import sys
import time

from edge_agent.care import status
from edge_agent.cli.output import facts, tell
from edge_agent.cli.place import config_path

_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_LEAST_S = 0.2


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments)
    if arguments.watch is None:
        told = status.facts(path)
        tell(arguments, told, facts(told))
        return 0
    while True:  # until Ctrl-C, which `run_program` knows
        told = status.facts(path)
        if arguments.json:
            print(json.dumps(told, ensure_ascii=False), flush=True)
        else:
            print(f"{_HOME_AND_CLEAR if sys.stdout.isatty() else ''}{facts(told)}\n", flush=True)
        time.sleep(max(_LEAST_S, arguments.watch))
