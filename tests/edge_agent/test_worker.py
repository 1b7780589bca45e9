from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
from dataclasses import replace
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.jobs import (
    Answer,
    CompetenceJob,
    PredictJob,
    TrainJob,
    WarmUpJob,
    decode_answer,
    decode_job,
    encode_answer,
    encode_job,
    read_frame,
    write_frame,
)
from edge_agent.process.notices import KINDS, Alarm, Beat, Measured, PrivateRowsChanged, Spoke, encode_notice
from edge_agent.process.pipe import Frames, Mouth, decode_said, frame
from edge_agent.process.settings import ProcessSettings
from edge_agent.round.events import (
    CompetenceMapped,
    Event,
    Predicted,
    Submission,
    Task,
    Trained,
    WarmedUp,
    Work,
    WorkFailed,
)
from edge_agent.worker import WORKER_DOWN, ProcessWorker, WorkerDown, WorkerRefusal, WorkerUp
from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import TrainingTerms
from tests.edge_agent.builders import PUBLIC_SET, offer, round_id
from tests.support.patience import PATIENCE_S, wait_until

WORKER = """
import os, sys, signal, time
from pathlib import Path
from edge_agent.round.events import WarmedUp
from edge_agent.jobs import Answer, decode_job, encode_answer, read_frame, write_frame
from edge_agent.process.notices import Alarm, Beat, Measured, encode_notice
from edge_agent.process.pipe import READY
folder = Path(sys.argv[1])
starts = len(list(folder.glob("start-*")))
(folder / f"start-{starts}").write_text(str(os.getpid()))
write_frame(sys.stdout.buffer, READY)
while (data := read_frame(sys.stdin.buffer)) is not None:
    job = decode_job(data)
"""
ANSWER = """
    write_frame(sys.stdout.buffer, encode_answer(Answer(WarmedUp())))
"""
KILLED_AT_FIRST = "    if starts < job.work.round.number: os.kill(os.getpid(), signal.SIGKILL)" + ANSWER
DIES_TWICE = """
import os, signal, sys
from pathlib import Path
starts = len(list(Path(sys.argv[1]).glob("start-*")))
if starts < 2:
    Path(sys.argv[1], f"start-{starts}").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
BABBLE = """
    write_frame(sys.stdout.buffer, b"not an answer"); time.sleep(60)
"""
HANG = """
    (folder / "busy").touch(); time.sleep(60)
"""
SPEAKS_UNASKED = """
    for number in range(3):
        write_frame(sys.stdout.buffer, encode_notice(Measured({"number": float(number)})))
        write_frame(sys.stdout.buffer, encode_notice(Beat()))
"""
SLOW = """
    for _ in range(6):
        time.sleep(0.3); write_frame(sys.stdout.buffer, encode_notice(Beat()))
"""
HANGS_AT_FIRST = """
    if starts < 1:
        write_frame(sys.stdout.buffer, encode_notice(Alarm("hang", "the job stood still")))
        while True:
            time.sleep(0.05); write_frame(sys.stdout.buffer, encode_notice(Measured({})))
"""
DIES_WITH_LAST_WORDS = """
    write_frame(sys.stdout.buffer, encode_notice(Alarm("out_of_memory", "MemoryError: 5 GiB")))
    sys.exit(1)
