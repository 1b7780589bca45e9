"""`fleet-sim`: a whole federation on one machine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console

from fd_runtime.command_line import Parser, run_program
from fd_runtime.files import write_atomically
from fleet_sim.pool import pool
from fleet_sim.processes import end_like_ctrl_c

if TYPE_CHECKING:  # what a command needs is imported when it runs: numpy, runtimes and matplotlib take seconds
    from fleet_sim.reports.report import Report
    from fleet_sim.scenario import Scenario


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small models: one thread each beats two that wait
    arguments = sys.argv[1:] if argv is None else argv
    return run_program(_parser(shlex.join(["fleet-sim", *arguments])), arguments)


def _parser(command: str) -> argparse.ArgumentParser:
    parser = Parser(prog="fleet-sim", description="A whole federation on one machine, through the real programs.")
    parser.set_defaults(command=command)  # for reports
    commands = parser.add_subparsers(required=True, metavar="demo|run|compare|attack|advise|data")
    _add_demo(commands.add_parser("demo", help="ten real devices, a real broker, every baseline: minutes to a report"))
    _add_run(commands.add_parser("run", help="play a scenario: real cores, simulated network and time"))
    _add_compare(commands.add_parser("compare", help="every rule and every baseline on the same worlds"))
    _add_attack(commands.add_parser("attack", help="rules against attackers: what honest devices are left with"))
    _add_advise(commands.add_parser("advise", help="what to expect of a fleet that is only planned; plays nothing"))
    _add_data(commands.add_parser("data", help="data sets: which there are, and which are here"))
    return parser


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--out", type=Path, help="new folder for everything that is written (default: out/demo-TIME)")
    demo.add_argument("--rounds", type=int, default=15)
    demo.add_argument("--seed", type=int, default=0, help="of the split, the models and the order of rows")
    demo.add_argument("--embedded-broker", action="store_true", help="do not use Mosquitto even where it is installed")
    demo.add_argument("--no-baselines", action="store_true", help="the federation alone")
    demo.set_defaults(run=_demo)


def _add_run(run: argparse.ArgumentParser) -> None:
    _add_scenario(run)
    run.add_argument("--real", action="store_true", help="real programs over a real broker; nothing is simulated")
    run.add_argument("--rule", help="another rule than the scenario's: competence, mean-probabilities, ...")
    run.set_defaults(run=_run)


def _add_compare(compare: argparse.ArgumentParser) -> None:
    _add_scenario(compare, preset="new-class", seeds=5, first_seed=100)
    compare.add_argument("--methods", nargs="+", metavar="NAME", help="rules and baselines; the first is ours")
    compare.add_argument("--budget", type=_positive, help="settings tried for each baseline, at most")
    compare.set_defaults(run=_compare)


def _add_attack(attack: argparse.ArgumentParser) -> None:
    _add_scenario(attack)
    attack.add_argument("--attacks", nargs="+", metavar="NAME", default=["lma"], help="see docs/simulation.md")
    attack.add_argument("--rules", nargs="+", metavar="NAME", help="all where none is named")
    attack.add_argument("--shares", nargs="+", type=float, metavar="SHARE", help="of attackers (default: 0 .1 .2 .4)")
    attack.set_defaults(run=_attack)


def _add_advise(advise: argparse.ArgumentParser) -> None:
    advise.add_argument("plan", type=Path, help="TOML, see docs/simulation.md")
    advise.set_defaults(run=_advise)


def _add_data(data: argparse.ArgumentParser) -> None:
    data.add_argument("name", nargs="?", help="load this one, from the network if need be, and say what it holds")
    data.add_argument("--path", type=Path, help="where its files lie")
    data.set_defaults(run=_data)


def _add_scenario(
    parser: argparse.ArgumentParser, *, preset: str = "digits", seeds: int = 1, first_seed: int = 0
) -> None:
    parser.add_argument("scenario", type=Path, nargs="?", help="TOML, see docs/simulation.md")
    parser.add_argument("--preset", default=preset, help="where no file is given (default: %(default)s)")
    parser.add_argument("--data", type=Path, metavar="PATH", help="where the files of the data set lie")
    parser.add_argument("--rounds", type=_positive, help="another number of rounds than the scenario's")
    parser.add_argument("--seeds", type=_positive, default=seeds, help="how many seeds to play (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=first_seed, help="the first of them (default: %(default)s)")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes (default: processors)")
    parser.add_argument("--out", type=Path, help="folder for report, tables and all results; goes on where it ended")
    parser.add_argument("--json", action="store_true", help="print all results as JSON instead of tables")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _run(arguments: argparse.Namespace) -> int:
    from fleet_sim import run  # noqa: PLC0415 - seconds to import, wanted by this command alone

    scenario = _scenario(arguments)
    if arguments.rule:
        scenario = replace(scenario, method=replace(scenario.method, name=arguments.rule))
    if arguments.real:
        end_like_ctrl_c()
        run.check_real(scenario)
    with _folder(arguments) as folder:
        console, real = Console(stderr=True), arguments.real
        played = run.play_seeds(scenario, _seeds(arguments), folder, arguments.jobs, console, is_real=real)
    done = run.Run(_name(arguments), scenario, played, real)
    texts = {"results.json": run.to_json(done), "rounds.csv": run.to_csv(done)}
    return _tell(arguments, run.report(done, arguments.command), texts)


def _compare(arguments: argparse.Namespace) -> int:
    from fleet_sim.baselines.tuning import BUDGET  # noqa: PLC0415 - as above
    from fleet_sim.comparison import comparing  # noqa: PLC0415 - as above
    from fleet_sim.reports import comparison as saying  # noqa: PLC0415 - as above

    scenario, console = _scenario(arguments), Console(stderr=True)
    plan = comparing.Comparison(
        scenario.world,
        scenario,
        methods=tuple(arguments.methods or comparing.DEFAULT_METHODS),
        seeds=_seeds(arguments),
        budget=arguments.budget or BUDGET,
    )
    with _folder(arguments) as folder, pool(arguments.jobs) as mapped:
        compared = comparing.compare(plan, folder, mapped=mapped, on_done=console.print)
    texts = {"results.json": saying.to_json(compared), "results.csv": saying.to_csv(compared)}
    return _tell(arguments, saying.report(compared, arguments.command), texts)


def _attack(arguments: argparse.Namespace) -> int:
    from fleet_sim import attack_run  # noqa: PLC0415 - as above

    plan = attack_run.AttackPlan(_scenario(arguments), tuple(arguments.attacks), seeds=_seeds(arguments))
    plan = replace(plan, rules=tuple(arguments.rules or plan.rules), shares=tuple(arguments.shares or plan.shares))
    with _folder(arguments) as folder:
        attacked = attack_run.play_attacks(plan, folder, arguments.jobs, Console(stderr=True))
    texts = {"results.json": attack_run.to_json(attacked), "results.csv": attack_run.to_csv(attacked)}
    return _tell(arguments, attack_run.report(attacked, arguments.command), texts)


def _advise(arguments: argparse.Namespace) -> int:
    from fleet_sim.advice import advise, read_plan  # noqa: PLC0415 - as above

    print(*advise(read_plan(arguments.plan)).lines(), sep="\n")
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from fd_runtime.pages import print_sections  # noqa: PLC0415 - as above
    from fleet_sim.reports import data as saying  # noqa: PLC0415 - as above

    section = saying.described(arguments.name, arguments.path) if arguments.name else saying.listed()
    print_sections("fleet-sim data", (), (section,), Console())
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    end_like_ctrl_c()
    from fleet_sim.demo.play import Plan, play  # noqa: PLC0415 - as above
    from fleet_sim.demo.setting import Setting  # noqa: PLC0415 - as above

    out = arguments.out or Path("out") / f"demo-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    setting = Setting(out.absolute(), rounds=arguments.rounds, seed=arguments.seed)
    plan = Plan(setting, embedded_broker=arguments.embedded_broker, baselines=not arguments.no_baselines)
    play(plan, Console())
    return 0


# What commands share.


def _scenario(arguments: argparse.Namespace) -> Scenario:
    from fleet_sim.run import read_scenario  # noqa: PLC0415 - as above

    scenario = read_scenario(arguments.scenario, arguments.preset)
    if arguments.data:
        scenario = replace(scenario, data=replace(scenario.data, path=arguments.data.absolute()))
    if arguments.rounds:
        scenario = replace(scenario, rounds=arguments.rounds)
    return scenario


def _name(arguments: argparse.Namespace) -> str:
    return arguments.scenario.stem if arguments.scenario else str(arguments.preset)


def _seeds(arguments: argparse.Namespace) -> tuple[int, ...]:
    return tuple(range(arguments.seed, arguments.seed + arguments.seeds))


@contextmanager
def _folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """Yield where everything is written: the folder that is asked for, or one that is gone afterwards."""
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        yield arguments.out.absolute()
        return
    with TemporaryDirectory(prefix="fleet-sim-") as folder:
        yield Path(folder)


def _tell(arguments: argparse.Namespace, report: Report, texts: Mapping[str, str]) -> int:
    """Write report and texts into the folder that is asked for, and print one or the other."""
    from fleet_sim.reports.report import print_report, write_html, write_png  # noqa: PLC0415 - as above

    if arguments.out:
        write_html(report, arguments.out / "report.html")
        write_png(report, arguments.out / "report.png")
        for name, text in texts.items():
            write_atomically(arguments.out / name, text.encode())
    if arguments.json:
        print(texts["results.json"])
    else:
        print_report(report, Console())
    return 0
