"""`python -m edge_agent.worker_process agent.toml`: the process that holds the model.

Jobs come on standard input, answers and notices go to what was standard output; whatever a library prints goes to
standard error, and so does where it stood when it was killed for hanging. It ends with its supervisor: between jobs it
sees the pipe close, inside a training and in its heart it looks who its parent is. What kills it, it says first.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from edge_agent.equipment import Equipment, load_equipment
from edge_agent.jobs import decode_job, read_frame
from edge_agent.privacy.learner import Purse
from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.saying import NO_PRIVATE_STEP
from edge_agent.private_data import PrivateRows, load_private_rows
from edge_agent.process.heart import Heart, Pulse
from edge_agent.process.notices import Alarm
from edge_agent.process.pipe import Mouth
from edge_agent.process.postmortem import cause_of
from edge_agent.seen import SeenProbes
from edge_agent.settings import AgentSettings
from edge_agent.training.between import Between, BrokenOffError
from edge_agent.training.pace import Pace
from edge_agent.training.savings import Savings
from edge_agent.training.sensors import Sensors
from edge_agent.training.wear import Wear
from edge_agent.worker_core import WorkerCore
from fd_protocol.errors import FedistillError
from fd_runtime.config import exit_code_for
from fd_runtime.starting import blame, exclusive

_CRASH = 1
"""Exit status of a death, which another start may spare us; those of sysexits.h are refusals."""
_OOM_SCORE = "500"
"""Where memory is short the kernel shall take the worker before the supervisor, and before most else."""

log = logging.getLogger("edge-agent")


def main(arguments: list[str]) -> int:
    logging.basicConfig(format="%(asctime)s worker %(levelname)s %(message)s", level=logging.INFO)
    faulthandler.enable()
    _offer_oneself()
    mouth = Mouth(_take_standard_output())
    try:
        return _run(Path(arguments[0]), mouth, os.getppid())
    except (BrokenOffError, BrokenPipeError):
        return 0
    except (FedistillError, OSError) as error:
        sys.stderr.write(f"edge-agent: {error}\n")
        return exit_code_for(error)
    except Exception as error:
        log.exception("the worker ends")
        mouth.tell(Alarm(cause_of(error).value, f"{type(error).__name__}: {error}"))
        return _CRASH


def _run(path: Path, mouth: Mouth, supervisor: int) -> int:
    def is_orphaned() -> bool:
        return os.getppid() != supervisor

    equipment = load_equipment(path)
    heart = Heart(mouth.tell, equipment.settings.process.hang_s, is_orphaned)
    pulse = heart.watch("the job")
    heart.start()
    # A worker whose supervisor was killed may still be ending: what it saves must not come after ours.
    with exclusive(equipment.settings.state.folder / "worker.lock", wait=True):
        _serve(_core(equipment, mouth, pulse, is_orphaned), sys.stdin.buffer, mouth, pulse)
    return 0


def _serve(core: WorkerCore, jobs: IO[bytes], mouth: Mouth, pulse: Pulse) -> None:
    pulse.rest()
    mouth.ready()
    while (data := read_frame(jobs)) is not None:
        pulse.beat()
        mouth.answer(core.handle(decode_job(data)))
        pulse.rest()


def _core(equipment: Equipment, mouth: Mouth, pulse: Pulse, is_orphaned: Callable[[], bool]) -> WorkerCore:
    settings = equipment.settings
    with blame(equipment.path, "data.private"):
        private = _private_rows(equipment)
    with blame(equipment.path, "model.runtime"):
        model = equipment.bundle.open(settings.model.runtime, threads=settings.model.threads)
    return WorkerCore(
        model,
        None if equipment.public is None else SeenProbes(equipment.public, model, pulse.beat),
        private,
        settings.state.checkpoint,
        device=settings.device.id,
        between=_between(settings, mouth, pulse, is_orphaned),
        memory_mb=settings.training.memory_mb,
        purse=_purse(equipment),
    )


def _between(settings: AgentSettings, mouth: Mouth, pulse: Pulse, is_orphaned: Callable[[], bool]) -> Between:
    training = settings.training
    wear = Wear(settings.state.wear, training.flash_mb_per_day)
    return Between(
        is_orphaned,
        Pace(training, Sensors().read, tell=mouth.tell, went_on=pulse.beat),
        Savings(training.checkpoint_s, wear),
    )


def _purse(equipment: Equipment) -> Purse | None:
    """Return what private trainings are paid from; None: nothing here is private."""
    if not equipment.has_private_rows:
        return None
    settings, bundle = equipment.settings, equipment.bundle
    return Purse(
        Ledger(settings.state.privacy),
        settings.privacy,
        lambda: bundle.open_private_step(threads=settings.model.threads),
        problem="" if equipment.trains_privately else NO_PRIVATE_STEP,
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


def _offer_oneself() -> None:
    with contextlib.suppress(OSError):  # no Linux, or no /proc: the kernel then chooses by size
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
