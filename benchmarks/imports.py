"""What each import of a program costs in memory: the growth of its resident set, with and without what it imports.

    python benchmarks/imports.py [MODULE [ROWS]]      default: edge_agent.cli.run (the supervisor), 20

A module that two others need is charged to the first. Pages of shared libraries count as they are read in. The script
itself imports next to nothing, so that what the program needs is not there before.
"""

from __future__ import annotations

import importlib
import importlib._bootstrap as bootstrap
import sys
import types


class Meter:
    """Stands around the import system's loader, which has no other hook. Sizes in kB.

    Attributes:
        grown: by module: with what it imports, and alone.
    """

    def __init__(self) -> None:
        self.grown: dict[str, tuple[int, int]] = {}
        self._inside: list[int] = []
        self._load = bootstrap._load_unlocked  # noqa: SLF001
        bootstrap._load_unlocked = self._measured  # noqa: SLF001

    def _measured(self, spec: bootstrap.ModuleSpec) -> types.ModuleType:
        before = resident_kb()
        self._inside.append(0)
        try:
            return self._load(spec)
        finally:
            total = resident_kb() - before
            self.grown[spec.name] = (total, total - self._inside.pop())
            if self._inside:
                self._inside[-1] += total


def resident_kb() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:  # noqa: PTH123 - see the top
        return next(int(line.split()[1]) for line in rollup if line.startswith("Rss:"))


def main(module: str = "edge_agent.cli.run", rows: str = "20") -> None:
    before, meter = resident_kb(), Meter()
    importlib.import_module(module)
    print(f"Python {sys.version.split()[0]}: {before / 1000:.1f} MB before, {resident_kb() / 1000:.1f} MB after\n")
    print("| module | with what it imports, MB | alone |\n|---|---|---|")
    for name, (total, alone) in sorted(meter.grown.items(), key=lambda one: -one[1][0])[: int(rows)]:
        print(f"| {name} | {total / 1000:.2f} | {alone / 1000:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
