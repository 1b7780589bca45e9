from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent import DISK_FULL
from edge_agent.jobs import CompetenceJob, PredictJob, RefreshJob, TrainJob, WarmUpJob
from edge_agent.process.attempts import MAX_LIVES
from edge_agent.process.notices import Alarm, Measured, PrivateRowsChanged, Spoke
from edge_agent.round.participant import NO_CONSENSUS, Phase, named_blobs
from edge_agent.spool import Spool
from edge_agent.worker import WORKER_DOWN, WorkerRefusal, WorkerRefusedError
from fd_protocol import codec
from fd_protocol.identity import sha256
from fd_protocol.messages import MAX_PART_BYTES, Codec, Kind, Part, ServerState, Slice, Status
from fd_protocol.parts import join
from fd_runtime.links.link import MESSAGE_EXPIRED, PACKET_TOO_LARGE, LinkDown, PublishRefused, packet_bytes
from fd_runtime.storage.store import Store
from tests.edge_agent.builders import offer
from tests.edge_agent.wire import PROFILE, PUBLIC_SET, TOPICS, Device, ScriptedModel, consensus_block


def test_a_round_over_the_wire():
    device = Device()
    device.connect()
    device.hear_offer()
    (part,) = device.parts()
    device.hear_receipt(part)
    device.hear_consensus()
    device.confirm()
    assert device.state.phase is Phase.IDLE
    assert [type(job) for job in device.model.jobs] == [WarmUpJob, PredictJob, TrainJob]
    (report,) = device.reports()
    assert (report.accepted, report.metrics) == (True, {"loss": 0.5})


# Presence.


def test_the_birth_is_the_first_thing_published_and_is_retained():
    device = Device()
    _, topic, _, retain = device.wire.published[0]
    assert (topic, retain) == (TOPICS.state("dev-1"), True)
    (birth,) = device.births()
    assert (birth.boot, birth.online, birth.agent, birth.problem) == (1, True, "edge-agent 1.0", "")
    assert (birth.bundle, birth.task, birth.family) == (PROFILE.bundle, PROFILE.task, PROFILE.family)
    assert {"u8-sqrt", "delta", "competence"} <= set(birth.capabilities)


def test_every_life_has_a_higher_boot_counter():
    device = Device()
    device.restart()
    device.restart()
    assert device.births()[0].boot == 3


def test_every_connection_hears_the_birth_again():
    device = Device()
    device.connect()
    assert len(device.births()) == 1  # the link still held the first
    device.confirm()
    device.wire.events.put(LinkDown("gone"))
    device.connect()
    assert len(device.births()) == 2


def test_a_device_that_leaves_says_so_with_its_own_boot_counter():
    device = Device()
    device.agent.leave()
    assert (device.births()[-1].online, device.births()[-1].boot) == (False, 1)


# The outbox.

DAY_S = 86_400


def test_payload_and_codes_are_on_the_disk_before_the_first_byte_is_published(tmp_path):
    device = Device()
    device.store = Store.open(tmp_path / "agent.db")
    device.restart()
    seen = []

    def look(topic, payload):
        if topic == TOPICS.upload("dev-1"):
            submission = device.state.submission
            with device.store.reader() as reader:
                seen.append([len(reader.blob(digest)) for digest in (submission.payload, submission.codes)])

    device.wire.on_publish = look
    device.hear_offer()
    assert len(seen) == 1


def test_without_a_receipt_a_new_connection_sends_the_same_bytes_again():
    device = Device()
    device.hear_offer()
    device.connect()
    assert len(device.parts()) == 1  # the link had not lost it
    device.confirm()
    device.connect()
    first, again = device.parts()
    assert first == again
    device.hear_receipt(first)
    device.confirm()
    device.connect()
    assert len(device.parts()) == 2


def test_without_a_receipt_a_server_that_comes_back_is_sent_the_same_bytes_again():
    device = Device()
    device.hear_offer()
    device.confirm()
    device.hear(TOPICS.server("agg"), ServerState(online=False, epoch=0))
    assert len(device.parts()) == 1
    device.hear(TOPICS.server("agg"), ServerState(online=True, epoch=7))
    first, again = device.parts()
    assert first == again
    device.hear_receipt(first)
    device.confirm()
    device.hear(TOPICS.server("agg"), ServerState(online=True, epoch=7))
    assert len(device.parts()) == 2


