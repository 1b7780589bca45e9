"""Tables: federations and baselines on the same worlds over fresh seeds, beside what others printed.

    TABLE = Table(section="healthcare", page=README, command="python run.py", cases=cases, protocol=...)
    run(TABLE)

A table describes; `fleet_sim.comparison` plays, with the programs' own cores, rules and graphs, and `choice` has chosen
the settings of federations as those of baselines are chosen: on validation rows of other seeds, with the same budget.
"""

from fleet_sim.tables.boards import costs_of_boards
from fleet_sim.tables.case import (
    CLIENTS,
    FIRST_SEED,
    SHORT_SETTINGS,
    STUDENT,
    TUNING_SEEDS,
    Case,
    Ends,
    Form,
    Goal,
    Outcome,
    Plan,
    Table,
)
from fleet_sim.tables.choice import Axes, Choice, chosen, varied
from fleet_sim.tables.command import run
from fleet_sim.tables.page import publish
from fleet_sim.tables.playing import play
from fleet_sim.tables.saying import beside, report, report_of_scores, table_of
from fleet_sim.tables.terms import AXES_OF_TERMS, under_terms

__all__ = [
    "AXES_OF_TERMS",
    "CLIENTS",
    "FIRST_SEED",
    "SHORT_SETTINGS",
    "STUDENT",
    "TUNING_SEEDS",
    "Axes",
    "Case",
    "Choice",
    "Ends",
    "Form",
    "Goal",
    "Outcome",
    "Plan",
    "Table",
    "beside",
    "chosen",
    "costs_of_boards",
    "play",
    "publish",
    "report",
    "report_of_scores",
    "run",
    "table_of",
    "under_terms",
    "varied",
]
