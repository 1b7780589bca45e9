"""`broker-server ca ...`: the authority from the command line."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from broker_server.identity.ca import CRL_DAYS, ISSUING_DAYS, LEAF_DAYS, Authority
from broker_server.identity.certificates import Identity, Role, requested_key

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it nowhere else


def add_ca_commands(subparsers: Subparsers) -> None:
    """Add `ca init|issuing|sign|revoke|crl`; each leaves `run(arguments) -> exit code` in the namespace."""
    ca = subparsers.add_parser("ca", help="the fleet's certificate authority").add_subparsers(required=True)

    init = _command(ca, "init", _init, "make root, issuing intermediate and revocation list")
    init.add_argument("--fleet", default="fedistill", help="stands in the authority's name")
    init.add_argument("--root-key", type=Path, metavar="FILE", help="where the root's key goes: a medium to take out")

    text = f"let the root certify the issuing key for another {ISSUING_DAYS} days"
    issuing = _command(ca, "issuing", _renew_issuing, text)
    issuing.add_argument("--root-key", type=Path, metavar="FILE", help="the root's key; else FOLDER/root.key")

    sign = _command(ca, "sign", _sign, "certify a device, an aggregator or a broker")
    sign.add_argument("name", help="device or aggregator id: a-z, 0-9, '-'")
    sign.add_argument("--role", type=Role, choices=list(Role), default=Role.DEVICE, metavar="device|aggregator|broker")
    sign.add_argument("--host", action="append", default=[], help="a broker's host name or address; may be repeated")
    sign.add_argument("--csr", type=Path, help="sign this request instead of making a key here")
    sign.add_argument("--days", type=int, default=LEAF_DAYS)
    sign.add_argument("--out", type=Path, default=Path(), help="where certificate, key and ca.pem go")

    revoke = _command(ca, "revoke", _revoke, "put every certificate of a name on the revocation list")
    revoke.add_argument("name")

    _command(ca, "crl", _renew_crl, f"sign the revocation list for another {CRL_DAYS} days")


def _command(subparsers: Subparsers, name: str, run: object, text: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=text)
    parser.add_argument("folder", type=Path, help="the authority's folder")
    parser.set_defaults(run=run)
    return parser


def _init(arguments: argparse.Namespace) -> int:
    root_key = arguments.root_key
    authority = Authority.create(arguments.folder, fleet=arguments.fleet, now=_now(), root_key=root_key)
    _say(f"Devices and brokers trust {authority.root_path}.")
    _say(f"Move {root_key or authority.root_key_path} to offline storage now: nothing that runs needs it.")
    return 0


def _renew_issuing(arguments: argparse.Namespace) -> int:
    authority = Authority(arguments.folder)
    with authority.locked():
        until = authority.renew_issuing(arguments.root_key or authority.root_key_path, now=_now())
    _say(f"{authority.issuing_path} is good until {until:%Y-%m-%d}; take the root's key offline again.")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    authority, out = Authority(arguments.folder), arguments.out
    identity = Identity(arguments.name, arguments.role, tuple(arguments.host))
    if arguments.csr is None:
        with authority.locked():
            files = authority.issue(identity, out, now=_now(), days=arguments.days)
        _say(f"{files.certificate} {files.key} {files.ca}")
        return 0
    key = requested_key(arguments.csr.read_bytes(), identity.name)
    with authority.locked():
        chain = authority.sign(identity, key, now=_now(), days=arguments.days)
    out.mkdir(parents=True, exist_ok=True)
    files = authority.deliver(identity.name, chain, out)
    _say(f"{files.certificate} {files.ca}")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    authority = Authority(arguments.folder)
    with authority.locked():
        count = authority.revoke(arguments.name, now=_now())
    _say(f"{count} revoked in {authority.crl_path}. Install it and reload the broker: new connections are refused.")
    _say("One that stands goes on until it ends; `broker-server devices revoke` ends it, and the token of the name.")
    return 0


def _renew_crl(arguments: argparse.Namespace) -> int:
    authority = Authority(arguments.folder)
    with authority.locked():
        until = authority.renew_crl(now=_now())
    _say(f"{authority.crl_path} is good until {until:%Y-%m-%d}; after that the broker refuses every client.")
    return 0


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
