"""The containers of a server: what they may do, where they listen, what they are told."""

import os
import re
from pathlib import Path

import pytest
import yaml

from broker_server.cli import main as broker_server
from broker_server.config import Config
from deploy.deb.catalogue import ROOT, SERVER
from fd_runtime.config import load_toml

FOLDER = ROOT / "deploy" / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yml").read_text())
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_rights_that_it_does_not_need(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "devices"} & set(service)
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ()))


def test_what_is_not_ours_has_a_version():
    foreign = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert foreign
    assert all(re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", image) for image in foreign)


def test_what_nobody_logs_in_to_listens_on_loopback():
    assert "--web.listen-address=127.0.0.1:9090" in SERVICES["prometheus"]["command"]
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    told = SERVICES["server"]["environment"]
    assert "FEDISTILL__DASHBOARD__HOST" not in told  # loopback by default
    assert [key for key, value in told.items() if value == "0.0.0.0"] == ["FEDISTILL__PACKAGES__HOST"]
    assert told["FEDISTILL__PACKAGES__CA"]  # where devices show a certificate


def test_each_file_that_is_mounted_is_here():
    volumes = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", ())]
    ours = {source for source, *_ in volumes if source.startswith((".", "/"))}
    made_by_hand = {"./state", "./settings", "./artifacts", "./root-key"}
    assert {source for source in ours if not (FOLDER / source).exists()} == made_by_hand
    assert {source for source, *_ in volumes} - ours == set(COMPOSE["volumes"])


def test_grafana_finds_prometheus_and_our_dashboard():
    (source,) = yaml.safe_load((FOLDER / "grafana" / "datasources.yml").read_text())["datasources"]
    assert source["url"] == "http://127.0.0.1:9090"
    (provider,) = yaml.safe_load((FOLDER / "grafana" / "dashboards.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    assert (FOLDER / mounted[provider["options"]["path"]] / "dashboard.json").is_file()
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"][0]["targets"] == ["127.0.0.1:8089"]


def test_the_server_is_told_settings_that_there_are(tmp_path, monkeypatch):
    for key in [key for key in os.environ if key.startswith("FEDISTILL__")]:
        monkeypatch.delenv(key)
    for key, value in SERVICES["server"]["environment"].items():
        monkeypatch.setenv(key, value)
    broker_server(["init", str(tmp_path), "--federation", "plant-7", "--trust", "none"])
    config = load_toml(tmp_path / "federation.toml", Config)
    assert config.artifacts.bundle == tmp_path / "artifacts" / "bundle"
    assert config.dashboard.enabled
    assert config.packages.enabled
    assert config.packages.tls.key == tmp_path / "tls" / "https.key"
    assert config.enrolment.enabled
    state = f"/var/lib/{SERVER.user}/"
    assert str(config.enrolment.broker_pid_file).startswith(state)
    assert f"{state.rstrip('/')}" in {volume.split(":")[1] for volume in SERVICES["broker"]["volumes"]}


def test_the_image_holds_the_package_and_the_user_of_its_units():
    text = (FOLDER / "Dockerfile").read_text()
    assert f"{SERVER.name}_*+py3.11_" in text  # Bookworm's Python
    assert "FROM debian:bookworm-slim" in text
    assert f"USER {SERVER.user}" in text
    told = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?:--\S+ )?(\S+)", text, re.MULTILINE)
    assert all(any(Path(source).match(line[1:] + "*") for line in told if line[0] == "!") for source in copied)
