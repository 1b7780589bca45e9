"""Settings that came later, and the names of what folders keep.

What is played is kept under a digest of the settings' `repr` (`playing`, `comparison`). A field with the metadata
`LATER` is left out of it while it has its default, so that a new key does not make hours of earlier play worthless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

LATER: Mapping[str, Any] = {"later": True}


def repr_of(settings: Any) -> str:
    """Return the `repr` of a dataclass, as it was before there were its later fields where they say nothing."""
    shown = (f"{each.name}={getattr(settings, each.name)!r}" for each in fields(settings) if _says(settings, each))
    return f"{type(settings).__qualname__}({', '.join(shown)})"


def _says(settings: Any, each: Field[Any]) -> bool:
    return each.metadata != LATER or getattr(settings, each.name) != each.default
