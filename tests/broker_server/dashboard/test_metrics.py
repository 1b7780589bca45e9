"""Prometheus is told the truth, and every rule, panel and runbook line speaks of what is told."""

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from broker_server.config import ArtifactSettings, Config, StateSettings
from broker_server.core.events import RolloutHeard
from broker_server.dashboard.expiry import Expiry, expiries
from broker_server.dashboard.pages import notices
from broker_server.dashboard.settings import DashboardSettings
from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from broker_server.identity.settings import EnrolmentSettings
from fd_protocol.competence import FAR
from fd_protocol.identity import sha256
from fd_runtime.starting import BrokerSettings
from tests.broker_server.core.test_editions import BOTH
from tests.broker_server.dashboard.stage import Stage
from tests.broker_server.dashboard.test_pages import play_gains, stage_other
from tests.broker_server.test_publishing import order as published
from tests.broker_server.world import fleet

ROOT = Path(__file__).parents[3]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
MANUAL = (ROOT / "docs/dashboard.md").read_text()
EXPIRIES = (Expiry("aggregator", "", 5_000, ""), Expiry("crl", "", 6_000, ""))
ONLY_WITH_A_STUDENT = {"fedistill_student_accuracy"}
ONLY_WITH_A_LOCK = {"fedistill_server_up"}
ONLY_WITH_A_ROLLOUT = {f"fedistill_rollout_{name}" for name in ("share", "halted", "devices")}


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path, expiries=EXPIRIES).play()


def told(stage):
    """Return {(name, labels): value} of what is scraped."""
    text = stage.browser(accept="*/*").get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_tell_the_round_and_the_last_consensus(stage):
    values = told(stage)
    assert values["fedistill_round_number", ()] == 4
    assert values["fedistill_round_phase", (("phase", "offered"),)] == 1
    assert values["fedistill_round_phase", (("phase", "closed"),)] == 0
    assert (values["fedistill_round_arrivals", ()], values["fedistill_round_quorum", ()]) == (1, 2)
    assert (values["fedistill_devices_online", ()], values["fedistill_devices_known", ()]) == (3, 3)
    assert values["fedistill_voices", ()] == 3
    assert 0 <= values["fedistill_canary_accuracy", ()] <= 1
    assert values["fedistill_round_up_bytes", ()] > 0
    assert values["fedistill_database_bytes", ()] > 0
    assert values["fedistill_crl_expiry_timestamp_seconds", ()] == 6
    assert values["fedistill_certificate_expiry_timestamp_seconds", (("file", "aggregator"),)] == 5


def test_gains_are_told_by_their_least_mean_and_most(tmp_path):
    """Of the canaries `a` has a half more right in its second round, `b` as many as before, `c` a half less."""
    stage = Stage(tmp_path)
    play_gains(stage, [(0.0, 1.0, 1.0), (1.0, 1.0, 0.0)])
    values = told(stage)
    gain = {of: values["fedistill_gain", (("measured", "canaries"), ("of", of))] for of in ("least", "mean", "most")}
    assert gain == {"least": -0.25, "mean": 0.0, "most": 0.25}
    assert values["fedistill_gainers", (("measured", "canaries"),)] == pytest.approx(1 / 3)
    assert ("fedistill_gainers", (("measured", "hold_out"),)) not in values
    assert values["fedistill_influence", (("of", "least"),)] <= values["fedistill_influence", (("of", "most"),)]


def test_rounds_that_came_to_nothing_are_counted_by_what_kept_them_from_it(tmp_path):
    stage = Stage(tmp_path)
    for device in fleet(stage.world):
        device.send_map([FAR] * 20)
        device.contribute()
    assert told(stage)["fedistill_aborted_rounds_total", (("reason", "uncovered"),)] == 1


def test_a_staged_set_and_who_lacks_it_are_told(tmp_path):
    stage = Stage(tmp_path)
    stage.world.device("a", public_sets=BOTH)
    stage.world.device("b")
    stage_other(stage, stage.world)
    values = told(stage)
    assert [values[f"fedistill_{name}", ()] for name in ("edition", "staged", "staged_lacking")] == [1, 1, 1]


def test_a_rollout_is_told_by_family_with_those_that_fell_silent(tmp_path):
    stage = Stage(tmp_path)
    heard = RolloutHeard("cnn-m", sha256(b"bundle 2"), 5, 1, lost=2, silent=3)
    stage.world.server._reconciler.submit([published(1), published(2, percent="50"), heard])
    values = told(stage)
    family = ("family", "cnn-m")
    assert values["fedistill_rollout_share", (family,)] == 0.5
    assert values["fedistill_rollout_halted", (family,)] == 1
    standings = ("succeeded", "failed", "lost", "silent")
    assert [values["fedistill_rollout_devices", (family, ("standing", one))] for one in standings] == [5, 1, 2, 3]
    assert {name for name, _ in values} >= ONLY_WITH_A_ROLLOUT


