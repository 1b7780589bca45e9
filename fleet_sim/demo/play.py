"""`fleet-sim demo` from start to end: factory, fleet, baselines, report.

The baselines run beside the fleet at low priority, and the demo waits for whichever is last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fleet_sim.baselines.standings import Standing
from fleet_sim.demo.baselines import JOBS, read_baselines, start_baselines
from fleet_sim.demo.setting import LITERT_DEVICE, Setting
from fleet_sim.demo.story import Outcome, tell
from fleet_sim.factory import equip
from fleet_sim.lab import Lab
from fleet_sim.quiet import only_errors
from fleet_sim.real.fleet import Stage, running_fleet
from fleet_sim.real.observer import Observer
from fleet_sim.real.processes import Program, stop_all
from fleet_sim.real.watching import watch
from fleet_sim.reports.report import print_report, write_html, write_png

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a person may choose; the setting's folder must not exist yet."""

    setting: Setting
    embedded_broker: bool = False
    baselines: bool = True


def play(plan: Plan, console: Console) -> None:
    """Run the demo, print its report and write it into the folder.

    Raises:
        BrokerError, ProgramEndedError, StalledError: it could not be run to its end.
    """
    begin_s, folder = time.monotonic(), plan.setting.folder
    folder.mkdir(parents=True)
    with _progress(console) as progress, ExitStack() as stack:
        stage = _equip(plan.setting, progress)
        programs = start_baselines(plan.setting) if plan.baselines else []
        stack.callback(stop_all, programs)
        observer = _observe(stage, plan, progress)
        standings = _wait_for_baselines(programs, plan.setting, progress)
    report = tell(Outcome(stage, observer, tuple(standings), time.monotonic() - begin_s))
    print_report(report, console)
    write_png(report, folder / "report.png")
    write_html(report, folder / "report.html")
    console.print(f"\nPicture and tables: {folder / 'report.html'}, {folder / 'report.png'}")


def _equip(setting: Setting, progress: Progress) -> Stage:
    """The workstation's part: three architectures, quantised and compiled, and the public set."""
    task = progress.add_task("factory: 3 architectures, int8, train steps, TFLite twins", total=1)
    with only_errors():  # the demo asks one device to run LiteRT, and of no bundle that all runtimes prove it
        equipment = equip(setting.world, setting.scenario.models, setting.seed, setting.factory, tflite=True)
    progress.advance(task)
    folder = setting.folder / "programs"
    return Stage(setting.scenario, setting.world, equipment, folder, litert_device=LITERT_DEVICE)


def _observe(stage: Stage, plan: Plan, progress: Progress) -> Observer:
    """Play the federation with real processes, until everyone has learned from the last consensus."""
    task = progress.add_task("federation", total=plan.setting.rounds)
    with running_fleet(stage, embedded_broker=plan.embedded_broker) as fleet:
        progress.console.print(fleet.notice, highlight=False)
        observer = Observer(stage.scenario, Lab(stage.world, stage.equipment.bundles), fleet)
        observer.prepare()

        def show(number: int) -> None:
            progress.update(task, completed=number, description=_line(observer, number))

        watch(observer, fleet, show)
    return observer


def _line(observer: Observer, number: int) -> str:
    online = len(observer.state.online) if observer.state else 0
    return f"federation: {online} devices online, student {100 * observer.student[number]:.1f} %"


def _wait_for_baselines(programs: list[Program], setting: Setting, progress: Progress) -> list[Standing]:
    if not programs:
        return []
    task, may_end = progress.add_task("baselines", total=JOBS), True
    while len(played := read_baselines(setting.folder)) < JOBS:
        progress.update(task, completed=len(played))
        for program in programs:
            program.check(may_end=may_end)
        may_end = any(program.exit_code is None for program in programs)
        time.sleep(_LOOK_S)
    progress.update(task, completed=JOBS)
    return [standing for standings in played for standing in standings]


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description:<58}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        yield progress
