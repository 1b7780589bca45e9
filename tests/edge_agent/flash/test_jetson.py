"""Linux_for_Tegra: which JetPack it is, and what its rootfs gets. NVIDIA's cannot be fetched: this is one like it."""

import os
import shutil
import stat
import zipfile
from dataclasses import replace

import pytest

from edge_agent.cli import main
from edge_agent.flash.boards import BoardName
from edge_agent.flash.contents import size_of
from edge_agent.flash.errors import NoRoomError, NotForImageError, NotRecognisedError, NotVerifiedError, OrderError
from edge_agent.flash.jetson import GPU, PAYLOAD, files_of, look_at_tegra, put
from edge_agent.flash.orders import seed_of
from edge_agent.settings import AgentSettings
from fd_runtime.config import EX_DATAERR, EX_USAGE, build_settings, read_table
from tests.support.card_images import lay_out

from .conftest import BROKER, DEVICE, FEDERATION

RELEASES = {
    "jetson-jp6": ("36", "3.10"),
    "jetson-jp7": ("38", "3.12"),
}
HOSTS = "127.0.0.1\tlocalhost\n127.0.1.1\tlocalhost.localdomain\n"


def tegra(folder, revision="36", python="3.10", **more):
    root = {
        "etc/nv_tegra_release": f"# R{revision} (release), REVISION: 4.3, GCID: 1, BOARD: generic\n".encode(),
        "etc/hosts": HOSTS.encode(),
        f"usr/bin/python{python}": b"\x7fELF",
        "usr/lib/aarch64-linux-gnu/libc.so.6": b"",
        **more,
    }
    lay_out(root, folder / "rootfs")
    lay_out({"flash.sh": b"#!/bin/bash\n"}, folder)
    return folder


@pytest.fixture
def debs(tmp_path):
    folder = tmp_path / "debs"
    folder.mkdir()
    for python in ("3.10", "3.12"):
        (folder / f"fedistill-agent_0.1.0-1+py{python}_arm64.deb").write_bytes(b"!<arch>\n" + bytes(1000))
    return folder


@pytest.fixture
def jetson(order, debs):
    return replace(order, package=debs)


