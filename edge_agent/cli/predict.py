"""`edge-agent predict FILE`: what the device's model, as it has learned so far, says of the samples in a file."""

from __future__ import annotations

import argparse

from edge_agent.care.predicting import load_speaker, read_samples
from edge_agent.cli.output import table, tell
from edge_agent.cli.place import config_path


def run(arguments: argparse.Namespace) -> int:
    speaker = load_speaker(config_path(arguments))
    probabilities = speaker.probabilities(read_samples(arguments.file, speaker.task))
    top = max(1, min(arguments.top, len(speaker.task.classes)))
    rows = []
    for row, p in enumerate(probabilities):
        order = (-p).argsort(kind="stable")[:top]
        rows.append((row, [(speaker.task.classes[int(k)], round(float(p[k]), 4)) for k in order]))
    told = [{"row": row, "label": best[0][0], "confidence": best[0][1], "classes": dict(best)} for row, best in rows]
    cells = [
        (str(row), best[0][0], f"{best[0][1]:.3f}", " ".join(f"{name} {p:.3f}" for name, p in best[1:]))
        for row, best in rows
    ]
    tell(arguments, told, table(("row", "label", "confidence", "then"), cells))
    return 0
