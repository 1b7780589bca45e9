from __future__ import annotations

import signal

import pytest

from edge_agent.process.postmortem import Cause, Death, cause_of, explain, oom_kills

SEEN = {"control group": 2, "machine": 5}


@pytest.mark.parametrize(
    ("exit_status", "kills", "before", "death"),
    [
        (1, SEEN, SEEN, Death(Cause.CRASH, "exit status 1")),
        (-signal.SIGSEGV, SEEN, SEEN, Death(Cause.CRASH, "SIGSEGV")),
        (-40, SEEN, SEEN, Death(Cause.CRASH, "signal 40")),
        (
            -signal.SIGKILL,
            {**SEEN, "control group": 3},
            SEEN,
            Death(Cause.OUT_OF_MEMORY, "the kernel killed it, the control group being short of memory"),
        ),
        (
            -signal.SIGKILL,
            {"machine": 6},
            {"machine": 5},
            Death(Cause.OUT_OF_MEMORY, "the kernel killed it, the machine being short of memory"),
        ),
        (-signal.SIGKILL, SEEN, SEEN, Death(Cause.KILLED, "SIGKILL, and not by the kernel for want of memory")),
        (
            -signal.SIGKILL,
            {},
            {},
            Death(Cause.KILLED, "SIGKILL, perhaps for want of memory: the kernel's counters cannot be read"),
        ),
    ],
)
def test_a_death_is_told_from_the_exit_status_and_the_kernels_counters(exit_status, kills, before, death):
    assert explain(exit_status, kills, before) == death


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (RuntimeError("[ONNXRuntimeError] : 6 : std::bad_alloc"), Cause.OUT_OF_MEMORY),
        (RuntimeError("Failed to allocate memory for requested buffer of size 8589934592"), Cause.OUT_OF_MEMORY),
        (ValueError("an axis that is not there"), Cause.CRASH),
    ],
)
def test_what_libraries_say_of_want_of_memory_counts_as_that(error, cause):
    assert cause_of(error) is cause


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_kernels_counts_are_read_in_control_groups_of_version_2(tmp_path):
    write(tmp_path / "proc/self/cgroup", "0::/system.slice/edge-agent.service\n")
    events = tmp_path / "sys/fs/cgroup/system.slice/edge-agent.service/memory.events"
    write(events, "low 0\nhigh 3\nmax 0\noom 1\noom_kill 1\noom_group_kill 0\n")
    write(tmp_path / "proc/vmstat", "nr_free_pages 1\noom_kill 4\n")
    assert oom_kills(tmp_path) == {"control group": 1, "machine": 4}


def test_the_kernels_counts_are_read_in_control_groups_of_version_1(tmp_path):
    write(tmp_path / "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n")
    write(tmp_path / "sys/fs/cgroup/memory/docker/abc/memory.oom_control", "oom_kill_disable 0\noom_kill 7\n")
    assert oom_kills(tmp_path) == {"control group": 7}


def test_where_nothing_can_be_read_nothing_is_known(tmp_path):
    assert oom_kills(tmp_path) == {}
    write(tmp_path / "proc/self/cgroup", "0::/gone\n")
    assert oom_kills(tmp_path) == {}
