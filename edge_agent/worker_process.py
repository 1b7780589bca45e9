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
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from edge_agent.care import log_level, logs
from edge_agent.configuration import load_settings, reload_settings
from edge_agent.equipment import Equipment, load_equipment
from edge_agent.inference.known_rows import KnownRows
from edge_agent.inference.serving import Surroundings, serving
from edge_agent.jobs import decode_job, read_frame
from edge_agent.keeping import kept
from edge_agent.learning.seen import Seeing, SeenProbes, SeenSets
from edge_agent.privacy.learner import Purse
from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.saying import NO_PRIVATE_STEP
from edge_agent.private.data import PrivateRows, load_private_rows
from edge_agent.private.renewal import Renewal
from edge_agent.process.heart import Heart, Pulse
from edge_agent.process.notices import Alarm
from edge_agent.process.pipe import Mouth
from edge_agent.process.postmortem import cause_of
from edge_agent.settings import AgentSettings
from edge_agent.slots.backbones import backbones
from edge_agent.slots.personal import carry_over
from edge_agent.sources.memory import Memory
from edge_agent.sources.opening import open_sources
from edge_agent.sources.source import Source
from edge_agent.training.between import Between, BrokenOffError
from edge_agent.training.pace import Pace
from edge_agent.training.savings import Savings
from edge_agent.training.sensors import Sensors
from edge_agent.training.wear import Wear
from edge_agent.worker_core import WorkerCore
from fd_protocol.errors import FedistillError
from fd_runtime.config import exit_code_for
from fd_runtime.logs import set_up_logs
from fd_runtime.models.engines import keep_only
from fd_runtime.models.opening import LoadedModel
from fd_runtime.models.placing import awaits_engine, open_placed
from fd_runtime.starting import blame, exclusive
from fd_runtime.version import VERSION

_CRASH = 1
"""Exit status of a death, which another start may spare us; those of sysexits.h are refusals."""
_DISK_RETRY_S = 5.0
_OOM_SCORE = "500"
"""Where memory is short the kernel shall take the worker before the supervisor, and before most else."""

log = logging.getLogger("edge-agent")


def main(arguments: list[str]) -> int:
    faulthandler.enable()
    _offer_oneself()
    mouth = Mouth(_take_standard_output())
    try:
        path = Path(arguments[0])
        settings = load_settings(path)
        tail = set_up_logs(settings.log, who="worker")
        log_level.follow(settings.state.folder, lambda: reload_settings(path, settings).log.level, time.time)
        logs.write_at_signal(tail, settings.state.folder / logs.WORKER_TAIL)
        return _run(path, mouth, os.getppid())
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
    pulse.beat()
    heart.start()
    # A worker whose supervisor was killed may still be ending: what it saves must not come after ours.
    with exclusive(equipment.settings.state.folder / "worker.lock", wait=True):
        _work(equipment, mouth, pulse, heart.watch("inference"), is_orphaned)
    return 0


def _work(equipment: Equipment, mouth: Mouth, pulse: Pulse, inference: Pulse, is_orphaned: Callable[[], bool]) -> None:
    """Serve live samples and do jobs, side by side, until the supervisor goes."""
    settings, path = equipment.settings, equipment.path
    _carry_over(equipment, pulse)
    with blame(path, "data.private"):
        fixed = _private_rows(equipment)
    with blame(path, "model.runtime"):
        model = _open(equipment, pulse)
    keep_only(settings.state.engines, backbones(equipment))
    log.info("model: %s on %s, %s", equipment.bundle.manifest.name, settings.model.runtime, model.provider)
    with ExitStack() as stack:
        with blame(path, "store"):
            store = stack.enter_context(kept(settings, equipment.bundle.manifest, mouth.tell))
        renewal = None if store is None else Renewal(store, fixed, model, pulse.beat)
        around = Surroundings(
            KnownRows(fixed, store, model),
            sources=stack.enter_context(_sources(equipment)),
            store=store,
            refresh=(lambda: None) if store is None else store.refresh,
            tell=mouth.tell,
            alive=inference.beat,
            version=VERSION,
        )
        served = stack.enter_context(serving(path, settings, equipment.bundle, model, around))
        core = WorkerCore(
            model,
            _seeing(equipment, model, pulse),
            fixed if renewal is None else renewal.rows(),
            equipment.checkpoint,
            device=settings.device.id,
            space=equipment.space,
            between=_between(settings, mouth, pulse, is_orphaned),
            memory_mb=settings.training.memory_mb,
            purse=_purse(equipment),
            went_on=pulse.beat,
            publish=served.take_weights,
        )
        renew = (lambda: None) if renewal is None else lambda: renewal.renew(core.renew)
        served.begin()
        _serve(core, renew, sys.stdin.buffer, mouth, pulse)


def _open(equipment: Equipment, pulse: Pulse) -> LoadedModel:
    """Open the model; a compilation that no trial has done (`slots.trial`), the first start's, has no patience set."""
    bundle, settings = equipment.bundle, equipment.settings
    runtime, placement = settings.model.runtime, settings.placement
    if awaits_engine(bundle, runtime, placement):
        log.info("TensorRT compiles %s: this takes minutes, once", bundle.manifest.name)
        pulse.rest()
    model = open_placed(bundle, runtime, threads=settings.model.threads, placement=placement)
    pulse.beat()
    return model


def _carry_over(equipment: Equipment, pulse: Pulse) -> None:
    """Go on with what was learnt with the bundle before, where that may be; a disk that takes nothing is waited for.

    To begin without would be to lose it, and to refuse would be the bundle's fault: the slots' keeper has patience, and
    goes back at its end.
    """
    before, is_owed = equipment.before, True
    while before is not None and is_owed:
        try:
            carry_over(before.bundle, before.checkpoint, equipment.bundle, equipment.checkpoint)
            is_owed = False
        except OSError as error:
            log.warning("what was learnt waits to be carried over: %s", error)
            pulse.beat()
            time.sleep(_DISK_RETRY_S)


def _serve(core: WorkerCore, renew: Callable[[], None], jobs: IO[bytes], mouth: Mouth, pulse: Pulse) -> None:
    pulse.rest()
    mouth.ready()
    while (data := read_frame(jobs)) is not None:
        pulse.beat()
        renew()
        mouth.answer(core.handle(decode_job(data)))
        pulse.rest()


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


def _seeing(equipment: Equipment, model: LoadedModel, pulse: Pulse) -> Seeing | None:
    """Return who shows the public sets of the device; None: it has none."""
    if equipment.public is None:
        return None
    home = SeenProbes(equipment.public, model, pulse.beat)
    return SeenSets(home, equipment.further.find, model, pulse.beat)


@contextmanager
def _sources(equipment: Equipment) -> Iterator[Mapping[str, Source]]:
    """Yield where live samples come from, by name."""
    settings = equipment.settings
    if not settings.sources:
        yield {}
        return
    with blame(equipment.path, "sources"), closing(Memory(settings.state.read_files)) as memory:
        yield open_sources(settings.sources, equipment.bundle.manifest.task, memory, device=settings.device.id)


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
