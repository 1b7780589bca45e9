"""What a round costs the boards of a fleet, as a table: estimates of public figures (`fleet_sim.boards`)."""

from __future__ import annotations

from fleet_sim.playing import Job, play_all
from fleet_sim.scenario import Scenario
from fleet_sim.tables.case import Plan
from fleet_sim.tables.saying import table_of


def costs_of_boards(scenario: Scenario, plan: Plan) -> str:
    """Return joules of a device and a round, for each kind of board, of a federation that is played in time.

    Args:
        scenario: with boards, as many kinds as it has families of models: both go by the number of the device.
        plan: of its first seed; its folder keeps what was played.
    """
    (played,) = play_all([Job(scenario, plan.seeds[0], plan.folder / "boards")], plan.jobs)
    rows = []
    for board, family in zip(played.boards, scenario.models.families, strict=True):
        joules = (f"{joule / len(played.rounds):,.3g}" for joule in (board.compute_j, board.radio_j))
        rows.append([f"{board.board}, {board.link}", family, str(board.devices), *joules, f"{100 * board.heard:.0f}"])
    columns = ["a round of ours", "model", "devices", "compute J", "radio J", "heard in time, %"]
    return table_of(columns, rows)
