"""`fleet-sim run`: a scenario over several seeds, with progress, and what there is to say of it at the end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fd_protocol.errors import InvalidValueError
from fd_runtime.config import load_toml
from fd_runtime.pages import Section
from fleet_sim.comparison.cells import plain
from fleet_sim.measuring import RoundResult
from fleet_sim.metrics.estimates import estimate
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.playing import Job, Played, play_all
from fleet_sim.real.playing import check_real
from fleet_sim.reports.boards import board_sections, source_section
from fleet_sim.reports.listening import listening_sections
from fleet_sim.reports.report import Curve, Report
from fleet_sim.scenario import PRESETS, Scenario

__all__ = ["Run", "check_real", "play_seeds", "read_scenario", "report", "to_csv", "to_json"]

_PARTICIPANTS = 20


@dataclass(frozen=True, slots=True)
class Run:
    """A scenario that has been played, once a seed; `name` is its preset's or its file's, `is_real` says how."""

    name: str
    scenario: Scenario
    played: tuple[Played, ...]
    is_real: bool = False


def read_scenario(path: Path | None, preset: str) -> Scenario:
    """Return the scenario in the file at `path`, or the preset where there is no path.

    Raises:
        ConfigError: the file is wrong at a key.
        InvalidValueError: no such preset.
    """
    if path is not None:
        return load_toml(path, Scenario)
    if preset not in PRESETS:
        raise InvalidValueError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    return PRESETS[preset]


def play_seeds(
    scenario: Scenario, seeds: Sequence[int], folder: Path, processes: int, console: Console, *, is_real: bool = False
) -> tuple[Played, ...]:
    """Play every seed whose result `folder` does not hold yet, and show how far they are."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks = {seed: progress.add_task(f"seed {seed}", total=scenario.rounds, state="") for seed in seeds}

        def show(job: Job, result: RoundResult) -> None:
            state = f"student {_percent(result.student)}, devices {_percent(result.clients)}"
            progress.update(tasks[job.seed], completed=result.number, state=f"round {result.number}: {state}")

        played = play_all([Job(scenario, seed, folder, is_real) for seed in seeds], processes, show)
        for one in played:
            progress.update(tasks[one.seed], completed=scenario.rounds)
    return tuple(played)


# What is said.


def report(run: Run, command: str) -> Report:
    """Return the report of a run that `command` made."""
    boards = [one.boards for one in run.played]
    sections = (
        _ends(run),
        *board_sections([one.rounds for one in run.played], boards),
        *listening_sections(_last_rounds(run)),
        _participants(run),
        _holdings(run),
        source_section(boards),
        _settings(run),
    )
    curves = (
        Curve("mean device", _mean_curve(run, lambda result: result.clients), is_ours=True),
        Curve("student", _mean_curve(run, lambda result: result.student), is_ours=True),
    )
    shown = tuple(section for section in sections if section.rows)
    return Report(f"fleet-sim run: {run.name}", tuple(_summary(run)), curves, shown, command)


def to_csv(run: Run) -> str:
    """Return a row for each seed and round."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(RoundResult)]
    writer.writerow(["seed", *names])
    for one in run.played:
        writer.writerows([one.seed, *(plain(getattr(result, name)) for name in names)] for result in one.rounds)
    return text.getvalue()


def to_json(run: Run) -> str:
    """Return everything as one JSON document; what is nobody's accuracy is null."""
    return json.dumps(plain(asdict(run)))


def _summary(run: Run) -> Iterator[str]:
    scenario = run.scenario
    data = scenario.data.load()
    yield f"{data.name}: {data.source}. Licence: {data.licence}."
    invited = "" if scenario.fraction == 1 else f", {scenario.fraction:.0%} of them in a round"
    yield f"{scenario.devices} devices{invited}; {scenario.partition.kind} partition; rule {scenario.method.name}."
    if unseen := scenario.cut.unseen_groups:
        yield f"The test rows are of {unseen} that no device is: unseen users, sites or speakers."
    yield f"{scenario.rounds} rounds, {len(run.played)} seeds. Mean ± 2 standard errors."
    if scenario.is_timed:
        yield "Jobs and messages take the time of boards and links: estimates from public sources, none measured."
    if run.is_real:
        yield "Real programs over a real broker; bytes are those on each device's wire, TLS and MQTT included."
    if attackers := scenario.attack.devices:
        yield f"{attackers} of the devices attack: {scenario.attack.kind}. Figures are of the honest ones."


