"""firstrun.sh: what systemd runs once, before anything else, because the kernel's command line says so.

    power on -> the image's own firstboot: grows the root file system, reboots
             -> systemd.run=/boot/firmware/firstrun.sh: host name, login, network, our service; goes, reboots
             -> the system as it will be; our service installs the package

Bookworm has a helper for each of these steps (imager_custom), Trixie of 2025-10-01 has lost it and has nothing instead:
the script asks for neither. It bears being cut and run again, and always ends well: what failed here would not boot.
"""

from __future__ import annotations

import shlex
import uuid

from edge_agent.flash.boards import Board
from edge_agent.flash.mechanisms.stock import MARK, Stock, cmdline
from edge_agent.flash.payload import FOLDER, SCRIPT
from edge_agent.flash.seed import Login, Seed, WiFi

_RUN = ("systemd.run={}/firstrun.sh", "systemd.run_success_action=reboot", "systemd.unit=kernel-command-line.target")
_HEAD = """\
#!/bin/sh
# {mark} for {device}: run once by systemd.run= in cmdline.txt, then gone.
set +e

echo {host} >/etc/hostname
if grep -q '^127\\.0\\.1\\.1' /etc/hosts; then
    sed -i 's/^127\\.0\\.1\\.1.*/127.0.1.1\\t{host}/' /etc/hosts
else
    printf '127.0.1.1\\t%s\\n' {host} >>/etc/hosts
fi
"""
_USER = """
# The account of uid 1000 gets its name; without this the console would ask for one. No password.
if [ -x /usr/lib/userconf-pi/userconf ]; then
    /usr/lib/userconf-pi/userconf {user} ''
fi
"""
_KEYS = """
person=$(getent passwd 1000 | cut -d: -f1)
home=$(getent passwd 1000 | cut -d: -f6)
install -d -o "$person" -g "$person" -m 0700 "$home/.ssh"
cat >"$home/.ssh/authorized_keys" <<'KEYS'
{keys}
KEYS
chown "$person:$person" "$home/.ssh/authorized_keys"
chmod 0600 "$home/.ssh/authorized_keys"
mkdir -p /etc/ssh/sshd_config.d
echo 'PasswordAuthentication no' >/etc/ssh/sshd_config.d/10-fedistill.conf
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -sf /lib/systemd/system/ssh.service /etc/systemd/system/multi-user.target.wants/ssh.service
ln -sf /lib/systemd/system/ssh.service /etc/systemd/system/sshd.service
"""
_WIFI = """
mkdir -p /etc/NetworkManager/system-connections
(umask 077 && cat >/etc/NetworkManager/system-connections/preconfigured.nmconnection) <<'WIFI'
{connection}WIFI
for blocked in /var/lib/systemd/rfkill/*:wlan; do
    [ -e "$blocked" ] && echo 0 >"$blocked"
done
"""
_TAIL = """
sh {boot}/{folder}/{script} arrange
rm -f {boot}/firstrun.sh
sed -i 's| systemd\\.run[^ ]*||g; s| systemd\\.unit=kernel-command-line\\.target||g' {boot}/cmdline.txt
sync
exit 0
"""


def files(seed: Seed, board: Board, stock: Stock, _instance: str) -> dict[str, bytes]:
    """Return firstrun.sh and the command line that has it run."""
    parts = [
        _HEAD.format(mark=MARK, device=seed.device, host=seed.host),
        _USER.format(user=shlex.quote(seed.login.user)),
        _keys(seed.login),
        "" if seed.wifi is None else _WIFI.format(connection=connection(seed.wifi)),
        _TAIL.format(boot=board.boot, folder=FOLDER, script=SCRIPT),
    ]
    run = [word.format(board.boot) for word in _RUN]
    country = seed.wifi.country if seed.wifi else ""
    return {"firstrun.sh": "".join(parts).encode(), "cmdline.txt": cmdline(stock, *run, country=country)}


def connection(wifi: WiFi) -> str:
    """Return NetworkManager's keyfile of a network. A name that is not plain is given by its bytes."""
    ssid = wifi.ssid if wifi.is_plain else "".join(f"{byte};" for byte in wifi.ssid.encode())
    security = ["[wifi-security]", "key-mgmt=wpa-psk", f"psk={wifi.psk}"] if wifi.psk else []
    lines = [
        *(
            f"# {MARK}.",
            "[connection]",
            "id=preconfigured",
            f"uuid={uuid.uuid5(uuid.NAMESPACE_DNS, wifi.ssid)}",
            "type=wifi",
        ),
        *("[wifi]", "mode=infrastructure", f"ssid={ssid}", f"hidden={str(wifi.is_hidden).lower()}"),
        *security,
        *("[ipv4]", "method=auto", "[ipv6]", "addr-gen-mode=default", "method=auto", ""),
    ]
    return "\n".join(lines)


def _keys(login: Login) -> str:
    return _KEYS.format(keys="\n".join(login.keys)) if login.keys else ""
