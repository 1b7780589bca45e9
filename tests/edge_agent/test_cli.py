"""The device owner's program before there is a device: it writes the settings, so that nobody has to guess a key."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from edge_agent.cli import CONFIG_NAME, main
from edge_agent.cli.place import SYSTEM_CONFIG
from edge_agent.settings import AgentSettings, DeviceSettings, ModelSettings, StateSettings
from fd_runtime.config import load_toml
from fd_runtime.links.link import Proxy, TlsFiles


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path / "new"), "--device", "press-3", "--federation", "plant-7"]) == 0
    return tmp_path / "new" / CONFIG_NAME


def setting_names(table):
    """The keys of all tables in a table."""
    inner = [setting_names(value) for value in table.values() if isinstance(value, dict)]
    return {*table}.union(*inner)


def test_init_writes_every_setting_at_its_default(config):
    folder = config.parent
    assert load_toml(config, AgentSettings) == AgentSettings(
        DeviceSettings("press-3", "plant-7"),
        ModelSettings(folder / "bundle", folder / "public_set"),
        StateSettings(folder / "state"),
    )


def test_what_init_comments_out_are_all_the_other_settings(config):
    text = re.sub(r"^# (?=\[|\w+ = )", "", config.read_text(), flags=re.MULTILINE)
    config.write_text(text)
    written = load_toml(config, AgentSettings)
    folder = config.parent
    assert written.data.private == folder / "private.npz"
    assert written.broker.username == "press-3"
    files = (folder / name for name in ("ca.pem", "press-3.pem", "press-3.key"))
    assert written.broker.tls == TlsFiles(*files, alpn=("mqtt",))
    assert written.broker.way == Proxy("http", "proxy", 3128, "user", "word", bypass="broker.lan")
    assert written.state.runtime == Path("/run/fedistill")
    for name in setting_names(asdict(written)) - {"credential"}:  # in a remark: a store has one key
        assert re.search(rf"^({name} = |\[([\w.]+\.)?{name}[\].])", text, re.MULTILINE), name


def test_init_where_the_service_looks_names_the_folders_that_systemd_makes(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.cli.init.SYSTEM_CONFIG", tmp_path / CONFIG_NAME)
    monkeypatch.chdir(tmp_path)
    assert main(["init", ".", "--device", "press-3"]) == 0
    unit = (Path(__file__).parents[2] / "deploy/systemd/edge-agent.service").read_text()
    state = load_toml(tmp_path / CONFIG_NAME, AgentSettings).state
    assert f"\nStateDirectory={state.folder.relative_to('/var/lib')}\n" in unit
    assert f"\nRuntimeDirectory={state.runtime.relative_to('/run')}\n" in unit
    assert f" --config {SYSTEM_CONFIG}\n" in unit


def test_init_does_not_write_over_anything(config, capsys):
    config.write_text("mine")
    assert main(["init", str(config.parent)]) == 73
    assert capsys.readouterr().err == f"edge-agent: {config}: exists already\n"
    assert config.read_text() == "mine"


def test_init_refuses_a_device_that_cannot_be_named(tmp_path, capsys):
    assert main(["init", str(tmp_path), "--device", "Press 3"]) == 78
    assert capsys.readouterr().err.startswith("edge-agent: ")
    assert not Path(tmp_path, CONFIG_NAME).exists()