def _ends(run: Run) -> Section:
    """Return where everyone ended; what nobody was asked for is left out."""
    labels = {
        "clients": "mean device, test",
        "student": "student, test",
        "own": "own rows, local prior",
        "own_uncorrected": "own rows, as trained",
    }
    columns = {label: [getattr(one.last, name) for one in run.played] for name, label in labels.items()}
    shares = [(label, estimate(v).in_percent() + " %") for label, v in columns.items() if not np.isnan(v).all()]
    up = np.mean([one.last.sent_bytes / one.last.number for one in run.played])
    down = np.mean([one.last.received_bytes / one.last.number for one in run.played])
    traffic = [("bytes up per device and round", f"{up:,.0f}"), ("bytes down per device and round", f"{down:,.0f}")]
    title = f"After {run.played[0].last.number} rounds, {len(run.played)} seed(s)"
    note = "Test: rows that nobody has. Own rows: of a device's own kind, kept from it."
    return Section(title, ("", "mean"), tuple(shares + traffic), note)


def _last_rounds(run: Run) -> dict[str, list[RoundMetrics]]:
    return {run.scenario.method.name: [one.last_round for one in run.played]}


def _participants(run: Run) -> Section:
    """Return what devices contributed with the first seed, and what the consensus owes to each."""
    first = run.played[0]
    shares, gains = first.last_round.shares, first.last_round.gains
    least = sorted(gains, key=lambda device: gains[device])[:_PARTICIPANTS]
    rows = tuple((device, f"{100 * shares[device]:.1f}", f"{100 * gains[device]:+.1f}") for device in least)
    title = f"Participants by gain, the least first, last round of seed {first.seed}"
    note = f"At most {_PARTICIPANTS}; results.json has all. Gain below 0: the consensus is better without the device."
    return Section(title, ("device", "share of the consensus, %", "gain, points"), rows, note)


def _holdings(run: Run) -> Section:
    """Return how much devices hold, and how unevenly."""
    skews = [one.skew for one in run.played]
    rows = (
        ("rows on a device", f"{np.mean([one.rows for one in run.played]) / run.scenario.devices:,.1f}"),
        ("devices without a row", f"{np.mean([skew.empty for skew in skews]):.1f}"),
        ("effective classes on a device", f"{np.mean([skew.effective_classes for skew in skews]):.1f}"),
        ("distance of its class mix from that of all, 0..1", f"{np.mean([s.total_variation for s in skews]):.2f}"),
        ("effective devices by size", f"{np.mean([skew.effective_devices for skew in skews]):.1f}"),
    )
    return Section("Who holds what", ("", "mean over seeds"), rows)


def _settings(run: Run) -> Section:
    given, usual = (_flat("", json.loads(json.dumps(plain(asdict(each))))) for each in (run.scenario, Scenario()))
    rows = tuple((key, str(value)) for key, value in given.items() if usual.get(key) != value)
    return Section("Settings other than the usual", ("key", "value"), rows, "The usual ones: docs/simulation.md.")


def _flat(prefix: str, table: dict[str, object]) -> dict[str, object]:
    """Return a document's values by dotted key."""
    flat: dict[str, object] = {}
    for name, value in table.items():
        flat |= _flat(f"{prefix}{name}.", value) if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _mean_curve(run: Run, ask: Callable[[RoundResult], float]) -> tuple[float, ...]:
    """Return the mean over seeds, for as many rounds as all have: where faults are simulated a round may fail."""
    return tuple(float(np.mean([ask(r) for r in each])) for each in zip(*(o.rounds for o in run.played), strict=False))


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{share:.1%}"
