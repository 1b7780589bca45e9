"""What a device gets that was away while rounds went on: where the broker queued for it, and where it had stopped to.

    python benchmarks/absent.py [--rounds 31] [--write]

Four digits devices over the in-memory broker, real agents, server and codecs; one of them is off from round 1 to the
last. Bytes are packets to it, as they lie on the wire, from its return until it has trained on the last consensus.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from publish import publish

from edge_agent import presence
from fleet_sim.factory import Equipment, equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.quiet import only_errors
from fleet_sim.scenario import PRESETS
from fleet_sim.worlds import World, digits

DEVICES, SEED = 4, 0
SESSIONS = {"14 days, as agents had it": 14 * 86_400, "5 minutes": presence.SESSION_S}


@only_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    world = digits(SEED, devices=DEVICES)
    with TemporaryDirectory() as folder:
        equipment = equip(world, PRESETS["digits"].models, SEED, Path(folder))
        rows = {name: came_back(world, equipment, arguments.rounds, s) for name, s in SESSIONS.items()}
    lines = ["| the broker queues for | bytes down at the return | consensuses that it trained on |", "|---|---|---|"]
    lines += [f"| {name} | {count:,} | {trained} |" for name, (count, trained) in rows.items()]
    body = "\n".join([f"Away for {arguments.rounds - 1} of {arguments.rounds} rounds, 600 probes.", "", *lines])
    print(body)
    if arguments.write:
        publish("absent", f"python benchmarks/absent.py --rounds {arguments.rounds} --write", body)


def came_back(world: World, equipment: Equipment, rounds: int, session_s: int) -> tuple[int, int]:
    """Return the bytes that the device got when it came back, and on how many consensuses it trained then."""
    presence.SESSION_S = session_s
    simulation = Simulation(replace(PRESETS["digits"], devices=DEVICES, rounds=rounds), world, equipment, SEED)
    server = simulation.server
    server.crash()
    server.settings = replace(
        server.settings, rounds=replace(server.settings.rounds, minimum_online=DEVICES - 1, most_uncovered=1.0)
    )
    server.start()
    *present, absent = simulation.devices
    play = simulation.run()
    next(play)
    simulation.settle()
    absent.crash()
    simulation.devices = present  # nobody gives it time to run
    for result in play:
        if result.number == rounds:
            break
    simulation.settle()
    before, taken = simulation.broker.received_bytes[absent.id], absent.agent.state.taken
    absent.start()
    simulation.devices = [*present, absent]
    simulation.settle()
    trained = [digest for digest in absent.agent.state.taken if digest not in taken]
    return simulation.broker.received_bytes[absent.id] - before, len(trained)


if __name__ == "__main__":
    main()
