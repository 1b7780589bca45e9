"""A device's privacy terms and spending, as `edge-agent privacy` shows them. The device may be running meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_agent.privacy.ledger import ABANDONED, Entry, Ledger, spent_epsilon
from edge_agent.privacy.limits import Spent
from edge_agent.privacy.settings import PrivacySettings


def facts(folder: Path, own: PrivacySettings, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """Return what there is to know, in plain data.

    Args:
        folder: of the ledger, `settings.state.privacy`.
        own: the owner's terms.
        clock: UTC seconds.

    Raises:
        LedgerError: the ledger is damaged.
        OSError: it cannot be read.
    """
    entries = Ledger(folder).entries()
    in_period = Spent.within(own.period_s, entries, clock(), "").entries
    spent = spent_epsilon([entry.charge for entry in in_period], own.delta)
    return {
        "epsilon": own.epsilon or "as offers say",
        "delta": own.delta,
        "epsilon_max": own.epsilon_max,
        "period_days": own.period_days,
        "spent_in_period": spent,
        "left_in_period": max(0.0, own.epsilon_max - spent),
        "spent_ever": spent_epsilon([entry.charge for entry in entries], own.delta),
        "next_period": _time(max(entry.charge.at_s for entry in in_period) + own.period_s) if in_period else "now",
        "trainings": [_training(entry) for entry in entries],
    }


def _training(entry: Entry) -> dict[str, Any]:
    charge = entry.charge
    return {
        "at": _time(charge.at_s),
        "epsilon": charge.terms.epsilon,
        "delta": charge.terms.delta,
        "noise_multiplier": charge.noise_multiplier,
        "steps": charge.terms.steps,
        "sampling_rate": charge.terms.sampling_rate,
        "clip_norm": charge.terms.clip_norm,
        "bundle": entry.trained_bundle or charge.bundle,
        "state": _state(entry),
    }


def _state(entry: Entry) -> str:
    if entry.is_open:
        return "charged, not over"
    return "charged, never done" if entry.theta_sha256 == ABANDONED else "done"


def _time(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
