"""What arrives at a real datagram socket, as systemd would hold one."""

from __future__ import annotations

import os
import secrets
import socket

import pytest

from edge_agent.process.sd_notify import Notifier


class Ear:
    """systemd's end."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(5)

    def hear(self):
        return self.socket.recv(4096).decode()


@pytest.fixture(params=["a path", "an abstract name"])
def address(request, tmp_path):
    return str(tmp_path / "notify") if request.param == "a path" else f"@fedistill-{secrets.token_hex(8)}"


def test_assignments_arrive_in_one_datagram(address):
    ear, notifier = Ear(address), Notifier(address)
    notifier.tell(READY=1, STATUS="awaiting; connected")
    assert ear.hear() == "READY=1\nSTATUS=awaiting; connected"
    notifier.tell(WATCHDOG=1)
    assert ear.hear() == "WATCHDOG=1"


def test_a_status_of_several_lines_is_one(address):
    ear, notifier = Ear(address), Notifier(address)
    notifier.tell(STATUS="not connected:\nREADY=1")
    assert ear.hear() == "STATUS=not connected: READY=1"


def test_an_ear_that_is_gone_or_never_listens_harms_nobody(address):
    Notifier(address).tell(READY=1)  # nobody there
    ear, notifier = Ear(address), Notifier(address)
    for _ in range(10_000):  # more than its queue holds
        notifier.tell(WATCHDOG=1)
    ear.socket.close()
    notifier.tell(WATCHDOG=1)


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_without_a_socket_of_ours_nothing_is_said(address):
    notifier = Notifier(address)
    notifier.tell(READY=1)
    notifier.close()
    assert notifier.pause_s == float("inf")


def test_the_environment_says_where_and_how_soon():
    environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.of(environment).watchdog_s == 30
    assert Notifier.of(environment).pause_s == 10
    another = str(os.getpid() + 1)
    assert Notifier.of({**environment, "WATCHDOG_PID": another}).watchdog_s == 0
    assert Notifier.of({}).watchdog_s == 0
