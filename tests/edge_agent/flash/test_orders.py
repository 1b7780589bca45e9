"""From what an operator says to what a card gets, and everything that makes no device."""

from dataclasses import replace

import pytest

from edge_agent.flash.boards import Mechanism
from edge_agent.flash.errors import NotForImageError, OrderError
from edge_agent.flash.orders import Order, seed_of
from edge_agent.flash.seed import Login, WiFi
from edge_agent.settings import AgentSettings
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_runtime.config import build_settings, read_table

from .conftest import BOARDS, BROKER, DEVICE, FEDERATION, GENERIC, SSH_KEY, TOKEN_TEXT

BOARD = BOARDS[Mechanism.CLOUD_INIT]


def table_of(seed, tmp_path):
    (tmp_path / "agent.toml").write_bytes(seed.etc["agent.toml"])
    return read_table(tmp_path / "agent.toml")


def test_a_kit_with_a_certificate_makes_settings_that_the_agent_starts_with(order, tmp_path):
    seed = seed_of(order, BOARD)
    assert seed.etc.keys() == {"agent.toml", "ca.pem", f"{DEVICE}.pem", f"{DEVICE}.key"}
    settings = build_settings(table_of(seed, tmp_path), AgentSettings, tmp_path / "agent.toml")
    assert (settings.device.id, settings.device.federation) == (DEVICE, FEDERATION)
    assert (settings.broker.host, settings.broker.port) == (BROKER, 8883)
    assert settings.broker.tls.certificate == tmp_path / f"{DEVICE}.pem"
    assert str(settings.state.folder) == "/var/lib/fedistill"
    assert str(settings.state.runtime) == "/run/fedistill"


def test_a_kit_with_a_token_leaves_the_key_to_the_device(with_token, tmp_path):
    seed = seed_of(with_token, BOARD)
    assert seed.etc.keys() == {"agent.toml", "ca.pem", "enrolment.token"}
    assert seed.etc["enrolment.token"] == f"{TOKEN_TEXT}\n".encode()
    table = table_of(seed, tmp_path)
    assert table["enrolment"] == {
        "url": "https://mqtt.plant-7.example:8443",
        "token_file": "/etc/fedistill/enrolment.token",
        "ca_file": "/etc/fedistill/ca.pem",
    }
    assert table["broker"]["host"] == BROKER
    assert TOKEN_TEXT not in seed.etc["agent.toml"].decode()
    assert TOKEN_TEXT not in repr(seed)


def test_single_options_do_what_a_kit_does(token_kit, with_token):
    single = replace(with_token, kit=None, ca=token_kit / "ca.pem", token_file=token_kit / "enrolment.token")
    assert seed_of(single, BOARD).etc == seed_of(with_token, BOARD).etc


def test_own_settings_are_the_start_and_their_comments_stay(order, tmp_path):
    base = tmp_path / "line.toml"
    base.write_text(
        '# all of line 4\n[device]\nid = "x"\nfederation = "plant-7"\n[model]\nbundle = "bundle"  # ours\n'
        '[state]\nfolder = "state"\n[broker]\nhost = "mqtt.plant-7.example"\nport = 443\n'
    )
    seed = seed_of(replace(order, config=base, federation="", broker=""), BOARD)
    text = seed.etc["agent.toml"].decode()
    assert text.startswith("# all of line 4\n")
    assert "# ours" in text
    table = table_of(seed, tmp_path)
    assert (table["device"]["id"], table["broker"]["port"]) == (DEVICE, 443)
    assert table["state"]["folder"] == "/var/lib/fedistill"  # not beside the settings, where the service may not write
    assert seed.federation == "plant-7"


