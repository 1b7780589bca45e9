"""`model-export trust` and `publish`: who may say what devices run, and saying it. docs/updates.md walks through it.

    trust key FILE                               a key: for root three of them, in three drawers; one for targets, here
    trust init FOLDER --root ... --targets ... --online ...    draft the first root      trust sign FOLDER --key FILE
    trust rotate FOLDER [--root ...] [--targets ...] [--online ...]   draft the next one   (twice, or as root asks)
    publish BUNDLE --to FOLDER --key FILE        vouch for a bundle; `broker-server publish FOLDER` takes it in
    trust retire | renew | students FOLDER --key FILE          what is vouched for, otherwise

What is deliberately absent: the server's own part (`fd_runtime.tuf.online`); who runs what (`broker-server release`).
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Targets

from fd_protocol.errors import InvalidValueError
from fd_runtime.artifacts import load_bundle
from fd_runtime.files import write_atomically
from fd_runtime.packages import pack
from fd_runtime.tuf import root as tuf_root
from fd_runtime.tuf import targets as tuf_targets
from fd_runtime.tuf.documents import ROOT, TARGETS, newest
from fd_runtime.tuf.root import ROOT_DAYS, Changes, Standing
from fd_runtime.tuf.signing_keys import is_locked, load_public, load_signer, make_key
from fd_runtime.tuf.target_facts import facts_of
from fd_runtime.tuf.targets import TARGETS_DAYS, listed


def add_trust_commands(commands: Any) -> None:
    """Add `publish` and `trust`."""
    text = "vouch for a bundle: sign its package into a folder that `broker-server publish` takes in"
    publish = commands.add_parser("publish", help=text, description=text)
    publish.add_argument("bundle", type=Path)
    publish.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the same every time; back it up")
    publish.add_argument("--parent", type=Path, help="bundle that devices have: its files are left out")
    _add_key(publish)
    publish.set_defaults(run=_publish)
    trust = commands.add_parser("trust", help="keys, roots, and what is vouched for").add_subparsers(
        required=True, metavar="key|init|sign|rotate|students|renew|retire|show"
    )
    _add_ceremonies(trust)
    _add_words(trust)


def _add_ceremonies(trust: Any) -> None:
    key = _command(trust, "key", _key, "make a key: FILE, and FILE.pub for those who shall believe it")
    key.add_argument("file", type=Path)
    key.add_argument("--no-passphrase", action="store_true", help="for a key that a machine uses by itself")
    _add_passphrase(key)
    first = _command(trust, "init", _draft, "draft the first root; `trust sign` makes it one")
    later = _command(trust, "rotate", _draft, "draft the next root; what is not said stays as it is")
    for parser, is_first in ((first, True), (later, False)):
        parser.add_argument("folder", type=Path)
        text = "public keys of all who may sign roots"
        parser.add_argument("--root", type=Path, nargs="+", required=is_first, default=[], metavar="PUB", help=text)
        text = "how many of them must sign (2)" if is_first else "how many of them must sign"
        parser.add_argument("--threshold", type=int, default=2 if is_first else None, metavar="N", help=text)
        parser.add_argument("--targets", type=Path, required=is_first, metavar="PUB", help="who signs bundles")
        text = "the server's: `broker-server signing-key`"
        parser.add_argument("--online", type=Path, required=is_first, metavar="PUB", help=text)
        _add_days(parser, ROOT_DAYS)
    sign = _command(trust, "sign", _sign, "put a signature under the draft of a root")
    sign.add_argument("folder", type=Path)
    _add_key(sign)


def _add_words(trust: Any) -> None:
    students = _command(trust, "students", _students, "let the server vouch for its student's releases, or no more")
    students.add_argument("folder", type=Path)
    students.add_argument("--family", default="", help="of the student's bundle; without it the server may sign none")
    retire = _command(trust, "retire", _retire, "vouch no more for a bundle: nobody can get it from then on")
    retire.add_argument("folder", type=Path)
    retire.add_argument("bundle", help="version, or the beginning of its digest")
    renew = _command(trust, "renew", _renew, "sign what is vouched for once more, before its time ends")
    renew.add_argument("folder", type=Path)
    for parser in (students, retire, renew):
        _add_key(parser)
        _add_days(parser, TARGETS_DAYS)
    show = _command(trust, "show", _show, "say who may sign, until when, and what is vouched for")
    show.add_argument("folder", type=Path)
    show.add_argument("--json", action="store_true", help="print JSON")


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="what signs")
    _add_passphrase(parser)


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    text = "holds the passphrase in its first line; without it you are asked"
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help=text)


def _add_days(parser: argparse.ArgumentParser, days: int) -> None:
    parser.add_argument("--days", type=int, default=days, metavar="N", help=f"until it ends ({days})")


# Ceremonies.


def _key(arguments: argparse.Namespace) -> int:
    passphrase = b"" if arguments.no_passphrase else _passphrase(arguments, is_new=True)
    key = make_key(arguments.file, passphrase)
    print(f"{arguments.file}.pub  {key.keyid}")
    return 0


def _draft(arguments: argparse.Namespace) -> int:
    changes = Changes(
        roots=[load_public(path) for path in arguments.root],
        threshold=arguments.threshold,
        targets=None if arguments.targets is None else load_public(arguments.targets),
        online=None if arguments.online is None else load_public(arguments.online),
    )
    root = tuf_root.draft(arguments.folder, changes, time.time(), arguments.days)
    print(f"{arguments.folder / tuf_root.DRAFT}: root {root.version}, to be signed by `model-export trust sign`")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    standing = tuf_root.sign(arguments.folder, _signer(arguments))
    print(_words(arguments.folder, standing))
    return 0


def _words(folder: Path, standing: Standing) -> str:
    if standing.is_whole:
        return f"{folder / f'{standing.version}.root.json'}: signed by all that it takes"
    missing = f"root {standing.version} lacks {_signatures(standing.missing_new)} of its own keys"
    if standing.version == 1:
        return missing
    return f"{missing} and {_signatures(standing.missing_old)} of the keys of root {standing.version - 1}"


def _signatures(count: int) -> str:
    return "1 signature" if count == 1 else f"{count} signatures"


# What is vouched for.


def _publish(arguments: argparse.Namespace) -> int:
    bundle = load_bundle(arguments.bundle)
    parent = None if arguments.parent is None else load_bundle(arguments.parent)
    if parent is not None and parent.manifest.family != bundle.manifest.family:
        raise InvalidValueError(f"no device of family {bundle.manifest.family} was born with {parent.folder}")
    package, signer = pack(bundle, parent=parent), _signer(arguments)
    blobs = arguments.to / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    target = tuf_targets.target_of("bundles", package, facts_of(bundle, parent))
    write_atomically(blobs / target.package, package)  # before it is named
    tuf_targets.add(arguments.to, signer, package, target.facts, now_s=time.time())
    print(f"{target.facts.family} {target.facts.version}  {len(package):,} bytes  bundle {target.facts.bundle}")
    print(f"next: bring {arguments.to} to the server, then `broker-server publish` there")
    return 0


def _students(arguments: argparse.Namespace) -> int:
    version = tuf_targets.renew(
        arguments.folder,
        _signer(arguments),
        now_s=time.time(),
        students=arguments.family,
        days=arguments.days,
    )
    whose = f"of family {arguments.family}" if arguments.family else "of no family"
    print(f"targets {version}: the server may vouch for students {whose}")
    return 0


def _retire(arguments: argparse.Namespace) -> int:
    found = newest(Targets, arguments.folder, TARGETS)
    known = [] if found is None else listed(found.signed)
    meant = {
        one.facts.bundle
        for one in known
        if one.facts.version == arguments.bundle or one.facts.bundle.startswith(arguments.bundle)
    }
    if len(meant) != 1:
        raise InvalidValueError(f"{arguments.bundle} is {len(meant)} bundles of those that are vouched for")
    gone = tuf_targets.retire(arguments.folder, _signer(arguments), meant.pop(), now_s=time.time(), days=arguments.days)
    for target in gone:
        print(f"retired: {target.facts.family} {target.facts.version}  package {target.package}")
    return 0


def _renew(arguments: argparse.Namespace) -> int:
    version = tuf_targets.renew(arguments.folder, _signer(arguments), now_s=time.time(), days=arguments.days)
    print(f"targets {version}: signed for {arguments.days} days")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    told = _standing(arguments.folder)
    if arguments.json:
        print(json.dumps(told))
        return 0
    for name, value in told.items():
        lines = value if isinstance(value, list) else [value]
        print(f"{name:10} {lines[0] if lines else 'nothing'}", *[f"\n{'':10} {line}" for line in lines[1:]], sep="")
    return 0


def _standing(folder: Path) -> dict[str, Any]:
    root, targets = newest(Root, folder, ROOT), newest(Targets, folder, TARGETS)
    if root is None:
        return {"version": "none yet"}
    told: dict[str, Any] = {"version": f"{root.signed.version}, until {root.signed.expires:%Y-%m-%d}"}
    for name, role in root.signed.roles.items():
        told[name] = [f"{role.threshold} of", *role.keyids]
    if targets is not None:
        told["vouched"] = [
            f"{one.facts.family} {one.facts.version}  {one.package_bytes} bytes  {one.facts.bundle}"
            for one in listed(targets.signed)
        ]
        told["until"] = f"{targets.signed.expires:%Y-%m-%d}, targets {targets.signed.version}"
        delegated = targets.signed.delegations.roles if targets.signed.delegations else None
        told["students"] = [path for role in (delegated or {}).values() for path in role.paths or []]
    return told


def _signer(arguments: argparse.Namespace) -> CryptoSigner:
    passphrase = _passphrase(arguments) if is_locked(arguments.key) else b""
    return load_signer(arguments.key, passphrase)


def _passphrase(arguments: argparse.Namespace, *, is_new: bool = False) -> bytes:
    """Return what opens a key: from a file, or from whoever sits there.

    Raises:
        InvalidValueError: it is empty, or was not said twice alike.
    """
    if arguments.passphrase_file is not None:
        said = arguments.passphrase_file.read_text(encoding="utf-8").partition("\n")[0]
    elif not sys.stdin.isatty():
        raise InvalidValueError("nobody can be asked for the passphrase here: --passphrase-file FILE")
    else:
        said = getpass.getpass("passphrase: ")
        if is_new and getpass.getpass("again: ") != said:
            raise InvalidValueError("these are two passphrases")
    if not said:
        raise InvalidValueError("the passphrase is empty; --no-passphrase is for keys that machines use")
    return str(said).encode()
