"""The rules that a simulated federation can play, and what an operator must set for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from broker_server.methods import rule_named
from broker_server.rules import RULES, Need, RuleTerms
from broker_server.settings import MethodSettings
from fd_protocol.errors import InvalidValueError

PLAYED: tuple[str, ...] = tuple(name for name, make in RULES.items() if Need.PUBLIC_SET in make(RuleTerms()).card.needs)
"""Those built in that any scenario can play, the default first. Canaries are its choice, and no rule needs them."""


def needs_of(method: MethodSettings) -> frozenset[Need]:
    """Return what the rule needs.

    Raises:
        InvalidValueError: there is none of this name.
    """
    return rule_named(method.name, method.terms).card.needs


def check_has_probes(name: str) -> None:
    """Refuse a rule that goes without a public set.

    Raises:
        InvalidValueError: so, or there is no rule of this name.
    """
    if Need.PUBLIC_SET not in rule_named(name, RuleTerms()).card.needs:
        raise InvalidValueError(f"{name!r} goes without a public set; with one are {', '.join(PLAYED)}")


def stated(method: MethodSettings, rows: Mapping[str, int]) -> MethodSettings:
    """Return the method as an operator sets it who knows how many `rows` each device has, where it asks for that."""
    if Need.SIZES not in needs_of(method) or method.terms.sizes:
        return method
    sizes = {device: max(1, count) for device, count in rows.items()}
    return replace(method, terms=replace(method.terms, sizes=sizes))
