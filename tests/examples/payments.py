"""Made-up payments in the form in which ULB publishes its card transactions: any clone can play them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEAD = ",".join(["Time", *(f"V{number}" for number in range(1, 29)), "Amount", "Class"])
DAYS_S = 172_800.0


def write_payments(path: Path, rows: int = 3000, share: float = 0.1) -> Path:
    """Write a CSV; fraud is far off on three columns, of which one is so for small amounts alone."""
    rng = np.random.default_rng(0)
    is_fraud, amounts = rng.random(rows) < share, rng.lognormal(3, 1.5, rows)
    values = rng.normal(0, 1, (rows, 28))
    values[is_fraud, 3] += 3
    values[is_fraud, 13] -= 3
    values[is_fraud & (amounts < 20), 0] -= 3
    columns = [rng.uniform(0, DAYS_S, rows).round(), *values.T.round(5), amounts.round(2), is_fraud]
    lines = (",".join(f"{value:g}" for value in line) for line in zip(*columns, strict=True))
    path.write_text("\n".join([HEAD, *lines, ""]))
    return path
