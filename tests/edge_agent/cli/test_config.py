"""Settings that an owner reads and changes: with the words that they wrote, and never to what cannot start."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest

from edge_agent import remote_config
from edge_agent.cli import main
from edge_agent.cli.config import _explained, markdown, schema_text
from edge_agent.remote_config import RemoteConfig
from edge_agent.settings import AgentSettings
from fd_runtime.config_keys import explanations, json_schema, keys_of

DOCS = Path(__file__).parents[3] / "docs"
TEXT = """# my own device

[device]
id = "dev-1"        # the press in hall 7
federation = "test"

[model]
bundle = "bundle"
runtime = "numpy"   # onnxruntime is not there yet

[state]
folder = "state"

[broker]
host = "127.0.0.1"
port = 1883
"""


@pytest.fixture
def own(home):
    home.config.write_text(TEXT)
    return home


def test_a_setting_that_is_changed_leaves_every_other_word(own):
    assert own.type("config", "set", "model.threads", "4")[0] == 0
    assert own.config.read_text() == TEXT.replace("not there yet\n", "not there yet\nthreads = 4\n")
    assert own.type("config", "set", "device.id", "press-3")[0] == 0
    assert '\nid = "press-3"        # the press in hall 7\n' in own.config.read_text()
    assert own.type("config", "unset", "model.threads")[0] == 0
    assert own.config.read_text() == TEXT.replace("dev-1", "press-3")


def test_keys_that_only_make_sense_together_are_changed_together(own):
    before = own.config.read_bytes()
    code, _, err = own.type("config", "set", "broker.host", "broker.example")
    assert (code, "without it anyone can read along" in err) == (78, True)
    assert own.config.read_bytes() == before
    pairs = ["broker.host", "broker.example", "broker.tls.ca", "ca.pem", "broker.tls.certificate", "c.pem"]
    assert own.type("config", "set", *pairs, "broker.tls.key", "k.pem")[0] == 0
    assert own.json("config", "get", "broker.tls.key") == {"value": str(own.folder / "k.pem"), "source": "file"}


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["model.threds", "4"], 64, "model.threds: unknown key, did you mean 'model.threads'?"),
        (["model", "4"], 64, "model: unknown key"),
        (["model.threads", "many"], 78, "model.threads: 'many' is not a TOML value"),
        (["model.threads", "0"], 78, "model: threads lie in 1..64"),
        (["model.runtime", "torch"], 78, "model.runtime: expected one of 'onnxruntime'"),
        (["model.threads"], 64, "config set KEY VALUE [KEY VALUE ...]"),
        (["device.id", "Press 3"], 78, "device: id 'Press 3' must be"),
    ],
)
def test_what_the_device_could_not_start_with_is_refused_in_one_line(own, words, code, complaint):
    found, out, err = own.type("config", "set", *words)
    assert (found, out, complaint in err, err.count("\n")) == (code, "", True, 1)
    assert own.config.read_text() == TEXT


def test_a_file_that_is_no_toml_is_not_touched(own):
    own.config.write_text("[device\n")
    code, _, err = own.type("config", "set", "model.threads", "4")
    assert (code, "not TOML" in err) == (78, True)
    assert own.config.read_text() == "[device\n"


def test_what_is_not_set_cannot_be_taken_out_and_what_must_be_set_stays(own):
    assert own.type("config", "unset", "model.threads")[0] == 78
    assert own.type("config", "unset", "device.id")[0] == 78
    assert own.config.read_text() == TEXT


def test_a_file_keeps_its_mode_its_owner_and_its_link(own, tmp_path):
    if os.geteuid():
        pytest.skip("only root may give files away")
    target = tmp_path / "etc.toml"
    own.config.rename(target)
    own.config.symlink_to(target)
    target.chmod(0o640)
    os.chown(target, 1234, 1235)
    assert own.type("config", "set", "model.threads", "4")[0] == 0
    status = target.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 1234, 1235)
    assert own.config.is_symlink()


def test_it_says_where_every_value_comes_from(own, monkeypatch):
    own.state.mkdir()
    remote_config.save(own.state, RemoteConfig({"log.level": "warning"}))
    monkeypatch.setenv("FEDISTILL__MODEL__THREADS", "3")
    told = own.json("config", "get")
    assert told["device.id"] == {"value": "dev-1", "source": "file"}
    assert told["log.level"] == {"value": "warning", "source": "server"}
    assert told["model.threads"] == {"value": 3, "source": "environment"}
    assert told["commands.health_window_s"] == {"value": 120, "source": "default"}
    assert "broker.username" not in told
    assert own.json("config", "get", "broker.username") == {"value": None, "source": "default"}
    assert {"model.bundle", "model.runtime", "model.threads"} <= own.json("config", "get", "model").keys()
    assert own.type("config", "get", "model.threads")[1] == "3\n"
    assert own.type("config", "get", "modl")[0] == 64


def test_a_change_that_the_environment_hides_is_told(own, monkeypatch):
    monkeypatch.setenv("FEDISTILL__MODEL__THREADS", "3")
    _, out, _ = own.type("config", "set", "model.threads", "4")
    assert "note: FEDISTILL__MODEL__THREADS in the environment wins over model.threads" in out


# Schema, keys, manual.


def test_the_published_schema_is_current(capsys):
    assert main(["config", "schema"]) == 0
    assert capsys.readouterr().out == schema_text() == (DOCS / "agent.schema.json").read_text()


def test_the_page_of_settings_is_current(capsys):
    assert main(["config", "keys", "--markdown"]) == 0
    assert capsys.readouterr().out == (DOCS / "agent" / "settings.md").read_text()
    assert markdown(list(keys_of(AgentSettings))) + "\n" == (DOCS / "agent" / "settings.md").read_text()


def test_every_key_is_explained_in_the_template():
    explained = _explained()
    unexplained = [key.name for key in keys_of(AgentSettings) if not explained.get(key.name)]
    said_before = re.compile(r".+\.broker\.(port|username|password_file|allow_plain|tls\.(ca|certificate|key))")
    in_a_remark = {"store.credential"}
    assert [name for name in unexplained if not said_before.fullmatch(name) and name not in in_a_remark] == []


def test_a_key_whose_value_has_a_unit_says_which():
    """Seconds, bytes, degrees: what is a plain number counts something."""
    numbers = [key.name for key in keys_of(AgentSettings) if key.hint in (int, float)]
    counts = (
        r"threads|device|port|stride|fps|width|height|rows|questions|awaiting|batch|queue|window|files|connections|"
        r"max_messages|confidence|ask_below|epsilon|delta|epsilon_max"
    )
    unit = re.compile(rf"(\w+_)?(s|ms|mb|kb|megabytes|bytes|days|c|w|percent|share|mb_per_(day|month))|{counts}")
    assert [name for name in numbers if not unit.fullmatch(name.rpartition(".")[2])] == []


@dataclass(frozen=True)
class ExplainedInner:
    z: tuple[int, ...] = ()
    w: int = 0


@dataclass(frozen=True)
class ExplainedTable:
    x: int = 0
    y: str = ""
    b: ExplainedInner = ExplainedInner()


@dataclass(frozen=True)
class ExplainedNamed:
    v: int = 0


@dataclass(frozen=True)
class Explained:
    a: ExplainedTable = ExplainedTable()
    named: Mapping[str, ExplainedNamed] = field(default_factory=dict)


class Colour(str, Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    """What is inside.

    More.
    """

    names: tuple[str, ...] = ()
    size_mb: float = 1.5


@dataclass(frozen=True)
class Outer:
    """Everything."""

    folder: Path
    inner: Inner = Inner()
    tls: Inner | None = None
    named: dict[str, Inner] = field(default_factory=dict)
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED


def test_a_schema_has_names_types_choices_defaults_and_words():
    schema = json_schema(Outer, "Title", {"inner.size_mb": "how large", "kind": "which"})
    inner = schema["properties"]["inner"]
    assert schema["title"] == "Title"
    assert schema["required"] == ["folder"]
    assert schema["properties"]["kind"] == {"enum": ["a", "b"], "description": "which", "default": "a"}
    assert schema["properties"]["colour"] == {"enum": ["red"], "default": "red"}
    assert inner["description"] == "What is inside."
    assert inner["properties"]["size_mb"] == {"type": "number", "description": "how large", "default": 1.5}
    assert inner["properties"]["names"] == {"type": "array", "items": {"type": "string"}}
    assert schema["properties"]["tls"]["type"] == "object"
    assert schema["properties"]["named"]["additionalProperties"]["properties"].keys() == {"names", "size_mb"}
    assert all(one["additionalProperties"] is False for one in (schema, inner))


def test_keys_of_optional_sections_and_of_named_tables_are_listed():
    names = [key.name for key in keys_of(Outer)]
    assert names[:5] == ["folder", "inner.names", "inner.size_mb", "tls.names", "tls.size_mb"]
    assert "named.*.size_mb" in names


def test_a_template_explains_keys_in_sections_over_several_lines_and_commented_out():
    text = (
        '# top\n[a]\nx = 1   # one\n# y = "#"    # two\n          # and more\n\n# [a.b]\n# z = [1]  # three\nw = 2\n'
        "[named.one]\nv = 1  # four\n"
    )
    assert explanations(Explained, text) == {"a.x": "one", "a.y": "two and more", "a.b.z": "three", "named.*.v": "four"}


def test_the_schema_is_json_and_knows_every_section():
    assert set(json.loads(schema_text())["properties"]) == {field.name for field in fields(AgentSettings)}
