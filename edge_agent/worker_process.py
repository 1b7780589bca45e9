"""`python -m edge_agent.worker_process agent.toml`: the process that holds the model.

Jobs come on standard input, answers go to what was standard output; whatever a library prints goes to standard error.
It ends with its supervisor: between jobs it sees the pipe close, inside a training it looks who its parent is.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np

from edge_agent import log_level, logs
from edge_agent.configuration import load_settings, reload_settings
from edge_agent.equipment import Equipment, load_equipment
from edge_agent.jobs import decode_job, encode_answer, read_frame, write_frame
from edge_agent.learner import BrokenOffError
from edge_agent.private_data import PrivateRows, load_private_rows
from edge_agent.seen import SeenProbes
from edge_agent.worker import READY
from edge_agent.worker_core import WorkerCore
from fd_protocol.errors import FedistillError
from fd_runtime.config import exit_code_for
from fd_runtime.logs import set_up_logs
from fd_runtime.starting import blame, exclusive


def main(arguments: list[str]) -> int:
    supervisor = os.getppid()
    answers = _take_standard_output()
    try:
        path = Path(arguments[0])
        settings = load_settings(path)
        tail = set_up_logs(settings.log, who="worker")
        log_level.follow(settings.state.folder, lambda: reload_settings(path, settings).log.level, time.time)
        logs.write_at_signal(tail, settings.state.folder / logs.WORKER_TAIL)
        equipment = load_equipment(path)
        # A worker whose supervisor was killed may still be ending: what it saves must not come after ours.
        with exclusive(equipment.settings.state.folder / "worker.lock", wait=True):
            _serve(_core(equipment, supervisor), sys.stdin.buffer, answers)
    except (BrokenOffError, BrokenPipeError):
        return 0
    except (FedistillError, OSError) as error:
        sys.stderr.write(f"edge-agent: {error}\n")
        return exit_code_for(error)
    return 0


def _serve(core: WorkerCore, jobs: IO[bytes], answers: IO[bytes]) -> None:
    write_frame(answers, READY)
    while (data := read_frame(jobs)) is not None:
        write_frame(answers, encode_answer(core.handle(decode_job(data))))


def _core(equipment: Equipment, supervisor: int) -> WorkerCore:
    settings = equipment.settings
    with blame(equipment.path, "data.private"):
        private = _private_rows(equipment)
    with blame(equipment.path, "model.runtime"):
        model = equipment.bundle.open(settings.model.runtime, threads=settings.model.threads)
    return WorkerCore(
        model,
        None if equipment.public is None else SeenProbes(equipment.public, model),
        private,
        settings.state.checkpoint,
        device=settings.device.id,
        should_stop=lambda: os.getppid() != supervisor,
    )


def _private_rows(equipment: Equipment) -> PrivateRows:
    task = equipment.bundle.manifest.task
    if equipment.settings.data.private is None:
        return PrivateRows(np.empty((0, *task.sample_shape), task.sample_dtype), np.empty(0, np.int64))
    return load_private_rows(equipment.settings.data.private, task.sample_shape, len(task.classes))


def _take_standard_output() -> IO[bytes]:
    """Return the pipe for answers, and send prints of any library elsewhere."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
