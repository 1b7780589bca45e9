"""A bad hour of a federation of real programs, and its books afterwards.

    python -m benchmarks.chaos [--minutes 60] [--devices 4] [--seed N] [--keep FOLDER]

A federation of digits at a real broker, Mosquitto with TLS where it is installed, in rounds of 30 s at most. All the
time something is broken: programs, workers and the broker are killed; wires let nothing through for a while; clocks are
wrong (libfaketime, where it is installed); disks are full (each program has one of its own, where we are root). Then
everything is mended, and three rounds must close with every device heard.

The books: what a device has a receipt for must stand in the server's records, once; what a round heard must be what is
recorded of it; `broker-server verify` must make every kept consensus again, bit for bit; every round must have ended;
and no program may have ended by itself.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.chaos.books import Books, balance, lines_of, receipts_in
from benchmarks.chaos.faults import Chaos, own_clocks, own_disks
from broker_server.journal import Journal
from broker_server.records.chronicle import Chronicle, RoundRecord
from fd_runtime.storage.store import Store
from fleet_sim.factory import equip
from fleet_sim.real.fleet import AGGREGATOR, FEDERATION, Fleet, Stage, running_fleet
from fleet_sim.real.processes import ours
from fleet_sim.scenario import PRESETS
from fleet_sim.worlds import digits

_ROUND_S, _RECORDS, _SETTLE_S = 30, 2000, 300.0
_ENDLESS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave everything here, to look at")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        counts, books, settled_s = play(folder, asked.devices, 60 * asked.minutes, random.Random(asked.seed))
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    print(
        f"Seed {asked.seed}, {asked.minutes:g} minutes, {asked.devices} devices. {counts.total()} faults: {faults}.\n"
    )
    print("\n".join(lines_of(books)))
    print(f"\nThree rounds had every device {settled_s:.0f} s after the last fault was mended.")
    sys.exit(0 if books.are_balanced else 1)


def play(folder: Path, devices: int, seconds: float, chance: random.Random) -> tuple[Counter[str], Books, float]:
    """Break things for so long; return what was broken, the books, and after how many seconds all was well."""
    world, scenario = digits(0, devices=devices), replace(PRESETS["digits"], devices=devices, rounds=_ENDLESS)
    equipment = equip(world, scenario.models, 0, folder / "factory")
    names = (AGGREGATOR, *(f"device-{index}" for index in range(devices)))
    clocks, environments = own_clocks(folder / "clocks", names)
    stage = Stage(
        scenario,
        world,
        equipment,
        folder / "run",
        round_s=_ROUND_S,
        pause_s=1.0,
        records=_RECORDS,
        quorum=1,
        minimum_online=1,
        environment=lambda name: environments.get(name, {}),
    )
    with ExitStack() as stack:
        disks = own_disks(folder / "run" / "state", names, stack)
        fleet = stack.enter_context(running_fleet(stage, embedded_broker=False))
        chaos = Chaos(fleet, clocks, disks)
        wait_for(chaos, lambda rounds: bool(rounds) and bool(rounds[0].ended_ms))
        chaos.disturb(seconds, chance)
        settled_s = _settle(chaos, devices)
        return chaos.counts, _books(chaos), settled_s


def _settle(chaos: Chaos, devices: int) -> float:
    """Wait until three rounds in a row had every device, have the last one end, and return how long it took."""
    begun_s, begun_ms = time.monotonic(), time.time_ns() // 1_000_000
    wait_for(chaos, lambda rounds: sum(_is_whole(one, devices, begun_ms) for one in rounds[:4]) >= 3)
    settled_s = time.monotonic() - begun_s
    subprocess.run([ours("broker-server"), "pause", "--config", _settings(chaos.fleet)], check=True, stdout=sys.stderr)
    wait_for(chaos, lambda rounds: all(one.ended_ms for one in rounds[:1]))
    return settled_s


def _is_whole(one: RoundRecord, devices: int, begun_ms: int) -> bool:
    return one.opened_ms > begun_ms and one.phase == "closed" and one.heard == devices


def _books(chaos: Chaos) -> Books:
    fleet = chaos.fleet
    logs = {name: (fleet.folder / "logs" / f"{name}.log").read_text(errors="replace") for name in fleet.devices}
    with Store.view(fleet.server_store) as store:
        chronicle = Chronicle(store, FEDERATION)
        rounds = chronicle.rounds(_RECORDS)
        hearings = [one for record in rounds for one in chronicle.hearings(record.epoch, record.number)]
        counted = Journal(store, FEDERATION).counters().get("contribution.stored", 0)
    command = [ours("broker-server"), "verify", "--json", "--config", _settings(fleet)]
    verified = json.loads(subprocess.run(command, check=False, capture_output=True, text=True).stdout)
    books = balance(
        rounds,
        hearings,
        {name: receipts_in(log) for name, log in logs.items()},
        counted=counted,
        unmade=sum(one["verdict"] != "same" for one in verified),
        unasked=len(chaos.unasked),
    )
    print("\n".join((*books.suspects, *chaos.unasked)), file=sys.stderr)
    if not books.are_balanced:  # their disks are gone with their programs
        shutil.copytree(fleet.folder / "state", fleet.folder / "evidence")
    return books


def _settings(fleet: Fleet) -> Path:
    return fleet.folder / "federation.toml"


def wait_for(chaos: Chaos, claim: Callable[[Sequence[RoundRecord]], bool]) -> None:
    """Keep the programs running until the last rounds, the newest first, are as wanted.

    Raises:
        TimeoutError: they never are.
    """
    until_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < until_s:
        chaos.keep_running()
        if chaos.fleet.server_store.exists():
            with Store.view(chaos.fleet.server_store) as store:
                rounds = Chronicle(store, FEDERATION).rounds(5)
            if claim(rounds):
                return
        time.sleep(0.5)
    raise TimeoutError(f"not as wanted after {_SETTLE_S:.0f} s; see {chaos.fleet.folder / 'logs'}")


if __name__ == "__main__":
    main()
