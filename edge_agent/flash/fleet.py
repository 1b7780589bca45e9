"""A hundred cards from one table: a CSV with a row a device, columns as `Order` has fields. `device` must be one.

An empty cell is what the options say. What must not happen twice is refused before the first card: a device, a host
name, a token. What is done stands in DONE.csv beside it, so that a fleet that was interrupted goes on where it was.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_agent.flash.errors import OrderError
from edge_agent.flash.orders import Order
from fd_protocol.documents import nearest
from fd_runtime.files import sync_folder, write_atomically

_PATHS = ("config", "kit", "ca", "token_file", "bundle", "public_set", "ssh_key")
_COLUMNS = tuple(one.name for one in fields(Order) if one.name not in ("package", "add", "onnxruntime"))
_TRUTHS = {"": False, "no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}
_DONE = ("device", "host", "where", "bytes", "sha256", "at")


def read_fleet(path: Path, common: Order) -> tuple[Order, ...]:
    """Return an order for each row, `common` where a cell is empty. Names of files count from the table's folder.

    Raises:
        OrderError: a column that nobody knows, a row without a device, something twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            columns = reader.fieldnames or ()
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise OrderError(f"{path}: no table: {error}") from error
    for column in columns:
        if column not in _COLUMNS:
            raise OrderError(f"{path}: unknown column {column!r}{nearest(column, _COLUMNS)}")
    if "device" not in columns:
        raise OrderError(f"{path}: the first line names the columns; device must be one")
    orders = tuple(_order(path, line, row, common) for line, row in rows)
    if not orders:
        raise OrderError(f"{path}: no device in it")
    _check_nothing_twice(path, orders)
    return orders


def _order(path: Path, line: int, row: dict[str | Any, Any], common: Order) -> Order:
    if None in row or None in row.values():
        raise OrderError(f"{path}:{line}: as many cells as there are columns")
    said = {name: cell.strip() for name, cell in row.items() if cell.strip()}
    if "device" not in said:
        raise OrderError(f"{path}:{line}: no device")
    values: dict[str, Any] = {}
    for name, cell in said.items():
        if name in _PATHS:
            values[name] = path.parent / cell
        elif name == "wifi_hidden":
            if cell.lower() not in _TRUTHS:
                raise OrderError(f"{path}:{line}: wifi_hidden is yes or no, not {cell!r}")
            values[name] = _TRUTHS[cell.lower()]
        else:
            values[name] = cell
    return replace(common, **values)


def _check_nothing_twice(path: Path, orders: tuple[Order, ...]) -> None:
    for what, words in (
        ("device", [one.device for one in orders]),
        ("host", [one.host or one.device for one in orders]),
        ("token", [one.token for one in orders if one.token]),
        ("token_file", [str(one.token_file) for one in orders if one.token_file]),
        ("kit", [str(one.kit) for one in orders if one.kit]),
    ):
        word, count = max(Counter(words).items(), key=lambda one: one[1], default=("", 0))
        if count > 1:
            shown = "the same" if what == "token" else word
            raise OrderError(f"{path}: {count} rows with {what} {shown}: each device has its own")


@dataclass(frozen=True, slots=True)
class Done:
    """A card or image that was made and verified."""

    device: str
    host: str
    where: str
    size: int
    sha256: str
    at: datetime


class Log:
    """The table of what is done, a line a card, written as soon as it is.

    Args:
        path: of the table; it is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def devices(self) -> frozenset[str]:
        """Return whose cards are made."""
        if not self.path.exists():
            return frozenset()
        with self.path.open(encoding="utf-8", newline="") as file:
            return frozenset(row["device"] for row in csv.DictReader(file))

    def add(self, done: Iterable[Done]) -> None:
        if not self.path.exists():
            write_atomically(self.path, (",".join(_DONE) + "\n").encode())
        with self.path.open("a", encoding="utf-8", newline="") as file:
            for one in done:
                row = (one.device, one.host, one.where, one.size, one.sha256, one.at.isoformat(timespec="seconds"))
                csv.writer(file, lineterminator="\n").writerow(row)
        sync_folder(self.path.parent)
