"""The private store's hold-out, seen by a process that does not own the store: a bundle on trial is scored on it.

The store has one writer, the worker, which keeps in memory what is on the disk, and which deletes for good: pages are
overwritten, and the log is emptied (`PrivateStore.expire`). Three ways were open to the trial:

    open the store       two writers: row numbers given twice, counts lost, and `fit` and `expire` run at every open
    ask the worker       samples through a pipe, of a process that may be training or dead, for one that may crash
    look, read-only      what this is

So nothing is written, features neither: the cache has room for one bundle's, and it is the worker's that speaks now.
Each row is read in a moment of its own and no transaction lives longer, for as long as one does the worker's log cannot
be emptied of what was deleted. No key is made and nothing is sealed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_agent.private.data import PrivateRows
from edge_agent.private.keys import key_path, read_key
from edge_agent.private.settings import StoreSettings
from edge_agent.private.table import RowTable
from fd_protocol.manifest import Task


def held_out(path: Path, settings: StoreSettings, task: Task, *, most: int, at_once: int) -> Iterator[PrivateRows]:
    """Yield the newest held-out rows of the store at `path`, at most `most` of them, `at_once` at a time.

    Args:
        path: of the database; none there is a store without rows.
        settings: name the key.
        task: of the samples.
        most: rows.
        at_once: rows.

    Raises:
        PrivateStoreError, KeyFileError: it cannot be read with this key, or is about another task.
        SealError: somebody else changed it.
        StoreError, OSError: it cannot be read.
        MissingExtraError: there is a key, and `cryptography` is not installed.
    """
    if not path.exists():
        return
    where = key_path(settings)
    with RowTable.view(path, None if where is None else read_key(where), task) as table:
        numbers = [number for number, facts in table.load().items() if facts.is_held_out and facts.label is not None]
        chosen = numbers[-most:]
        for start in range(0, len(chosen), at_once):
            found = [table.labelled(number) for number in chosen[start : start + at_once]]
            rows = [(sample, facts) for sample, facts in filter(None, found) if facts.is_held_out]
            if rows:
                samples, labels = [sample for sample, _ in rows], [facts.label for _, facts in rows]
                is_held_out = np.ones(len(rows), np.bool_)
                yield PrivateRows(np.stack(samples), np.array(labels, np.int64), is_held_out)
