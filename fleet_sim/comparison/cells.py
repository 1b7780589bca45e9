"""Where one method ended with one seed, and its file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fd_runtime.files import write_atomically
from fleet_sim.baselines.standings import Standing
from fleet_sim.metrics.listening import ClassCoverage
from fleet_sim.metrics.rounds import RoundMetrics
from fleet_sim.metrics.scores import Scored


@dataclass(frozen=True, slots=True)
class Cell:
    """One method with one seed.

    Attributes:
        seed: of the world and of the play.
        method: by name.
        standings: one, or a student's and the mean client's.
        last_round: of a rule.
    """

    seed: int
    method: str
    standings: tuple[Standing, ...]
    last_round: RoundMetrics | None = None

    def write(self, path: Path) -> None:
        """Write the cell; NaN becomes null."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(plain(asdict(self)), indent=1).encode())


def read_cell(path: Path) -> Cell:
    """Return the cell that `Cell.write` wrote."""
    content = json.loads(path.read_text())
    standings = tuple(_standing(item) for item in content["standings"])
    last = content["last_round"]
    return Cell(content["seed"], content["method"], standings, read_metrics(last) if last else None)


def plain(value: Any) -> Any:
    """Return what JSON can tell of dictionaries, sequences, numbers, digests and paths; NaN is null."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _standing(item: dict[str, Any]) -> Standing:
    curve = tuple(math.nan if value is None else value for value in item["curve"])
    pairs = {name: tuple(map(tuple, item.get(name, ()))) for name in ("totals", "families")}
    scores = tuple(_scored(each) for each in item.get("scores", ()))
    return Standing(**{**numbers(item), **pairs, "curve": curve, "scores": scores})


def _scored(item: dict[str, Any]) -> Scored:
    own = tuple(math.nan if value is None else value for value in item["own"])
    return Scored(**{**numbers(item), "own": own})


def read_metrics(item: dict[str, Any]) -> RoundMetrics:
    """Return the metrics that `plain` told."""
    return RoundMetrics(**{**numbers(item), "classes": tuple(_coverage(each) for each in item["classes"])})


def _coverage(item: dict[str, Any]) -> ClassCoverage:
    return ClassCoverage(**numbers(item))


def numbers(item: dict[str, Any]) -> dict[str, Any]:
    """Return `item` with its nulls as NaN."""
    return {name: math.nan if value is None else value for name, value in item.items()}
