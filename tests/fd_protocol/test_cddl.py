"""docs/fedistill.cddl describes the messages as they are: every field, key and type, and it accepts what we send."""

import dataclasses
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

import pytest
from cddl_verifier import Validator
from hypothesis import given

from fd_protocol import cbor, codec
from fd_protocol.codec import KINDS
from fd_protocol.identity import RoundId
from fd_protocol.messages import PrivacyTerms, PublicSetRef, Sampling, Slice, StagedRelease, TrainingTerms
from tests.fd_protocol.strategies import messages
from tests.golden.vectors import MESSAGES

CDDL = Path(__file__).parents[2] / "docs" / "fedistill.cddl"
TEXT = CDDL.read_text()
VALIDATOR = Validator(CDDL)
NESTED = [RoundId, Slice, Sampling, TrainingTerms, PrivacyTerms, PublicSetRef, StagedRelease]
BASES = {"uint": int, "tstr": str, "bstr": bytes, "bool": bool, "float64": float}


def rule_of(cls):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


DEFINITIONS = dict(re.findall(r"^([a-z0-9-]+) = ([^;\n]+?) *(?:;.*)?$", TEXT, re.MULTILINE))
CLASSES = {rule_of(cls): cls for cls in [*KINDS.values(), *NESTED]}


def members_of(rule):
    """The members of a map rule: key -> (name, optional, type expression)."""
    (block,) = re.findall(rf"^{rule} = \{{\n(.*?)^\}}", TEXT, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^  (\? )?(\d+): (.+?), +; (\w+)", block, re.MULTILINE)
    return {int(key): (name, bool(optional), kind) for optional, key, kind, name in lines}


def python_type(kind):
    """The Python type that a CDDL type stands for; sets of words stand for an enumeration, (type,) for an array."""
    if kind in CLASSES or kind in BASES:
        return {**CLASSES, **BASES}[kind]
    if kind.startswith('"'):
        return set(re.findall(r'"([^"]+)"', kind))
    if re.fullmatch(r"\d+\.\.\d+", kind):
        return int
    if array := re.fullmatch(r"\[\* (.+)\]", kind):
        return (python_type(array[1]),)
    if table := re.fullmatch(r"\{ \* (.+) => (.+) \}", kind):
        return {python_type(table[1]): python_type(table[2])}
    base, *control = kind.split(" .")
    return python_type(base if control else DEFINITIONS[kind])


def annotated_type(hint):
    """The same of an annotation."""
    if get_origin(hint) is UnionType:  # a key that may be absent: nothing stands in its place
        (hint,) = set(get_args(hint)) - {NoneType}
    if get_origin(hint) is tuple:
        return (annotated_type(get_args(hint)[0]),)
    if isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
        return dict([map(annotated_type, get_args(hint))])
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {member.value for member in hint}
    return hint


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_every_field_key_and_type_stands_in_the_cddl(cls):
    hints = get_type_hints(cls)
    written = {
        field.metadata["key"]: (
            field.name,
            (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING),
            annotated_type(hints[field.name]),
        )
        for field in dataclasses.fields(cls)
    }
    members = members_of(rule_of(cls))
    assert {key: (name, optional, python_type(kind)) for key, (name, optional, kind) in members.items()} == written


def test_every_message_has_its_number_and_stands_among_the_messages():
    numbers = dict(re.findall(r"^([a-z-]+) = \{\n  0: (\d+),", TEXT, re.MULTILINE))
    assert {rule: int(number) for rule, number in numbers.items()} == {rule_of(cls): k for k, cls in KINDS.items()}
    (alternatives,) = re.findall(r"^message = ([a-z/\s-]+?)\n\n", TEXT, re.MULTILINE)
    assert set(re.split(r"\s*/\s*", alternatives)) == set(numbers)


def is_valid(item, rule="message"):
    return VALIDATOR.validate(cbor.encode(item), root_type=rule).valid


@given(messages)
def test_the_cddl_accepts_every_message(message):
    data = codec.encode(message)
    result = VALIDATOR.validate(data, root_type=rule_of(type(message)))
    assert result.valid, result.diagnostics
    assert VALIDATOR.validate(data, root_type="message").valid


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_the_cddl_refuses_a_wrong_or_missing_field_and_allows_an_unknown_one(message):
    item, rule = cbor.decode(codec.encode(message)), rule_of(type(message))
    required = {key for key, (_, optional, _) in members_of(rule).items() if not optional}
    for key in item:
        assert not is_valid({**item, key: [None]}, rule)
        assert is_valid({k: v for k, v in item.items() if k != key}, rule) == (key not in required | {0})
    for key in (99, "new"):
        assert is_valid({**item, key: [None]}, rule)
