"""cloud-init's NoCloud: user-data, meta-data, network-config.

A Raspberry Pi reads them from its boot partition; the kernel's command line names the instance, as Imager does, and is
believed before meta-data. Elsewhere a partition labelled CIDATA is read by its label; we have it mounted as well.

runcmd does not install: it is run once, whatever becomes of it. It leaves a service that is run until it is done.
"""

from __future__ import annotations

from typing import Any

from edge_agent.flash.boards import Board, BoardName
from edge_agent.flash.mechanisms.stock import MARK, Stock, cmdline
from edge_agent.flash.mechanisms.yaml_text import yaml_text
from edge_agent.flash.payload import FOLDER, SCRIPT
from edge_agent.flash.seed import Login, Seed, WiFi

PI_GROUPS = "users,adm,dialout,audio,netdev,video,plugdev,cdrom,games,input,gpio,spi,i2c,render,sudo"
_GROUPS = "users,adm,sudo"


def files(seed: Seed, board: Board, stock: Stock, instance: str) -> dict[str, bytes]:
    """Return the files of cloud-init, by name."""
    written = {
        "user-data": f"#cloud-config\n# {MARK} for {seed.device}.\n{yaml_text(user_data(seed, board))}".encode(),
        "meta-data": yaml_text({"instance-id": instance, "local-hostname": seed.host, "dsmode": "local"}).encode(),
    }
    if seed.wifi is not None:  # without: what the image says of cables stays
        written["network-config"] = yaml_text(network_config(seed.wifi, board)).encode()
    if board.is_pi:
        country = seed.wifi.country if seed.wifi else ""
        written["cmdline.txt"] = cmdline(stock, f"ds=nocloud;i={instance}", country=country)
    return written


def user_data(seed: Seed, board: Board) -> dict[str, Any]:
    """Return the cloud-config of a device."""
    told: dict[str, Any] = {
        "hostname": seed.host,
        "manage_etc_hosts": True,
        "users": [_user(seed.login, PI_GROUPS if board.is_pi else _GROUPS)],
        "ssh_pwauth": False,
    }
    if seed.login.keys and board.name is BoardName.RPI_TRIXIE:  # Ubuntu's and Debian's images have it enabled
        told["enable_ssh"] = True
    if not board.is_boot_mounted:
        told["mounts"] = [[f"LABEL={board.label}", board.boot, "vfat", "defaults,nofail,umask=0077", "0", "0"]]
    told["runcmd"] = [["sh", f"{board.boot}/{FOLDER}/{SCRIPT}", "arrange", "now"]]
    return told


def network_config(wifi: WiFi, board: Board) -> dict[str, Any]:
    """Return netplan's version 2: cables by DHCP as they were, and the network by air. Nothing waits for either."""
    access: dict[str, Any] = {"password": wifi.psk} if wifi.psk else {}
    if wifi.is_hidden:
        access["hidden"] = True
    radio: dict[str, Any] = {"dhcp4": True, "optional": True}
    if board.is_pi:
        radio["regulatory-domain"] = wifi.country
    cables = {"dhcp4": True, "optional": True}
    body = {
        "version": 2,
        "ethernets": {"eth0": cables} if board.is_pi else {"cables": {"match": {"name": "e*"}, **cables}},
        "wifis": {"wlan0": {**radio, "access-points": {wifi.ssid: access}}},
    }
    return {"network": body}


def _user(login: Login, groups: str) -> dict[str, Any]:
    user: dict[str, Any] = {"name": login.user, "groups": groups, "shell": "/bin/bash", "lock_passwd": True}
    if login.keys:
        user |= {"ssh_authorized_keys": list(login.keys), "sudo": "ALL=(ALL) NOPASSWD:ALL"}
    return user