def test_without_a_receipt_the_same_bytes_go_again_after_a_wait_that_doubles():
    device = Device()
    device.hear_offer(remaining_s=3600)
    device.confirm()
    sent_at_s = []
    for second in range(300):
        device.ms = second * 1000
        before = len(device.parts())
        device.agent.pump(0)
        device.confirm()
        sent_at_s += [second] * (len(device.parts()) - before)
    assert sent_at_s == [30, 90, 210]
    assert len({part.payload_sha256 for part in device.parts()}) == 1


def test_what_the_link_still_holds_is_not_sent_again():
    device = Device()
    device.hear_offer(remaining_s=3600)
    device.ms = 1_000_000
    device.pump()
    assert len(device.parts()) == 1


def test_only_missing_parts_are_sent_again():
    device = Device(model=ScriptedModel(size=2 * MAX_PART_BYTES + 5))
    device.hear_offer()
    assert [part.index for part in device.parts()] == [0, 1, 2]
    device.hear_receipt(device.parts()[0], Status.MISSING, missing=(1,))
    assert [part.index for part in device.parts()] == [0, 1, 2, 1]


def test_a_refused_base_is_answered_with_the_same_codes_in_full():
    device = Device()
    device.hear_offer(1)
    device.hear_receipt(device.parts()[-1])
    device.hear_offer(2)
    device.hear_receipt(device.parts()[-1], Status.REFUSED, "unknown_base")
    based, full = device.parts()[-2:]
    assert (based.round, based.kind) == (full.round, full.kind)
    assert based.payload_sha256 != full.payload_sha256
    assert sum(isinstance(job, PredictJob) for job in device.model.jobs) == 2


@pytest.mark.parametrize(
    ("changes", "is_used"),
    [
        ({}, True),
        ({"temperature": 3.0}, True),
        ({"slice": Slice(PUBLIC_SET, 1, 7, 3)}, False),
        ({"codec": Codec.F16}, False),
        ({"codec": Codec.TOP_K, "top_k": 1}, False),
    ],
)
def test_a_base_is_used_for_the_same_probes_in_the_same_coding_alone(changes, is_used):
    device = Device()
    device.hear_offer(1)
    device.hear_receipt(device.parts()[-1])
    device.hear_offer(2, **changes)
    job = device.model.jobs[-1]
    assert job.base == (device.parts()[0].payload_sha256 if is_used else b"")
    assert job.base_codes == (b"codes of \x01" if is_used else b"")


def test_a_broker_that_refuses_a_payload_ends_the_round():
    device = Device()
    device.hear_offer()
    token = device.wire.published[-1][0]
    device.wire.events.put(PublishRefused(token, "Not authorized"))
    device.pump()
    assert device.reports()[0].reason == "refused: broker: Not authorized"
    assert device.reports()[0].consensus_sha256 == NO_CONSENSUS


def test_a_broker_that_refuses_a_report_ends_no_device():
    device = Device(replace(PROFILE, task=sha256(b"another")))
    device.hear_offer()
    device.hear_consensus()
    device.wire.events.put(PublishRefused(device.wire.published[-1][0], "Not authorized"))
    device.pump()
    assert device.state.phase is Phase.IDLE


def sent_packets(device):
    """Bytes of every packet that carries a part."""
    topic = TOPICS.upload("dev-1")
    return [packet_bytes(topic, len(payload)) for _, where, payload, _ in device.wire.published if where == topic]


@pytest.mark.parametrize("limit", [1000, 5000, 65_536])
def test_parts_fit_the_brokers_packets_and_make_the_payload(limit):
    device = Device(model=ScriptedModel(size=80_000))
    device.connect(max_packet_bytes=limit)
    device.hear_offer()
    assert max(sent_packets(device)) <= limit
    assert sha256(join(device.parts())) == device.state.submission.payload


def test_parts_that_were_cut_before_the_limit_was_known_are_cut_anew_once():
    device = Device(model=ScriptedModel(size=20_000))
    device.hear_offer()
    token = device.wire.published[-1][0]
    device.connect(max_packet_bytes=5000)
    device.wire.events.put(PublishRefused(token, PACKET_TOO_LARGE))
    device.pump()
    first, *others = device.parts()
    assert (first.count, {part.count for part in others}) == (1, {5})
    assert sha256(join(others)) == device.state.submission.payload
    device.connect(max_packet_bytes=1 << 20)
    device.confirm()
    device.connect(max_packet_bytes=1 << 20)
    assert {part.count for part in device.parts()[1:]} == {5}  # never larger: the server joins by number


