"""The process that holds the model, seen from the supervisor.

    supervisor --jobs, one at a time--> edge_agent.worker_process --answers, and notices at any time--> supervisor

The worker may be killed at any moment, by the kernel most of all, or hang in a library: its job has then failed with
the reason, it is started again, and the wait before a start doubles while it keeps dying. Only a worker that says its
settings are wrong stays down. What a job that kills its worker again and again comes to is the participant's to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from edge_agent.jobs import Answer, Job, encode_job
from edge_agent.process.child import Child
from edge_agent.process.notices import Alarm, Beat, Notice
from edge_agent.process.pipe import READY, decode_said
from edge_agent.process.postmortem import Cause, Death, explain, oom_kills
from edge_agent.process.settings import ProcessSettings
from edge_agent.round.events import WorkFailed
from fd_protocol.errors import DecodeError, FedistillError
from fd_runtime.config import EX_SOFTWARE
from fd_runtime.links.waking import Waker

WORKER_DOWN = "worker_down"
"""Name of the alarm that the worker does not stay alive."""
_DOWN_AFTER = 3
"""Deaths in a row, without an answer and without a life of decent length, that make a worker count as down."""
_REFUSALS = range(64, 79)
"""Exit codes of sysexits.h: the worker said in a line what is wrong, and it would say so again."""
_OVERSLEPT_S = 5.0
"""Longer past its time, and the supervisor itself stood still: a frozen machine is no hang of the worker's."""
_CLOSE_S = 3.0

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """The worker has loaded everything and takes jobs."""


@dataclass(frozen=True, slots=True)
class WorkerDown:
    """The worker has ended; it is started again by itself."""


@dataclass(frozen=True, slots=True)
class WorkerRefusal:
    """The worker will not start with these settings."""

    exit_code: int


