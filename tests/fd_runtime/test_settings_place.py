"""Where a settings file is looked for."""

from pathlib import Path

import pytest

from fd_runtime.config import EX_CONFIG
from fd_runtime.settings_place import NoSettingsError, SettingsPlace


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return SettingsPlace("a.toml", "A_CONFIG", tmp_path / "etc" / "a.toml", "a init .", "change it")


def test_what_is_named_wins_then_the_environment_then_here_then_the_systems(place):
    place.system.parent.mkdir()
    place.system.touch()
    assert place.find(None, {}) == place.system
    Path("a.toml").touch()
    assert place.find(None, {}) == Path("a.toml")
    assert place.find(None, {"A_CONFIG": ""}) == Path("a.toml")
    assert place.find(None, {"A_CONFIG": "other.toml"}) == Path("other.toml")
    assert place.find(Path("named.toml"), {"A_CONFIG": "other.toml"}) == Path("named.toml")


def test_where_there_is_none_the_error_says_where_it_looked_and_what_writes_one(place):
    with pytest.raises(NoSettingsError) as caught:
        place.find(None, {})
    assert (
        str(caught.value) == f"no a.toml here, none at {place.system}: `a init .` writes one, --config FILE names one"
    )
    assert (caught.value.exit_code, caught.value.remedy) == (EX_CONFIG, "change it")