def test_a_broker_whose_packets_are_too_small_for_a_payload_ends_the_round_with_that_reason():
    device = Device(model=ScriptedModel(size=80_000))
    device.connect(max_packet_bytes=500)
    device.hear_offer()
    assert device.reports()[0].reason.startswith("refused: Packet too large: a payload of")


def test_a_contribution_expires_a_day_after_its_round_and_a_map_never():
    device = Device()
    device.ms = 500
    device.hear_offer(remaining_s=100, competence=True)
    device.ms = 40_600
    device.pump()
    device.confirm()
    device.connect()
    topic, seen = TOPICS.upload("dev-1"), []
    for token, where, payload, _ in device.wire.published:
        if where == topic:
            seen.append((codec.decode(payload, Part).kind, device.wire.expiries_s.get(token)))
    assert seen == [
        (Kind.COMPETENCE, None),
        (Kind.CONTRIBUTION, 100 + DAY_S),
        (Kind.COMPETENCE, None),
        (Kind.CONTRIBUTION, 60 + DAY_S),
    ]


def test_what_expired_at_the_broker_is_no_refusal():
    device = Device()
    device.hear_offer(remaining_s=100)
    device.wire.events.put(PublishRefused(device.wire.published[-1][0], MESSAGE_EXPIRED))
    device.pump()
    assert device.state.phase is Phase.SUBMITTING
    device.ms = 100_000
    device.pump()
    assert device.reports()[0].reason == "deadline: no receipt"


def test_a_round_that_ends_without_a_broker_is_reported_with_the_reason_when_there_is_one():
    device = Device()
    device.connect()
    device.hear_offer(remaining_s=100)
    device.wire.events.put(LinkDown("nobody answers"))
    device.pump()
    device.ms = 100_000
    device.pump()
    assert device.reports()[0].reason == "deadline: not connected: nobody answers"


def test_work_that_takes_the_device_down_again_and_again_is_given_up():
    device = Device(model=Deadly())
    device.hear_offer()
    for _ in range(MAX_LIVES - 1):
        device.restart()
        device.pump()
    assert device.state.failures == 0
    for _ in range(3 * MAX_LIVES):
        device.restart()
        device.pump()
    assert device.reports()[-1].reason == f"warm-up: the device itself went down over it {MAX_LIVES} times"


class Deadly(ScriptedModel):
    """No job of it is ever answered: the power goes first."""

    def handle(self, job):
        return None


# What nobody receipts.


def spooling(tmp_path):
    device = Device()
    device.restart(spool=Spool(tmp_path / "outbox"))
    return device


def test_what_is_said_without_a_broker_waits_for_one(tmp_path):
    device = spooling(tmp_path)
    device.agent.say("a/topic", b"first", expires_in_s=60)
    device.agent.say("a/topic", b"second", durable=False)
    device.pump()
    assert device.agent.waiting == 2
    device.connect()
    said = [(token, payload) for token, topic, payload, _ in device.wire.published if topic == "a/topic"]
    assert [payload for _, payload in said] == [b"first", b"second"]
    assert device.wire.expiries_s[said[0][0]] == 60
    device.confirm()
    assert device.agent.waiting == 0


def test_what_the_link_of_another_life_held_goes_out_with_the_link_of_this_one(tmp_path):
    device, spool = Device(), Spool(tmp_path / "outbox")
    device.restart(spool=spool)
    device.connect()
    device.agent.say("somewhere", b"news")
    device.pump()
    device.restart(spool=spool)
    device.connect()
    assert [payload for _, topic, payload, _ in device.wire.published if topic == "somewhere"] == [b"news"]
    device.confirm()
    assert (len(spool), list((tmp_path / "outbox").iterdir())) == (0, [])