class WorkerRefusedError(FedistillError):
    """The worker has said what is wrong and ended; the program ends with the same exit code."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__("the worker did not start")


Said: TypeAlias = "Answer | Notice | WorkerUp | WorkerDown | WorkerRefusal"


class Worker(Protocol):
    """Whoever does jobs. Answers come back by the `deliver` that it was made with, never from inside `submit`."""

    def submit(self, job: Job) -> None:
        """Take a job; it is answered once, by its event or by `WorkFailed`."""
        ...

    def close(self) -> None:
        """End at once; a job under way is lost."""
        ...


class InlineWorker:
    """Does a job where it is submitted: for simulations.

    Args:
        handle: the model's side, `WorkerCore.handle`.
        deliver: takes the answers; `put` of a queue.
    """

    def __init__(self, handle: Callable[[Job], Answer], deliver: Callable[[Answer], None]) -> None:
        self._handle, self._deliver = handle, deliver

    def submit(self, job: Job) -> None:
        self._deliver(self._handle(job))

    def close(self) -> None:
        """Nothing is left behind."""


@dataclass(frozen=True, slots=True)
class WorkerStanding:
    """The worker as its owner may want to know it.

    Attributes:
        pid: of the process; 0 = there is none.
        starts: how often it was started in this life of the supervisor.
        last_death: why the one before ended; empty = none has.
        deaths: how many there were in this life of the supervisor.
        is_ready: it has loaded everything.
    """

    pid: int = 0
    starts: int = 0
    last_death: str = ""
    deaths: int = 0
    is_ready: bool = False


@dataclass(slots=True)
class _Life:
    """One run of the worker.

    Attributes:
        kills: `oom_kills` when it began.
        limit_s: when patience ends, on the monotonic clock.
        allowed_s: how long it was when it began.
        is_ready: it has loaded everything.
        last_words: the newest alarm about its own end.
    """

    child: Child
    kills: Mapping[str, int]
    begun_s: float
    limit_s: float
    allowed_s: float
    is_ready: bool = False
    last_words: Alarm | None = None


class ProcessWorker:
    """Does jobs in a process of its own, so that running out of memory costs a job and not the device.

    Args:
        command: starts the worker; jobs go to its standard input, what it says comes from its standard output.
        deliver: takes answers and notices, from another thread.
        environment: returns that of the process, asked at each start; None = this one's.
        settings: how patient to be.
        inherited: descriptors that the worker keeps, beside the standard ones.
    """

    def __init__(
        self,
        command: Sequence[str],
        deliver: Callable[[Said], None],
        *,
        environment: Callable[[], Mapping[str, str]] | None = None,
        settings: ProcessSettings = ProcessSettings(),  # noqa: B008 - frozen
        inherited: Sequence[int] = (),
    ) -> None:
        self._inherited = tuple(inherited)
        self._command, self._deliver, self._environment, self._settings = command, deliver, environment, settings
        self._jobs: deque[Job] = deque()
        self._job: Job | None = None
        self._deaths = 0
        self._closing, self._restarting = threading.Event(), threading.Event()
        self._waker = Waker()
        self._child: Child | None = None
        self.standing = WorkerStanding()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self._waker.wake()

    def close(self) -> None:
        self._closing.set()
        self._waker.wake()
        self._thread.join(_CLOSE_S)

    def restart(self) -> None:
        """End the process; another begins with the settings of then. A job under way has failed."""
        self._restarting.set()
        self._waker.wake()

    def signal(self, number: int) -> None:
        """Send a signal that the worker has a handler for; one that is not ready yet gets none."""
        child = self._child
        if child is not None and self.standing.is_ready:
            child.signal(number)

    def _run(self) -> None:
        try:
            self._keep_alive()
        except Exception:  # a mistake of ours: a device without its worker must not look well
            log.exception("the worker's keeper ends")
            self._deliver(WorkerRefusal(EX_SOFTWARE))
        self._waker.close()

    def _keep_alive(self) -> None:
        while not self._closing.is_set():
            life = self._begin()
            if life is not None:
                death = self._serve(life)
                if isinstance(death, WorkerRefusal):
                    self._deliver(death)
                    return
                if death is not None:
                    self._bury(death)
            self._closing.wait(self._backoff_s())

    def _begin(self) -> _Life | None:
        """Start the worker; None: the system would not."""
        now_s = time.monotonic()
        try:
            environment = None if self._environment is None else self._environment()
            child, start_s = Child(self._command, environment, self._inherited), self._settings.start_s
            life = _Life(child, oom_kills(), now_s, now_s + start_s, start_s)
        except OSError as error:
            log.warning("the worker does not start: %s", error)
            self._count_death(Death(Cause.CRASH, f"it does not start: {error}"))
            return None
        self._restarting.clear()  # it begins with what is so now
        self._child = life.child
        self.standing = replace(self.standing, pid=life.child.pid, starts=self.standing.starts + 1)
        return life

    def _serve(self, life: _Life) -> Death | WorkerRefusal | None:
        """Give the worker jobs until it dies, and say of what; None: the supervisor goes."""
        child = life.child
        try:
            while not child.is_gone:
                if self._closing.is_set() or self._restarting.is_set():
                    child.kill()
                    self._fail_job("the worker was restarted")
                    return None
                if time.monotonic() > life.limit_s:
                    return self._end_hung(life)
                self._turn(life)
        except DecodeError as error:
            child.kill()
            return Death(Cause.CRASH, f"it talked nonsense: {error}")
        finally:
            was_ready, self.standing = self.standing.is_ready, replace(self.standing, is_ready=False)
            exit_status = child.end()
            if was_ready and not self._closing.is_set():
                self._deliver(WorkerDown())
        if not life.is_ready and exit_status in _REFUSALS:
            return WorkerRefusal(exit_status)
        if life.last_words is not None and life.last_words.name != Cause.HANG.value:
            return Death(Cause(life.last_words.name), life.last_words.text)
        return explain(exit_status, oom_kills(), life.kills)

    def _turn(self, life: _Life) -> None:
        if life.is_ready and self._job is None and self._jobs:
            self._job = self._jobs.popleft()
            life.child.send(encode_job(self._job))
        frames = life.child.turn(life.limit_s - time.monotonic(), self._waker)
        now_s = time.monotonic()
        if now_s > life.limit_s + _OVERSLEPT_S:
            self._be_patient(life, now_s)
        for frame in frames:
            self._hear(life, frame, now_s)

    def _hear(self, life: _Life, frame: bytes, now_s: float) -> None:
        """Take in a frame; beats and answers are signs of life, mere news is none.

        Raises:
            DecodeError: it is nonsense.
        """
        if frame == READY:
            life.is_ready = True
            self._be_patient(life, now_s)
            self.standing = replace(self.standing, is_ready=True)
            self._deliver(WorkerUp())
            return
        said = decode_said(frame)
        if isinstance(said, Alarm) and said.name in _LAST_WORDS:
            life.last_words = said
            return
        if isinstance(said, Beat | Answer):
            life.last_words = None
            self._be_patient(life, now_s)
            if now_s > life.begun_s + self._settings.restart_max_s:
                self._be_well()
        if isinstance(said, Answer):
            self._finish()
        if not isinstance(said, Beat):
            self._deliver(said)

    def _be_patient(self, life: _Life, now_s: float) -> None:
        life.allowed_s = self._settings.hang_s
        life.limit_s = now_s + life.allowed_s

    def _finish(self) -> None:
        if self._job is None:
            raise DecodeError("malformed", "an answer to no job")
        self._job = None
        self._be_well()

    def _end_hung(self, life: _Life) -> Death:
        life.child.end_hung()
        what = life.last_words.text if life.last_words is not None else "not a word from it"
        return Death(Cause.HANG, f"{what}; {life.allowed_s:g} s allowed")

    def _bury(self, death: Death) -> None:
        over = f" over {self._job.work.task.value}" if self._job is not None else ""
        log.warning("the worker died%s: %s", over, death)
        self._fail_job(f"the worker died of {death}")
        self._count_death(death)

    def _fail_job(self, reason: str) -> None:
        job, self._job = self._job, None
        if job is not None and not self._closing.is_set():
            self._deliver(Answer(WorkFailed(job.work, reason)))

    def _count_death(self, death: Death) -> None:
        deaths = self.standing.deaths + 1
        self.standing = replace(self.standing, pid=0, last_death=str(death), deaths=deaths, is_ready=False)
        self._deaths += 1
        if self._deaths == _DOWN_AFTER:
            self._deliver(Alarm(WORKER_DOWN, str(death)))

    def _be_well(self) -> None:
        if self._deaths >= _DOWN_AFTER:
            self._deliver(Alarm(WORKER_DOWN, ""))
        self._deaths = 0

    def _backoff_s(self) -> float:
        doublings = min(max(self._deaths - 1, 0), 16)
        return min(self._settings.restart_max_s, self._settings.restart_min_s * 2.0**doublings)


_LAST_WORDS = frozenset(cause.value for cause in Cause)
"""Names of alarms that a worker sends about itself, before it ends."""
