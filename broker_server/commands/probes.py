"""`broker-server probes ...`: editions of the public set, from a folder to the current one."""

from __future__ import annotations

import argparse
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker_server.canaries import deal, load_canaries, read_canaries
from broker_server.commands.commanding import (
    Subparsers,
    UnknownRecordError,
    chronicle_of,
    percent,
    say,
    tell,
    utc,
    with_config,
)
from broker_server.commands.giving import EX_REFUSED, have_done, order_of
from broker_server.commands.orders import add_wait
from broker_server.config import Config
from broker_server.core.editions import FORGET_TRUST, UNTRIED
from broker_server.core.events import Command, Order
from broker_server.core.federation import Federation
from broker_server.edition_views import RETIRED, EditionView, views
from broker_server.equipment import Equipment, canaries_before, check_trust, load_equipment, public_set_of
from broker_server.journal import Journal
from broker_server.probe_shelf import check_unused
from broker_server.records.chronicle import Chronicle
from fd_protocol.canaries import Canaries
from fd_protocol.errors import InvalidValueError
from fd_runtime.artifacts import PublicSet
from fd_runtime.config import load_toml
from fd_runtime.files import write_atomically
from fd_runtime.pages import Section

_COLUMNS = ("edition", "public set", "probes", "since (UTC)", "have it", "round", "voices", "agreement", "uncovered",
            "canaries")  # fmt: skip
_NAMES = 20
"""Devices that a line names."""


def add_probe_commands(subparsers: Subparsers) -> None:
    """Add the commands; each leaves `run(arguments) -> exit code` in the namespace."""
    probes = with_config(
        subparsers.add_parser("probes", help="list the editions of the public set, or change them"), _list
    )
    inner = probes.add_subparsers(metavar="command")
    with_config(inner.add_parser("list", help="list the editions"), _list, nested=True)
    text = "put a public set beside the current one; devices are told that it may come"
    stage = _ordering(inner, "stage", _stage, text)
    stage.add_argument("folder", type=Path, help="of the set, as `model-export build` wrote it")
    stage.add_argument("--canaries", type=Path, metavar="FILE", help='its canaries; required with trust = "canaries"')
    _ordering(inner, "trial", _trial, "let the next round be about the staged set; nobody sees its consensus")
    switch = _ordering(inner, "switch", _switch, "let rounds be about the staged set from now on")
    switch.add_argument("--untried", action="store_true", help="though no trial of it has made a consensus")
    text = "take the staged set back, or remove the files of a retired edition"
    drop = _ordering(inner, "drop", _drop, text)
    drop.add_argument("edition", type=int, nargs="?", help="number of a retired edition; none = the staged one")
    text = "judge devices by other canaries of the current set; no device is told"
    rotate = _ordering(inner, "rotate", _rotate, text)
    rotate.add_argument("canaries", type=Path, metavar="FILE", help="other probes of the same set, with their labels")
    rotate.add_argument(
        "--forget-trust", action="store_true", help="what devices have earned is void: the old ones leaked"
    )
    text = "make several disjoint files of canaries of one, to have others when these have leaked"
    deal_ = inner.add_parser("deal", help=text)
    deal_.add_argument("canaries", type=Path, metavar="FILE")
    deal_.add_argument("--hands", type=int, default=4, metavar="N", help="how many; 4")
    deal_.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where canaries-1.json and so on go")
    deal_.set_defaults(run=_deal)


def _ordering(inner: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = with_config(inner.add_parser(name, help=text), run, nested=True)
    add_wait(parser)
    return parser


# Looking.


def _list(arguments: argparse.Namespace) -> int:
    with chronicle_of(arguments.config) as chronicle:
        shown = views(_state(chronicle), chronicle)
    told = [_told(one) for one in shown]
    note = (
        "figures: of the last round about the set, or of its trial; uncovered probes lie far from every device's data"
    )
    lines = [_lacking(one) for one in shown if one.lacking and one.place != RETIRED]
    sections = [Section("", _COLUMNS, tuple(map(_row, shown)), "\n".join([note, *lines]))]
    tell(arguments, told, f"Public sets of {chronicle.federation}", sections)
    return 0


def _state(chronicle: Chronicle) -> Federation:
    return Journal(chronicle.store, chronicle.federation).replay()


def _told(one: EditionView) -> dict[str, Any]:
    edition = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(one.edition).items()}
    seen = {"place": one.place, "have": one.have, "lacking": one.lacking}
    return {**edition, **seen, "round": one.round, "metrics": dict(one.metrics)}


