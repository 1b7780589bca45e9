"""From what an operator says to what a card gets: options, a kit, a row of a CSV -> `Seed`.

A kit is a folder that the server makes for one device: ca.pem, and DEVICE.pem with DEVICE.key, or enrolment.token;
perhaps agent.toml, bundle/ and public_set/ too. An option wins over the kit.

Everything is checked here, before a card is touched: agent.toml is one that the agent starts with, and every file that
it names for the broker is on the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_agent.cli.init import places
from edge_agent.cli.place import CONFIG_NAME, SYSTEM_CONFIG, SYSTEM_STATE
from edge_agent.flash.boards import Board
from edge_agent.flash.contents import Content, tree
from edge_agent.flash.errors import NotForImageError, OrderError
from edge_agent.flash.seed import AGENT_PACKAGE, Login, Package, Seed, WiFi
from edge_agent.settings import AgentSettings
from edge_agent.settings_file import edited
from fd_protocol.errors import InvalidValueError
from fd_runtime.command_line import settings_text
from fd_runtime.config import build_settings, read_table

CA, TOKEN = "ca.pem", "enrolment.token"
_ETC = SYSTEM_CONFIG.parent
_SETTINGS = Path(CONFIG_NAME)
_MQTTS = 8883
_CERTIFICATE, _PRIVATE = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Order:
    """What was said of one device; empty or None where nothing was.

    Fields but package, add and onnxruntime are columns of a fleet's CSV too.

    Attributes:
        device: its id.
        federation: which it joins.
        host: its name in the network; else its id.
        broker: HOST or HOST:PORT.
        config: agent.toml to start from; its device, and what is said here, are put into it.
        kit: folder that the server made for it.
        ca: PEM of whom it trusts.
        enrol: https://HOST:PORT where it gets its certificate.
        token: the word that it gets it for, once.
        token_file: the same in a file.
        package: a .deb, or a folder in which the right one is.
        bundle: its model's folder.
        public_set: its probes' folder.
        add: more files for /etc/fedistill.
        user: account for a person.
        ssh_key: file of public keys.
        wifi, wifi_password, wifi_country, wifi_hidden: its network; none = by cable.
        onnxruntime: wheel with CUDA and TensorRT, for a Jetson.
    """

    device: str
    federation: str = ""
    host: str = ""
    broker: str = ""
    config: Path | None = None
    kit: Path | None = None
    ca: Path | None = None
    enrol: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    package: Path | None = None
    bundle: Path | None = None
    public_set: Path | None = None
    add: tuple[Path, ...] = ()
    user: str = "pi"
    ssh_key: Path | None = None
    wifi: str = ""
    wifi_password: str = field(default="", repr=False)
    wifi_country: str = ""
    wifi_hidden: bool = False
    onnxruntime: Path | None = None


def seed_of(order: Order, board: Board) -> Seed:
    """Return what the card gets.

    Raises:
        OrderError: something is missing, or does not go together.
        NotForImageError: no package for this board's Python and processor.
        ConfigError: the agent would not start with its agent.toml.
        InvalidValueError: a value that no device can have.
        OSError: a file cannot be read.
    """
    etc = _identity(order)
    etc |= _folder("bundle", order.bundle, order.kit) | _folder("public_set", order.public_set, order.kit)
    for path in order.add:
        etc[path.name] = path
    text, table = _settings(order, etc)
    etc[CONFIG_NAME] = text.encode()
    _check_settings(table, etc)
    return Seed(
        device=order.device,
        federation=str(table["device"]["federation"]),
        host=order.host or order.device,
        package=_package(order.package, board),
        etc=etc,
        login=Login(order.user, _keys(order.ssh_key)),
        wifi=WiFi(order.wifi, order.wifi_password, order.wifi_country, order.wifi_hidden) if order.wifi else None,
    )


def _identity(order: Order) -> dict[str, Content]:
    """Whom it trusts, and by what it proves who it is: a certificate that is ready, or a token for one."""
    authority = order.ca or _in_kit(order, CA)
    etc: dict[str, Content] = {}
    if authority is not None:
        etc[CA] = _pem(authority, _CERTIFICATE, "certificate")
    token = _token(order)
    ready = (_in_kit(order, f"{order.device}.pem"), _in_kit(order, f"{order.device}.key"))
    if token:
        if authority is None:
            raise OrderError(f"{order.device}: a token without {CA}: the device could not tell who takes it")
        return etc | {TOKEN: f"{token}\n".encode()}
    for name, path, mark in zip(("pem", "key"), ready, (_CERTIFICATE, _PRIVATE), strict=True):
        if path is not None:
            etc[f"{order.device}.{name}"] = _pem(path, mark, "certificate" if name == "pem" else "private key")
    if (ready[0] is None) != (ready[1] is None):
        raise OrderError(f"{order.kit}: of {order.device}.pem and {order.device}.key one is missing")
    if order.kit is not None and ready[0] is None:
        raise OrderError(f"{order.kit}: neither {TOKEN} nor {order.device}.pem in it: not the kit of {order.device}")
    return etc


def _token(order: Order) -> str:
    """The device's own word for its certificate. Printable, one line: whatever else it is, is the server's business."""
    path = order.token_file or _in_kit(order, TOKEN)
    token = order.token or (path.read_text(encoding="utf-8").strip() if path else "")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise OrderError(f"{order.device}: a token is one word of printable letters")
    if path is not None and not token:
        raise OrderError(f"{path}: is empty")
    return token


def _settings(order: Order, etc: Mapping[str, Content]) -> tuple[str, dict[str, Any]]:
    """Return agent.toml as text, and as it reads."""
    base = order.config or _in_kit(order, CONFIG_NAME)
    if base is None:
        names = {"device": order.device, "federation": order.federation or "fleet"}
        text = settings_text(CONFIG_NAME, "edge_agent", **names, **places(is_system=True))
    else:
        read_table(base)  # what is wrong with it is told in our words
        text = base.read_text(encoding="utf-8")
    changes: dict[str, Any] = {"device.id": order.device}
    if order.federation:
        changes["device.federation"] = order.federation
    if base is not None and not Path(read_table(base).get("state", {}).get("folder", "state")).is_absolute():
        changes["state.folder"] = str(SYSTEM_STATE)  # systemd makes it; beside the settings the service may not write
    if order.broker:
        host, _, port = order.broker.rpartition(":") if ":" in order.broker else (order.broker, "", str(_MQTTS))
        if not port.isdecimal() or not host:
            raise OrderError(f"--broker {order.broker}: HOST or HOST:PORT")
        changes |= {"broker.host": host, "broker.port": int(port)}
    if f"{order.device}.pem" in etc:
        changes |= {
            "broker.tls.ca": CA,
            "broker.tls.certificate": f"{order.device}.pem",
            "broker.tls.key": f"{order.device}.key",
        }
    if order.onnxruntime is not None:
        changes["model.providers"] = ["tensorrt", "cuda", "cpu"]  # the first that works: a device without stays at work
    text, table = edited(text, changes, base or _SETTINGS)
    if TOKEN in etc:
        text, table = edited(text, _enrolment(order, table), base or _SETTINGS)
    return text, table


def _enrolment(order: Order, table: Mapping[str, Any]) -> dict[str, Any]:
    url = order.enrol or table.get("enrolment", {}).get("url", "")
    if not url:
        raise OrderError(f"{order.device}: a token, but not where it is taken: --enrol https://HOST:PORT")
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise OrderError(f"--enrol {url}: must be https://HOST:PORT, or anyone on the way reads the token")
    return {
        "enrolment.url": url,
        "enrolment.token_file": str(_ETC / TOKEN),
        "enrolment.ca_file": str(_ETC / CA),
    }


def _check_settings(table: dict[str, Any], etc: Mapping[str, Content]) -> None:
    """Let settings pass that the agent starts with, and whose files are on the card; what it enrols for, it makes."""
    settings = build_settings(table, AgentSettings, SYSTEM_CONFIG)
    if settings.enrolment is not None or settings.broker.tls is None:
        return
    for path in (settings.broker.tls.ca, settings.broker.tls.certificate, settings.broker.tls.key):
        if path.parent == _ETC and path.name not in etc:
            raise OrderError(f"{CONFIG_NAME} names {path.name}, which is not on the card: --kit FOLDER or --add FILE")


def _package(path: Path | None, board: Board) -> Package:
    if path is None:
        raise OrderError("which package? --package FILE.deb, or a folder of them such as dist/deb")
    if path.is_dir():
        return Package.of(_package_in(path, board))
    package = Package.of(path)
    for what, has, wants in (
        ("Python", package.python, board.python),
        ("processor", package.architecture, board.architecture),
    ):
        if wants and has != wants:
            raise NotForImageError(f"{path.name} is for {what} {has}; {board.system} has {wants}")
    return package


def _package_in(folder: Path, board: Board) -> Path:
    if not board.python or not board.architecture:
        raise OrderError(f"{board.system}: its Python was not seen; say which file of {folder} it is")
    found = sorted(folder.glob(f"{AGENT_PACKAGE}_*+py{board.python}_{board.architecture}.deb"))
    if not found:
        raise NotForImageError(
            f"{folder}: no package for Python {board.python} on {board.architecture} in it: make deb"
        )
    if len(found) > 1:
        raise OrderError(f"{folder}: {len(found)} versions for this board in it; say which: {found[-1].name}?")
    return found[0]


def _folder(name: str, said: Path | None, kit: Path | None) -> dict[str, Content]:
    folder = said or (kit / name if kit is not None and (kit / name).is_dir() else None)
    if folder is None:
        return {}
    files = tree(folder)
    if not files:
        raise OrderError(f"{folder}: no such folder, or nothing in it")
    return {f"{name}/{inner}": content for inner, content in files.items()}


def _in_kit(order: Order, name: str) -> Path | None:
    if order.kit is None:
        return None
    if not order.kit.is_dir():
        raise OrderError(f"{order.kit}: no such folder")
    return order.kit / name if (order.kit / name).is_file() else None


def _keys(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise OrderError(f"{path}: no key in it")
    return keys


def _pem(path: Path, mark: bytes, what: str) -> bytes:
    data = path.read_bytes()
    if mark not in data:
        raise InvalidValueError(f"{path}: no {what} in PEM")
    if what == "certificate" and _PRIVATE in data:
        raise InvalidValueError(f"{path}: holds a private key; what is trusted has none")
    return data
