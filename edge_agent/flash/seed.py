"""What a card gets: values that refuse to exist when a device could not start from them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.flash.contents import Content
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name, require

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_USER = re.compile(r"[a-z][a-z0-9-]{0,31}")
_KEY = re.compile(
    r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-\S+@openssh\.com) [A-Za-z0-9+/]+={0,2}( [^\n]*)?"
)
_COUNTRY = re.compile(r"[A-Z]{2}")
_PLAIN = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9 ._-]*[A-Za-z0-9._-])?")
_PSK = re.compile(r"[0-9a-fA-F]{64}")
_DEB = re.compile(r"(?P<name>[a-z0-9-]+)_(?P<version>[^_]+\+py(?P<python>3\.\d+))_(?P<architecture>arm64|amd64)\.deb")
_NOT_NAMES = ("root", "fedistill")
AGENT_PACKAGE = "fedistill-agent"


@dataclass(frozen=True, slots=True)
class WiFi:
    """A network: open where the password is empty. The country says on which channels the radio may send."""

    ssid: str
    password: str = field(repr=False)
    country: str
    is_hidden: bool = False

    def __post_init__(self) -> None:
        require(1 <= len(self.ssid.encode()) <= 32, f"a network's name has 1 to 32 bytes: {self.ssid!r}")
        require(self.ssid.isprintable(), f"a network's name is one printable line: {self.ssid!r}")
        require(bool(_COUNTRY.fullmatch(self.country)), "WiFi needs the country, two letters such as DE: wifi-country")
        if self.password and not _PSK.fullmatch(self.password):
            octets = len(self.password.encode())
            require(8 <= octets <= 63, f"the password of a WPA network has 8 to 63 bytes, not {octets}")

    @property
    def is_plain(self) -> bool:
        """Return whether the name means the same to every file that it is written into."""
        return bool(_PLAIN.fullmatch(self.ssid))

    @property
    def psk(self) -> str:
        """The key of WPA, 64 hex digits: it opens this network alone, and the password is not on the card.

        PBKDF2 of IEEE 802.11i, H.4.
        """
        if not self.password or _PSK.fullmatch(self.password):
            return self.password.lower()
        return hashlib.pbkdf2_hmac("sha1", self.password.encode(), self.ssid.encode(), 4096, 32).hex()


@dataclass(frozen=True, slots=True)
class Login:
    """Who may come in by SSH: the user that is made, and keys. Without a key nobody may; no password is ever set."""

    user: str = "pi"
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ok = bool(_USER.fullmatch(self.user)) and self.user not in _NOT_NAMES
        require(ok, f"no name for a person's account: {self.user!r}")
        for key in self.keys:
            require("PRIVATE KEY" not in key, "that is a private SSH key: give its .pub")
            require(bool(_KEY.fullmatch(key)), f"not a public SSH key: {key[:40]!r}")


@dataclass(frozen=True, slots=True)
class Package:
    """The .deb that is installed; its name says for what it is made."""

    path: Path
    version: str
    python: str
    architecture: str

    @classmethod
    def of(cls, path: Path) -> Package:
        """Return the package at `path`.

        Raises:
            InvalidValueError: no agent's package by its name, or no package by its first bytes.
        """
        match = _DEB.fullmatch(path.name)
        if match is None or match["name"] != AGENT_PACKAGE:
            raise InvalidValueError(f"{path.name}: not a package of the agent ({AGENT_PACKAGE}_VERSION_ARCH.deb)")
        with path.open("rb") as file:
            require(file.read(8) == b"!<arch>\n", f"{path.name}: not a Debian package")
        return cls(path, match["version"], match["python"], match["architecture"])


@dataclass(frozen=True, slots=True)
class Seed:
    """One device, whole.

    Attributes:
        device: its id.
        federation: which it joins.
        host: its name in the network.
        package: what is installed.
        etc: what lies below /etc/fedistill, agent.toml too.
        login: who may come in.
        wifi: None = by cable.
    """

    device: str
    federation: str
    host: str
    package: Package
    etc: dict[str, Content] = field(repr=False)
    login: Login = Login()
    wifi: WiFi | None = None

    def __post_init__(self) -> None:
        check_name(self.device, "device")
        check_name(self.federation, "federation")
        require(bool(_HOST.fullmatch(self.host)), f"no host name: {self.host!r} (a-z, 0-9 and '-' inside, 63 at most)")
        require("agent.toml" in self.etc, "a device needs its agent.toml")
        for name in self.etc:
            parts = name.split("/")
            ok = name.isascii() and name.isprintable() and not any(part in ("", ".", "..") for part in parts)
            require(ok and not re.search(r'[\\:*?"<>|]', name), f"a FAT partition cannot hold a file named {name!r}")
