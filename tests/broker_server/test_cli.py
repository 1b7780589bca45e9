"""The operator's program: one line says what is wrong, and the exit code what kind of wrong."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, SYSTEM_CONFIG, main
from broker_server.config import Config
from broker_server.equipment import Workshop, load_equipment
from broker_server.journal import Journal
from broker_server.rules import RULES, RuleTerms
from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.config import load_toml
from fd_runtime.starting import exclusive
from fd_runtime.storage.store import Store
from model_export.public_set import build_public_set
from tests.broker_server.artifacts import build_artifacts
from tests.broker_server.world import World, fleet


@pytest.fixture
def config(tmp_path):
    assert main(["init", str(tmp_path), "--federation", "demo"]) == 0
    return tmp_path / CONFIG_NAME


@pytest.fixture
def artifacts(config):
    edit(config, 'trust = "canaries"', 'trust = "none"')
    return build_artifacts(config.parent)


def edit(config, before, after):
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))


def failure(capsys, *arguments):
    """Return (exit code, the one line on stderr)."""
    code = main(list(arguments))
    (line,) = capsys.readouterr().err.splitlines()
    return code, line


def test_init_writes_every_setting_at_its_default(config):
    written = load_toml(config, Config)
    assert written == Config("demo", artifacts=written.artifacts, state=written.state)
    for name in setting_names(asdict(written)) - {"tls", "username", "canaries"}:
        assert f"{name} = " in config.read_text() or f"{name}]" in config.read_text()


def setting_names(table):
    """The keys of all tables in a table."""
    inner = [setting_names(value) for value in table.values() if isinstance(value, dict)]
    return {*table}.union(*inner)


def test_init_where_the_service_looks_names_the_folder_that_systemd_makes(tmp_path, monkeypatch):
    unit = (Path(__file__).parents[2] / "deploy/systemd/broker-server.service").read_text()
    assert f" --config {SYSTEM_CONFIG}\n" in unit
    monkeypatch.setattr("broker_server.cli.SYSTEM_CONFIG", tmp_path / CONFIG_NAME)
    assert main(["init", str(tmp_path)]) == 0
    state = load_toml(tmp_path / CONFIG_NAME, Config).state
    assert f"\nStateDirectory={state.folder.relative_to('/var/lib')}\n" in unit


def test_a_command_finds_the_settings_that_lie_here(config, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("FEDISTILL_SERVER_CONFIG", raising=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder, code, line in ((config.parent, 66, "server.db"), (elsewhere, 78, "`broker-server init .` writes one")):
        monkeypatch.chdir(folder)
        for command in (
            ("status",),
            ("devices",),
            ("devices", "show", "a"),
            ("release", "halt", "cnn"),
            ("quarantine",),
        ):
            told = failure(capsys, *command)
            assert told[0] == code, told
            assert line in told[1]


def test_init_does_not_write_over_anything(config, capsys):
    code, line = failure(capsys, "init", str(config.parent))
    assert code == 73
    assert CONFIG_NAME in line


def test_an_unknown_key_is_named_with_its_file(config, capsys):
    edit(config, "quorum = 2", "quorom = 2")
    code, line = failure(capsys, "run", "--config", str(config))
    assert code == 78
    assert f"{config}: rounds.quorom: unknown key" in line
    assert "quorum" in line.split("unknown key")[1]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("quorum = 2 ", 'quorum = "2" ', "rounds.quorum: expected an integer"),
        ("quorum = 2 ", "quorum = 0 ", "rounds: quorum is at least 1"),
        ('name = "competence"', 'name = "vote"', "method: no method 'vote'"),
        ('host = "localhost"', 'host = "example.org"', "broker: a broker on example.org needs [broker.tls]"),
        ("sharpness = 12.0", "sharpness = 0.0", "method.terms: sharpness"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(config, capsys, before, after, text):
    edit(config, before, after)
    code, line = failure(capsys, "run", "--config", str(config))
    assert code == 78
    assert text in line


def test_a_missing_bundle_is_named_with_its_key(config, capsys):
    code, line = failure(capsys, "run", "--config", str(config))
    assert code == 66
    assert line.startswith(f"broker-server: {config}: artifacts.bundle: no such file")


def test_a_public_set_of_another_task_is_refused(config, artifacts, capsys, tmp_path):
    samples = np.random.default_rng(0).integers(0, 256, (30, 12), dtype=np.uint8)
    other = Task(("x", "y"), (12,), "uint8", Preprocessing(1 / 255))
    build_public_set(tmp_path / "other", samples, other, seed=0)
    edit(config, 'public_set = "public_set"', 'public_set = "other"')
    code, line = failure(capsys, "run", "--config", str(config))
    assert code == 78
    assert "artifacts.public_set" in line
    assert "another task" in line


def test_settings_that_do_not_fit_the_public_set_are_refused(config, artifacts, capsys):
    edit(config, "probes = 0", "probes = 31")
    code, line = failure(capsys, "run", "--config", str(config))
    assert code == 78
    assert "the public set has 30" in line


def test_a_fleet_without_canaries_must_be_said_to_be_trusted(config, artifacts, capsys):
    edit(config, 'trust = "none"', 'trust = "canaries"')
    code, line = failure(capsys, "run", "--config", str(config))
    assert code == 78
    assert line.startswith(f"broker-server: {config}: trust: ")
    assert 'set artifacts.canaries, or say trust = "none"' in line


def with_canaries(config, artifacts):
    known = LabelledProbes((0, 1), (2, 0))
    (config.parent / "canaries.json").write_bytes(Canaries(artifacts.spec.digest.hex(), known).to_json())
    edit(config, '# canaries = "canaries.json"', 'canaries = "canaries.json"')


@pytest.mark.parametrize(("trust", "judges"), [("canaries", 2), ("none", 0)])
def test_canaries_judge_devices_unless_all_are_trusted(config, artifacts, trust, judges):
    with_canaries(config, artifacts)
    edit(config, 'trust = "none"', f'trust = "{trust}"')
    assert len(load_equipment(config).trust_canaries.probes) == judges


def test_init_writes_whom_the_operator_trusts(tmp_path):
    assert main(["init", str(tmp_path), "--trust", "none"]) == 0
    assert load_toml(tmp_path / CONFIG_NAME, Config).trust == "none"


def test_artifacts_give_the_server_its_probes_and_its_student(config, artifacts):
    equipment = load_equipment(config)
    assert (equipment.probes.count, equipment.probes.classes) == (30, 3)
    assert equipment.probes.public_set == artifacts.spec.digest
    assert Workshop(equipment).first().student is not None
    assert Workshop(equipment, with_student=False).first().student is None
    edit(config, "enabled = true", "enabled = false")
    assert Workshop(load_equipment(config)).first().student is None


def test_two_servers_do_not_share_a_folder(config, artifacts, capsys):
    state = config.parent / "state"
    state.mkdir()
    with exclusive(state / "server.lock"):
        code, line = failure(capsys, "run", "--config", str(config))
    assert code == 75
    assert "in use" in line


@pytest.mark.parametrize("command", ["status", "restore"])
def test_without_a_database_there_is_nothing_to_tell_or_to_restore(config, capsys, command):
    code, line = failure(capsys, command, "--config", str(config))
    assert code == 66
    assert "state.folder" in line


def test_status_tells_where_the_federation_stands(config, capsys):
    (config.parent / "state").mkdir()
    world = World(config.parent / "state" / "server.db")
    for device in fleet(world):
        device.contribute()
    capsys.readouterr()
    assert main(["status", "--config", str(config), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["federation"], status["round"], status["phase"]) == ("demo", 1, "closed")
    assert status["consensus"]["voices"] == 3
    assert status["asks"] == "probes 0 to 19"
    assert status["epoch"] == f"{world.state.epoch:016x}"
    assert main(["status", "--config", str(config)]) == 0
    assert "consensus.voices" in capsys.readouterr().out


def test_restore_begins_a_new_epoch_and_ends_the_open_round(config, capsys):
    (config.parent / "state").mkdir()
    world = World(config.parent / "state" / "server.db")
    fleet(world)
    world.store.close()
    assert main(["restore", "--config", str(config)]) == 0
    with closing(Store.open(world.path)) as store:
        state = Journal(store, "demo").replay()
    assert state.epoch != world.state.epoch
    assert f"{state.epoch:016x}" in capsys.readouterr().out
    assert state.round.reason == "epoch"
    assert main(["restore", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epoch"] != f"{state.epoch:016x}"


def test_methods_are_listed_by_their_cards(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for name, make in RULES.items():
        card = make(RuleTerms()).card
        assert f"│ {name} " in listed
        assert card.source.split()[0] in listed
    assert main(["methods", "--json"]) == 0
    told = {rule["name"]: rule for rule in json.loads(capsys.readouterr().out)}
    assert list(told) == list(RULES)
    assert told["competence"]["needs"] == ["competence", "public set"]
    assert told["competence"]["uses"] == ["canaries", "memory"]
    assert told["trimmed-mean"]["breakdown"] == 0.2
    assert told["per-label"]["needs"] == ["competence"]


def test_a_command_that_does_not_exist_is_a_usage_error():
    with pytest.raises(SystemExit) as caught:
        main(["dance"])
    assert caught.value.code == 64


def test_the_server_runs_without_what_the_dashboard_needs():
    program = "import sys; import broker_server.cli, broker_server.service; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "broker_server.aggregator" in modules
    assert not {"starlette", "uvicorn", "jinja2", "prometheus_client"} & set(modules)


def test_a_dashboard_that_is_not_installed_is_told_in_one_line(config, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("broker_server.dashboard.serving")]:
        monkeypatch.delitem(sys.modules, name)
    _, line = failure(capsys, "dashboard", "--config", str(config))
    assert line.endswith("pip install 'fedistill[dashboard]'")


def test_a_token_that_others_may_read_is_refused(config, artifacts, capsys):
    token = config.parent / "operator.token"
    token.write_text("x" * 40)
    token.chmod(0o644)
    edit(config, "# operator_token_file", "operator_token_file")
    code, line = failure(capsys, "dashboard", "--config", str(config))
    assert code == 78
    assert "dashboard: " in line
    assert "may be read by others: chmod 600" in line
