"""How much a user writes: lines that are neither blank nor comment nor docstring, and commands."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

THEIR_COMMANDS = (
    "pip install flwr torch",
    "flower-superlink --ssl-ca-certfile ca.pem --ssl-certfile link.pem --ssl-keyfile link.key --database state.db",
    "flower-supernode --superlink HOST:8000 --root-certificates ca.pem --node-config 'dataset-path=\"data.npz\"'",
    "flwr run app",
)
"""The third on every client. An authority and its certificate for the server are left to the user."""

OUR_COMMANDS = (
    "pip install 'fedistill[agent,server,export]'",
    "model-export build recipe.toml --out artifacts",
    "broker-server ca init pki --fleet lab",
    "broker-server ca sign pki DEVICE",
    "broker-server mosquitto FOLDER --federation lab --aggregator agg-1 --crl crl.pem",
    "broker-server run --config federation.toml",
    "edge-agent run --config agent.toml",
)
"""The fourth and the last for every device."""


def lines_of(paths: Iterable[Path]) -> int:
    """Return the lines of these files that someone had to write."""
    return sum(len(_python(path) if path.suffix == ".py" else _plain(path)) for path in paths)


def _plain(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _python(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    told: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            told |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [line for number, line in lines if line and not line.startswith("#") and number not in told]
