"""`broker-server verify` and `replay`: consensuses made again, to prove them or to ask what another rule would say."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import track

from broker_server.canaries import load_canaries
from broker_server.commands.commanding import Subparsers, chronicle_of, percent, tell, with_config
from broker_server.config import Config
from broker_server.core.editions import Editions
from broker_server.core.events import Edition
from broker_server.journal import Journal
from broker_server.records.chronicle import Chronicle, RoundRecord
from broker_server.replaying import GoneError, NotReplayableError, Remade, Rerun, agreement, remake
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.messages import MAX_PROBES, RoundOffer
from fd_runtime.config import EX_DATAERR, load_toml, toml_value
from fd_runtime.pages import Section
from fd_runtime.starting import blame

_VERIFIED = ("round", "published", "made again", "verdict")
_REPLAYED = ("round", "agreement", "entropy nats", "was", "canaries", "was", "largest share", "was")
_TERMS_HELP = "constants other than the round's; custom.NAME=VALUE for a rule of another distribution"
_SHARES = ("device", "share", "was", "agreement", "was")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A round, the canaries that lie in it, and its consensus as it was."""

    record: RoundRecord
    canaries: LabelledProbes
    was: Remade


def add_replay_commands(subparsers: Subparsers) -> None:
    """Add the commands; each leaves `run(arguments) -> exit code` in the namespace."""
    verify = subparsers.add_parser("verify", help="make the consensus of the kept rounds again and compare digests")
    with_config(verify, _verify).set_defaults(what="verify")
    verify.add_argument("--round", type=int, help="this round alone")
    replay = subparsers.add_parser("replay", help="say what another rule would have made of the kept rounds")
    with_config(replay, _replay).set_defaults(what="replay")
    replay.add_argument("--round", type=int, help="this round alone")
    replay.add_argument("--method", help="name of the rule; the round's own where none is given")
    replay.add_argument("--terms", nargs="+", default=[], metavar="NAME=VALUE", help=_TERMS_HELP)
    replay.add_argument("--limit", type=int, default=20, help="devices to list, the most changed first; -1 = all")


def _kept(chronicle: Chronicle, arguments: argparse.Namespace) -> Iterator[_Kept]:
    """Yield the rounds that can be made again, the last first, each with its consensus as it was.

    Raises:
        NotReplayableError: there is none.
    """
    number, count, editions = arguments.round, 0, Journal(chronicle.store, chronicle.federation).replay().editions
    rounds = chronicle.rounds(-1) if number is None else chronicle.rounds(1, number + 1)
    made = [one for one in rounds if one.own_sha256 and number in (None, one.number)]
    for record in track(made, arguments.what, console=Console(stderr=True), transient=True):
        try:
            canaries = _canaries(arguments.config, record, editions)
            yield _Kept(record, canaries, remake(chronicle, record, canaries=canaries))
        except GoneError:
            break
        except NotReplayableError:
            continue  # a device that had a part in it was forgotten
        count += 1
    if not count:
        which = "no round" if number is None else f"not round {number}"
        raise NotReplayableError(f"{which} can be made again: none that made a consensus is kept with what it heard")


# Verify.


