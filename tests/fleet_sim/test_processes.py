"""Many pieces of work in processes: as if done here one after the other, and none is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fleet_sim.factory import equip
from fleet_sim.federation.simulation import Simulation
from fleet_sim.processes import ProcessDiedError, each_in_its_own
from fleet_sim.scenario import PRESETS, ModelTerms
from fleet_sim.worlds import digits
from tests.fleet_sim.chores import count_up, fall, sleep, stumble
from tests.support.programs import running
from tests.support.terminals import hear_ctrl_c

MODELS = ModelTerms(("mlp-s",), "mlp-s", pretraining=None)


@pytest.mark.parametrize("processes", [1, 2, 9])
def test_results_come_in_the_order_of_the_items_each_from_a_process_of_its_own(processes):
    heard = []
    done = each_in_its_own(count_up, [3, 1, 2], processes, lambda item, news: heard.append((item, news)))
    assert [limit for limit, _ in done] == [3, 1, 2]
    assert len({os.getpid(), *(pid for _, pid in done)}) == 4
    assert sorted(heard) == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]


def play(seed, tell):
    world, scenario = digits(seed, devices=2), replace(PRESETS["digits"], rounds=2, devices=2, models=MODELS)
    with TemporaryDirectory() as folder:
        for result in Simulation(scenario, world, equip(world, MODELS, seed, Path(folder)), seed).run():
            tell(result.consensus_sha256)
    return result.clients


def test_seeds_in_processes_are_played_as_one_after_the_other():
    there, here = {0: [], 1: []}, {0: [], 1: []}
    played = each_in_its_own(play, (0, 1), 2, lambda seed, digest: there[seed].append(digest))
    assert played == [play(seed, here[seed].append) for seed in (0, 1)]
    assert there == here
    assert [len(digests) for digests in there.values()] == [2, 2]


def test_what_goes_wrong_there_is_raised_here():
    with pytest.raises(ValueError, match="three"):
        each_in_its_own(stumble, [1, 3, 2], 2)


def test_a_process_that_is_killed_is_named():
    with pytest.raises(ProcessDiedError, match="process of 3 died"):
        each_in_its_own(fall, [1, 3], 2)


def test_whatever_ends_the_work_ends_the_processes():
    def interrupt(_item, _news):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        each_in_its_own(sleep, [1, 2], 2, interrupt)
    assert not multiprocessing.active_children()


PROGRAM = """
    import time
    from fleet_sim.processes import each_in_its_own
    from tests.fleet_sim.chores import sleep

    if __name__ == "__main__":
        try:
            each_in_its_own(sleep, [1, 2], 2, lambda _item, pid: print(pid, flush=True))
        except KeyboardInterrupt:
            print("ended", flush=True)
"""


POOLED = """
    import time
    from fleet_sim.pool import pool
    from tests.fleet_sim.chores import tell_who

    if __name__ == "__main__":
        with pool(2) as mapped:
            for pid in mapped(tell_who, [1, 2]):
                print(pid, flush=True)
            time.sleep(600)
"""


def started(folder, program=PROGRAM):
    """A program that hears Ctrl-C, however pytest itself was started."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program))
    return running(
        [sys.executable, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,  # a group of its own, as a terminal would give it
        preexec_fn=hear_ctrl_c,
    )


def test_ctrl_c_ends_all_without_a_word_from_any(tmp_path):
    with started(tmp_path) as program:
        pids = [int(program.stdout.readline()) for _ in range(2)]
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.2)  # had they heard it, they would say so
        os.killpg(program.pid, signal.SIGINT)
        said, errors = program.communicate()
    assert (said, errors) == ("ended\n", "")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("source", [PROGRAM, POOLED], ids=["each in its own", "pool"])
def test_nobody_goes_on_for_a_program_that_was_killed(tmp_path, source):
    with started(tmp_path, source) as program:
        for _ in range(2):
            program.stdout.readline()
        program.kill()
        program.communicate(timeout=60)  # returns when the last of them has let go of the pipe
