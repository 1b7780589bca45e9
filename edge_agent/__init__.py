"""The device: quantized inference, small on-device fine-tuning, federated rounds.

`Agent` is a device for a program of one's own (`edge_agent.api.client`); it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.api.client import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> object:
    """Import `Agent` late: the supervisor imports this package, and needs no HTTP."""
    if name == "Agent":
        from edge_agent.api.client import Agent  # noqa: PLC0415 - see above

        return Agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