@pytest.mark.parametrize("before", range(6))
def test_a_number_that_the_link_of_another_life_gave_names_nothing_in_this_one(tmp_path, before):
    device, spool = Device(), Spool(tmp_path / "outbox")
    device.restart(spool=spool)
    device.connect()
    for _ in range(before):
        next(device.wire.tokens)
    device.agent.say("somewhere", b"news")
    device.pump()
    device.restart(spool=spool)  # its link counts from one again
    device.hear_offer()  # before there is a broker: nothing of what waits is sent
    device.confirm()
    assert len(spool) == 1
    device.hear_receipt(device.parts()[0])
    device.hear_consensus()
    device.confirm()
    assert (device.state.phase, len(spool)) == (Phase.IDLE, 1)


def test_what_waits_and_is_refused_ends_no_round(tmp_path):
    device = spooling(tmp_path)
    device.connect()
    device.hear_offer()
    device.agent.say("a/topic", b"x")
    device.pump()
    device.wire.events.put(PublishRefused(device.wire.published[-1][0], "Not authorized"))
    device.pump()
    assert (device.state.phase, device.agent.lost) == (
        Phase.SUBMITTING,
        {"dropped": 0, "expired": 0, "refused": 1},
    )


# What arrives.


def test_a_message_is_acknowledged_once_it_is_in_the_journal():
    device = Device()
    arrived = device.hear_offer()
    assert device.wire.acked == [arrived]
    again = device.hear_offer()
    assert device.wire.acked == [arrived, again]


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        (TOPICS.round, b"\xff not cbor"),
        (TOPICS.round, b""),
        (TOPICS.round, consensus_block()),
        (TOPICS.round, replace(offer(), round=replace(offer().round, federation="other"))),
        (TOPICS.consensus(0), b"x" * 70_000),
        (TOPICS.consensus(0), replace(consensus_block(), slice=Slice(sha256(b"other"), 0, 8, 3))),
        (TOPICS.receipt("dev-1"), b"\xa0"),
        (TOPICS.server("agg"), b"anything"),
        ("elsewhere", b"anything"),
    ],
)
def test_what_is_no_message_of_ours_is_dropped_and_never_comes_again(topic, message):
    device = Device()
    before = device.state
    arrived = device.hear(topic, message)
    assert (device.state, device.wire.acked) == (before, [arrived])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": sha256(b"another")}, "foreign_task"),
        ({"bundles": (sha256(b"another"),)}, "foreign_bundle"),
        ({"slice": Slice(sha256(b"another"), 0, 8, 3)}, "unknown_public_set"),
        ({"slice": Slice(PUBLIC_SET, 1, 8, 3)}, "slice_out_of_range"),
        ({"slice": Slice(PUBLIC_SET, 0, 8, 4)}, "foreign_task"),
        ({"sampling": replace(offer().sampling, fraction=1e-9)}, "not_sampled"),
        ({"devices": ("somebody-else",)}, "not_sampled"),
    ],
)
def test_a_device_says_why_a_round_goes_on_without_it(changes, reason):
    device = Device()
    device.hear_offer(**changes)
    assert (device.state.objection, device.parts()) == (reason, [])


def test_a_worker_that_will_never_start_ends_the_program():
    device = Device()
    device.wire.events.put(WorkerRefusal(65))
    with pytest.raises(WorkerRefusedError) as caught:
        device.agent.pump(0)
    assert caught.value.exit_code == 65


# Time.


def test_a_deadline_counts_from_receipt_on_the_devices_own_clock():
    device = Device()
    device.ms = 1_000_000
    device.hear_offer(remaining_s=60)
    device.ms += 59_999
    device.pump()
    assert device.state.phase is Phase.SUBMITTING
    device.ms += 1
    device.pump()
    assert device.state.phase is Phase.REPORTING


def test_a_machine_whose_clock_starts_anew_keeps_the_deadline():
    device = Device()
    device.ms = 1_000_000
    device.hear_offer(remaining_s=60)
    device.ms = 5
    device.restart()
    device.ms += 60_000
    device.pump()
    assert device.state.phase is Phase.REPORTING


# A full disk: SQLite itself refuses pages beyond the limit, as it does without room.


def fill(device):
    (pages,) = device.store._connection.execute("PRAGMA page_count").fetchone()
    device.store._connection.execute(f"PRAGMA max_page_count={pages}")


def make_room(device):
    device.store._connection.execute("PRAGMA max_page_count=100000")


