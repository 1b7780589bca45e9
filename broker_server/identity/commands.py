"""`broker-server devices token` and `devices revoke`: let a device in, and put it out."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone

from broker_server.commands.commanding import Subparsers, say, with_config
from broker_server.commands.who import who
from broker_server.config import Config
from broker_server.identity.desk import Desk
from broker_server.identity.keeping import signal_broker
from broker_server.identity.sessions import PROBE_LIFE, End, Pass, end_session
from broker_server.identity.tokens import DEFAULT_LIFE, LONGEST_LIFE
from fd_protocol.identity import check_name
from fd_runtime.config import EX_TEMPFAIL, load_toml

_LIFE = re.compile(r"([0-9]{1,4})([hd])")
_PATIENCE_S = 60.0
_REMEDIES = {
    End.LIST_NOT_READ: "the broker still takes what was revoked: it must read the new list (SIGHUP, or "
    "`systemctl reload mosquitto`). Then give this command again",
    End.UNREACHABLE: "the broker could not be asked. It reads the list when it starts; a session that stands goes on: "
    "give this command again when the broker can be reached",
}


def add_identity_commands(devices: Subparsers) -> None:
    """Add `token` and `revoke` to the commands on devices."""
    text = "make a token by which a device enrols once; printed once, kept by its digest"
    token = with_config(devices.add_parser("token", help=text), _token, nested=True)
    token.add_argument("device", help="the only one that it is good for")
    most = f"such as 12h or 7d, {LONGEST_LIFE.days}d at most"
    token.add_argument("--expires", type=_life, default=DEFAULT_LIFE, metavar="TIME", help=f"{most}; else 24h")
    text = "take a device's certificates and token back, and end its session at the broker"
    revoke = with_config(devices.add_parser("revoke", help=text), _revoke, nested=True)
    revoke.add_argument("device")
    text = "how long the broker may take to read the new list"
    revoke.add_argument("--wait", type=float, default=_PATIENCE_S, metavar="S", help=text)


def _life(text: str) -> timedelta:
    found = _LIFE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 12h or 7d")
    count = int(found[1])
    return timedelta(hours=count) if found[2] == "h" else timedelta(days=count)


def _token(arguments: argparse.Namespace) -> int:
    desk = Desk.of(load_toml(arguments.config, Config).enrolment)
    token, kept = desk.make_token(arguments.device, arguments.expires, now=_now(), who=who())
    say(arguments, {"device": kept.device, "token": token, "ends": f"{kept.end:%Y-%m-%dT%H:%M:%SZ}"}, token)
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    config, device = load_toml(arguments.config, Config), check_name(arguments.device, "device")
    desk, now = Desk.of(config.enrolment), _now()
    fresh, victim = Pass.mint(desk.authority, device, now, PROBE_LIFE), Pass.mint(desk.authority, device, now)
    before, earlier = desk.authority.revoked(), Pass.kept(desk.authority, device, now)
    count = desk.revoke(device, now=now, who=who(), also=(fresh.serial,))
    is_told_already = {one.serial_number for one in desk.authority.issued(device)} <= before
    probe = earlier if earlier is not None and is_told_already else fresh
    signal_broker(config.enrolment.broker_pid_file)
    told: dict[str, object] = {"device": device, "certificates": count}
    line = f"{device}: {count} {'certificate' if count == 1 else 'certificates'} revoked"
    if not count or config.broker.tls is None:
        say(arguments, told | {"session": "none"}, line)
        return 0
    probe.keep(desk.authority, device)  # before we wait: somebody may end us, and give the command again
    end = end_session(desk.authority, config.broker, device, probe, victim, patience_s=arguments.wait)
    if end is End.ENDED:
        Pass.forget(desk.authority, device)
        desk.audit.write(_now(), "session_ended", device, who=who())
        say(arguments, told | {"session": end.value}, f"{line}; the broker knows, and its session has ended")
        return 0
    say(arguments, told | {"session": end.value, "remedy": _REMEDIES[end]}, f"{line}; {_REMEDIES[end]}")
    return EX_TEMPFAIL


def _now() -> datetime:
    return datetime.now(timezone.utc)
