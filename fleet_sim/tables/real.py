"""A case's federation by the real programs over a real broker, beside its simulation with the same seed."""

from __future__ import annotations

from dataclasses import replace

from fd_protocol.errors import InvalidValueError
from fleet_sim.metrics.estimates import estimate
from fleet_sim.playing import Job, Played, play_all
from fleet_sim.real.playing import check_real
from fleet_sim.scenario import Scenario
from fleet_sim.tables.case import Case, Plan
from fleet_sim.tables.saying import table_of


def played_by_programs(case: Case, plan: Plan) -> str:
    """Play the first federation of a case, as its scenario stands, both ways; return what came of it, as Markdown.

    Boards are left out: what they take, real programs take of this machine.

    Args:
        case: of a table whose devices hold what its scenarios say; own rows are those of the scenario, too.
        plan: of its first seed; its folder keeps what was played, logs and settings of the programs too.

    Raises:
        InvalidValueError: programs cannot play it, see `fleet_sim.real.playing.check_real`, or the table takes rows off
            its devices: what would be played is another world than its own.
        BrokerError, ProgramEndedError, StalledError: they could not play it to its end.
    """
    name, scenario = next(iter(case.federations.items()))
    scenario = replace(scenario, boards=())
    check_real(scenario)
    _check_world(case, scenario, plan.seeds[0])
    jobs = [Job(scenario, plan.seeds[0], plan.folder / "real", is_real) for is_real in (True, False)]
    real, simulated = play_all(jobs, plan.jobs)
    rows = [["by programs over a broker", *_said(real)], ["simulated", *_said(simulated)]]
    columns = [f"{case.name}: {name}, seed {plan.seeds[0]}", "rounds", "student, %", "mean device, %"]
    table = table_of([*columns, "own rows, %", "bytes of a device a round, up / down"], rows)
    return f"{table}\n\n{_same(scenario, real, simulated)} Programs' logs and settings: {jobs[0].programs}"


def _check_world(case: Case, scenario: Scenario, seed: int) -> None:
    theirs, ours = case.world(seed).private, scenario.world(seed).private
    if not all(a.values.tobytes() == b.values.tobytes() for a, b in zip(theirs, ours, strict=True)):
        raise InvalidValueError("this table takes rows off its devices: it is only simulated, not played with --real")


def _said(played: Played) -> list[str]:
    last = played.last
    shares = [estimate([share]).in_percent() for share in (last.student, last.clients, last.own)]
    up, down = (total / last.number for total in (last.sent_bytes, last.received_bytes))
    return [str(len(played.rounds)), *shares, f"{up:,.0f} / {down:,.0f}"]


def _same(scenario: Scenario, real: Played, simulated: Played) -> str:
    pairs = list(zip(real.rounds, simulated.rounds, strict=True))
    same = sum(ours.consensus_sha256 == theirs.consensus_sha256 for ours, theirs in pairs)
    text = f"{same} of {len(pairs)} consensuses are the same, byte for byte."
    noise = " Noise of privacy terms is drawn anew by every device, so that none can be."
    return text + (noise if scenario.privacy.is_asked else "")