def test_counters_move_when_a_round_ends_and_go_on_after_a_restart(stage):
    before = told(stage)
    assert before["fedistill_quorum_missed_total", ()] == 1
    assert before["fedistill_rounds_total", (("phase", "closed"),)] == 2
    assert ("fedistill_refusals_total", (("reason", "wrong_temperature"),)) not in before
    stage.world.wait(61)
    stage.world.restart()
    after = told(stage)
    assert after["fedistill_quorum_missed_total", ()] == 2
    assert after["fedistill_rounds_total", (("phase", "aborted"),)] == 2
    assert after["fedistill_refusals_total", (("reason", "wrong_temperature"),)] == 1
    assert after["fedistill_set_aside_total", (("reason", "malformed"),)] == 1


def test_no_metric_grows_with_the_fleet(tmp_path):
    small, large = Stage(tmp_path / "small"), Stage(tmp_path / "large")
    for number in range(3):
        small.world.device(f"d{number}")
    for number in range(50):
        large.world.device(f"d{number}")
    assert set(told(small)) == set(told(large))


def test_metrics_stand_before_the_first_round(tmp_path):
    assert told(Stage(tmp_path))["fedistill_round_number", ()] == 0


def names_in(expression):
    return set(re.findall(r"fedistill_\w+", expression))


def all_names(stage):
    return {name for name, _ in told(stage)} | ONLY_WITH_A_STUDENT | ONLY_WITH_A_LOCK | ONLY_WITH_A_ROLLOUT


def test_every_alert_speaks_of_metrics_that_exist(stage):
    stage.world.wait(61)
    for rule in RULES:
        named = names_in(rule["expr"])
        assert named or rule["expr"].startswith("up{"), rule["alert"]
        assert named <= all_names(stage), rule["alert"]


def test_every_panel_speaks_of_metrics_that_exist(stage):
    stage.world.wait(61)
    panels = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())["panels"]
    named = set().union(*(names_in(target["expr"]) for panel in panels for target in panel["targets"]))
    assert named <= all_names(stage)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_alert_has_a_runbook_line_and_every_runbook_line_an_alert():
    headings = re.findall(r"^### (\w+)$", MANUAL, re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        anchor = f"docs/dashboard.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == anchor
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_every_metric_is_explained_in_the_manual(stage):
    stage.world.wait(61)
    for name in all_names(stage):
        assert f"`{name}" in MANUAL, name


def test_what_the_page_calls_a_runbook_is_an_alert():
    source = Path(notices.__file__).read_text() + (ROOT / "broker_server/dashboard/expiry.py").read_text()
    named = set(re.findall(r'"([A-Z][a-z]+(?:[A-Z][a-z]+)+)"', source))
    assert named
    assert named <= {rule["alert"] for rule in RULES}


# Files.


@pytest.fixture
def authority(tmp_path):
    return Authority.create(tmp_path / "pki", fleet="plant", now=datetime.now(timezone.utc))


def config(folder, *, tls=None, crl=None, authority=None):
    return Config(
        "demo",
        artifacts=ArtifactSettings(folder / "bundle"),
        state=StateSettings(folder),
        broker=BrokerSettings(tls=tls),
        enrolment=EnrolmentSettings(authority=authority),
        dashboard=DashboardSettings(crl=crl),
    )


def test_expiries_are_those_of_the_files_that_the_settings_name(tmp_path, authority):
    moment = datetime.now(timezone.utc)
    files = authority.issue(Identity("aggregator", Role.AGGREGATOR), tmp_path / "out", now=moment)
    found = {one.file: one.until_ms for one in expiries(config(tmp_path, tls=files, crl=authority.crl_path))}
    assert set(found) == {"broker_ca", "aggregator", "crl"}
    for file, days in (("aggregator", 365), ("crl", 30)):
        expected = (moment + timedelta(days=days)).timestamp()
        assert found[file] / 1000 == pytest.approx(expected, abs=86_400)


def test_where_devices_enrol_the_authoritys_own_files_are_watched(tmp_path, authority):
    found = {one.file: one for one in expiries(config(tmp_path, authority=authority.folder))}
    assert set(found) == {"issuing", "crl"}
    days = (found["issuing"].until_ms / 1000 - datetime.now(timezone.utc).timestamp()) / 86_400
    assert 364 < days <= 365


def test_a_file_that_is_gone_or_damaged_has_no_expiry(tmp_path):
    broken = tmp_path / "crl.pem"
    broken.write_text("-----BEGIN X509 CRL-----\nrubbish\n-----END X509 CRL-----\n")
    assert list(expiries(config(tmp_path, crl=broken))) == []
    assert list(expiries(config(tmp_path, crl=tmp_path / "none.pem"))) == []
    assert list(expiries(config(tmp_path))) == []
