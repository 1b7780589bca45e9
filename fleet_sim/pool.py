"""A `map` over processes that last: who maps often pays for their start, seconds of imports, once.

    with pool(2) as mapped:
        for result in mapped(work, items): ...

Results come in the order of their items. `work` and items travel by pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Protocol, TypeVar

from fleet_sim.processes import end_with_parent

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Map(Protocol):
    """What `map` does, of one sequence."""

    def __call__(self, function: Callable[[_Item], _Result], items: Sequence[_Item], /) -> Iterator[_Result]: ...


@contextmanager
def pool(jobs: int) -> Iterator[Map]:
    """Yield a `map` over `jobs` processes, new ones: a fork would inherit the threads of the runtimes; 1 = this one."""
    if jobs == 1:
        yield map
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as executor:
        yield executor.map
