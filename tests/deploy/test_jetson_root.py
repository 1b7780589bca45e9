"""A Jetson's root file system, seeded, at its first boot: a Debian of arm64 under qemu in its place.

    FEDISTILL_ROOTS=/var/tmp/roots pytest tests/deploy/test_jetson_root.py

Minutes. NVIDIA's root file system is Ubuntu's with Python 3.10 or 3.12 and cannot be fetched; Debian 12 has 3.11, which
counts as JetPack 6 for this test. What runs is real all the same: arm64's package, its int8 model, its onnxruntime.
The GPU's wheel is that onnxruntime once more, without CUDA: as on a Jetson whose CUDA is missing.
"""

import os
import subprocess
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from deploy.deb import building
from deploy.deb.catalogue import targets
from edge_agent.flash import jetson
from edge_agent.flash.boards import BoardName
from edge_agent.flash.jetson import PAYLOAD, files_of, look_at_tegra, put
from edge_agent.flash.orders import Order, seed_of
from model_export.public_set import build_public_set
from tests.support.roots import ENVIRONMENT, Root, needs_arm64_roots
from tests.support.small_bundles import PICTURES, pictures, small_bundle

pytestmark = [pytest.mark.slow, needs_arm64_roots]


@pytest.fixture
def deb(tmp_path):
    kept = os.environ.get("FEDISTILL_DEBS")
    found = sorted(Path(kept).glob("fedistill-agent_*+py3.11_arm64.deb")) if kept else []
    if found:
        return found[-1]
    (made,) = building.build(targets(["fedistill-agent"], ["3.11"], ["arm64"]), tmp_path / "debs")
    return made.path


@pytest.fixture
def order(deb, tmp_path):
    now = datetime.now(timezone.utc)
    authority = Authority.create(tmp_path / "pki", fleet="plant-7", now=now)
    authority.issue(Identity("orin-1", Role.DEVICE), tmp_path / "kit", now=now)
    small_bundle(tmp_path / "kit/bundle")
    build_public_set(tmp_path / "kit/public_set", pictures(60, seed=5)[0], PICTURES, seed=3)
    wheel = tmp_path / "onnxruntime_gpu-1.31.1-cp311-cp311-manylinux_2_34_aarch64.whl"
    subprocess.run(["dpkg-deb", "-x", deb, tmp_path / "unpacked"], check=True)
    site = tmp_path / "unpacked/usr/lib/fedistill-agent/lib/python3.11/site-packages"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (site / "onnxruntime").rglob("*"):
            archive.write(path, path.relative_to(site))
    return Order(
        "orin-1", "plant-7", broker="mqtt.plant-7.example", kit=tmp_path / "kit", package=deb, onnxruntime=wheel
    )


@pytest.fixture
def tegra(tmp_path, monkeypatch):
    monkeypatch.setitem(jetson._PYTHONS, BoardName.JETSON_JP6, "3.11")
    folder = tmp_path / "Linux_for_Tegra"
    folder.mkdir()
    (folder / "flash.sh").touch()
    root = Root("bookworm", folder / "rootfs", "arm64")
    root.path("/etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    return folder, root


def test_a_seeded_root_file_system_installs_the_agent_at_its_first_boot(tegra, order):
    folder, root = tegra
    board = look_at_tegra(folder)
    put(root.folder, files_of(seed_of(order, board), board, "", order.onnxruntime))
    root.run("sh", f"/{PAYLOAD}/first-boot.sh", "install")
    assert root.status("fedistill-agent") == "install ok installed"
    assert root.run("uname", "-m").strip() == "aarch64"
    # Written before the package, and a conffile of it: it stayed, and dpkg asked nobody.
    assert "PYTHONPATH=/opt/fedistill/onnxruntime-gpu" in root.path("/etc/default/edge-agent").read_text()
    assert not root.path(f"/{PAYLOAD}/etc").exists()
    assert root.run("edge-agent", "config", "get", "model.providers", user="fedistill").strip() == (
        '["tensorrt", "cuda", "cpu"]'
    )
    root.run("install", "-d", "-o", "fedistill", "-m", "0700", "/var/lib/fedistill")
    gpu = ("env", "PYTHONPATH=/opt/fedistill/onnxruntime-gpu")  # as systemd reads it from /etc/default/edge-agent
    where = "import onnxruntime; print(onnxruntime.__file__)"
    said = root.run(*gpu, "/usr/lib/fedistill-agent/bin/python", "-s", "-c", where, user="fedistill")
    assert "/opt/fedistill/onnxruntime-gpu/onnxruntime/__init__.py" in said.splitlines()
    # What counts is that the golden vectors come out, on the processor; its exit code may tell of something else.
    command = root.command(*gpu, "edge-agent", "doctor", "--offline", user="fedistill")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=600)
    verdicts = {line.split()[0]: line for line in done.stdout.splitlines() if line[:1].isalpha()}
    assert verdicts["runtime"].split()[1] in ("ok", "warning"), done.stdout + done.stderr
    assert verdicts["model"].split()[1] == "ok", done.stdout + done.stderr