def _verify(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle:
        told = [_verified(one) for one in _kept(chronicle, arguments)]
    rows = tuple((str(one["round"]), one["published"][:16], one["remade"][:16], one["verdict"]) for one in told)
    tell(arguments, told, "Consensuses made again", [Section("", _VERIFIED, rows)])
    return EX_DATAERR if any(one["verdict"] != "same" for one in told) else 0


def _verified(kept: _Kept) -> dict[str, Any]:
    published, remade = kept.record.own_sha256, kept.was.sha256
    verdict = "same" if published == remade else "different"
    return {"round": kept.record.number, "published": published.hex(), "remade": remade.hex(), "verdict": verdict}


# Replay.


def _replay(arguments: argparse.Namespace) -> int:
    rerun = Rerun(arguments.method, _terms(arguments.terms))
    with chronicle_of(arguments.config) as chronicle:
        pairs = [(kept, remake(chronicle, kept.record, rerun, kept.canaries)) for kept in _kept(chronicle, arguments)]
    rounds, devices = [_round_told(*pair) for pair in pairs], _devices_told(pairs)
    shown = devices if arguments.limit < 0 else devices[: arguments.limit]
    note = "agreement: with the consensus that was published; * = which cannot be made again bit for bit"
    sections = [
        Section("Rounds", _REPLAYED, tuple(map(_round_row, rounds)), note),
        Section("Devices", _SHARES, tuple(map(_device_row, shown)), "means over these rounds"),
    ]
    title = f"What {arguments.method or 'the same rule'} would have made of the voices"
    tell(arguments, {"rounds": rounds, "devices": devices}, title, sections)
    return 0


def _canaries(path: Path, record: RoundRecord, editions: Editions) -> LabelledProbes:
    """Return the trust canaries that are known by now of the probes of this round."""
    config, part = load_toml(path, Config), codec.decode(record.offer, RoundOffer).slice
    file = _file_of(config, editions.about(part.public_set))
    if file is None or config.trust == "none":
        return LabelledProbes()
    with blame(path, "artifacts.canaries"):
        return load_canaries(file, public_set=part.public_set, count=MAX_PROBES, classes=part.classes).trust


def _file_of(config: Config, edition: Edition | None) -> Path | None:
    """Return where the canaries of an edition lie: on the shelf, or where the settings say; None: there are none."""
    if edition is not None and not edition.canaries:
        return None
    shelved = config.state.probes / "canaries" / f"{edition.canaries.hex()}.json" if edition is not None else None
    return shelved if shelved is not None and shelved.is_file() else config.artifacts.canaries


def _terms(assignments: Sequence[str]) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InvalidValueError(f"--terms takes NAME=VALUE, not {assignment!r}")
        table, _, inner = name.partition(".")
        if inner:
            terms.setdefault(table, {})[inner] = toml_value(text)
        else:
            terms[name] = toml_value(text)
    return terms


def _round_told(kept: _Kept, now: Remade) -> dict[str, Any]:
    return {
        "round": kept.record.number,
        "is_published": kept.was.sha256 == kept.record.own_sha256,
        "agreement": agreement(kept.was, now),
        "metrics": now.metrics,
        "published_metrics": kept.was.metrics,
    }


def _round_row(told: dict[str, Any]) -> tuple[str, ...]:
    now, was = told["metrics"], told["published_metrics"]
    entropies = [f"{one['entropy_nats']:.3f}" for one in (now, was)]
    canaries = [percent(one.get("canary_accuracy")) for one in (now, was)]
    shares = [percent(one["largest_share"]) for one in (now, was)]
    mark = "" if told["is_published"] else " *"
    return f"{told['round']}{mark}", percent(told["agreement"]), *entropies, *canaries, *shares


def _devices_told(pairs: Sequence[tuple[_Kept, Remade]]) -> list[dict[str, Any]]:
    """Return each device's means over rounds, the largest change of share first."""
    names = ("share", "was_share", "agreement", "was_agreement")
    told: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for kept, remade in pairs:
        was = {one.source.device: one for one in kept.was.standings}
        for now in remade.standings:
            before = was[now.source.device]
            told[now.source.device].append((now.share, before.share, now.agreement, before.agreement))
    means = [
        {"device": device, **dict(zip(names, map(fmean, zip(*rows, strict=True)), strict=True))}
        for device, rows in told.items()
    ]
    return sorted(means, key=lambda one: (-abs(one["share"] - one["was_share"]), one["device"]))


def _device_row(told: dict[str, Any]) -> tuple[str, ...]:
    shares = (told[name] for name in ("share", "was_share", "agreement", "was_agreement"))
    return str(told["device"]), *map(percent, shares)
