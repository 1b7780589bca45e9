"""Under privacy terms nothing that leaves a device follows from its rows but by weights that were paid for.

docs/agent/privacy.md lists every field that a device can send; here it is held to the messages that there are, and a
device with paid weights is run beside other rows: every byte must be the same.
"""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from edge_agent.jobs import Answer, TrainJob
from edge_agent.privacy.saying import NO_PRIVATE_STEP
from edge_agent.process.notices import PrivateRowsChanged
from edge_agent.reservations import Reservations
from edge_agent.round.eligibility import Profile
from edge_agent.round.events import WorkFailed
from fd_protocol.codec import KINDS
from fd_protocol.messages import Kind, PrivacyTerms, RoundReport, Slice, Status
from fd_protocol.topics import parse
from tests.edge_agent.artifacts import CLASSES, TASK
from tests.edge_agent.builders import FEDERATION
from tests.edge_agent.privacy.private_device import DAY, NOW, PRIVACY, PROBES, TRAINING, PrivateDevice, rows_of
from tests.edge_agent.wire import TOPICS, Device

DOCS = Path(__file__).parents[3] / "docs"


# The list.


def listed():
    """(message, field) of the table in the document."""
    rows = re.findall(r"^\| (\w+) \| (\w+) \| [^|]+ \|$", (DOCS / "agent" / "privacy.md").read_text(), re.MULTILINE)
    return {(message, field) for message, field in rows if message[0].isupper()}


def sent_by_devices():
    """The messages that AsyncAPI, which the contract tests hold to the code, lets a device send."""
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())

    def resolve(reference):
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        return node

    names = set()
    for operation in document["operations"].values():
        if operation["action"] != "send":
            continue
        for each in resolve(operation["channel"]["$ref"])["messages"].values():
            message = resolve(each["$ref"])
            carried = [resolve(one["$ref"]) for one in message.get("x-carries", {}).values()]
            names |= {one["payload"]["$ref"].rpartition("/")[2] for one in (message, *carried)}
    return names


def test_the_document_lists_every_field_that_a_device_can_send():
    classes = {cls.__name__: cls for cls in KINDS.values()}
    fields = {(name, field.name) for name in sent_by_devices() for field in dataclasses.fields(classes[name])}
    assert listed() == fields


# The bytes.


class Played:
    """A device whose weights were paid for, through a few rounds: all that it published."""

    def __init__(self, state, own, *, privacy=PRIVACY, problem=""):
        self.state = state
        manifest = state.bundle.manifest
        self.profile = Profile(
            "dev-1",
            FEDERATION,
            TASK.digest,
            CLASSES,
            manifest.digest,
            manifest.family,
            "onnxruntime",
            state.public.digest,
            PROBES,
            trains_privately=True,
        )
        self.privacy, self.fails = privacy, False
        self.core = state.core()
        self.device = Device(self.profile, self)
        reserve = Reservations(self.profile, own, state.ledger, problem, clock=lambda: state.now_s)
        self.device.restart(reserve=reserve)
        self.device.connect()
        self.device.confirm()

    def handle(self, job):
        if self.fails and isinstance(job, TrainJob):
            rows = len(self.state.private)
            return Answer(WorkFailed(job.work, f"MemoryError: Unable to allocate an array with shape ({rows}, 6)"))
        return self.core.handle(job)

    def round(self, number):
        device, probes = self.device, Slice(self.state.public.digest, 0, PROBES, CLASSES)
        device.hear_offer(
            number, slice=probes, task=TASK.digest, training=TRAINING, privacy=self.privacy, competence=True
        )
        for kind in Kind:
            for part in device.parts(kind)[-1:]:
                device.hear_receipt(part, Status.STORED)
        truth = self.state.truth()
        truth[:number] = 0  # so that no two rounds have the same consensus
        for message in self.state.consensus(truth, number, blocks=1)[1]:
            device.hear(TOPICS.consensus(0), message)
        device.confirm()

    def published(self):
        return [(topic, payload, retain) for _, topic, payload, retain in self.device.wire.published]