def test_a_full_disk_keeps_the_device_running_and_it_says_so():
    device = Device(model=ScriptedModel(size=50_000))
    fill(device)
    arrived = device.hear_offer()
    assert (device.parts(), device.births()[-1].problem) == ([], DISK_FULL)
    make_room(device)
    device.pump()
    assert device.parts() == []  # it does not try all the time
    device.ms = 5_000
    device.pump()
    assert len(device.parts()) == 1
    assert (device.births()[-1].problem, device.wire.acked) == ("", [arrived])


def test_on_a_full_disk_what_arrives_waits_unacknowledged_and_in_order():
    device = Device(model=ScriptedModel(size=50_000))
    device.hear_offer(1)
    device.hear_receipt(device.parts()[-1])
    fill(device)
    before = list(device.wire.acked)
    held = [device.hear(TOPICS.consensus(0), replace(consensus_block(), body=b"c" * 50_000)), device.hear_offer(2)]
    assert device.wire.acked == before
    make_room(device)
    device.ms = 5_000
    device.pump()
    assert device.wire.acked == before + held
    assert device.state.phase is Phase.REPORTING


def test_on_a_full_disk_a_deadline_that_passes_is_noted_once_there_is_room():
    device = Device(model=ScriptedModel(size=50_000))
    device.hear_offer(1, remaining_s=1)
    fill(device)
    device.hear(TOPICS.consensus(0), replace(consensus_block(), body=b"c" * 50_000))
    device.ms = 1_000
    for _ in range(100):
        device.agent.pump(0)
    assert len(device.agent._backlog) == 1
    assert device.agent.wait_s(60) == 4
    make_room(device)
    device.ms = 5_000
    device.pump()
    assert device.state.report.reason == "deadline: no receipt"


# The journal.


def run_round(device, number):
    device.hear_offer(number)
    device.hear_receipt(device.parts()[-1])
    device.hear_consensus(number)
    device.confirm()


def test_memory_does_not_grow_with_the_rounds():
    device = Device()
    for number in range(1, 60):
        run_round(device, number)
    (events,) = device.store._connection.execute("SELECT count(*) FROM events").fetchone()
    (blobs,) = device.store._connection.execute("SELECT count(*) FROM blobs").fetchone()
    assert events < 40
    assert blobs < 40


def test_what_the_state_names_survives_every_compaction():
    device = Device()
    for number in range(1, 20):
        device.hear_offer(number, competence=True)
        for digest in named_blobs(device.state):
            device.store.blob(digest)
        device.hear_receipt(device.parts()[-1])
        device.hear_consensus(number)
        device.confirm()
    assert len(device.parts(Kind.COMPETENCE)) > 0


STEPS = st.lists(st.sampled_from(["offer", "receipt", "consensus", "confirm", "connect", "kill", "tick"]), max_size=40)


@given(STEPS)
def test_a_device_killed_anywhere_never_sends_two_payloads_for_one_round(steps):
    device, sent, last, number = Device(), {}, None, 0
    for name in steps:
        match name:
            case "offer":
                number += 1
                device.hear_offer(number)
            case "receipt" if last is not None:
                device.hear_receipt(last)
            case "consensus" if number:
                device.hear_consensus(number)
            case "confirm":
                device.confirm()
            case "connect":
                device.connect()
            case "kill":
                device.restart()
                device.pump()
            case "tick":
                device.ms += 20_000
                device.pump()
        for part in device.parts():
            sent.setdefault(part.round, set()).add(part.payload_sha256)
        last = next(reversed(device.parts()), last)
    assert all(len(payloads) == 1 for payloads in sent.values())
    trained = [job.consensus_sha256 for job in device.model.jobs if isinstance(job, TrainJob)]
    assert len(trained) - len(set(trained)) <= steps.count("kill")


def test_what_changes_nothing_is_not_written():
    device = Device()
    device.hear_offer()
    (events,) = device.store._connection.execute("SELECT count(*) FROM events").fetchone()
    device.hear_offer()
    device.connect()
    assert device.store._connection.execute("SELECT count(*) FROM events").fetchone() == (events,)


def test_a_device_with_new_private_data_maps_its_competence_anew():
    device = Device()
    device.hear_offer(1, competence=True)
    device.profile = replace(PROFILE, private_epoch=1)
    device.restart()
    device.hear_offer(2, competence=True)
    assert [job.private_epoch for job in device.model.jobs if isinstance(job, CompetenceJob)] == [0, 1]