"""


def job(number=1):
    return WarmUpJob(Work(Task.WARM_UP, round_id(number)), TrainingTerms())


QUICK = ProcessSettings(restart_min_s=0.01, restart_max_s=0.1)
PATIENT = replace(QUICK, hang_s=1.0)


class Bench:
    def __init__(self, folder):
        self.folder, self.answers, self.workers = folder, SimpleQueue(), []

    def start(self, script, settings=QUICK):
        command = [sys.executable, "-c", textwrap.dedent(script), str(self.folder)]
        worker = ProcessWorker(command, self.answers.put, settings=settings)
        self.workers.append(worker)
        return worker

    def next_answer(self):
        """The next that is no word on whether the worker is there."""
        while isinstance(said := self.next_said(), (WorkerUp, WorkerDown)):
            pass
        return said

    def next_said(self):
        return self.answers.get(timeout=PATIENCE_S)

    def process_id(self, start):
        return int((self.folder / f"start-{start}").read_text())


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    for worker in bench.workers:
        worker.close()


def is_alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_jobs_are_answered_in_turn_by_one_process(bench):
    worker = bench.start(WORKER + ANSWER)
    for _ in range(3):
        worker.submit(job())
    assert [bench.next_answer() for _ in range(3)] == [Answer(WarmedUp())] * 3
    assert not (bench.folder / "start-1").exists()


def test_a_worker_killed_over_a_job_fails_that_job_and_starts_again(bench):
    worker = bench.start(WORKER + KILLED_AT_FIRST)
    worker.submit(job())
    failed = bench.next_answer()
    assert failed.event.work == job().work
    assert failed.event.reason.startswith("the worker died of killed: SIGKILL")
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())


def test_a_worker_killed_while_idle_fails_no_job(bench):
    worker = bench.start(WORKER + ANSWER)
    worker.submit(job())
    bench.next_answer()
    os.kill(bench.process_id(0), signal.SIGKILL)
    wait_until(lambda: worker.standing.last_death)
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())


def test_a_worker_that_dies_before_it_is_ready_is_started_until_it_is(bench):
    worker = bench.start(DIES_TWICE + WORKER + ANSWER)
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())
    assert (bench.folder / "start-2").exists()


def test_a_worker_that_talks_nonsense_is_replaced(bench):
    worker = bench.start(WORKER + BABBLE)
    worker.submit(job())
    assert isinstance(bench.next_answer().event, WorkFailed)


def test_a_worker_that_cannot_even_speak_is_started_again(bench):
    shout = "import sys; sys.stdout.buffer.write(bytes([255] * 9)) if starts < 1 else None\n"
    begin, ready = WORKER.split("write_frame(sys.stdout.buffer, READY)")
    worker = bench.start(begin + shout + "write_frame(sys.stdout.buffer, READY)" + ready + ANSWER)
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())


def test_a_program_that_is_not_there_is_tried_again(bench):
    worker = ProcessWorker([str(bench.folder / "nothing")], bench.answers.put, settings=QUICK)
    bench.workers.append(worker)
    assert bench.next_answer() == Alarm(WORKER_DOWN, worker.standing.last_death)
    assert "it does not start" in worker.standing.last_death


def test_a_worker_that_refuses_its_settings_stays_down(bench):
    bench.start("import sys; sys.exit(65)")
    assert bench.next_answer() == WorkerRefusal(65)


def test_an_exit_code_after_the_start_is_a_death_like_any_other(bench):
    worker = bench.start(WORKER + "    sys.exit(65)")
    worker.submit(job())
    assert bench.next_answer() == Answer(WorkFailed(job().work, "the worker died of crash: exit status 65"))


def test_closing_ends_the_process_in_the_middle_of_a_job_and_says_nothing(bench):
    worker = bench.start(WORKER + HANG)
    worker.submit(job())
    wait_until((bench.folder / "busy").exists)
    worker.close()
    assert not is_alive(bench.process_id(0))
    assert bench.next_said() == WorkerUp()
    assert bench.answers.empty()


# Notices, signs of life, and their absence.


def test_what_a_worker_says_unasked_is_delivered_and_its_beats_are_not(bench):
    worker = bench.start(WORKER + SPEAKS_UNASKED + ANSWER)
    worker.submit(job())
    said = [bench.next_answer() for _ in range(4)]
    assert said == [*(Measured({"number": float(number)}) for number in range(3)), Answer(WarmedUp())]


def test_a_worker_that_beats_may_take_longer_than_patience_lasts(bench):
    worker = bench.start(WORKER + SLOW + ANSWER, replace(QUICK, hang_s=1.0))
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())
    assert worker.standing.starts == 1


def test_a_worker_that_hangs_over_a_job_is_killed_for_a_new_one_though_it_talks(bench):
    worker = bench.start(WORKER + HANGS_AT_FIRST + ANSWER, replace(QUICK, hang_s=1.0))
    worker.submit(job())
    failed = next(said for said in iter(bench.next_answer, None) if said != Measured({}))
    assert failed == Answer(WorkFailed(job().work, "the worker died of hang: the job stood still; 1 s allowed"))
    assert not is_alive(bench.process_id(0))
    worker.submit(job())
    assert next(said for said in iter(bench.next_answer, None) if said != Measured({})) == Answer(WarmedUp())


def test_a_worker_that_stands_still_as_a_whole_is_killed_too(bench):
    worker = bench.start(WORKER + HANG, replace(QUICK, hang_s=0.5))
    worker.submit(job())
    wait_until((bench.folder / "busy").exists)
    os.kill(bench.process_id(0), signal.SIGSTOP)
    assert bench.next_answer().event.reason == "the worker died of hang: not a word from it; 0.5 s allowed"
    assert not is_alive(bench.process_id(0))


def test_a_worker_that_reads_nothing_cannot_hold_up_its_supervisor(bench):
    worker = bench.start(WORKER.split("while", maxsplit=1)[0] + "time.sleep(60)", replace(QUICK, hang_s=0.5))
    big = TrainJob(Work(Task.TRAIN, round_id()), sha256(b"c"), (b"block" * 100_000,), TrainingTerms())
    worker.submit(big)
    assert bench.next_answer().event == WorkFailed(
        big.work, "the worker died of hang: not a word from it; 0.5 s allowed"
    )


def test_a_worker_that_never_gets_ready_is_killed(bench):
    bench.start("import time; time.sleep(60)", replace(QUICK, start_s=0.3))
    assert bench.next_answer() == Alarm(WORKER_DOWN, "hang: not a word from it; 0.3 s allowed")


def test_a_worker_that_beats_may_load_for_longer_than_patience_lasts(bench):
    ready = "write_frame(sys.stdout.buffer, READY)"
    worker = bench.start(WORKER.replace(ready, textwrap.dedent(SLOW) + ready) + ANSWER, PATIENT)
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())
    assert worker.standing.starts == 1


def test_what_a_worker_says_of_its_own_end_is_the_reason(bench):
    worker = bench.start(WORKER + DIES_WITH_LAST_WORDS)
    worker.submit(job())
    failed = bench.next_answer()
    assert failed == Answer(WorkFailed(job().work, "the worker died of out_of_memory: MemoryError: 5 GiB"))


def test_a_worker_that_does_not_stay_alive_is_down_until_it_answers(bench):
    worker = bench.start(WORKER + KILLED_AT_FIRST)
    said = []
    for _ in range(4):
        worker.submit(job(3))
        said += [bench.next_answer()]
    said += [bench.next_answer(), bench.next_answer()]
    alarms = [one for one in said if isinstance(one, Alarm)]
    assert [(alarm.name, bool(alarm.text)) for alarm in alarms] == [(WORKER_DOWN, True), (WORKER_DOWN, False)]
    assert said[-1] == Answer(WarmedUp())


def test_a_supervisor_that_was_frozen_itself_takes_no_worker_for_hung(bench, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr("edge_agent.worker.time.monotonic", lambda: now_s[0])
    worker = bench.start(WORKER + ANSWER, replace(QUICK, hang_s=60.0))
    worker.submit(job())
    bench.next_answer()
    now_s[0] += 3600.0
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())
    assert worker.standing.starts == 1


# Frames.

JOBS = [
    job(),
    CompetenceJob(Work(Task.MAP_COMPETENCE, round_id(2)), 3, bytes(32)),
    PredictJob(Work(Task.PREDICT, round_id(), 2), offer(), sha256(b"base"), b"codes"),
    TrainJob(Work(Task.TRAIN, round_id()), sha256(b"c"), (b"block",) * 128, TrainingTerms()),
]
ANSWERS = [
    Answer(WarmedUp()),
    Answer(CompetenceMapped(PUBLIC_SET, 1, sha256(b"map")), (b"map",)),
    Answer(Predicted(round_id(), Submission(b"p" * 32, b"c" * 32, b"f" * 32)), (b"p" * 100_000, b"", b"f")),
    Answer(Trained(sha256(b"c"), accepted=False, reason="guard", metrics={"loss": 0.5})),
    Answer(WorkFailed(Work(Task.TRAIN, round_id()), "killed")),
]
NOTICES = [
    Beat(),
    PrivateRowsChanged(3, 120),
    Measured({"p50_ms": 3.25, "rows": 7.0}),
    Spoke("sample-1", "cat", 0.75),
    Alarm("drift", "inputs are 4 sigma from the reference"),
]


@pytest.mark.parametrize("asked", JOBS)
def test_a_job_crosses_the_pipe_whole(asked):
    assert decode_job(encode_job(asked)) == asked


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_crosses_the_pipe_whole(answer):
    assert decode_answer(encode_answer(answer)) == answer
    assert decode_said(encode_answer(answer)) == answer


@pytest.mark.parametrize("notice", NOTICES)
def test_a_notice_crosses_the_pipe_whole(notice):
    assert decode_said(encode_notice(notice)) == notice


def test_no_notice_bears_the_name_of_an_event():
    assert not KINDS.keys() & {cls.__name__ for cls in Event.__args__}


@pytest.mark.parametrize("make", [lambda: Measured({"loss": float("nan")}), lambda: Spoke("1", "cat", float("inf"))])
def test_a_notice_of_what_is_no_number_refuses_to_exist(make):
    with pytest.raises(InvalidValueError):
        make()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_job_or_a_decode_error(data):
    for decode in (decode_job, decode_answer, decode_said):
        try:
            decode(data)
        except DecodeError:
            continue


def test_frames_end_where_the_other_side_is_gone(tmp_path):
    path = tmp_path / "pipe"
    with path.open("wb") as pipe:
        write_frame(pipe, b"first")
        write_frame(pipe, b"second")
    whole = path.read_bytes()
    for cut in (len(whole), len(whole) - 1, 11, 9):
        path.write_bytes(whole[:cut])
        with path.open("rb") as pipe:
            frames = [read_frame(pipe), read_frame(pipe)]
        assert frames == [b"first", b"second" if cut == len(whole) else None]


def test_a_frame_beyond_reason_is_not_read(tmp_path):
    (tmp_path / "pipe").write_bytes(b"\xff\xff\xff\xff")
    with (tmp_path / "pipe").open("rb") as pipe, pytest.raises(DecodeError, match="oversized"):
        read_frame(pipe)


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_whole_however_they_are_cut(bodies, cuts):
    stream = b"".join(frame(body) for body in bodies)
    frames, heard = Frames(), []
    while stream:
        for cut in cuts:
            heard += frames.feed(stream[:cut])
            stream = stream[cut:]
    assert heard == bodies


def test_what_is_beyond_reason_among_pieces_is_refused():
    with pytest.raises(DecodeError, match="oversized"):
        list(Frames().feed(b"\xff\xff\xff\xff"))


def test_threads_that_speak_at_once_never_mix_their_frames():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as ear, os.fdopen(writing, "wb") as pipe:
        mouth = Mouth(pipe)

        def speak(number):
            for _ in range(50):
                mouth.tell(Alarm(str(number), str(number) * 3000))

        threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        heard = [decode_said(read_frame(ear)) for _ in range(200)]
        for thread in threads:
            thread.join()
    assert all(alarm.text == alarm.name * 3000 for alarm in heard)


def test_a_notice_to_a_supervisor_that_is_gone_harms_no_thread():
    reading, writing = os.pipe()
    os.close(reading)
    mouth = Mouth(os.fdopen(writing, "wb", buffering=0))
    mouth.tell(Beat())
    with pytest.raises(BrokenPipeError):
        mouth.answer(Answer(WarmedUp()))


# Restarts.


def test_it_says_when_the_worker_comes_and_goes(bench):
    worker = bench.start(WORKER + ANSWER)
    assert bench.next_said() == WorkerUp()
    worker.restart()
    assert [bench.next_said(), bench.next_said()] == [WorkerDown(), WorkerUp()]


def test_a_worker_that_is_restarted_while_idle_does_the_next_job_in_another_process(bench):
    worker = bench.start(WORKER + ANSWER)
    assert bench.next_said() == WorkerUp()
    worker.restart()
    assert [bench.next_said(), bench.next_said()] == [WorkerDown(), WorkerUp()]
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())
    assert (bench.folder / "start-1").exists()
    assert not (bench.folder / "start-2").exists()


def test_a_worker_that_is_restarted_over_a_job_fails_it_and_starts_once(bench):
    worker = bench.start(WORKER + HANG)
    worker.submit(job())
    wait_until((bench.folder / "busy").exists)
    worker.restart()
    assert isinstance(bench.next_answer().event, WorkFailed)
    (bench.folder / "busy").unlink()
    worker.submit(job())
    wait_until((bench.folder / "busy").exists)
    assert not (bench.folder / "start-2").exists()


def test_each_start_has_the_environment_of_its_time(bench):
    environment = {**os.environ, "MOOD": "first"}
    mood = "(folder / f'mood-{starts}').write_text(os.environ['MOOD'])\nwrite_frame(sys.stdout.buffer, READY)"
    script = WORKER.replace("write_frame(sys.stdout.buffer, READY)", mood) + ANSWER
    command = [sys.executable, "-c", script, str(bench.folder)]
    worker = ProcessWorker(command, bench.answers.put, environment=lambda: dict(environment), settings=QUICK)
    bench.workers.append(worker)
    assert bench.next_said() == WorkerUp()
    environment["MOOD"] = "second"
    worker.restart()
    assert [bench.next_said(), bench.next_said()] == [WorkerDown(), WorkerUp()]
    assert [(bench.folder / f"mood-{start}").read_text() for start in (0, 1)] == ["first", "second"]


def test_a_worker_that_is_not_ready_gets_no_signal(bench):
    worker = bench.start(DIES_TWICE.replace("starts < 2", "starts < 1") + WORKER + ANSWER)
    worker.signal(signal.SIGTERM)
    worker.submit(job())
    assert bench.next_answer() == Answer(WarmedUp())
