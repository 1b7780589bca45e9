from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.settings import AgentSettings
from edge_agent.slots.reaching import trust
from edge_agent.slots.settings import ReleaseSettings
from fd_runtime.config import load_toml
from tests.edge_agent.processes import settings_text


def test_a_device_that_takes_no_packages_keeps_no_second_tls_context(tmp_path):
    (tmp_path / "agent.toml").write_text(settings_text(1))
    settings = load_toml(tmp_path / "agent.toml", AgentSettings)
    absent = tmp_path / "absent.pem"
    assert trust(replace(settings, releases=ReleaseSettings(ca=absent))) is None
    with pytest.raises(FileNotFoundError):
        trust(replace(settings, releases=ReleaseSettings("https://updates.example", ca=absent, root=absent)))