def _row(one: EditionView) -> tuple[str, ...]:
    edition, metrics = one.edition, one.metrics
    online = one.have + len(one.lacking)
    voices = f"{metrics['voices']:.0f}" if "voices" in metrics else ""
    shares = (percent(metrics.get(name)) for name in ("agreement", "uncovered_probes", "canary_accuracy"))
    return (
        f"{edition.number} {one.place}",
        edition.public_set.hex()[:16],
        str(edition.count),
        utc(edition.at_ms),
        f"{one.have}/{online}",
        str(one.round) if one.round else "",
        voices,
        *shares,
    )


def _lacking(one: EditionView) -> str:
    named = ", ".join(one.lacking[:_NAMES])
    more = f" and {len(one.lacking) - _NAMES} more" if len(one.lacking) > _NAMES else ""
    return f"edition {one.edition.number} is not on {named}{more}"


# Ordering.


def _stage(arguments: argparse.Namespace) -> int:
    equipment = load_equipment(arguments.config)
    if equipment.public is None:
        raise InvalidValueError(f"method {equipment.config.method.name} goes without a public set")
    shelf = equipment.probe_shelf
    public = shelf.sets.add(arguments.folder)
    canaries = _canaries(arguments.canaries, public, equipment)
    size_bytes = sum(entry.size_bytes for entry in public.spec.files.values())
    said = {"public_set": public.digest.hex(), "count": str(public.spec.count), "size_bytes": str(size_bytes)}
    if canaries is not None:
        said["canaries"] = shelf.put_canaries(canaries).hex()
    return _give(arguments, order_of(Command.PROBES_STAGE.value, said))


def _trial(arguments: argparse.Namespace) -> int:
    return _give(arguments, order_of(Command.PROBES_TRIAL.value, {}))


def _switch(arguments: argparse.Namespace) -> int:
    return _give(arguments, order_of(Command.PROBES_SWITCH.value, {UNTRIED: "yes" if arguments.untried else ""}))


def _rotate(arguments: argparse.Namespace) -> int:
    equipment = load_equipment(arguments.config)
    with chronicle_of(arguments.config) as chronicle:
        known = _state(chronicle).editions
    if equipment.public is None or known.current is None:
        raise InvalidValueError("there is no public set here whose canaries could be changed: has the server ever run?")
    public = public_set_of(known.current, equipment)
    canaries = _canaries(arguments.canaries, public, equipment)
    assert canaries is not None  # there is a file
    for before in canaries_before(known.known, public, equipment):
        check_unused(canaries, before)
    said = {"canaries": equipment.probe_shelf.put_canaries(canaries).hex()}
    said[FORGET_TRUST] = "yes" if arguments.forget_trust else ""
    return _give(arguments, order_of(Command.PROBES_ROTATE.value, said))


def _drop(arguments: argparse.Namespace) -> int:
    if arguments.edition is None:
        return _give(arguments, order_of(Command.PROBES_DROP.value, {}))
    with chronicle_of(arguments.config) as chronicle:
        editions = _state(chronicle).editions
    retired = {edition.number: edition for edition in editions.retired}
    if arguments.edition not in retired:
        raise UnknownRecordError(f"no edition {arguments.edition} has retired")
    edition = retired[arguments.edition]
    if edition.public_set in {one.public_set for one in (editions.current, editions.staged) if one is not None}:
        raise InvalidValueError(f"edition {edition.number} is about a public set that is in use")
    load_equipment(arguments.config).probe_shelf.remove_set(edition.public_set)
    say(arguments, {"removed": edition.public_set.hex()}, f"the files of edition {edition.number} are removed")
    return 0


def _deal(arguments: argparse.Namespace) -> int:
    canaries = read_canaries(arguments.canaries)
    hands = deal(canaries, arguments.hands, random.SystemRandom())
    files = [arguments.out / f"canaries-{number}.json" for number in range(1, len(hands) + 1)]
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file}: exists already")
    arguments.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file, hand in zip(files, hands, strict=True):
        write_atomically(file, hand.to_json(), mode=0o600)
    counts = f"{len(hands[0].trust.probes)} for trust and {len(hands[0].release.probes)} for release"
    say(arguments, {"files": [str(file) for file in files]}, f"{len(files)} files in {arguments.out}, {counts} in each")
    return 0


def _canaries(path: Path | None, public: PublicSet, equipment: Equipment) -> Canaries | None:
    """Return the canaries in a file, which must fit the set; None: there is no file, and none is needed."""
    classes = len(equipment.bundle.manifest.task.classes)
    canaries = None
    if path is not None:
        canaries = load_canaries(path, public_set=public.digest, count=public.spec.count, classes=classes)
    check_trust(equipment.config.trust, canaries or Canaries(public.digest.hex()))
    return canaries


def _give(arguments: argparse.Namespace, order: Order) -> int:
    answer = have_done(arguments.config, load_toml(arguments.config, Config), order, arguments.wait)
    say(arguments, {"obeyed": answer.is_obeyed, "outcome": answer.outcome}, answer.outcome)
    return 0 if answer.is_obeyed else EX_REFUSED
