"""The record of a command names an account, not what its giver would like to be called."""

import os
import pwd

import pytest

from broker_server.commands.who import who
from broker_server.core.events import Order


@pytest.fixture
def account(monkeypatch):
    """Pretend that this process is of an account."""

    def be(uid):
        monkeypatch.setattr(os, "getuid", lambda: uid)

    monkeypatch.delenv("SUDO_USER", raising=False)
    return be


def test_the_account_is_the_kernels_word_whatever_the_environment_says(monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert who() == pwd.getpwuid(os.getuid()).pw_name


def test_who_became_root_is_told_too(account, monkeypatch):
    account(0)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert who() == "ada as root"
    monkeypatch.setenv("SUDO_USER", "root")
    assert who() == "root"


def test_only_root_is_believed_to_have_been_another(account, monkeypatch):
    account(pwd.getpwnam("nobody").pw_uid)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert who() == "nobody"


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 65, "\x1b[2J"])
def test_what_is_no_name_is_left_out(account, monkeypatch, name):
    account(0)
    monkeypatch.setenv("SUDO_USER", name)
    assert who() == "root"


def test_an_account_without_a_name_is_its_number_and_may_give_orders(account):
    account(123_456)
    assert who() == "uid 123456"
    assert Order("x", 0, who(), "operator", "pause").who == "uid 123456"
