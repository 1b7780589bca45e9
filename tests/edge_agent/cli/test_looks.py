"""What an owner sees of a device: where it stands, what waits, whether it is well."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from edge_agent.care.predicting import read_samples
from edge_agent.commands import memory
from edge_agent.commands.machine import CommandHeard, Commands, step
from edge_agent.learning import checkpoint
from edge_agent.learning.checkpoint import Checkpoint
from edge_agent.privacy.ledger import Ledger
from edge_agent.privacy.limits import charge_for
from edge_agent.remote_config import RemoteConfig, begin, save
from edge_agent.round.journal import Journal
from edge_agent.round.participant import Phase
from edge_agent.spool import Message, Spool
from fd_protocol.identity import sha256
from fd_protocol.manifest import Task
from fd_protocol.messages import Command, CommandState, PrivacyTerms
from fd_runtime.artifacts import load_bundle
from fd_runtime.config import EX_DATAERR
from fd_runtime.images import ImageError
from fd_runtime.models.model import OptimizerState
from fd_runtime.storage.store import Store
from tests.edge_agent.artifacts import SIZE, clouds, factory_theta
from tests.edge_agent.builders import FEDERATION
from tests.edge_agent.cli.conftest import PAYLOAD
from tests.support.programs import running

# Status.


def test_status_of_a_device_that_was_stopped(home):
    told = home.live(waiting=True).json("status")
    assert (told["device"], told["running"], told["starts"], told["phase"]) == ("dev-1", False, 1, "submitting")
    assert told["outbox"] == {"contribution": f"{len(PAYLOAD)} B of test/0007/1"}
    assert "well" not in told


def test_status_of_a_device_that_runs_tells_how_it_is(home):
    home.live().says(is_connected=False, link="Connection refused", problem="disk_full")
    with home.running():
        told = home.json("status")
    assert (told["running"], told["well"]) == (True, False)
    assert told["connection"] == "not connected: Connection refused"
    assert told["because"] == "not connected: Connection refused; disk_full"


def test_status_tells_what_else_the_device_says_of_itself(home):
    more = {"advice": "see the network", "last_death": "oom", "waiting": 2, "alarms": {"drift": "inputs are strange"}}
    home.live().says(link="gone", is_connected=False, standing=more)
    with home.running():
        told = home.json("status")
    assert (told["what to do"], told["last worker"], told["waiting"], told["alarm drift"]) == (
        "see the network", "ended by oom", "2 messages for the broker", "inputs are strange",
    )  # fmt: skip


def test_what_a_killed_life_said_of_itself_is_no_news_of_the_next(home):
    home.live().says(boot=1)
    home.live()
    with home.running():
        assert home.type("health")[:2] == (1, "it has just begun, or cannot say how it is\n")
        told = home.json("status")
        home.says(boot=2)
        assert home.type("health")[:2] == (0, "well\n")
    assert (told["well"], "connection" in told) == (False, False)


def test_status_tells_what_the_server_has_ordered_and_changed(home):
    home.live()
    with _open(home) as store:
        state = step(Commands(), CommandHeard(Command("c-1", "diag", CommandState.INIT, 10), 5, "forbidden"))
        state = step(state, CommandHeard(Command("c-2", "config", CommandState.INIT, 10), 5))
        memory.keep(store, FEDERATION, state)
    save(home.state, begin(RemoteConfig(), "c-2", {"model.threads": "2"}))
    told = home.json("status")
    assert told["commands"] == {"config": "init", "diag": "failed (forbidden)"}
    assert told["set by the server"] == {"model.threads": "2"}
    assert told["on trial"] == "settings of command c-2"
    _, out, _ = home.type("status")
    assert "commands.diag" in out
    assert "set by the server.model.threads  2" in out


def _open(home):
    return closing(Store.open(home.state / "agent.db"))


def test_status_of_a_device_that_never_ran_says_so(home):
    code, _, err = home.type("status")
    assert (code, "no such file" in err) == (66, True)


def test_status_can_be_watched(home):
    home.live()
    command = [
        sys.executable,
        "-m",
        "edge_agent.cli",
        "status",
        "--watch",
        "0.2",
        "--json",
        "--config",
        str(home.config),
    ]
    with running(command, stdout=subprocess.PIPE, text=True) as watching:
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.terminate()
    assert [line["device"] for line in lines] == ["dev-1", "dev-1"]


# Health.


def test_a_device_that_does_not_run_is_not_well(home):
    home.live().says()
    assert home.type("health")[:2] == (1, "it is not running\n")


def test_a_device_that_runs_and_lacks_nothing_is_well(home):
    home.live().says()
    with home.running():
        assert home.type("health")[:2] == (0, "well\n")
        home.says(is_worker_ready=False)
        assert home.json("health") == {"well": False, "complaints": ["the worker is not ready"]}


def test_a_gate_waits_until_it_is_well_and_stays_so(home):
    home.live().says()
    with home.running():
        assert home.type("health", "--gate", "--wait", "20", "--steady", "0.6")[0] == 0
        home.says(is_connected=False)
        assert home.type("health", "--gate", "--wait", "0.6", "--steady", "0.1")[:2] == (1, "not connected\n")
        home.says()
        assert home.type("health", "--gate", "--wait", "0.6", "--steady", "60")[0] == 1


# Outbox.


def test_what_waits_is_listed(home):
    (one,) = home.live(waiting=True).json("outbox", "list")
    assert one == {
        "kind": "contribution",
        "round": "test/0007/1",
        "payload_sha256": sha256(PAYLOAD).hex(),
        "bytes": len(PAYLOAD),
    }


def test_what_waits_can_be_dropped_and_the_round_says_why(home):
    home.live(waiting=True)
    assert home.type("outbox", "drop", "competence")[1] == "nothing waited\n"
    assert home.type("outbox", "drop", "all")[0] == 0
    assert home.type("outbox", "list")[1] == "nothing waits\n"
    with _open(home) as store:
        state = Journal(store, FEDERATION).replay()
    assert (state.phase, state.report.reason) == (Phase.REPORTING, "refused: dropped by its owner")


def test_a_device_that_runs_is_not_interfered_with(home):
    home.live(waiting=True)
    with home.running():
        assert home.type("outbox", "drop", "all")[0] == 75
        assert home.type("wipe", "--yes")[0] == 75
    assert len(home.json("outbox", "list")) == 1


@pytest.fixture
def spool(home):
    """Two messages that nobody receipts wait, beside a contribution."""
    spool = Spool(home.live(waiting=True).state / "outbox")
    for text in (b"one", b"three"):
        spool.put(Message(f"topic/{text.decode()}", text))
    return spool


def test_messages_that_nobody_receipts_are_listed_after_the_payloads(home, spool):
    listed = home.json("outbox", "list")
    assert [one["kind"] for one in listed] == ["contribution", "message", "message"]
    assert listed[1:] == [
        {"kind": "message", "topic": "topic/one", "bytes": 3},
        {"kind": "message", "topic": "topic/three", "bytes": 5},
    ]
    assert "topic/three" in home.type("outbox", "list")[1]


def test_messages_are_dropped_alone_or_with_all_and_never_under_a_running_device(home, spool):
    with home.running():
        assert home.type("outbox", "drop", "message")[0] == 75
    home.json("outbox", "drop", "competence")
    assert len(home.json("outbox", "list")) == 3
    dropped = home.json("outbox", "drop", "message")
    assert [one["topic"] for one in dropped] == ["topic/one", "topic/three"]
    assert [one["kind"] for one in home.json("outbox", "list")] == ["contribution"]
    spool.put(Message("topic/late", b"late"))
    assert [one["kind"] for one in home.json("outbox", "drop", "all")] == ["contribution", "message"]
    assert home.json("outbox", "list") == []


# Model.


def test_the_model_is_listed_with_what_it_is(home):
    (one,) = home.json("model", "list")
    assert (one["name"], one["family"], one["runtime"], one["is_current"], one["has_learned"]) == (
        "clouds", "mlp-s", "numpy", True, False,
    )  # fmt: skip
    assert one["bundle"] == load_bundle(home.folder / "bundle").digest.hex()


# Predict.


def test_it_predicts_what_is_in_a_file(home):
    samples, _ = clouds(12, seed=2)
    np.save(home.folder / "x.npy", samples)
    told = home.json("predict", str(home.folder / "x.npy"))
    assert [one["row"] for one in told] == list(range(12))
    assert all(abs(sum(one["classes"].values()) - 1) < 1e-3 for one in told)
    assert all(one["confidence"] == max(one["classes"].values()) for one in told)
    _, out, _ = home.type("predict", str(home.folder / "x.npy"), "--top", "1")
    assert len(out.splitlines()) == 13


def test_it_speaks_with_what_the_device_has_learned(home):
    np.save(home.folder / "x.npy", clouds(12, seed=2)[0])
    before = home.json("predict", str(home.folder / "x.npy"))
    state = OptimizerState.fresh(-factory_theta(), ("moment1", "moment2"))
    home.state.mkdir()
    checkpoint.save(home.state / "checkpoint", Checkpoint.of(load_bundle(home.folder / "bundle").digest, state))
    assert home.json("predict", str(home.folder / "x.npy")) != before
    checkpoint.save(home.state / "checkpoint", Checkpoint.of(bytes(32), state))
    assert home.json("predict", str(home.folder / "x.npy")) == before


def test_npz_csv_and_a_single_sample_are_the_same_samples(home):
    samples, _ = clouds(3, seed=2)
    np.save(home.folder / "x.npy", samples)
    np.savez(home.folder / "x.npz", x=samples, y=[0, 0, 0])
    with (home.folder / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([list("abcdef"), *samples.tolist()])
    told = [home.json("predict", str(home.folder / f"x.{kind}")) for kind in ("npy", "npz", "csv")]
    assert told[0] == told[1] == told[2]
    np.save(home.folder / "one.npy", samples[1])
    assert home.json("predict", str(home.folder / "one.npy"))[0]["classes"] == told[0][1]["classes"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("absent.npy", None),
        ("x.npy", b"nonsense"),
        ("x.npz", b"nonsense"),
        ("x.csv", b"a,b,c\n"),
        ("x.txt", b"1,2,3"),
        ("short.csv", b"a,b,c\n1,2,3\n"),
        ("half.csv", b"a,b,c,d,e,f\n1.5,2,3,4,5,6\n"),
        ("large.csv", b"a,b,c,d,e,f\n300,2,3,4,5,6\n"),
    ],
)
def test_a_file_that_holds_no_samples_is_refused_in_one_line(home, name, content):
    if content is not None:
        (home.folder / name).write_bytes(content)
    code, out, err = home.type("predict", str(home.folder / name))
    assert (code, out, err.count("\n")) == (65, "", 1)


def test_objects_are_never_unpickled(home):
    np.save(home.folder / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert home.type("predict", str(home.folder / "x.npy"))[0] == 65


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 6), (1, 4, 6)), ((4, 6, 3), (1, 4, 6, 3)), ((3, 4, 6), (1, 3, 4, 6)), ((1, 4, 6), (1, 1, 4, 6))],
)
def test_an_image_is_scaled_to_what_the_task_sees(tmp_path, shape, expected):
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :, 0] = 200
    Image.fromarray(pixels).save(tmp_path / "x.png")
    task = Task(("a", "b"), shape, "uint8")
    samples = read_samples(tmp_path / "x.png", task)
    assert (samples.shape, samples.dtype) == (expected, np.uint8)
    red = {(4, 6, 3): samples[..., 0], (3, 4, 6): samples[:, 0]}.get(shape)
    assert red is None or (red == 200).all()


def test_an_image_is_no_sample_of_a_task_without_pictures(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="an image is no sample"):
        read_samples(tmp_path / "x.png", Task(("a", "b"), (SIZE,), "uint8"))


# Privacy.


def test_privacy_says_what_was_spent_and_what_is_left(home):
    told = home.json("privacy")
    assert (told["spent_ever"], told["next_period"], told["trainings"]) == (0.0, "now", [])
    terms = PrivacyTerms(epsilon=3.0)
    charge = charge_for(terms, "b" * 64, int(time.time()))
    Ledger(home.state / "privacy").charge(charge)
    told = home.json("privacy")
    assert 2.9 < told["spent_in_period"] <= 3.0
    assert told["left_in_period"] == pytest.approx(told["epsilon_max"] - told["spent_in_period"])
    assert [one["state"] for one in told["trainings"]] == ["charged, not over"]
    _, out, _ = home.type("privacy")
    assert "epsilon_max" in out
    assert "charged, not over" in out


def test_a_damaged_ledger_is_an_error_in_one_line(home):
    folder = home.state / "privacy"
    folder.mkdir(parents=True)
    (folder / "ledger").write_text("{}\n")
    code, _, err = home.type("privacy")
    assert code == EX_DATAERR
    assert err.count("\n") == 1