def play(state, **options):
    """Three rounds, of which one fails; then a change of rows, and another."""
    played = Played(state, state.own, **options)
    played.round(1)
    played.round(2)
    played.fails = True
    played.round(3)
    played.fails = False
    played.device.tell(PrivateRowsChanged(len(state.private), len(state.private)))
    played.round(4)
    state.now_s += 3 * DAY
    played.round(5)
    played.device.agent.leave()
    return played


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    device = PrivateDevice(tmp_path_factory.mktemp("paid") / "device")
    device.core().handle(device.warm_up())
    return device


OTHER_ROWS = {
    "one row more": rows_of(301),
    "few, of one class": rows_of(37, seed=1, classes=[2]),
    "none at all": rows_of(0),
    "many others": rows_of(900, seed=5, classes=[0, 1]),
}


@pytest.mark.parametrize("name", OTHER_ROWS)
def test_every_byte_is_the_same_beside_other_rows(paid, tmp_path, name):
    here, there = (
        play(paid.copy(tmp_path / f"{number}", rows)) for number, rows in enumerate([None, OTHER_ROWS[name]])
    )
    assert here.published() == there.published()
    assert {parse(topic).leaf for topic, _, _ in here.published()} == {"state", "up", "report"}
    assert len(here.device.parts()) == 5
    assert here.device.parts(Kind.COMPETENCE) == []


def test_what_is_reported_follows_from_public_data(paid, tmp_path):
    reports = play(paid.copy(tmp_path / "device")).device.reports()
    assert [report.reason for report in reports] == ["", "", "train: failed", "", ""]
    assert all(set(report.metrics) <= {"loss", "steps", "agreement"} for report in reports)


def test_without_terms_the_same_script_says_what_rows_are_like(paid, tmp_path):
    """The test above would also pass if devices said nothing."""
    plays = [
        play(paid.copy(tmp_path / f"{number}", rows), privacy=PrivacyTerms())
        for number, rows in enumerate([None, OTHER_ROWS["few, of one class"]])
    ]
    maps = [played.device.parts(Kind.COMPETENCE)[-1].body for played in plays]
    assert maps[0] != maps[1]
    metrics = [[report.metrics for report in played.device.reports()] for played in plays]
    assert metrics[0] != metrics[1]
    assert "hold_out_accuracy" in metrics[0][0]
    assert "(300, 6)" in plays[0].device.reports()[2].reason


def test_a_refusal_is_a_word_that_says_nothing_of_rows(paid, tmp_path):
    said = []
    for number, rows in enumerate([None, OTHER_ROWS["none at all"]]):
        played = play(paid.copy(tmp_path / f"{number}", rows), problem=NO_PRIVATE_STEP)
        said.append(played.published())
        assert played.device.parts() == []
        assert played.device.state.objection == NO_PRIVATE_STEP
        assert all(isinstance(report, RoundReport) for report in played.device.reports())
    assert said[0] == said[1]


def test_terms_that_come_later_hold_back_a_map_that_is_owed(paid, tmp_path):
    played = Played(paid.copy(tmp_path / "device"), paid.own, privacy=PrivacyTerms())
    probes = Slice(played.state.public.digest, 0, PROBES, CLASSES)
    ask = {"slice": probes, "task": TASK.digest, "training": TRAINING, "competence": True}
    played.device.hear_offer(1, **ask)
    assert len(played.device.parts(Kind.COMPETENCE)) == 1, "made and sent, and never answered"
    played.device.hear_offer(2, privacy=PRIVACY, **ask)
    played.device.ms += 3_600_000
    played.device.pump()
    assert len(played.device.parts(Kind.COMPETENCE)) == 1
    played.device.hear_offer(3, **ask)
    assert len(played.device.parts(Kind.COMPETENCE)) == 2


def test_the_state_of_the_clock_is_that_of_the_charge(paid):
    assert paid.ledger.entries()[0].charge.at_s == int(NOW)
