"""What cloud-init, firstrun.sh and rpi-preseed are told. Each is read back by its reader, or a parser of its form."""

import hashlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from edge_agent.flash.boards import Mechanism
from edge_agent.flash.errors import NotForImageError
from edge_agent.flash.mechanisms import boot_files, firstrun
from edge_agent.flash.mechanisms.yaml_text import yaml_text
from edge_agent.flash.seed import WiFi
from tests.support import card_images

from .conftest import BOARDS, DEVICE, GENERIC, SSH_KEY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLOUD, FIRSTRUN, PRESEED = BOARDS.values()
NASTY = 'Jö\'s "net"; $(reboot) `x` \\ #1'
STOCK = {
    Mechanism.CLOUD_INIT: card_images.TRIXIE.boot,
    Mechanism.FIRSTRUN: card_images.BOOKWORM.boot,
    Mechanism.PRESEED: card_images.PRESEED.boot,
}
WIFI = {"wifi": "Werk 7", "wifi_password": "korrekt pferd", "wifi_country": "DE"}


def files_of(seed, board, stock=None):
    return boot_files(seed(board), board, (STOCK[board.mechanism] if stock is None else stock).get)


def made(seed, board, **said):
    return boot_files(seed(board, **said), board, STOCK[board.mechanism].get)


@pytest.fixture
def keyed(ssh_key):
    return {"ssh_key": ssh_key, "user": "ada"}


