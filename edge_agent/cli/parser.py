"""Every command of `edge-agent` and its arguments: the whole surface on one page, and no more than argparse imported.

A command names the module that does it, which is imported when the command is given.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from edge_agent.cli.place import CONFIG_NAME
from fd_runtime.command_line import Parser
from fd_runtime.logs import LEVELS
from fd_runtime.version import VERSION

Run: TypeAlias = Callable[[argparse.Namespace], int]
SHELLS = ("bash", "zsh", "fish")
BOARDS = ("rpi-bookworm", "rpi-trixie", "generic-cloudinit", "jetson-jp6", "jetson-jp7")


def make_parser() -> Parser:
    """Return the parser of the whole program; every leaf sets `run(arguments) -> exit code`."""
    parser = Parser(prog="edge-agent", description="A device of a federation: it learns here, and shares soft labels.")
    parser.add_argument("--version", action="version", version=f"edge-agent {VERSION}", help="print the version")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_life(commands)
    _add_looks(commands)
    _add_config(commands)
    _add_memory(commands)
    _add_flash(commands)
    shell = commands.add_parser("completion", help="print what makes a shell complete these commands")
    shell.add_argument("shell", choices=SHELLS)
    shell.set_defaults(run=_later("completion"))
    return parser


def leaves(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command that can be given, by its words."""
    found = {} if parser.get_default("run") is None else {" ".join(path): parser}
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to look back
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, inner in action.choices.items():
                found |= leaves(inner, (*path, name))
    return found


def _add_life(commands: Any) -> None:
    init = commands.add_parser("init", help=f"write {CONFIG_NAME} with every setting explained")
    init.add_argument("folder", type=Path, nargs="?", default=Path(), help="where; here if nothing is said")
    init.add_argument("--device", default="device-1", help="id of the device: a-z, 0-9, '-'")
    init.add_argument("--federation", default="fleet", help="name of the federation it joins")
    init.set_defaults(run=_later("init"))
    run = _leaf(commands, "run", "run", "be the device, until stopped", json=False)
    run.add_argument("--log-level", choices=LEVELS, help="instead of log.level")
    run.add_argument("--log-format", choices=("auto", "text", "journal", "json"), help="instead of log.format")
    enrol = _leaf(commands, "enrol", "enrol", "get the device's certificate with its token; `run` does it by itself")
    enrol.add_argument("--renew", action="store_true", help="renew the certificate that it has, now")
    wipe = _leaf(commands, "wipe", "wipe", "destroy what the device has learned and remembers; it is stopped")
    wipe.add_argument("--yes", action="store_true", help="do not ask")
    wipe.add_argument("--identity", action="store_true", help="its private key and certificate too")


def _add_looks(commands: Any) -> None:
    status = _leaf(commands, "status", "status", "say where the device stands")
    status.add_argument("--watch", type=float, nargs="?", const=2.0, metavar="S", help="again every S seconds")
    health = _leaf(commands, "health", "health", "is it running and well? exit code 0 or 1")
    health.add_argument(
        "--gate", action="store_true", help="wait until it is, and stays so: for updates and boot checks"
    )
    health.add_argument("--wait", type=float, default=150.0, metavar="S", help="patience of --gate")
    health.add_argument("--steady", type=float, default=10.0, metavar="S", help="how long it must stay well")
    doctor = _leaf(commands, "doctor", "doctor", "look whether all is there that the device needs")
    doctor.add_argument("--offline", action="store_true", help="do not go to the broker")
    predict = _leaf(commands, "predict", "predict", "let the model speak on the samples of a file")
    predict.add_argument("file", type=Path, help="npy, npz (array x), csv, or an image where Pillow is installed")
    predict.add_argument("--top", type=int, default=3, metavar="N", help="how many classes to name")
    _leaf(commands, "privacy", "privacy", "say by which privacy terms the device trains, and what it has spent")
    diag = commands.add_parser("diag", help="what to hand to whoever helps").add_subparsers(
        required=True, metavar="command"
    )
    collect = _leaf(diag, "collect", "diag", "write a redacted archive: settings, versions, counts, last log lines")
    collect.add_argument("--out", type=Path, metavar="FILE", help="else diag-DEVICE-TIME.tar.gz, here")
    model = commands.add_parser("model", help="what the device runs").add_subparsers(required=True, metavar="command")
    _leaf(model, "list", "model", "list the bundles that are here")
    _leaf(model, "rollback", "model", "run the bundle before; this one is known bad from then on", "roll_back")
    given = _leaf(model, "install", "model", "try a package, and run it if it proves itself", "install")
    given.add_argument("file", type=Path, help="package, as `model-export pack` and the server write it")


