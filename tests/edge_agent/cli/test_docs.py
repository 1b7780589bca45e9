"""The manual says everything: each command, option, key, command from afar, exit code and file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_agent.care import logs
from edge_agent.cli.parser import leaves, make_parser
from edge_agent.commands import machine
from edge_agent.remote_config import CLOSED_SECTIONS
from edge_agent.settings import AgentSettings
from fd_protocol.topics import COMMANDS as NAMES
from fd_runtime import config
from fd_runtime.config_keys import keys_of

DOCS = Path(__file__).parents[3] / "docs"
MANUAL = (DOCS / "agent.md").read_text()
FLASH = (DOCS / "flash.md").read_text()
COMMANDS = (DOCS / "agent" / "commands.md").read_text()
SETTINGS = (DOCS / "agent" / "settings.md").read_text()


@pytest.mark.parametrize("words", leaves(make_parser()))
def test_every_command_stands_in_the_manual(words):
    assert re.search(rf"`{re.escape(words)}[ `]", MANUAL)


@pytest.mark.parametrize("words", leaves(make_parser()))
def test_every_option_stands_in_the_manual(words):
    options = {name for action in leaves(make_parser())[words]._actions for name in action.option_strings}
    for option in options - {"-h", "--help"}:
        assert option in (FLASH if words == "flash" else MANUAL) or option in ("--device", "--federation", "--markdown")


def test_every_setting_stands_in_the_manual():
    for key in keys_of(AgentSettings):
        assert f"`{key.name}`" in SETTINGS


def test_every_exit_code_stands_in_the_manual():
    codes = {str(value) for name, value in vars(config).items() if name.startswith("EX_")}
    (table,) = re.findall(r"## Exit codes(.*?)\n## ", MANUAL, re.DOTALL)
    assert codes | {"66", "130", "141"} <= set(re.findall(r"\d+", table))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_from_afar_is_documented(name):
    assert f"| `{name}` |" in COMMANDS


def test_every_reason_of_a_failure_is_documented():
    reasons = {value for name, value in vars(machine).items() if name.isupper() and isinstance(value, str)}
    table = (DOCS / "wire.md").read_text()
    assert {"unsupported", "rolled_back", "error"} <= reasons
    for reason in reasons:
        assert f"| `{reason}` |" in table


def test_every_file_of_the_state_is_named():
    names = ("standing.json", "outbox/", "agent.db", "checkpoint", "remote_config.json", "log_level.json", logs.TAIL)
    for name in names:
        assert name in MANUAL


def test_what_is_closed_to_the_server_is_said():
    assert "Identity, broker, state, data, sources, privacy, outputs" in COMMANDS
    assert {"device", "broker", "state", "data", "sources", "privacy", "outputs", "commands"} <= CLOSED_SECTIONS


def test_every_link_leads_somewhere():
    for page in (DOCS / "agent.md", *(DOCS / "agent").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
