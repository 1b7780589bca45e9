"""Mappings and lists as YAML blocks. Texts are JSON strings, which YAML reads as they are: nothing needs escaping."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[a-z][a-z0-9_-]*")
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # YAML 1.1 takes these for something else


def yaml_text(value: Mapping[str, Any]) -> str:
    """Return a mapping of plain values as YAML, keys in the order given."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [line for key, inner in value.items() for line in _entry(f"{_key(key)}:", inner)]
    return [line for inner in value for line in _item(inner)]


def _entry(head: str, value: Any) -> list[str]:
    if _is_block(value):
        return [head, *(f"  {line}" for line in _lines(value))]
    return [f"{head} {_flow(value)}"]


def _item(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        first, *rest = _lines(value)
        return [f"- {first}", *(f"  {line}" for line in rest)]
    return [f"- {_flow(value)}"]


def _is_block(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(one, Mapping | list) for one in value)
    return isinstance(value, Mapping) and bool(value)


def _flow(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) and key not in _WORDS else _flow(key)
