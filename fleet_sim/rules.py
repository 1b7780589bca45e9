"""The rules that a simulated federation can play: those that need nothing but what every scenario has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from broker_server.methods import rule_named
from broker_server.rules import RULES, Need, RuleTerms
from broker_server.settings import MethodSettings
from fd_protocol.errors import InvalidValueError

PLAYED: tuple[str, ...] = tuple(name for name, make in RULES.items() if Need.PUBLIC_SET in make(RuleTerms()).card.needs)
"""Those built in, the default first. A scenario has a public set; canaries are its choice, and no rule needs them."""


def check_playable(name: str) -> None:
    """Refuse a rule that no scenario can play.

    Raises:
        InvalidValueError: so, or there is no rule of this name.
    """
    if Need.PUBLIC_SET not in rule_named(name, RuleTerms()).card.needs:
        raise InvalidValueError(f"{name!r} goes without a public set, which every scenario has; played are {_listed()}")


def stated(method: MethodSettings, rows: Mapping[str, int]) -> MethodSettings:
    """Return the method as an operator sets it who knows how many `rows` each device has, where it asks for that."""
    if Need.SIZES not in rule_named(method.name, method.terms).card.needs or method.terms.sizes:
        return method
    sizes = {device: max(1, count) for device, count in rows.items()}
    return replace(method, terms=replace(method.terms, sizes=sizes))


def _listed() -> str:
    return ", ".join(PLAYED)
