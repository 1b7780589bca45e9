"""A table that took hours is not lost in the last line of its script: each calls `publish` as it is."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def publishers(tree):
    """Name -> function, of those that a script imports to put a text on a page."""
    return {
        name.asname or name.name: getattr(import_module(node.module), name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in {"publish", "benchmarks.publish", "fleet_sim.tables"}
        for name in node.names
        if name.name == "publish"
    }


def calls():
    for path in sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]):
        tree = ast.parse(path.read_text())
        known = publishers(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield pytest.param(known[node.func.id], node, id=place)


@pytest.mark.parametrize(("function", "call"), list(calls()))
def test_a_script_calls_it_with_what_it_takes(function, call):
    inspect.signature(function).bind(*call.args, **{keyword.arg: keyword.value for keyword in call.keywords})
