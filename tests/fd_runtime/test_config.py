"""A program's settings are one value, or one line that names the file, the key and what is wrong."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest

from fd_protocol.documents import LINES
from fd_protocol.errors import DigestError, InvalidValueError
from fd_protocol.messages import TrainingTerms
from fd_runtime.config import ConfigError, Override, exit_code_for, load_toml, value_of


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Broker:
    host: str
    port: int = 8883
    keepalive_s: float = 60.0
    certificate: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    broker: Broker
    runtime: Literal["onnxruntime", "litert"] = "onnxruntime"
    colour: Colour = Colour.RED
    tags: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    training: TrainingTerms = TrainingTerms()
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.colour is Colour.BLUE and self.verbose:
            raise InvalidValueError("blue is never verbose")


@pytest.fixture
def load(tmp_path):
    def load_text(text, **environ):
        path = tmp_path / "agent.toml"
        path.write_text(text)
        return load_toml(path, Settings, environ)

    return load_text


def problem(load, text, **environ):
    with pytest.raises(ConfigError) as caught:
        load(text, **environ)
    assert "\n" not in str(caught.value)
    return str(caught.value).rsplit("/", 1)[-1]


def test_a_file_is_its_dataclass(load, tmp_path):
    settings = load(
        """
        runtime = "litert"
        colour = "blue"
        tags = ["a", "b"]
        limits = { memory = 3 }
        [broker]
        host = "localhost"
        keepalive_s = 30
        certificate = "tls/device.pem"
        [training]
        epochs = 4
        """
    )
    assert settings == Settings(
        broker=Broker("localhost", 8883, 30.0, tmp_path / "tls" / "device.pem"),
        runtime="litert",
        colour=Colour.BLUE,
        tags=("a", "b"),
        limits={"memory": 3},
        training=TrainingTerms(epochs=4),
    )
    assert isinstance(settings.broker.keepalive_s, float)


def test_a_path_counts_from_the_file_and_an_absolute_one_stands(load):
    assert load("broker = { host = 'h', certificate = '/etc/x.pem' }").broker.certificate == Path("/etc/x.pem")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[broker]\nhost='h'\nprot=1", "agent.toml: broker.prot: unknown key, did you mean 'port'?"),
        (
            "[broker]\nhost='h'\nzzz=1",
            "agent.toml: broker.zzz: unknown key; known are host, port, keepalive_s, certificate",
        ),
        ("[broker]\nport=1", "agent.toml: broker.host: missing"),
        ("", "agent.toml: broker: missing"),
        ("broker=3", "agent.toml: broker: expected a table, found an integer 3"),
        ("[broker]\nhost='h'\nport='x'", "agent.toml: broker.port: expected an integer, found text 'x'"),
        ("[broker]\nhost='h'\nport=true", "agent.toml: broker.port: expected an integer, found true or false True"),
        (
            "[broker]\nhost='h'\nkeepalive_s=nan",
            "agent.toml: broker.keepalive_s: expected a number, found a number nan",
        ),
        ("tags=[1]\n[broker]\nhost='h'", "agent.toml: tags.0: expected text, found an integer 1"),
        ("tags='a'\n[broker]\nhost='h'", "agent.toml: tags: expected an array, found text 'a'"),
        (
            "runtime='torch'\n[broker]\nhost='h'",
            "agent.toml: runtime: expected one of 'onnxruntime', 'litert', found text 'torch'",
        ),
        ("colour=['red']\n[broker]\nhost='h'", "agent.toml: colour: expected one of 'red', 'blue', found an array"),
        ("limits={a='x'}\n[broker]\nhost='h'", "agent.toml: limits.a: expected an integer, found text 'x'"),
        ("colour='blue'\nverbose=true\n[broker]\nhost='h'", "agent.toml: blue is never verbose"),
        ("training={epochs=0}\n[broker]\nhost='h'", "agent.toml: training: epochs lie in 1..1000"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_file_and_key(load, text, line):
    assert problem(load, text) == line


def test_text_that_is_no_toml_is_told_with_its_line(load):
    assert "agent.toml: not TOML: " in problem(load, "a = = 1")
    assert "line 1" in problem(load, "a = = 1")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file") as caught:
        load_toml(tmp_path / "absent.toml", Settings, {})
    assert exit_code_for(caught.value) == 78


def test_the_environment_overrides_the_file(load, tmp_path):
    settings = load(
        "[broker]\nhost='h'\nport=1",
        FEDISTILL__BROKER__PORT="2",
        FEDISTILL__BROKER__HOST="10",
        FEDISTILL__BROKER__CERTIFICATE="x.pem",
        FEDISTILL__TAGS='["t"]',
        FEDISTILL__COLOUR="blue",
        FEDISTILL__RUNTIME="litert",
        OTHER="ignored",
    )
    assert settings.broker == Broker("10", 2, certificate=tmp_path / "x.pem")
    assert (settings.tags, settings.colour, settings.runtime) == (("t",), Colour.BLUE, "litert")


def test_a_section_may_stand_in_the_environment_alone(load):
    assert load("", FEDISTILL__BROKER__HOST="h").broker == Broker("h")


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("FEDISTILL__BROKER__PORT", "'x'", "FEDISTILL__BROKER__PORT: broker.port: expected an integer, found text 'x'"),
        ("FEDISTILL__BROKER__PORT", "x y", "FEDISTILL__BROKER__PORT: broker.port: 'x y' is not a TOML value"),
        ("FEDISTILL__VERBOSE__X", "1", "FEDISTILL__VERBOSE__X: verbose: expected a table, found true or false True"),
    ],
)
def test_a_wrong_environment_is_one_line_that_names_the_variable(load, variable, text, line):
    assert problem(load, "verbose = true\n[broker]\nhost='h'", **{variable: text}) == line


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("BROKER__PROT", "broker.prot: unknown key, did you mean 'port'?"),
        ("ZZZ__PORT", "zzz: unknown key; known are broker, runtime, colour, tags, limits, training, verbose"),
        ("TAGS__0", "tags.0: unknown key"),
        ("COLOUR__NAME", "colour.name: unknown key"),
    ],
)
def test_an_unknown_variable_of_ours_is_refused_like_an_unknown_key(load, key, complaint):
    line = problem(load, "[broker]\nhost='h'", **{f"FEDISTILL__{key}": "1"})
    assert line == f"FEDISTILL__{key}: {complaint}"


def test_what_a_program_was_told_wins_over_the_file_and_the_environment_over_both(load, tmp_path):
    load("runtime='litert'\n[broker]\nhost='h'\nport=1")
    told = [Override("remote", "broker.port", "2"), Override("remote", "runtime", "onnxruntime")]
    settings = load_toml(tmp_path / "agent.toml", Settings, {"FEDISTILL__BROKER__PORT": "3"}, told)
    assert (settings.broker.port, settings.runtime) == (3, "onnxruntime")
    with pytest.raises(ConfigError, match=r"^remote: broker\.prot: unknown key, did you mean 'port'\?$"):
        load_toml(tmp_path / "agent.toml", Settings, {}, [Override("remote", "broker.prot", "2")])


def test_a_text_becomes_the_value_that_its_key_asks_for():
    assert value_of(Settings, "broker.keepalive_s", "30", "told") == 30
    assert value_of(Settings, "colour", "blue", "told") == "blue"
    assert value_of(Settings, "tags", '["7"]', "told") == ["7"]
    with pytest.raises(ConfigError, match=r"^told: broker\.port: expected an integer"):
        value_of(Settings, "broker.port", "true", "told")


def test_a_member_of_a_map_may_stand_in_the_environment(load):
    assert load("[broker]\nhost='h'", FEDISTILL__LIMITS__MEMORY="7").limits == {"memory": 7}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("f", "k", "p"), 78),
        (InvalidValueError("x"), 78),
        (PermissionError(errno.EACCES, "x"), 77),
        (ConnectionRefusedError(), 69),
        (TimeoutError(), 75),
        (FileExistsError(), 73),
        (OSError(errno.ENOSPC, "No space left on device"), 74),
        (DigestError("f", bytes(32), bytes(32)), 65),
        (RuntimeError("a bug"), 70),
    ],
)
def test_every_error_has_the_exit_status_that_sysexits_gives_it(error, code):
    assert exit_code_for(error) == code


def test_an_error_may_bring_its_own_exit_status():
    class UsageError(Exception):
        exit_code = 64

    assert exit_code_for(UsageError()) == 64


@dataclass(frozen=True, slots=True)
class Choices:
    names: tuple[str, ...] = field(metadata=LINES)
    tags: tuple[str, ...] = ()


def test_a_long_list_may_stand_in_a_file_beside_the_settings(tmp_path):
    path, names = tmp_path / "agent.toml", tmp_path / "lists" / "names.txt"
    names.parent.mkdir()
    names.write_text("été\nhiver\n", "utf-8")
    path.write_text("names = 'lists/names.txt'")
    assert load_toml(path, Choices, {}).names == ("été", "hiver")
    path.write_text("names = ['here']")
    assert load_toml(path, Choices, {}).names == ("here",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("names = 'none.txt'", "names: 'none.txt' cannot be read: No such file or directory"),
        ("names = 'latin.txt'", "names: 'latin.txt' cannot be read: it is no UTF-8"),
        ("names = 3", "names: expected an array, found an integer 3"),
        ("names = []\ntags = 'none.txt'", "tags: expected an array, found text 'none.txt'"),
    ],
)
def test_a_list_that_is_neither_here_nor_there_is_one_line(tmp_path, text, line):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    (tmp_path / "latin.txt").write_bytes("été".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_toml(path, Choices, {})
    assert str(caught.value) == f"{path}: {line}"