def wheel(folder, name="onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_34_aarch64.whl", **files):
    files = files or {"onnxruntime/__init__.py": "", "onnxruntime/capi/libonnxruntime_providers_cuda.so": "cuda"}
    with zipfile.ZipFile(folder / name, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
    return folder / name


def inject(folder, order):
    board = look_at_tegra(folder)
    files = files_of(seed_of(order, board), board, HOSTS, order.onnxruntime)
    return files, put(folder / "rootfs", files)


@pytest.mark.parametrize("name", RELEASES)
def test_a_jetpack_is_recognised_and_gets_the_package_of_its_python(jetson, tmp_path, name):
    revision, python = RELEASES[name]
    folder = tegra(tmp_path / "Linux_for_Tegra", revision, python)
    board = look_at_tegra(folder)
    assert (board.name.value, board.python, board.architecture) == (name, python, "arm64")
    inject(folder, jetson)
    (deb,) = (folder / "rootfs" / PAYLOAD).glob("*.deb")
    assert f"+py{python}_arm64" in deb.name


def test_the_root_file_system_has_all_that_a_card_has_and_a_service_that_installs_it(jetson, tmp_path):
    folder = tegra(tmp_path / "L4T")
    files, count = inject(folder, replace(jetson, wifi="Werk; 7", wifi_password="12345678", wifi_country="DE"))
    root = folder / "rootfs"
    assert count == sum(size_of(file.content) for file in files.values())
    unit = (root / "etc/systemd/system/fedistill-first-boot.service").read_text()
    assert f"ExecStart=/bin/sh /{PAYLOAD}/first-boot.sh install" in unit
    assert "@" not in unit
    link = root / "etc/systemd/system/multi-user.target.wants/fedistill-first-boot.service"
    assert (link.parent / link.readlink()).exists()
    assert (root / "etc/hostname").read_text() == f"{DEVICE}\n"
    assert (root / "etc/hosts").read_text() == f"127.0.0.1\tlocalhost\n127.0.1.1\t{DEVICE}\n"
    secret = root / PAYLOAD / f"etc/{DEVICE}.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE((root / PAYLOAD).stat().st_mode) == 0o700
    wifi = root / "etc/NetworkManager/system-connections/preconfigured.nmconnection"
    assert stat.S_IMODE(wifi.stat().st_mode) == 0o600
    assert "ieee80211_regdom=DE" in (root / "etc/modprobe.d/fedistill-wifi.conf").read_text()
    assert not (root / GPU).exists()
    assert not (root / "etc/default/edge-agent").exists()


def test_an_onnxruntime_with_cuda_comes_first_and_the_processor_last(jetson, tmp_path):
    folder = tegra(tmp_path / "L4T", "38", "3.12")
    inject(folder, replace(jetson, onnxruntime=wheel(tmp_path)))
    root = folder / "rootfs"
    assert (root / GPU / "onnxruntime/capi/libonnxruntime_providers_cuda.so").read_text() == "cuda"
    assert f"PYTHONPATH=/{GPU}\n" in (root / "etc/default/edge-agent").read_text()
    drop_in = (root / "etc/systemd/system/edge-agent.service.d/gpu.conf").read_text()
    assert "PrivateDevices=no" in drop_in
    path = root / PAYLOAD / "etc/agent.toml"
    settings = build_settings(read_table(path), AgentSettings, path)
    assert settings.model.providers == ("tensorrt", "cuda", "cpu")


def test_a_second_device_leaves_nothing_of_the_first(jetson, tmp_path):
    (tmp_path / "extra").mkdir()
    folder = tegra(tmp_path / "L4T", "38", "3.12")
    (tmp_path / "extra/notes.txt").write_text("x")
    first = replace(jetson, onnxruntime=wheel(tmp_path), add=(tmp_path / "extra/notes.txt",))
    inject(folder, first)
    (folder / "rootfs" / PAYLOAD / "installed").touch()
    inject(folder, jetson)
    assert not (folder / "rootfs" / PAYLOAD / "installed").exists()
    assert not (folder / "rootfs" / PAYLOAD / "etc/notes.txt").exists()
    assert not (folder / "rootfs" / GPU).exists()
    assert not (folder / "rootfs/etc/default/edge-agent").exists()


NOT_OURS = {
    "apply_binaries.sh was not run": ({"etc/nv_tegra_release": None}, "apply_binaries"),
    "JetPack 5": ({"etc/nv_tegra_release": b"# R35 (release), REVISION: 4.1\n"}, "R35; ours is JetPack 6 or 7"),
    "no release that can be read": ({"etc/nv_tegra_release": b"?"}, "JetPack 6 or 7"),
    "another Python": ({"usr/bin/python3.10": None, "usr/bin/python3.8": b""}, "has Python 3.10, this 3.8"),
    "no Python": ({"usr/bin/python3.10": None}, "this none"),
    "another processor": ({"usr/lib/aarch64-linux-gnu/libc.so.6": None}, "no root file system for arm64"),
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_what_is_no_jetpack_of_ours_is_refused(tmp_path, case):
    changes, why = NOT_OURS[case]
    folder = tegra(tmp_path / "L4T")
    lay_out({name: data for name, data in changes.items() if data is not None}, folder / "rootfs")
    for name in (name for name, data in changes.items() if data is None):
        (folder / "rootfs" / name).unlink()
        if not any((folder / "rootfs" / name).parent.iterdir()):
            (folder / "rootfs" / name).parent.rmdir()
    with pytest.raises(NotRecognisedError, match=why):
        look_at_tegra(folder)


def test_another_jetpack_than_was_said_is_refused(tmp_path):
    with pytest.raises(NotRecognisedError, match="this is jetson-jp6, not jetson-jp7"):
        look_at_tegra(tegra(tmp_path / "L4T"), BoardName.JETSON_JP7)


def test_an_account_is_refused(jetson, tmp_path, ssh_key):
    with pytest.raises(OrderError, match="l4t_create_default_user"):
        inject(tegra(tmp_path / "L4T"), replace(jetson, ssh_key=ssh_key))


BAD_WHEELS = {
    "of another Python": (
        {"name": "onnxruntime_gpu-1.31.1-cp310-cp310-manylinux_2_34_aarch64.whl"},
        "not for Python 3.12",
    ),
    "of another processor": ({"name": "onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_34_x86_64.whl"}, "on aarch64"),
    "of something else": ({"name": "numpy-1-cp312-cp312-linux_aarch64.whl"}, "no wheel of onnxruntime-gpu"),
    "with nothing in it": ({"readme": ""}, "holds no onnxruntime"),
    "that leads out": ({"../../etc/passwd": "x", "onnxruntime/__init__.py": ""}, "outside of itself"),
}


@pytest.mark.parametrize("case", BAD_WHEELS)
def test_a_wheel_that_does_not_fit_is_refused(jetson, tmp_path, case):
    said, why = BAD_WHEELS[case]
    folder = tegra(tmp_path / "L4T", "38", "3.12")
    with pytest.raises(NotForImageError, match=why):
        inject(folder, replace(jetson, onnxruntime=wheel(tmp_path, **said)))
    assert not (folder / "rootfs" / PAYLOAD).exists()


def test_a_damaged_wheel_is_refused(jetson, tmp_path):
    path = wheel(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(NotForImageError, match="damaged"):
        inject(tegra(tmp_path / "L4T", "38", "3.12"), replace(jetson, onnxruntime=path))


def test_a_link_that_leads_out_of_the_root_file_system_is_not_followed(jetson, tmp_path):
    folder = tegra(tmp_path / "L4T")
    (tmp_path / "outside").mkdir()
    (folder / "rootfs/opt").symlink_to(tmp_path / "outside")
    with pytest.raises(NotRecognisedError, match="leads out"):
        inject(folder, jetson)
    assert not list((tmp_path / "outside").iterdir())


def test_a_disk_that_is_full_is_refused_untouched(jetson, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    folder = tegra(tmp_path / "L4T")
    with pytest.raises(NoRoomError):
        inject(folder, jetson)
    assert not (folder / "rootfs" / PAYLOAD).exists()


def test_a_file_that_reads_otherwise_is_found(jetson, tmp_path, monkeypatch):
    folder = tegra(tmp_path / "L4T")

    def spoil():
        (folder / "rootfs/etc/hostname").write_text("other\n")

    monkeypatch.setattr(os, "sync", spoil)
    with pytest.raises(NotVerifiedError, match="hostname"):
        inject(folder, jetson)


def test_the_command_tells_what_comes_next(jetson, debs, kit, tmp_path, capsys):
    folder = tegra(tmp_path / "Linux_for_Tegra")
    words = (
        "--device",
        DEVICE,
        "--federation",
        FEDERATION,
        "--broker",
        BROKER,
        "--kit",
        str(kit),
        "--package",
        str(debs),
    )
    assert main(["flash", str(folder), *words]) == 0
    said = capsys.readouterr().err
    assert "jetson-jp6 (Jetson Linux R36, Python 3.10, arm64)" in said
    assert "l4t_initrd_flash.sh" in said
    assert main(["flash", str(folder), *words, "--board", "jetson-jp7"]) == EX_DATAERR
    assert main(["flash", str(folder), *words, "--out", str(tmp_path / "x")]) == EX_USAGE
    before = sorted((folder / "rootfs").rglob("*"))
    assert main(["flash", str(folder), *words, "--check"]) == 0
    assert sorted((folder / "rootfs").rglob("*")) == before
