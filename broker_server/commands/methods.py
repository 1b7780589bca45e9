"""`broker-server methods`: every rule that is installed, as its own card describes it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from broker_server.methods import Listed, listed
from broker_server.rules import Card, Need, Promise

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else

COLUMNS = ("method", "needs", "liars", "consensus on a probe; where it fails; source")


def add_methods_command(subparsers: Subparsers) -> None:
    """Add `methods`; it leaves `run(arguments) -> exit code` in the namespace."""
    methods = subparsers.add_parser("methods", help="list the rules that form a consensus: needs, limits, sources")
    methods.add_argument("--json", action="store_true", help="print JSON")
    methods.set_defaults(run=_methods)


def to_plain(rule: Listed) -> dict[str, object]:
    """Return what JSON tells of a rule."""
    plain: dict[str, object] = {"name": rule.name, "origin": rule.origin}
    if rule.card is None:
        return {**plain, "problem": rule.problem}
    card = rule.card
    return {
        **plain,
        "formula": card.formula,
        "source": card.source,
        "fails": card.fails,
        "needs": _words(card.needs),
        "uses": _words(card.uses),
        "promises": _words(card.promises),
        "breakdown": card.breakdown,
    }


def row_of(rule: Listed) -> tuple[str, ...]:
    """Return the cells of a rule, in the order of `COLUMNS`."""
    if rule.card is None:
        return (rule.name, "", "", f"cannot be used: {rule.problem}\nfrom {rule.origin}")
    card = rule.card
    needs = "\n".join([*_words(card.needs), *(f"(+ {word})" for word in _words(card.uses))])
    return (rule.name, needs, _liars(card), f"{card.formula}\nfails {card.fails}\n{card.source}")


def _methods(arguments: argparse.Namespace) -> int:
    rules = tuple(listed())
    if arguments.json:
        print(json.dumps([to_plain(rule) for rule in rules], indent=1))  # noqa: T201 - a program's answer
        return 0
    table = Table(show_lines=True, caption=_CAPTION, caption_justify="left")
    for column in COLUMNS:
        table.add_column(column, no_wrap=column != COLUMNS[-1])
    for rule in rules:
        table.add_row(*row_of(rule))
    Console().print(table)
    return 0


def _words(members: frozenset[Need] | frozenset[Promise]) -> list[str]:
    return sorted(member.value for member in members)


def _liars(card: Card) -> str:
    return f"< {card.breakdown:.0%}" if card.breakdown else "-"


_CAPTION = """needs: what a rule cannot do without, and in brackets what makes it better.
liars: the share of devices that may say anything while those who agree keep what they say.
docs/methods.md says which to use when; --json also tells what each rule promises."""