def test_every_mechanism_gets_the_same_payload_and_sums_of_all_of_it(seed):
    payloads = []
    for board in (CLOUD, PRESEED):
        files = made(seed, board)
        inside = {name: data for name, data in files.items() if name.startswith("fedistill/")}
        payloads.append(inside)
        sums = dict(reversed(line.split("  ")) for line in inside["fedistill/SHA256SUMS"].decode().splitlines())
        assert {f"fedistill/{name}" for name in sums} == inside.keys() - {"fedistill/SHA256SUMS"}
        for name, digest in sums.items():
            content = inside[f"fedistill/{name}"]
            data = content if isinstance(content, bytes) else content.read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
    assert payloads[0] == payloads[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_service(seed, tmp_path):
    unit = made(seed, CLOUD)["fedistill/first-boot.service"].replace(b"@here@", b"/boot/firmware/fedistill")
    (tmp_path / "fedistill-first-boot.service").write_bytes(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "fedistill-first-boot.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_wrong_with_the_script(seed, tmp_path):
    (tmp_path / "first-boot.sh").write_bytes(made(seed, CLOUD)["fedistill/first-boot.sh"])
    done = subprocess.run(["shellcheck", "-s", "sh", tmp_path / "first-boot.sh"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


# cloud-init


def test_cloud_init_hears_host_login_and_first_command(seed, keyed):
    files = made(seed, CLOUD, host="presse", **keyed)
    assert files["user-data"].startswith(b"#cloud-config\n")
    told = yaml.safe_load(files["user-data"])
    assert (told["hostname"], told["manage_etc_hosts"], told["ssh_pwauth"]) == ("presse", True, False)
    (user,) = told["users"]
    assert (user["name"], user["lock_passwd"], user["ssh_authorized_keys"]) == ("ada", True, [SSH_KEY])
    assert told["runcmd"] == [["sh", "/boot/firmware/fedistill/first-boot.sh", "arrange", "now"]]
    assert told["enable_ssh"] is True
    meta = yaml.safe_load(files["meta-data"])
    assert meta["local-hostname"] == "presse"
    assert f"ds=nocloud;i={meta['instance-id']}" in files["cmdline.txt"].decode().split()


def test_without_a_key_nobody_comes_in(seed):
    told = yaml.safe_load(made(seed, CLOUD)["user-data"])
    assert "enable_ssh" not in told
    assert "sudo" not in told["users"][0]


def test_another_device_is_another_instance_and_the_same_is_the_same(seed):
    words = [
        yaml.safe_load(made(seed, CLOUD, **said)["meta-data"])["instance-id"]
        for said in ({}, {}, {"broker": "other.example"})
    ]
    assert words[0] == words[1] != words[2]
    assert words[0].startswith(f"fedistill-{DEVICE}-")


def test_the_network_of_cloud_init_names_the_air_and_keeps_the_cable(seed):
    files = made(seed, CLOUD, **WIFI, wifi_hidden=True)
    network = yaml.safe_load(files["network-config"])["network"]
    assert network["ethernets"]["eth0"] == {"dhcp4": True, "optional": True}
    radio = network["wifis"]["wlan0"]
    assert radio["regulatory-domain"] == "DE"
    (access,) = radio["access-points"].items()
    assert access == ("Werk 7", {"password": WiFi("Werk 7", "korrekt pferd", "DE").psk, "hidden": True})
    assert b"korrekt pferd" not in b"".join(data for data in files.values() if isinstance(data, bytes))
    assert "cfg80211.ieee80211_regdom=DE" in files["cmdline.txt"].decode().split()


def test_by_cable_the_image_keeps_its_own_network(seed):
    assert "network-config" not in made(seed, CLOUD)


def test_a_partition_that_the_system_does_not_mount_is_mounted_by_its_label(seed):
    files = boot_files(seed(GENERIC), GENERIC, card_images.CIDATA.boot.get)
    told = yaml.safe_load(files["user-data"])
    assert told["mounts"] == [["LABEL=CIDATA", "/boot/fedistill", "vfat", "defaults,nofail,umask=0077", "0", "0"]]
    assert told["runcmd"][0][1] == "/boot/fedistill/fedistill/first-boot.sh"
    assert "cmdline.txt" not in files
    assert "enable_ssh" not in told


needs_cloud_init = pytest.mark.skipif(shutil.which("cloud-init") is None, reason="cloud-init is not installed")


@needs_cloud_init
def test_cloud_init_itself_finds_the_cloud_config_valid(seed, keyed, tmp_path):
    for board, stock in ((GENERIC, card_images.CIDATA.boot), (CLOUD, card_images.TRIXIE.boot)):
        path = tmp_path / "user-data"
        text = boot_files(seed(board, **keyed), board, stock.get)["user-data"].decode()
        path.write_text(re.sub(r"enable_ssh: true\n", "", text))  # of Raspberry Pi OS's own module
        done = subprocess.run(
            ["cloud-init", "schema", "--config-file", path], capture_output=True, text=True, check=False
        )
        assert "Valid cloud-config" in done.stdout, done.stdout + done.stderr
        assert "Error" not in done.stdout


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": True, "c": NASTY, "on": "yes", "e": [], "f": {}},
        {"list": [["sh", NASTY], ["x"]], "maps": [{"a": {"b": "c"}, "d": ["e"]}, {"f": {}}]},
        {NASTY: {"password": "0123"}, "0": "1", "true": "no", "a b": None, "null": 1.5, "Off": "~", "1e3": "=", "": ""},
    ],
)
def test_yaml_reads_what_was_written(value):
    assert yaml.safe_load(yaml_text(value)) == value


# firstrun.sh


def test_the_kernel_is_told_to_run_firstrun_once_on_one_line(seed):
    line = made(seed, FIRSTRUN)["cmdline.txt"].decode()
    assert line.count("\n") == 1
    assert line.startswith(card_images.CMDLINE)
    assert line.split()[-3:] == [
        "systemd.run=/boot/firmware/firstrun.sh",
        "systemd.run_success_action=reboot",
        "systemd.unit=kernel-command-line.target",
    ]


def test_firstrun_is_a_script_that_takes_itself_away(seed, keyed, tmp_path):
    text = made(seed, FIRSTRUN, **keyed, **WIFI)["firstrun.sh"].decode()
    path = tmp_path / "firstrun.sh"
    path.write_text(text)
    assert subprocess.run(["sh", "-n", path], check=False).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", "-s", "sh", path], check=False).returncode == 0
    assert text.rstrip().endswith("exit 0")
    assert text.index("first-boot.sh arrange") < text.index("rm -f /boot/firmware/firstrun.sh")
    # The image's firstboot turns NetworkManager off where it finds this word and not imager_custom.
    assert "wpa_supplicant.conf" not in text
    assert "korrekt pferd" not in text


def test_the_line_of_the_kernel_is_as_before_once_firstrun_has_run(seed, tmp_path):
    files = made(seed, FIRSTRUN)
    (tmp_path / "cmdline.txt").write_bytes(files["cmdline.txt"])
    (sed,) = [line for line in files["firstrun.sh"].decode().splitlines() if line.startswith("sed -i 's| systemd")]
    subprocess.run(["sh", "-c", sed.replace("/boot/firmware", str(tmp_path))], check=True)
    assert (tmp_path / "cmdline.txt").read_bytes() == card_images.BOOKWORM.boot["cmdline.txt"]


@pytest.mark.parametrize("ssid", [NASTY, "Werk 7", "70;82", " lead", "x"])
def test_network_manager_gets_any_name_right(ssid):
    text = firstrun.connection(WiFi(ssid, "", "DE"))
    (value,) = [line.removeprefix("ssid=") for line in text.splitlines() if line.startswith("ssid=")]
    # NetworkManager: a list of numbers, each with ';', is bytes; a plain word is the name itself; all between is odd.
    assert value.endswith(";") or value in ("Werk 7", "x")
    name = bytes(map(int, value.rstrip(";").split(";"))).decode() if value.endswith(";") else value
    assert name == ssid
    assert "wifi-security" not in text


def test_the_key_of_wpa_is_that_of_the_standard():
    # IEEE 802.11i, annex H.4.3.
    assert WiFi("IEEE", "password", "US").psk == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert WiFi("x", "AB" * 32, "US").psk == "ab" * 32


# rpi-preseed


def test_rpi_preseed_reads_it_as_toml(seed, keyed):
    text = made(seed, PRESEED, **keyed, **{**WIFI, "wifi": NASTY})["rpi-preseed.toml"].decode()
    told = tomllib.loads(text)
    assert told["config_version"] == "1.0"
    assert told["system"]["hostname"] == DEVICE
    assert told["ssh"] == {"enabled": True, "password_authentication": False, "authorized_keys": [SSH_KEY]}
    assert told["wlan"]["ssid"] == NASTY
    assert (told["wlan"]["password_encrypted"], len(told["wlan"]["password"])) == (True, 64)
    assert told["runcmd"]["late"] == ["sh /boot/firmware/fedistill/first-boot.sh arrange now"]
    assert told["runcmd"]["late_require_time_sync"] is False
    # Its own reader knows '\\"' and '\\\\' alone, and no string over several lines.
    assert "\\" not in re.sub(r'\\[\\"]', "", text)
    assert bytes.fromhex(told["wlan"]["ssid_hex"]).decode() == NASTY
    assert '"""' not in text


# Who was there before


OTHERS = {
    "Imager on Bookworm": (FIRSTRUN, {"firstrun.sh": b"#!/bin/sh\nset +e\n"}),
    "Imager on Trixie": (CLOUD, {"cmdline.txt": b"console=tty1 ds=nocloud;i=rpi-imager-1780302854544\n"}),
    "Imager with rpi-preseed": (PRESEED, {"rpi-preseed.toml": b'config_version = "1.0"\n'}),
    "custom.toml": (FIRSTRUN, {"custom.toml": b"config_version = 1\n"}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_card_that_somebody_else_has_customised_is_refused(seed, case):
    board, there = OTHERS[case]
    with pytest.raises(NotForImageError, match="already"):
        files_of(seed, board, STOCK[board.mechanism] | there)


@pytest.mark.parametrize("board", [CLOUD, FIRSTRUN, PRESEED], ids=lambda board: board.mechanism.value)
def test_a_card_of_ours_is_written_anew_and_nothing_adds_up(seed, board):
    first = made(seed, board, **WIFI)
    stock = {**STOCK[board.mechanism], **{name: data for name, data in first.items() if isinstance(data, bytes)}}
    assert boot_files(seed(board, **WIFI), board, stock.get) == first
    elsewhere = boot_files(seed(board, **{**WIFI, "wifi_country": "AT"}), board, stock.get)
    assert b"regdom=AT" in elsewhere["cmdline.txt"]
    assert b"regdom=DE" not in elsewhere["cmdline.txt"]
