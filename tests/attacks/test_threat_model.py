"""Every promise of the threat model names a test that there is."""

import ast
import re

import pytest

from deploy.deb.catalogue import ROOT
from tests.attacks.table import DOCS

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
TEXT = DOCS.read_text()
PROMISES = TEXT.split("## Promises, and the test of each")[1].split("## Attacks")[0]


@pytest.mark.parametrize(("path", "name"), sorted(set(_TEST.findall(TEXT))))
def test_the_test_of_a_promise_exists(path, name):
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_has_a_test():
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    assert [row for row in rows if not _TEST.search(row)] == []
