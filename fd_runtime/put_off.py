"""A module that a library asks for at its import, and that we do not use: it is read once the library touches it.

    with put_off("urllib.request"):
        import library

The library keeps a stand-in; whoever imports that name afterwards gets the real module, in the usual way. (The standard
library's `LazyLoader` would read it at the library's own `import`.) Only for modules whose import has no effect but to
be there, and of which a library takes nothing by `from ... import`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def put_off(name: str) -> Iterator[None]:
    """Inside, `import name` costs nothing; a module that is there already stays."""
    if name in sys.modules:
        yield
        return
    package, _, last = name.rpartition(".")
    stand_in = sys.modules[name] = _StandIn(name)
    setattr(importlib.import_module(package), last, stand_in)
    try:
        yield
    finally:
        del sys.modules[name]
