"""Makes banks of a table of payments: which are whose, which come later, and which columns a bank does not have.

    python banks.py --data creditcard.csv [--name card-fraud] [--out made/banks.npz]

    made/banks.npz         x [n, columns], y, group (the bank), test (true of what comes later)
    made/bank-0.csv ...    what comes later to a bank, as its device reads it: an empty cell is a value that is missing

The sets say of no payment which bank it went through. Here a bank is a mix of kinds of payments: sixteen, by how large
they are and by one more column, and each kind's payments are spread over the banks by a Dirichlet draw. So one bank
meets a kind of fraud every day that another has never seen, and rates differ. Every second bank lacks a few columns.
Bring banks of your own as such an npz.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

import tomllib

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np

from fd_runtime.models.model import F32, I64
from fleet_sim.data import DATASETS, Dataset
from fleet_sim.partitions import Census, Dirichlet
from fleet_sim.scenario import Scenario
from fleet_sim.worlds import Samples, World

HERE = Path(__file__).parent
BANKS, ALPHA, LACKING, CELLS = 6, 0.2, 4, 4
"""Of kinds, CELLS x CELLS; LACKING columns of every second bank."""
LATER = 0.3
"""Of the time, or of the table where it says of no row when it was: what models are tested on."""
FAR = 10.0
"""Standard deviations at which a value is cut off: one that is a thousand away would be all of a distance."""


@dataclass(frozen=True)
class Table:
    """How a data set becomes banks.

    Attributes:
        kinds: the two columns that make kinds of payments, by number.
        moment: the column that says when, which no model reads; None = rows lie as they came.
        amounts: columns of money: their logarithm is read.
    """

    kinds: tuple[int, int]
    moment: int | None
    amounts: tuple[int, ...]


TABLES: Mapping[str, Table] = {
    "card-fraud": Table(kinds=(29, 1), moment=0, amounts=(29,)),  # Time, V1 to V28, Amount
    "taiwan-default": Table(kinds=(0, 4), moment=None, amounts=(0, *range(11, 23))),  # LIMIT_BAL, ..., AGE, ...
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="banks.py")
    parser.add_argument("--data", type=Path, required=True, help="the table, in a form that fleet-sim knows")
    parser.add_argument("--name", choices=TABLES, default="card-fraud")
    parser.add_argument("--out", type=Path, default=HERE / "made" / "banks.npz")
    asked = parser.parse_args()
    write_banks(asked.name, asked.data, asked.out)
    with np.load(asked.out) as made:
        for bank in range(BANKS):
            rows = made["group"] == bank
            lacks = np.isnan(made["x"][rows]).all(axis=0).sum()
            sys.stdout.write(f"bank {bank}: {rows.sum()} payments, {made['y'][rows].mean():.2%} bad, {lacks} lacking\n")
            if asked.name == "card-fraud":  # whose columns recipe.toml names
                write_payments(asked.out.parent / f"bank-{bank}.csv", *(made[n][rows & made["test"]] for n in "xy"))


def write_banks(name: str, source: Path, out: Path) -> Path:
    """Write the banks of a data set that lies at `source`; return where."""
    dataset, table = DATASETS[name].load(source), TABLES[name]
    order = np.arange(len(dataset)) if table.moment is None else dataset.samples[:, table.moment].argsort(kind="stable")
    dataset = dataset.take(order)
    rng = np.random.default_rng(0)
    bank = owners(kinds(dataset, table), rng)
    is_later = later(dataset, table)
    values = readable(dataset, table, ~is_later)
    for lacking in range(1, BANKS, 2):
        columns = rng.permutation(values.shape[1])[:LACKING]
        values[np.ix_(bank == lacking, columns)] = np.nan
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, x=values, y=dataset.labels, group=bank, test=is_later)
    return out


def write_payments(path: Path, values: F32, labels: I64) -> None:
    """Write a CSV with the names of recipe.toml."""
    task = tomllib.loads((HERE / "recipe.toml").read_text())["task"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*task["columns"], "y"])
        for row, label in zip(values.tolist(), labels.tolist(), strict=True):
            writer.writerow([*("" if np.isnan(value) else f"{value:.5g}" for value in row), task["classes"][label]])


def kinds(dataset: Dataset, table: Table) -> I64:
    """Return the kind of each payment: in which quarter each of two columns lies."""
    quarters = []
    for column in table.kinds:
        values = dataset.samples[:, column]
        quarters.append(np.digitize(values, np.quantile(values, np.arange(1, CELLS) / CELLS)))
    return (CELLS * quarters[0] + quarters[1]).astype(np.int64)


def owners(kind: I64, rng: np.random.Generator) -> I64:
    """Return the bank of each payment."""
    bank = np.empty(len(kind), np.int64)
    for number, rows in enumerate(Dirichlet(ALPHA).assign(Census(kind), BANKS, rng)):
        bank[rows] = number
    return bank


def later(dataset: Dataset, table: Table) -> np.ndarray:
    """Return which rows models are tested on: the last hours, or the last rows."""
    count = len(dataset)
    if table.moment is None:
        return np.arange(count) >= round((1 - LATER) * count)
    moment = dataset.samples[:, table.moment]
    return moment >= moment.min() + (1 - LATER) * (moment.max() - moment.min())


def readable(dataset: Dataset, table: Table, known: np.ndarray) -> F32:
    """Return the columns as models and distances read them: amounts as logarithms, all in deviations of `known` rows.

    Distances in the space of competence are sums over columns: one in dollars would be all of them.
    """
    values = dataset.samples.astype(np.float64)
    for column in table.amounts:
        values[:, column] = np.sign(values[:, column]) * np.log1p(np.abs(values[:, column]))
    if table.moment is not None:
        values = np.delete(values, table.moment, axis=1)
    values = (values - values[known].mean(axis=0)) / values[known].std(axis=0)
    return values.clip(-FAR, FAR).astype(np.float32)


def world(scenario: Scenario, seed: int) -> World:
    """Return the world of `seed`; each bank's own rows are what comes later to it."""
    made, dataset = scenario.world(seed), scenario.data.load()
    assert dataset.groups is not None
    is_later = np.arange(len(dataset)) >= len(dataset) - dataset.published_test
    rows = [is_later & (dataset.groups == bank) for bank in range(len(dataset.group_names))]
    return changed(made, own=tuple(Samples(dataset.samples[own], dataset.labels[own]) for own in rows))


if __name__ == "__main__":
    main()