def test_bundle_and_probes_go_along(order, tmp_path):
    for name in ("bundle", "public_set"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_bytes(b"{}")
        (tmp_path / name / "deep" / "weights.bin").write_bytes(b"w" * 100)
    seed = seed_of(replace(order, bundle=tmp_path / "bundle", public_set=tmp_path / "public_set"), BOARD)
    assert {"bundle/manifest.json", "bundle/deep/weights.bin", "public_set/deep/weights.bin"} <= seed.etc.keys()


def test_the_right_package_of_a_folder_is_taken(order):
    for board in (*BOARDS.values(), GENERIC):
        package = seed_of(order, board).package
        assert (package.python, package.architecture) == (board.python, board.architecture)


def test_ssh_keys_and_host_are_taken_as_said(order, ssh_key):
    seed = seed_of(replace(order, ssh_key=ssh_key, user="ada", host="presse"), BOARD)
    assert seed.login == Login("ada", (SSH_KEY,))
    assert (seed.host, seed_of(order, BOARD).host) == ("presse", DEVICE)


def text_file(name, text):
    def make(tmp_path):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


REFUSED = {
    "a token without whom to trust": ({"kit": None, "token": "t"}, OrderError, "a token without ca.pem"),
    "a token and nowhere to take it": ({"token": "t"}, OrderError, "--enrol"),
    "a token over plain HTTP": ({"token": "t", "enrol": "http://x:1"}, OrderError, "https"),
    "a token of two words": ({"token": "t t", "enrol": "https://x"}, OrderError, "one word"),
    "an empty token": ({"token_file": text_file("t", "\n"), "enrol": "https://x"}, OrderError, "is empty"),
    "a kit of somebody else": ({"device": "press-4"}, OrderError, "not the kit of press-4"),
    "no kit there": ({"kit": text_file("kit.txt", "")}, OrderError, "no such folder"),
    "a certificate that is none": ({"ca": text_file("ca.pem", "hello")}, InvalidValueError, "no certificate"),
    "a key as what is trusted": (
        {"ca": text_file("k.pem", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----")},
        InvalidValueError,
        "holds a private key",
    ),
    "a broker far away without TLS": ({"kit": None}, FedistillError, r"\[broker.tls\]"),
    "a broker without a port": ({"broker": "host:"}, OrderError, "HOST or HOST:PORT"),
    "settings that are no TOML": ({"config": text_file("a.toml", "= =")}, FedistillError, "not TOML"),
    "settings with a key that does not exist": (
        {"config": text_file("a.toml", '[device]\nid = "x"\nfederation = "f"\n[model]\nbundel = "b"\n')},
        FedistillError,
        "bundel",
    ),
    "no package": ({"package": None}, OrderError, "--package"),
    "something else as a package": (
        {"package": text_file("x_1_arm64.deb", "!<arch>\n")},
        InvalidValueError,
        "not a package of the agent",
    ),
    "an empty file as a package": (
        {"package": text_file("fedistill-agent_1-1+py3.13_arm64.deb", "")},
        InvalidValueError,
        "not a Debian package",
    ),
    "a package for another Python": (
        {"package": text_file("fedistill-agent_1-1+py3.11_arm64.deb", "!<arch>\n")},
        NotForImageError,
        "for Python 3.11; Debian 13 has 3.13",
    ),
    "a package for another processor": (
        {"package": text_file("fedistill-agent_1-1+py3.13_amd64.deb", "!<arch>\n")},
        NotForImageError,
        "for processor amd64",
    ),
    "no bundle there": ({"bundle": text_file("b", "")}, OrderError, "no such folder"),
    "a device that is no name": ({"device": "Press 3", "kit": None, "broker": ""}, FedistillError, "Press 3"),
    "a host that is no name": ({"host": "-x"}, InvalidValueError, "no host name"),
    "WiFi without a country": ({"wifi": "net", "wifi_password": "12345678"}, InvalidValueError, "country"),
    "WiFi with a short password": (
        {"wifi": "net", "wifi_password": "1234567", "wifi_country": "DE"},
        InvalidValueError,
        "8 to 63 bytes, not 7",
    ),
    "WiFi with a long name": ({"wifi": "ü" * 17, "wifi_country": "DE"}, InvalidValueError, "1 to 32 bytes"),
    "root as a person": ({"user": "root"}, InvalidValueError, "no name for a person"),
    "the service's user as a person": ({"user": "fedistill"}, InvalidValueError, "no name for a person"),
    "a private SSH key": (
        {"ssh_key": text_file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n")},
        InvalidValueError,
        "private SSH key",
    ),
    "no SSH key in the file": ({"ssh_key": text_file("id.pub", "# none\n")}, OrderError, "no key in it"),
    "an SSH key that ends the script": (
        {"ssh_key": text_file("id.pub", "ssh-ed25519 $(reboot)\n")},
        InvalidValueError,
        "not a public SSH key",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_device_is_refused(order, tmp_path, case):
    said, error, why = REFUSED[case]
    said = {name: value(tmp_path) if callable(value) else value for name, value in said.items()}
    with pytest.raises(error, match=why):
        seed_of(replace(order, **said), BOARD)


def test_half_a_kit_is_refused(order, kit):
    (kit / f"{DEVICE}.key").unlink()
    with pytest.raises(OrderError, match="one is missing"):
        seed_of(order, BOARD)


def test_settings_that_name_a_file_which_is_not_on_the_card_are_refused(order, tmp_path):
    base = tmp_path / "agent.toml"
    base.write_text(
        '[device]\nid = "x"\nfederation = "f"\n[model]\nbundle = "b"\n[state]\nfolder = "/var/lib/fedistill"\n'
        '[broker]\nhost = "far.example"\n[broker.tls]\nca = "ours.pem"\ncertificate = "c.pem"\nkey = "c.key"\n'
    )
    with pytest.raises(OrderError, match=r"names ours.pem, which is not on the card"):
        seed_of(Order(DEVICE, package=order.package, config=base), BOARD)
    for name in ("ours.pem", "c.pem", "c.key"):
        (tmp_path / name).write_text("x")
    added = tuple(tmp_path / name for name in ("ours.pem", "c.pem", "c.key"))
    assert "c.key" in seed_of(Order(DEVICE, package=order.package, config=base, add=added), BOARD).etc


def test_two_versions_in_a_folder_are_not_chosen_from(order, tmp_path):
    for version in ("0.1.0", "0.2.0"):
        (tmp_path / f"fedistill-agent_{version}-1+py3.13_arm64.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(OrderError, match="2 versions"):
        seed_of(replace(order, package=tmp_path), BOARD)
    for path in tmp_path.glob("*.deb"):
        path.unlink()
    with pytest.raises(NotForImageError, match=r"no package for Python 3\.13 on arm64"):
        seed_of(replace(order, package=tmp_path), BOARD)


def test_a_name_that_a_fat_partition_cannot_hold_is_refused(order, tmp_path):
    (tmp_path / "a:b").write_text("x")
    with pytest.raises(InvalidValueError, match="cannot hold"):
        seed_of(replace(order, add=(tmp_path / "a:b",)), BOARD)


def test_secrets_are_not_shown():
    assert "12345678" not in repr(WiFi("net", "12345678", "DE"))
    assert "secret" not in repr(Order("d", token="secret", wifi_password="secret"))
