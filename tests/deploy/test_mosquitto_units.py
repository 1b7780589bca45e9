"""systemd's side of the broker: a sandbox for it, and who tells it of a new revocation list."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.deb.catalogue import ROOT

FOLDER = ROOT / "deploy/mosquitto/systemd"
SYSTEM = Path("/usr/lib/systemd/system")
DEBIANS = """[Unit]
Description=Mosquitto MQTT Broker
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf
ExecReload=/bin/kill -HUP $MAINPID
ExecStartPre=/bin/mkdir -m 740 -p /var/log/mosquitto
[Install]
WantedBy=multi-user.target
"""

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not SYSTEM.is_dir(), reason="systemd is not installed"
)


@pytest.fixture
def root(tmp_path):
    """A system with the broker's unit and ours in their places."""
    shutil.copytree(SYSTEM, tmp_path / "usr/lib/systemd/system", symlinks=True)
    (tmp_path / "usr/lib/systemd/system/mosquitto.service").write_text(DEBIANS)
    shutil.copytree(FOLDER, tmp_path / "etc/systemd/system")
    for program in (
        "usr/sbin/mosquitto",
        "bin/kill",
        "usr/bin/install",
        "usr/bin/mv",
        "usr/bin/systemctl",
        "bin/mkdir",
    ):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    return tmp_path


@pytest.mark.parametrize("unit", ["mosquitto.service", "fedistill-crl.path", "fedistill-crl.service"])
def test_systemd_has_nothing_to_say_against_it(root, unit):
    command = ["systemd-analyze", "verify", "--man=no", f"--root={root}", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("unit", "threshold"), [("mosquitto.service", "20"), ("fedistill-crl.service", "30")])
def test_it_is_hardly_exposed(root, unit, threshold):
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", f"--root={root}", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:]
    print(done.stdout.splitlines()[-1])  # noqa: T201


def test_the_broker_runs_the_configuration_that_the_command_writes():
    text = (FOLDER / "mosquitto.service.d/fedistill.conf").read_text()
    assert "ExecStart=\nExecStart=/usr/sbin/mosquitto -c /var/lib/mosquitto/fedistill/mosquitto.conf" in text
    readme = (FOLDER.parent / "README.md").read_text()
    assert "broker-server mosquitto /var/lib/mosquitto/fedistill" in readme
    assert "--crl /var/lib/mosquitto/fedistill/crl.pem" in readme
