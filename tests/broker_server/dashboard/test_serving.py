"""What the process is made of: tokens from files, terms from settings."""

from pathlib import Path

import pytest

from broker_server.config import ArtifactSettings, Config, StateSettings
from broker_server.dashboard.access import Role
from broker_server.dashboard.serving import read_tokens
from broker_server.dashboard.settings import DashboardSettings
from broker_server.several import check_apart
from fd_protocol.errors import InvalidValueError
from fd_runtime.starting import StartError


def config(folder, name="demo", **dashboard):
    state, artifacts = StateSettings(folder), ArtifactSettings(folder / "bundle")
    return Config(name, aggregator=name, artifacts=artifacts, state=state, dashboard=DashboardSettings(**dashboard))


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("a-token-of-enough-characters\n")
    path.chmod(0o600)
    return path


def test_a_token_is_what_its_file_says_without_the_line_end(tmp_path, token):
    tokens = read_tokens(config(tmp_path, operator_token_file=token))
    assert tokens.viewer is None
    assert tokens.role_of("a-token-of-enough-characters") is Role.OPERATOR


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_token_that_others_may_read_is_none(tmp_path, token, mode):
    token.chmod(mode)
    with pytest.raises(InvalidValueError, match="may be read by others"):
        read_tokens(config(tmp_path, viewer_token_file=token))


def test_a_token_file_that_is_empty_or_absent_opens_nothing(tmp_path, token):
    token.write_text("\n")
    with pytest.raises(InvalidValueError, match="characters"):
        read_tokens(config(tmp_path, viewer_token_file=token))
    with pytest.raises(FileNotFoundError):
        read_tokens(config(tmp_path, viewer_token_file=tmp_path / "none"))


def test_two_dashboards_at_one_port_are_refused_and_two_absent_ones_are_not(tmp_path):
    def pair(**dashboard):
        return {Path(f"{name}.toml"): config(tmp_path / name, name, **dashboard) for name in ("a", "b")}

    check_apart(pair(enabled=False))
    with pytest.raises(StartError, match=r"b.toml: dashboard.port: the same as in a.toml"):
        check_apart(pair(enabled=True))
