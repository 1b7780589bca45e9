"""What surrounds a program's loop: blame, one process a folder, signals."""

import os
import signal

import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.config import exit_code_for
from fd_runtime.links.link import TlsFiles
from fd_runtime.starting import (
    BrokerSettings,
    FolderInUseError,
    StartError,
    Stop,
    blame,
    exclusive,
    is_held,
    until_signalled,
)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), InvalidValueError("no such thing")])
def test_an_error_is_blamed_on_its_key_and_keeps_its_exit_code(tmp_path, error):
    with (
        pytest.raises(StartError, match=r"server\.toml: artifacts\.bundle: .*[nN]o such") as caught,
        blame(tmp_path / "server.toml", "artifacts.bundle"),
    ):
        raise error
    assert exit_code_for(caught.value) == exit_code_for(error)


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    with exclusive(tmp_path / "lock"), pytest.raises(FolderInUseError), exclusive(tmp_path / "lock"):
        pass
    with exclusive(tmp_path / "lock"):
        pass


def test_a_broker_elsewhere_needs_tls(tmp_path):
    with pytest.raises(InvalidValueError, match=r"\[broker\.tls\]"):
        BrokerSettings(host="example.org")
    BrokerSettings(host="example.org", tls=TlsFiles(*[tmp_path] * 3))
    BrokerSettings(host="127.0.0.1")


@pytest.fixture
def _own_handlers():
    """Ours are put back afterwards."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for n, handler in before.items():
        signal.signal(n, handler)


@pytest.mark.usefixtures("_own_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_loop_and_wakes_it(number):
    seen = []

    def pump():
        seen.append("pump")
        if len(seen) == 2:
            os.kill(os.getpid(), number)

    until_signalled(pump, lambda: seen.append("wake"))
    assert seen == ["pump", "pump", "wake"]


@pytest.mark.usefixtures("_own_handlers")
def test_a_signal_before_the_loop_or_between_two_ends_the_next():
    stop, seen = Stop(), []
    with pytest.raises(ZeroDivisionError):
        stop.loop(lambda: 1 // 0, lambda: seen.append("wake"))  # a life ends
    os.kill(os.getpid(), signal.SIGTERM)
    stop.loop(lambda: pytest.fail("another turn"), lambda: seen.append("another wake"))
    assert seen == ["wake"]


def test_whether_a_lock_is_held_is_told_without_taking_it(tmp_path):
    lock = tmp_path / "lock"
    assert is_held(lock) is False  # no such file
    with exclusive(lock):
        assert is_held(lock) is True
        assert is_held(tmp_path) is False
    assert is_held(lock) is False
    with exclusive(lock):
        pass  # it was not taken


def test_where_the_system_does_not_tell_of_locks_nothing_is_claimed(tmp_path, monkeypatch):
    (tmp_path / "lock").touch()
    monkeypatch.setattr("fd_runtime.starting._LOCKS", tmp_path / "none")
    assert is_held(tmp_path / "lock") is None
