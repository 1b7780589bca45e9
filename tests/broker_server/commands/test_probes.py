"""`broker-server probes`: from a folder to the current set, whether the server runs or not."""

import json
from contextlib import closing, nullcontext

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.config import Config
from broker_server.core.events import EditionNamed
from broker_server.core.federation import Federation
from broker_server.equipment import Workshop, load_equipment
from broker_server.journal import Journal
from broker_server.kits import Kits
from broker_server.orders import Spool
from broker_server.probe_shelf import ProbeShelf
from broker_server.service import utc_ms
from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.errors import DigestError
from fd_runtime.artifacts import MissingArtifactError, load_public_set
from fd_runtime.config import load_toml
from fd_runtime.starting import exclusive
from fd_runtime.storage.store import Store
from model_export.public_set import build_public_set
from tests.broker_server.artifacts import TASK, build_artifacts
from tests.broker_server.served import serving

FED = "demo"
WAIT = ("--wait", "30")


def canaries_of(folder, trust=(0, 1), release=(2, 3)):
    digest = load_public_set(folder).digest.hex()
    return Canaries(digest, LabelledProbes(trust, (0,) * len(trust)), LabelledProbes(release, (1,) * len(release)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a bundle, its public set, and another set."""
    folder = tmp_path_factory.mktemp("made")
    build_artifacts(folder)
    samples = np.random.default_rng(7).integers(0, 256, (24, 12), dtype=np.uint8)
    build_public_set(folder / "other", samples, TASK, seed=1)
    return folder


@pytest.fixture
def config(tmp_path, made):
    """Settings of a server that has run, and canaries: those in use, others of its set, and of the other set."""
    assert main(["init", str(tmp_path), "--federation", FED]) == 0
    path = tmp_path / CONFIG_NAME
    text = path.read_text().replace('"bundle"', f'"{made}/bundle"').replace('"public_set"', f'"{made}/public_set"')
    path.write_text(text.replace('# canaries = "canaries.json"', 'canaries = "canaries.json"'))
    (tmp_path / "canaries.json").write_bytes(canaries_of(made / "public_set").to_json())
    (tmp_path / "again.json").write_bytes(canaries_of(made / "public_set", (4, 5), (3, 6)).to_json())
    (tmp_path / "fresh.json").write_bytes(canaries_of(made / "public_set", (7, 8), (9, 10)).to_json())
    (tmp_path / "of_other.json").write_bytes(canaries_of(made / "other").to_json())
    (tmp_path / "state").mkdir()
    equipment = load_equipment(path)
    kits = Kits(Workshop(equipment, with_student=False).first(), equipment.canaries_sha256)
    with closing(Store.open(tmp_path / "state" / "server.db")) as store:
        Journal(store, FED).write([EditionNamed(kits.first_edition)], utc_ms())
    return path


@pytest.fixture(params=[False, True], ids=["stopped", "running"])
def served(request, config):
    """The settings, with a server running or not."""
    workshop = Workshop(load_equipment(config), with_student=False)
    kit = workshop.first()
    arguments = {
        "probes": kit.probes,
        "canaries": kit.canaries,
        "canaries_sha256": load_equipment(config).canaries_sha256,
        "make_kit": workshop.other,
    }
    with serving(config.parent / "state", **arguments) if request.param else nullcontext():
        yield config


def say(capsys, config, *arguments, code=0):
    capsys.readouterr()
    assert main(["probes", *map(str, arguments), *WAIT, "--config", str(config), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def listed(capsys, config):
    capsys.readouterr()
    assert main(["probes", "--config", str(config), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys, config, *arguments):
    capsys.readouterr()
    code = main(["probes", *map(str, arguments), "--config", str(config)])
    return code, capsys.readouterr().err


def state(config) -> Federation:
    settings = load_toml(config, Config)
    with Store.view(settings.state.store) as store:
        return Journal(store, settings.federation).replay()


def test_from_a_folder_to_the_current_set(served, made, capsys):
    config = served
    assert [one["place"] for one in listed(capsys, config)] == ["current"]
    told = say(capsys, config, "stage", made / "other", "--canaries", config.parent / "of_other.json")
    assert told == {"obeyed": True, "outcome": "edition 2 is staged: 24 probes"}
    assert [(one["number"], one["place"], one["count"]) for one in listed(capsys, config)] == [
        (1, "current", 30),
        (2, "staged", 24),
    ]
    assert not say(capsys, config, "switch", code=1)["obeyed"]
    assert say(capsys, config, "trial")["outcome"] == "the next round is a trial of edition 2"
    assert say(capsys, config, "switch", "--untried")["obeyed"]
    assert [(one["number"], one["place"]) for one in listed(capsys, config)] == [(2, "current"), (1, "retired")]
    equipment = load_equipment(config)
    kit = Workshop(equipment, with_student=False).other(state(config).editions.current)
    assert (kit.probes.count, kit.probes.public_set) == (24, load_public_set(made / "other").digest)
    assert kit.canaries == canaries_of(made / "other").trust


def test_the_table_is_for_people(config, made, capsys):
    say(capsys, config, "stage", made / "other", "--canaries", config.parent / "of_other.json")
    capsys.readouterr()
    assert main(["probes", "list", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "1 current" in shown
    assert "2 staged" in shown
    assert load_public_set(made / "other").digest.hex()[:16] in shown


def test_what_is_staged_can_be_taken_back(served, made, capsys):
    config = served
    say(capsys, config, "stage", made / "other", "--canaries", config.parent / "of_other.json")
    assert say(capsys, config, "drop")["outcome"] == "edition 2 is dropped"
    assert [one["place"] for one in listed(capsys, config)] == ["current"]
    assert not say(capsys, config, "drop", code=1)["obeyed"]


def test_other_canaries_take_over_at_once(served, capsys):
    config = served
    told = say(capsys, config, "rotate", config.parent / "fresh.json", "--forget-trust")
    assert told["outcome"].endswith("what devices have earned is forgotten")
    now, before = listed(capsys, config)
    assert (now["number"], now["place"], now["public_set"]) == (2, "current", before["public_set"])
    equipment = load_equipment(config)
    kit = Workshop(equipment, with_student=False).other(state(config).editions.current)
    assert kit.canaries.probes == (7, 8)


def test_canaries_that_were_used_before_are_refused(config, capsys):
    """Probe 3 was a release canary, and is one again."""
    code, line = failure(capsys, config, "rotate", config.parent / "again.json")
    assert (code, "1 of these 4 probes were canaries before, 3 the first" in line) == (78, True)
    say(capsys, config, "rotate", config.parent / "fresh.json")
    code, line = failure(capsys, config, "rotate", config.parent / "canaries.json")
    assert (code, "4 of these 4" in line) == (78, True)


def test_canaries_of_another_set_are_refused(config, capsys):
    code, line = failure(capsys, config, "rotate", config.parent / "of_other.json")
    assert (code, "belongs to another public set" in line) == (78, True)


def test_an_untrusted_fleet_gets_no_set_without_canaries(config, made, capsys):
    code, line = failure(capsys, config, "stage", made / "other")
    assert (code, "nothing to weigh devices by" in line) == (78, True)
    config.write_text(config.read_text().replace('trust = "canaries"', 'trust = "none"'))
    assert say(capsys, config, "stage", made / "other")["obeyed"]


def test_what_is_no_public_set_is_not_staged(config, made, capsys):
    assert failure(capsys, config, "stage", config.parent)[0] == 66
    assert failure(capsys, config, "stage", made / "bundle")[0] == 66


def test_canaries_on_the_shelf_are_for_their_owner_alone(config, made, capsys):
    say(capsys, config, "stage", made / "other", "--canaries", config.parent / "of_other.json")
    (file,) = (config.parent / "state" / "probes" / "canaries").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_files_of_a_retired_edition_are_removed_by_its_number_and_its_canaries_stay_known(config, made, capsys):
    say(capsys, config, "stage", made / "other", "--canaries", config.parent / "of_other.json")
    say(capsys, config, "switch", "--untried")
    assert failure(capsys, config, "drop", 2)[0] == 66
    say(capsys, config, "stage", made / "public_set", "--canaries", config.parent / "canaries.json")
    assert failure(capsys, config, "drop", 1)[0] == 78, "its set is staged again"
    say(capsys, config, "switch", "--untried")
    folder = config.parent / "state" / "probes"
    assert len(list((folder / "sets").iterdir())) == 2
    assert say(capsys, config, "drop", 2)["removed"] == load_public_set(made / "other").digest.hex()
    assert len(list((folder / "sets").iterdir())) == 1
    assert len(list((folder / "canaries").iterdir())) == 2


def test_a_set_that_is_current_and_gone_is_told_by_the_doctor_and_comes_back_by_staging_it(config, made, capsys):
    say(capsys, config, "stage", made / "other", "--canaries", config.parent / "of_other.json")
    say(capsys, config, "switch", "--untried")
    shelf = load_equipment(config).probe_shelf
    shelf.remove_set(load_public_set(made / "other").digest)
    with pytest.raises(MissingArtifactError):
        Workshop(load_equipment(config), with_student=False).other(state(config).editions.current)
    capsys.readouterr()
    assert main(["doctor", "--config", str(config), "--json"]) != 0
    found = {one["check"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["probes"]["verdict"], found["artifacts"]["verdict"]) == ("failed", "ok")
    say(capsys, config, "stage", made / "other", "--canaries", config.parent / "of_other.json", code=1)
    assert Workshop(load_equipment(config), with_student=False).other(state(config).editions.current).probes.count == 24


def test_canaries_that_are_not_those_of_their_name_are_not_believed(config, made):
    shelf, public = load_equipment(config).probe_shelf, load_public_set(made / "public_set")
    digest = shelf.put_canaries(canaries_of(made / "public_set", (11, 12)))
    path = shelf.folder / "canaries" / f"{digest.hex()}.json"
    path.write_bytes(canaries_of(made / "public_set", (13, 14)).to_json())
    with pytest.raises(DigestError):
        shelf.canaries(digest, public)
    assert isinstance(shelf, ProbeShelf)


def test_while_something_holds_the_folder_the_order_waits(config, made, capsys):
    with exclusive(config.parent / "state" / "server.lock"):
        code, line = failure(capsys, config, "trial", "--wait", "0.1")
    assert (code, "the order waits" in line) == (75, True)
    assert [one.order.command for one in Spool(config.parent / "state" / "orders").waiting()] == ["probes-trial"]
