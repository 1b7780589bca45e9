"""`broker-server release [start | widen | halt | resume]`: a bundle for some devices first, and then for all.

    start FAMILY VERSION --percent 5 --tag canary --stages 25 100 --soak 86400
    widen FAMILY --percent 25     halt FAMILY     resume FAMILY

Without such a word `release` releases the student, to whom the same options say, or else `[release]` of the settings.
What is started must be vouched for (`publish`), and be of the federation's task. The rules are in `rollouts`.
"""

from __future__ import annotations

import argparse
from typing import Any

from broker_server.commands.commanding import with_config
from broker_server.commands.giving import ask_server, have_done, order_of
from broker_server.commands.orders import add_wait, tell_answer
from broker_server.config import Config
from broker_server.core import rollouts
from broker_server.core.events import Command, Order
from broker_server.equipment import load_equipment
from broker_server.sites.vouching import needed_trust
from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.manifest import Manifest
from fd_runtime.artifacts import Bundle
from fd_runtime.config import load_toml
from fd_runtime.packages import described
from fd_runtime.tuf.targets import Target


def add_rollout_commands(subparsers: Any) -> None:
    """Add `release`, which releases the student, with `start`, `widen`, `halt` and `resume` below it."""
    text = "release the student as it is; start | widen | halt | resume: a bundle for some devices first"
    release = subparsers.add_parser("release", help=text)
    add_wait(with_config(release, _release))
    _add_staging(release)
    commands = release.add_subparsers(metavar="start|widen|halt|resume")
    start = _add(commands, "start", _start, "tell devices of a family to run a bundle, some of them first")
    start.add_argument("family")
    start.add_argument("version", help="of a bundle that is vouched for, or the beginning of its digest")
    _add_staging(start)
    widen = _add(commands, "widen", _change(Command.ROLLOUT_WIDEN), "for more devices")
    widen.add_argument("family")
    _add_shares(widen)
    halt = _add(commands, "halt", _change(Command.ROLLOUT_HALT), "no further device begins; who runs it goes on")
    halt.add_argument("family")
    halt.add_argument("--reason", default="", help="for the record")
    resume = _add(commands, "resume", _change(Command.ROLLOUT_RESUME), "go on with what was halted")
    resume.add_argument("family")


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    add_wait(with_config(parser, run, nested=True))
    return parser


def _add_shares(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--percent", default="", metavar="P", help="share of the devices (100, or with a tag 0)")
    text = "devices with this tag are among the first (`devices tag`); may be given more than once"
    parser.add_argument("--tag", action="append", default=[], help=text)


def _add_staging(parser: argparse.ArgumentParser) -> None:
    _add_shares(parser)
    text = "further shares of the devices, in percent: the next one begins when the last has gone well"
    parser.add_argument("--stages", nargs="+", default=[], metavar="P", help=text)
    parser.add_argument("--soak", default="", metavar="S", help="seconds from one stage to the next")
    text = "share of devices that may refuse it or go back before the rollout halts by itself (10)"
    parser.add_argument("--most-failed", default="", metavar="P", help=text)
    text = "seconds that a device may be silent on its way before it counts among them (3600)"
    parser.add_argument("--patience", default="", metavar="S", help=text)


def _staging(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what was said of who begins, and what halts it; a tag alone means those devices and no others."""
    return {
        rollouts.SHARE: arguments.percent or ("0" if arguments.tag else ""),
        rollouts.TAGS: " ".join(arguments.tag),
        rollouts.STAGES: " ".join(arguments.stages),
        rollouts.SOAK_S: arguments.soak,
        rollouts.MOST_FAILED: arguments.most_failed,
        rollouts.PATIENCE_S: arguments.patience,
    }


def _release(arguments: argparse.Namespace) -> int:
    """Of the student: the server itself must be there, to make the bundle."""
    config = load_toml(arguments.config, Config)
    order = order_of(Command.RELEASE.value, _staging(arguments))
    return tell_answer(arguments, order, ask_server(arguments.config, config, order, arguments.wait))


def _start(arguments: argparse.Namespace) -> int:
    equipment = load_equipment(arguments.config)
    config, own = equipment.config, equipment.bundle
    target = _find(config, arguments.family, arguments.version)
    _check(config, target, own)
    facts = target.facts
    said = {
        "family": facts.family,
        "bundle": facts.bundle,
        "version": facts.version,
        "package": target.package,
        "package_bytes": str(target.package_bytes),
        "parent": facts.parent or "",
        "own": "yes" if facts.family == own.manifest.family else "",
        **_staging(arguments),
    }
    return _give(arguments, config, order_of(Command.PUBLISH.value, said))


def _find(config: Config, family: str, wanted: str) -> Target:
    """Return the target that an operator means, of those that the workstation vouches for.

    Raises:
        InvalidValueError: there is none, or more than one.
    """
    known = [one for one in needed_trust(config).listed() if one.facts.family == family]
    found = [one for one in known if one.facts.version == wanted or one.facts.bundle.startswith(wanted)]
    if len({one.facts.bundle for one in found}) == 1:
        return min(found, key=lambda one: one.package_bytes)  # a delta, where there is one
    versions = ", ".join(sorted({one.facts.version for one in known})) or "nothing"
    problem = "is more than one bundle: give its digest" if found else "is not vouched for"
    raise InvalidValueError(f"{wanted} {problem}; of family {family} there is {versions}")


def _check(config: Config, target: Target, own: Bundle) -> None:
    """Look into the package: what is signed of it does not tell its task.

    Raises:
        InvalidValueError: no device of this federation could run it.
    """
    path = config.state.releases / "web" / "v1" / "blobs" / target.package
    manifest = described(path.read_bytes())
    if not isinstance(manifest, Manifest) or manifest.digest.hex() != target.facts.bundle:
        raise DecodeError("malformed", f"{path}: not the package of bundle {target.facts.bundle[:12]}")
    if manifest.task.digest != own.manifest.task.digest:
        raise InvalidValueError(f"{manifest.name} {manifest.version} was made for another task than this federation's")


def _change(command: Command) -> Any:
    def change(arguments: argparse.Namespace) -> int:
        said = {
            "family": arguments.family,
            rollouts.SHARE: getattr(arguments, "percent", ""),
            rollouts.TAGS: " ".join(getattr(arguments, "tag", [])),
            "reason": getattr(arguments, "reason", ""),
        }
        return _give(arguments, load_toml(arguments.config, Config), order_of(command.value, said))

    return change


def _give(arguments: argparse.Namespace, config: Config, order: Order) -> int:
    return tell_answer(arguments, order, have_done(arguments.config, config, order, arguments.wait))