def test_what_is_receipted_is_forgotten_by_the_outbox():
    device = Device()
    run_round(device, 1)
    assert device.agent._outbox.unanswered() == []


def test_everything_is_the_same_after_a_restart():
    device = Device()
    for number in range(1, 12):
        run_round(device, number)
        before = device.state
        device.restart()
        assert device.state == before


# What the worker says unasked.


def test_rows_of_a_file_and_of_the_store_count_together():
    device = Device(replace(PROFILE, private_epoch=3, has_store=True))
    assert device.state.private_epoch == 0  # the worker has not told of its rows yet
    device.tell(PrivateRowsChanged(private_epoch=5, rows=120))
    assert device.state.private_epoch == 8
    device.restart()
    assert device.state.private_epoch == 8


def test_other_private_rows_make_a_new_competence_map():
    device = Device()
    device.hear_offer(1, competence=True)
    device.hear_receipt(device.parts()[-1])
    device.tell(PrivateRowsChanged(private_epoch=5, rows=120))
    assert device.state.private_epoch == 5
    device.hear_offer(2, competence=True)
    maps = [job for job in device.model.jobs if isinstance(job, CompetenceJob)]
    assert [job.private_epoch for job in maps] == [0, 5]


class ChangingRows(ScriptedModel):
    """A worker whose rows change, once, while it is about the job of this kind."""

    def __init__(self, kind, told):
        super().__init__()
        self.kind, self.told, self.device = kind, told, None

    def handle(self, job):
        if isinstance(job, self.kind) and self.told is not None:
            self.device.wire.events.put(self.told)  # by another thread of the worker, before the answer
            self.told = None
        return super().handle(job)


def changing_rows(kind, told):
    model = ChangingRows(kind, told)
    device = model.device = Device(replace(PROFILE, has_store=True), model)
    device.connect()
    device.tell(PrivateRowsChanged(1, 20))
    return device


def test_rows_that_change_while_they_are_mapped_cost_another_map_and_not_the_round():
    device = changing_rows(CompetenceJob, PrivateRowsChanged(2, 40))
    device.hear_offer(competence=True)
    assert [job.private_epoch for job in device.model.jobs if isinstance(job, CompetenceJob)] == [1, 2]
    assert (device.state.phase, device.state.competence.private_epoch) == (Phase.SUBMITTING, 2)


def test_rows_that_change_in_the_warm_up_are_learned_when_the_round_is_over():
    device = changing_rows(WarmUpJob, PrivateRowsChanged(9, 400))
    device.hear_offer()
    device.ms = 60_001
    device.pump()
    device.confirm()
    assert (device.state.known_epoch, type(device.model.jobs[-1])) == (1, RefreshJob)


def test_the_newest_of_each_number_is_kept():
    device = Device()
    device.tell(Measured({"p50_ms": 3.0, "rows": 7.0}))
    device.tell(Measured({"p50_ms": 4.0}))
    assert device.agent.measured == {"p50_ms": 4.0, "rows": 7.0}


def test_predictions_go_to_whoever_asked_for_them():
    device = Device()
    device.tell(Spoke("1", "cat", 0.75))  # nobody has asked
    heard = []
    device.restart(on_spoke=heard.append)
    device.tell(Spoke("2", "dog", 0.5))
    assert heard == [Spoke("2", "dog", 0.5)]


def test_an_alarm_is_kept_until_it_is_over_and_keeps_no_device_away():
    device = Device()
    device.tell(Alarm("drift", "inputs are strange"))
    assert device.agent.alarms == {"drift": "inputs are strange"}
    device.tell(Alarm("drift", ""))
    assert device.agent.alarms == {}
    assert [birth.problem for birth in device.births()] == [""]


def test_the_federation_hears_that_the_worker_is_down_and_that_it_is_back():
    device = Device()
    device.tell(Alarm(WORKER_DOWN, "crash: SIGSEGV"))
    device.tell(Alarm(WORKER_DOWN, "crash: SIGILL"))
    device.tell(Alarm(WORKER_DOWN, ""))
    assert [birth.problem for birth in device.births()] == ["", WORKER_DOWN, ""]
