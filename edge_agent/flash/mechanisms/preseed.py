r"""rpi-preseed.toml: Raspberry Pi's own, of images that have the package rpi-preseed.

Its reader knows a part of TOML: strings on one line, and of escapes those of '"' and '\\' alone. It runs `early`
commands for five seconds at most, and tries `late` ones again; those wait for the right time unless told otherwise.
"""

from __future__ import annotations

from edge_agent.flash.boards import Board
from edge_agent.flash.mechanisms.stock import MARK, Stock, cmdline
from edge_agent.flash.payload import FOLDER, SCRIPT
from edge_agent.flash.seed import Login, Seed, WiFi


def files(seed: Seed, board: Board, stock: Stock, _instance: str) -> dict[str, bytes]:
    """Return rpi-preseed.toml; with WiFi the command line too, for the radio's country."""
    command = f"sh {board.boot}/{FOLDER}/{SCRIPT} arrange now"
    sections = [
        f'# {MARK} for {seed.device}.\nconfig_version = "1.0"\n',
        f"[system]\nhostname = {_text(seed.host)}\n",
        f"[user]\nname = {_text(seed.login.user)}\n",
        _ssh(seed.login),
        _wlan(seed.wifi),
        f"[runcmd]\nlate = [{_text(command)}]\nlate_require_time_sync = false\n",
    ]
    written = {"rpi-preseed.toml": "\n".join(section for section in sections if section).encode()}
    if seed.wifi is not None:
        written["cmdline.txt"] = cmdline(stock, country=seed.wifi.country)
    return written


def _ssh(login: Login) -> str:
    if not login.keys:
        return ""
    keys = "".join(f"  {_text(key)},\n" for key in login.keys)
    return f"[ssh]\nenabled = true\npassword_authentication = false\nauthorized_keys = [\n{keys}]\n"


def _wlan(wifi: WiFi | None) -> str:
    if wifi is None:
        return ""
    lines = ["[wlan]", f"ssid = {_text(wifi.ssid)}"]
    if not wifi.is_plain:  # it writes a name into NetworkManager's file as it is; one in hex it writes as bytes
        lines.append(f"ssid_hex = {_text(wifi.ssid.encode().hex())}")
    if wifi.psk:
        lines += [f"password = {_text(wifi.psk)}", "password_encrypted = true", 'key_mgmt = "wpa-psk"']
    return "\n".join([*lines, f"hidden = {str(wifi.is_hidden).lower()}", f"country = {_text(wifi.country)}", ""])


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
