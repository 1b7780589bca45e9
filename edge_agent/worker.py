"""The process that holds the model, seen from the supervisor.

    supervisor --jobs, one at a time--> edge_agent.worker_process --answers--> supervisor

The worker may be killed at any moment, by the kernel most of all: its job has then failed, it is started again, and the
wait before a start doubles while it keeps dying. Only a worker that says its settings are wrong stays down.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import IO, Protocol

from edge_agent.events import WorkFailed
from edge_agent.jobs import Answer, Job, decode_answer, encode_job, read_frame, write_frame
from fd_protocol.errors import DecodeError, FedistillError

READY = b"ready"
"""The worker's first frame: everything is loaded."""
_REFUSALS = range(64, 79)
"""Exit codes of sysexits.h: the worker said in a line what is wrong, and it would say so again."""
_CLOSE_S = 1.0

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


class ProcessWorker:
    """Does jobs in a process of its own, so that running out of memory costs a job and not the device.

    Args:
        command: starts the worker; jobs go to its standard input, answers come from its standard output.
        deliver: takes the answers, from another thread.
        environment: returns that of the process, asked at each start; None = this one's.
        restart_min_s: wait after the first death; doubles with each further one, up to `restart_max_s`.
        restart_max_s: longest wait.
    """

    def __init__(
        self,
        command: Sequence[str],
        deliver: Callable[[Answer | WorkerUp | WorkerDown | WorkerRefusal], None],
        *,
        environment: Callable[[], Mapping[str, str]] | None = None,
        restart_min_s: float = 0.5,
        restart_max_s: float = 60.0,
    ) -> None:
        self._command, self._deliver, self._environment = command, deliver, environment
        self._restart_min_s, self._restart_max_s = restart_min_s, restart_max_s
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._job: Job | None = None
        self._deaths = 0
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def close(self) -> None:
        self._closing.set()
        self._jobs.put(None)
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join(_CLOSE_S)

    def restart(self) -> None:
        """End the process; another begins with the settings of then. A job under way has failed."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_CLOSE_S)
        self._jobs.put(None)  # who waits for a job sees that nobody is there to do it

    def signal(self, number: int) -> None:
        """Send a signal that the worker has a handler for; one that is not ready yet gets none."""
        with self._lock:
            if self._process is not None and self._is_ready:
                self._process.send_signal(number)

    def _run(self) -> None:
        while not self._closing.is_set():
            process = self._start()
            if process is not None:
                is_ready = _is_ready(process)
                if is_ready:
                    self._say_ready(is_ready=True)
                    self._serve(process)
                    self._say_ready(is_ready=False)
                exit_code = _end(process)
                if not is_ready and exit_code in _REFUSALS:
                    self._deliver(WorkerRefusal(exit_code))
                    return
            self._closing.wait(self._backoff_s())

    def _say_ready(self, *, is_ready: bool) -> None:
        with self._lock:
            self._is_ready = is_ready
        if not self._closing.is_set():
            self._deliver(WorkerUp() if is_ready else WorkerDown())

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start the worker; None: the system would not, or nobody wants it any more."""
        with self._lock:
            if self._closing.is_set():
                return None
            try:
                # A session of its own: Ctrl-C in a terminal is for the supervisor, which ends the worker itself.
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=None if self._environment is None else self._environment(),
                    start_new_session=True,
                )
            except OSError as error:
                log.warning("the worker does not start: %s", error)
                return None
            return self._process

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        """Give the worker jobs until it dies or the supervisor goes."""
        while not self._closing.is_set():
            job = self._job = self._job or self._jobs.get()
            if self._closing.is_set() or process.poll() is not None:  # it died with nothing to do: no job's fault
                return
            if job is None:
                continue
            answer = _ask(process, job)
            self._job = None
            if answer is None:
                self._bury(process, job)
                return
            self._deaths = 0
            self._deliver(answer)

    def _bury(self, process: subprocess.Popen[bytes], job: Job) -> None:
        reason = f"the worker died ({_end(process)})"
        if not self._closing.is_set():
            log.warning("%s: %s", job.work.task.value, reason)
            self._deliver(Answer(WorkFailed(job.work, reason)))

    def _backoff_s(self) -> float:
        self._deaths += 1
        return min(self._restart_max_s, self._restart_min_s * 2.0 ** min(self._deaths - 1, 16))


def _is_ready(process: subprocess.Popen[bytes]) -> bool:
    try:
        return read_frame(_pipe(process.stdout)) == READY
    except DecodeError:
        return False


def _ask(process: subprocess.Popen[bytes], job: Job) -> Answer | None:
    """Return the answer to `job`; None: the worker died over it, or answered nonsense."""
    try:
        write_frame(_pipe(process.stdin), encode_job(job))
        data = read_frame(_pipe(process.stdout))
        return None if data is None else decode_answer(data)
    except (BrokenPipeError, DecodeError):
        return None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # Popen was asked for it
    return pipe


def _end(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a process that has closed its pipe, or will be killed for not having."""
    try:
        return process.wait(_CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