def _add_config(commands: Any) -> None:
    config = commands.add_parser("config", help="read and change settings").add_subparsers(
        required=True, metavar="command"
    )
    get = _leaf(config, "get", "config", "print a setting, or all, and where each comes from", "get")
    get.add_argument("key", nargs="?", help="such as broker.host; a section gives all of it")
    change = _leaf(config, "set", "config", f"change settings in {CONFIG_NAME}; comments stay", "change")
    text = "KEY VALUE, perhaps several; text as it stands, anything else as in TOML"
    change.add_argument("pairs", nargs="+", metavar="KEY VALUE", help=text)
    unset = _leaf(config, "unset", "config", f"take a setting out of {CONFIG_NAME}: the default counts again", "unset")
    unset.add_argument("key")
    keys = config.add_parser("keys", help="list every key: what it is, its default, what it is for")
    keys.add_argument("--json", action="store_true", help="print JSON")
    keys.add_argument("--markdown", action="store_true", help="print the page of the manual")
    keys.set_defaults(run=_later("config", "keys"))
    schema = config.add_parser("schema", help=f"print the JSON schema of {CONFIG_NAME}")
    schema.set_defaults(run=_later("config", "schema"))


def _add_memory(commands: Any) -> None:
    outbox = commands.add_parser("outbox", help="what waits to be sent").add_subparsers(
        required=True, metavar="command"
    )
    _leaf(outbox, "list", "outbox", "list it", "show")
    drop = _leaf(outbox, "drop", "outbox", "give up what waits; the device is stopped", "drop")
    drop.add_argument("kind", choices=("contribution", "competence", "message", "all"))


def _add_flash(commands: Any) -> None:
    flash = commands.add_parser("flash", help="make a card that a device boots from, on a workstation")
    flash.set_defaults(run=_later("flash"))
    text = "image as it is downloaded (img, xz, gz, zip), mounted boot partition of a card, or Linux_for_Tegra"
    flash.add_argument("target", type=Path, metavar="IMAGE|FOLDER", help=text)
    flash.add_argument("--board", choices=BOARDS, help="if it is not recognised by itself")
    flash.add_argument("--check", action="store_true", help="look at all of it, write nothing")
    flash.add_argument("--json", action="store_true", help="print JSON")
    to = flash.add_argument_group("where to")
    to.add_argument(
        "--out", type=Path, metavar="FILE", help="new image, else IMAGE-DEVICE.img here; a folder with --fleet"
    )
    to.add_argument("--to", type=Path, metavar="DISK", help="card, such as /dev/sdb")
    to.add_argument(
        "--overwrite", type=Path, metavar="DISK", help="the same once more: though it is mounted or built in"
    )
    to.add_argument("--yes", action="store_true", help="do not ask")
    who = flash.add_argument_group("who it is")
    who.add_argument("--device", default="", metavar="ID", help="its id: a-z, 0-9, '-'")
    who.add_argument("--fleet", type=Path, metavar="CSV", help="a row a device; columns are named as these options are")
    who.add_argument("--federation", default="", metavar="NAME", help="which it joins")
    who.add_argument("--host", default="", metavar="NAME", help="its name in the network; else its id")
    who.add_argument("--kit", type=Path, metavar="FOLDER", help="what the server made for it")
    who.add_argument("--ca", type=Path, metavar="PEM", help="whom it trusts")
    who.add_argument("--enrol", default="", metavar="URL", help="where it gets its certificate: https://HOST:PORT")
    who.add_argument("--token-file", type=Path, metavar="FILE", help="the word that it gets it for, once")
    what = flash.add_argument_group("what is on it")
    what.add_argument("--package", type=Path, metavar="DEB", help="the agent, or a folder with the right one in it")
    what.add_argument("--broker", default="", metavar="HOST[:PORT]", help="where it connects to")
    what.add_argument("--config", type=Path, metavar=CONFIG_NAME, help="settings to start from")
    what.add_argument("--bundle", type=Path, metavar="FOLDER", help="its model")
    what.add_argument("--public-set", type=Path, metavar="FOLDER", help="its probes")
    what.add_argument("--add", type=Path, action="append", default=[], metavar="FILE", help="also for /etc/fedistill")
    what.add_argument("--onnxruntime", type=Path, metavar="WHEEL", help="with CUDA and TensorRT, for a Jetson")
    net = flash.add_argument_group("network and login")
    net.add_argument("--wifi", default="", metavar="SSID", help="a WPA or open network; without it a cable")
    net.add_argument("--wifi-password-file", type=Path, metavar="FILE", help="its first line is the password; - asks")
    net.add_argument("--wifi-country", default="", metavar="CC", help="where that is, such as DE")
    net.add_argument("--wifi-hidden", action="store_true", help="the network does not tell its name")
    net.add_argument("--user", default="pi", metavar="NAME", help="a person's account")
    net.add_argument("--ssh-key", type=Path, metavar="PUB", help="who may come in by SSH; without it nobody")


def _leaf(commands: Any, name: str, module: str, text: str, function: str = "run", *, json: bool = True) -> Parser:
    """Add a command about one device."""
    parser: Parser = commands.add_parser(name, help=text)
    where = f"settings of the device; else $FEDISTILL_CONFIG, {CONFIG_NAME} here, or /etc/fedistill/{CONFIG_NAME}"
    parser.add_argument("--config", type=Path, metavar=CONFIG_NAME, help=where)
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_later(module, function))
    return parser


def _later(module: str, function: str = "run") -> Run:
    """Return what imports `edge_agent.cli.MODULE` and calls its function."""

    def run(arguments: argparse.Namespace) -> int:
        return int(getattr(import_module(f"edge_agent.cli.{module}"), function)(arguments))

    return run
