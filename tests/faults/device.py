"""A whole device through a round, with all that it writes beside its database; by `edge-agent run`."""

from __future__ import annotations

from pathlib import Path

from edge_agent.cli import main


def act(config: str) -> int:
    return main(["run", "--config", config])


def careless(config: str) -> int:
    """A device that ends where it cannot say how it is: for the harness to find out."""
    from edge_agent.process import herald  # noqa: PLC0415

    def write(self, standing, now_s):
        herald.standings.save(self._path, standing)

    herald.Herald._write = write
    return 0 if (Path(config).parent / "state" / "ended").exists() else act(config)
