"""Rows that people look back at, as maps of column names to values, in whatever tables a program asks for.

Names of tables and columns are the caller's own words, never what a peer sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from fd_runtime.storage.database import Database

Value: TypeAlias = "int | float | str | bytes | None"
Row: TypeAlias = "Mapping[str, Value]"


class Columns(NamedTuple):
    """What a merge does to a row: that of `key` gets new `values`, and `add` added to its numbers."""

    key: tuple[str, ...]
    values: tuple[str, ...]
    add: tuple[str, ...] = ()


class Records(Database):
    """A database, by rows."""

    def merge(self, table: str, key: Row, values: Row, add: Row | None = None) -> None:
        """Set `values` in the row of `key` and add `add` to its numbers; the row is made where there is none."""
        add = add or {}
        columns = Columns(tuple(key), tuple(values), tuple(add))
        self.merge_all(table, columns, [(*key.values(), *values.values(), *add.values())])

    def merge_all(self, table: str, columns: Columns, rows: Sequence[tuple[Value, ...]]) -> None:
        """Merge `rows`, one after the other, each in the order of `columns`."""
        self._execute_all(_upsert(table, columns), rows)

    def fill(self, table: str, column: str, source: str, where: Row) -> None:
        """Set `column` to `source` in the rows that `rows` would return, where it is not known yet."""
        statement = f"UPDATE {table} SET {column} = {source} WHERE {_all_of(where)} AND {column} IS NULL"  # noqa: S608
        self._execute(statement, tuple(where.values()))

    def rows(
        self, table: str, where: Row, order: str = "", limit: int = -1, *, columns: str = "*"
    ) -> list[dict[str, Any]]:
        """Return the rows where each name has its value: {"fed": "plant", "number <": 7}; `limit` -1 = all of them."""
        order = f"ORDER BY {order}" if order else ""
        statement = f"SELECT {columns} FROM {table} WHERE {_all_of(where)} {order} LIMIT ?"  # noqa: S608 - see above
        return list(self._stream(statement, (*where.values(), limit)))

    def count(self, table: str, where: Row) -> int:
        """Return how many rows `rows` would return."""
        statement = f"SELECT count(*) FROM {table} WHERE {_all_of(where)}"  # noqa: S608 - see above
        (number,) = self._execute(statement, tuple(where.values())).fetchone()
        return int(number)

    def spread(self, table: str, value: str, by: str, where: Row) -> dict[Any, tuple[float, float, float]]:
        """Return (least, mean, most) of what is known of `value` in the rows of each value of column `by`.

        `value` is an expression of columns.
        """
        statement = f"""SELECT {by}, min({value}), avg({value}), max({value}) FROM {table}
            WHERE {_all_of(where)} AND {value} IS NOT NULL GROUP BY {by}"""  # noqa: S608 - see above
        found = self._execute(statement, tuple(where.values())).fetchall()
        return {key: (least, mean, most) for key, least, mean, most in found}

    def delete_rows(self, table: str, where: Row) -> int:
        """Delete the rows that `rows` would return; return how many went."""
        statement = f"DELETE FROM {table} WHERE {_all_of(where)}"  # noqa: S608 - see above
        return self._execute(statement, tuple(where.values())).rowcount


@lru_cache
def _upsert(table: str, columns: Columns) -> str:
    key, values, add = columns
    names = (*key, *values, *add)
    changes = [f"{name} = excluded.{name}" for name in values]
    changes += [f"{name} = {table}.{name} + excluded.{name}" for name in add]
    action = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
    return (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - see above
        f"ON CONFLICT ({', '.join(key)}) DO {action}"
    )


def _all_of(where: Row) -> str:
    """`fed` is an equality, `number <` a comparison; of nothing all is true."""
    return " AND ".join(f"{name} ?" if " " in name else f"{name} = ?" for name in where) or "true"
