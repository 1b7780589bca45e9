"""The rules that there are: those built in, and those of other installed distributions.

A distribution adds one by an entry point of the group `fedistill.rules`:

    [project.entry-points."fedistill.rules"]
    loudest = "my_rules:make_loudest"

where `make_loudest(terms: RuleTerms) -> Rule` reads its constants from `terms.custom`, in the settings the table
`[method.terms.custom]`, and the rule's card has the entry point's name. Its code is loaded when the rule is asked for,
and runs in the server with all of its rights: install what you trust. A built-in name is never given away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from broker_server.rules import RULES, Card, Rule, RuleTerms
from fd_protocol.errors import InvalidValueError

GROUP = "fedistill.rules"


def rule_named(name: str, terms: RuleTerms) -> Rule:
    """Return the rule.

    Raises:
        InvalidValueError: there is none of this name, two distributions have one, or it is no rule.
    """
    if name in RULES:
        return RULES[name](terms)
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        raise InvalidValueError(f"no method {name!r}; there are {', '.join(names())}")
    if len(found) > 1:
        raise InvalidValueError(f"method {name!r} is in {' and in '.join(map(_origin, found))}")
    return _loaded(found[0], terms)


def names() -> tuple[str, ...]:
    """Return the name of every rule, those built in first; nothing is loaded."""
    others = sorted({point.name for point in entry_points(group=GROUP)} - set(RULES))
    return (*RULES, *others)


@dataclass(frozen=True, slots=True)
class Listed:
    """A rule as `broker-server methods` shows it: its card, or why it cannot be used; `origin` is its distribution."""

    name: str
    origin: str
    card: Card | None = None
    problem: str = ""


def listed() -> Iterator[Listed]:
    """Yield every rule that is installed, those built in first, with the card that default terms give it."""
    for name, make in RULES.items():
        yield Listed(name, "fedistill", make(RuleTerms()).card)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in RULES:
            yield Listed(point.name, _origin(point), problem="this is the name of a rule that is built in")
            continue
        try:
            yield Listed(point.name, _origin(point), rule_named(point.name, RuleTerms()).card)
        except InvalidValueError as error:
            yield Listed(point.name, _origin(point), problem=str(error))


def _loaded(point: EntryPoint, terms: RuleTerms) -> Rule:
    """Return the rule of an entry point; whatever its code raises becomes an error that names the distribution."""
    try:
        rule: Rule = point.load()(terms)
        card = rule.card
    except Exception as error:
        raise InvalidValueError(f"method {point.name!r} of {_origin(point)}: {error}") from error
    if not isinstance(card, Card) or card.name != point.name or not callable(getattr(rule, "consensus", None)):
        raise InvalidValueError(f"method {point.name!r} of {_origin(point)} is not a rule of that name")
    return rule


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
