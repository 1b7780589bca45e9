"""The supervisor's side of budgets: it asks the machine before it asks the worker, and says what is to be learned."""

from edge_agent.jobs import Answer, PredictJob, RefreshJob, TrainJob, WarmUpJob
from edge_agent.process.notices import PrivateRowsChanged
from edge_agent.reservations import Reserved
from edge_agent.round.events import Refreshed, Task, WorkDeferred
from edge_agent.round.participant import Phase
from fd_protocol.messages import Kind, PrivacyTerms, TrainingTerms
from tests.edge_agent.wire import Device, ScriptedModel, consensus_block

ASKED = PrivacyTerms(epsilon=4.0)


class Model(ScriptedModel):
    def handle(self, job):
        if isinstance(job, RefreshJob):
            self.jobs.append(job)
            return Answer(Refreshed(job.private_epoch, accepted=True))
        return super().handle(job)


class Machine:
    """What keeps it from training, and how often it was asked."""

    def __init__(self, obstacle=""):
        self.word, self.asked = obstacle, []

    def obstacle(self, before):
        self.asked.append(before)
        return self.word


def device_on(machine):
    device = Device(model=Model())
    device.restart(obstacle=machine.obstacle)
    device.connect()
    return device


def jobs(device):
    return [type(job) for job in device.model.jobs]


def pass_time(device, ms=5_000):
    device.ms += ms
    device.pump()


def test_a_warm_up_is_not_begun_on_a_machine_that_is_too_hot():
    machine = Machine("heat")
    device = device_on(machine)
    device.hear_offer()
    assert (jobs(device), device.state.phase, device.state.obstacle) == ([], Phase.PREDICTING, "heat")
    machine.word = ""
    pass_time(device)
    assert jobs(device) == [WarmUpJob, PredictJob]


def test_a_consensus_waits_while_rounds_are_answered():
    machine = Machine()
    device = device_on(machine)
    device.hear_offer()
    device.hear_receipt(device.parts()[0])
    machine.word = "window"
    device.hear_consensus()
    assert (device.state.phase, device.state.obstacle) == (Phase.IDLE, "window")
    device.hear_offer(2)
    device.hear_receipt(device.parts()[-1])
    assert device.state.phase is Phase.AWAITING
    machine.word = ""
    pass_time(device)
    assert jobs(device) == [WarmUpJob, PredictJob, PredictJob, TrainJob]


def test_the_machine_is_asked_now_and_then_and_told_what_it_said_last():
    machine = Machine("heat")
    device = device_on(machine)
    device.hear_offer()
    asked = len(machine.asked)
    for _ in range(100):
        pass_time(device, 100)
    assert len(machine.asked) - asked <= 3
    assert set(machine.asked[asked:]) == {"heat"}


def test_a_machine_on_which_nothing_waits_is_left_alone():
    machine = Machine()
    device = device_on(machine)
    for _ in range(10):
        pass_time(device)
    assert machine.asked == []


def test_what_holds_a_training_up_outlives_a_restart():
    machine = Machine("heat")
    device = device_on(machine)
    device.hear_offer()
    device.restart(obstacle=machine.obstacle)
    device.connect()
    assert (device.state.obstacle, jobs(device)) == ("heat", [])
    machine.word = ""
    pass_time(device)
    assert jobs(device) == [WarmUpJob, PredictJob]


def test_a_worker_that_lays_a_training_aside_is_asked_again_when_the_machine_allows_it():
    class Hesitant(Model):
        def handle(self, job):
            if isinstance(job, TrainJob) and not any(isinstance(one, TrainJob) for one in self.jobs):
                self.jobs.append(job)
                return Answer(WorkDeferred(job.work, "battery"))
            return super().handle(job)

    device = Device(model=Hesitant())
    device.connect()
    device.hear_offer()
    device.hear_receipt(device.parts()[0])
    device.hear_consensus()
    assert device.state.obstacle == "battery"
    pass_time(device)
    assert jobs(device) == [WarmUpJob, PredictJob, TrainJob, TrainJob]
    assert device.model.jobs[2] == device.model.jobs[3]


# Changed rows.


def idle_device(**hooks):
    device = Device(model=Model())
    device.restart(**hooks)
    device.connect()
    device.hear_offer(training=TrainingTerms(epochs=7))
    device.hear_receipt(device.parts()[0])
    device.hear_consensus()
    device.confirm()
    assert device.state.phase is Phase.IDLE
    return device


def test_changed_rows_are_learned_with_the_last_consensus_even_after_a_restart():
    device = idle_device()
    device.restart()
    device.connect()
    device.tell(PrivateRowsChanged(5, 120))
    job = device.model.jobs[-1]
    assert isinstance(job, RefreshJob)
    assert (job.work.task, job.private_epoch, job.terms.epochs) == (Task.REFRESH, 5, 7)
    assert job.consensus_sha256 == consensus_block().consensus_sha256
    assert len(job.messages) == 1
    assert device.state.phase is Phase.IDLE
    assert len(device.reports()) == 0, "nobody asked, so nobody is told"


def test_changed_rows_of_a_device_without_a_consensus_are_learned_alone():
    device = Device(model=Model())
    device.connect()
    device.hear_offer()
    device.hear_receipt(device.parts()[0])
    device.ms += 60_000
    device.hear_offer(2, sampling=device.state.offer.sampling, devices=("other",))
    device.tell(PrivateRowsChanged(5, 120))
    job = device.model.jobs[-1]
    assert isinstance(job, RefreshJob)
    assert (job.consensus_sha256, job.messages) == (b"", ())


# Reservations.


def test_a_device_that_has_used_up_its_data_says_nothing_and_learns():
    device = Device(model=Model())
    device.restart(reserve=lambda offer: Reserved("data_budget", offer.privacy))
    device.connect()
    device.hear_offer()
    device.hear_consensus()
    assert device.parts() == []
    assert device.state.objection == "data_budget"
    assert jobs(device) == [TrainJob]


def test_the_workers_jobs_carry_the_terms_by_which_the_device_works():
    device = Device(model=Model())
    device.restart(reserve=lambda _: Reserved("", ASKED, is_paid=False))
    device.connect()
    device.hear_offer(competence=True)
    device.hear_receipt(device.parts(Kind.CONTRIBUTION)[0]) if device.parts(Kind.CONTRIBUTION) else None
    device.hear_consensus()
    assert {job.privacy for job in device.model.jobs} == {ASKED}
    assert device.model.jobs[0].work.task is Task.WARM_UP
