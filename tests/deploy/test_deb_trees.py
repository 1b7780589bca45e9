"""From a folder of modules to a package: what is in it, what is not, and that it is always the same bytes."""

import gzip
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.deb import building, control, staging
from deploy.deb.catalogue import MAX_BYTES, PACKAGES, targets

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")

EPOCH = 1_700_000_000
LEFT_OUT = [
    "bin/edge-agent",
    "model_export/__init__.py",
    "fleet_sim/__init__.py",
    "edge_agent/flash/__init__.py",
    "numpy/_core/tests/test_umath.py",
    "numpy/_core/lib/libnpymath.a",
    "numpy/__init__.pyi",
    "onnxruntime/capi/libonnxruntime.so.1.31.1",
    "onnxruntime/transformers/optimizer.py",
    "edge_agent/__pycache__/cli.cpython-311.pyc",
    "numpy-2.4.6.dist-info/RECORD",
    "numpy-2.4.6.dist-info/direct_url.json",
]
KEPT = [
    "fd_protocol/__init__.py",
    "fd_runtime/__init__.py",
    "numpy/testing/__init__.py",
    "onnxruntime/capi/pybind.so",
    "numpy-2.4.6.dist-info/METADATA",
    "numpy-2.4.6.dist-info/licenses/LICENSE.txt",
]
OURS = {"fedistill-agent": "edge_agent/__init__.py", "fedistill-server": "broker_server/__init__.py"}


def target_of(package="fedistill-agent", python="3.11", architecture="arm64"):
    (target,) = targets([package], [python], [architecture])
    return target


ALL = (*KEPT, *OURS.values(), *LEFT_OUT)


def make_tree(folder, target, files=ALL):
    """A staged tree around modules that are named as real ones are."""
    site = folder / "site"
    for name in files:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(f"# {name}\n")
    root = folder / "root"
    root.mkdir()
    staging.stage(target, site, root)
    control.write(target, root, version="0.1.0-1+py3.11", glibc=28)
    return root


def make_deb(folder, target, **options):
    deb = folder / "made.deb"
    building.pack(make_tree(folder, target), deb, EPOCH, **options)
    return deb


def listing(deb):
    """[mode, owner, time, name] of everything in a package."""
    environment = {**os.environ, "TZ": "UTC"}
    done = subprocess.run(["dpkg-deb", "-c", deb], check=True, capture_output=True, text=True, env=environment)
    rows = [line.split(maxsplit=5) for line in done.stdout.splitlines()]
    return [(mode, owner, f"{date} {time}", name.split(" -> ")[0]) for mode, owner, _, date, time, name in rows]


def field(deb, name):
    return subprocess.run(["dpkg-deb", "-f", deb, name], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(params=list(PACKAGES))
def package(request):
    return request.param


def test_the_same_files_make_the_same_bytes_whatever_the_umask_the_clock_and_the_order(tmp_path):
    target, sums = target_of(), set()
    for name, umask, files in (("one", 0o022, [*KEPT, *LEFT_OUT]), ("other", 0o077, [*LEFT_OUT, *KEPT[::-1]])):
        (tmp_path / name).mkdir()
        before = os.umask(umask)
        try:
            root = make_tree(tmp_path / name, target, files)
            for path in root.rglob("*.py"):
                os.utime(path, (umask, umask))
            building.pack(root, tmp_path / f"{name}.deb", EPOCH)
        finally:
            os.umask(before)
        sums.add(hashlib.sha256((tmp_path / f"{name}.deb").read_bytes()).hexdigest())
    assert len(sums) == 1


def test_everything_is_roots_of_one_time_and_only_programs_run(tmp_path, package):
    target, deb = target_of(package), tmp_path / "made.deb"
    root = make_tree(tmp_path, target)
    if os.geteuid() == 0:  # where a builder owns its files
        for path in root.rglob("*"):
            os.chown(path, 1234, 1234, follow_symlinks=False)
    building.pack(root, deb, EPOCH)
    rows = listing(deb)
    assert {owner for _, owner, _, _ in rows} == {"root/root"}
    assert {time for _, _, time, _ in rows} == {"2023-11-14 22:13"}
    modes = {"d": "drwxr-xr-x", "l": "lrwxrwxrwx", "-": "-rw-r--r--"}
    odd = [(mode, name) for mode, _, _, name in rows if mode != modes[mode[0]]]
    assert odd == [("-rwxr-xr-x", f"./{target.home}/bin/{target.package.program}")]


def test_a_package_holds_its_program_and_nothing_that_a_device_has_no_use_for(tmp_path, package):
    target = target_of(package)
    names = {name for _, _, _, name in listing(make_deb(tmp_path, target))}
    site = f"./{target.site}/"
    assert {site + name for name in (*KEPT, OURS[package])} <= names
    assert not names & {site + name for name in (*LEFT_OUT, *(set(OURS.values()) - {OURS[package]}))}
    assert f"./usr/bin/{target.package.program}" in names
    assert {f"./usr/lib/systemd/system/{unit}" for unit in target.package.units} <= names
    assert f"./etc/{target.package.user}/" in names


def test_the_program_is_run_by_the_environment_beside_it(tmp_path, package):
    target = target_of(package, "3.13")
    root = make_tree(tmp_path, target)
    link = root / "usr/bin" / target.package.program
    script = root / target.home / "bin" / target.package.program
    assert link.resolve() == script
    assert script.read_text().splitlines()[0] == f"#!/{target.home}/bin/python -s"
    assert (root / target.home / "bin" / "python").readlink() == Path("/usr/bin/python3.13")
    assert "home = /usr/bin\n" in (root / target.home / "pyvenv.cfg").read_text()


def test_all_that_lies_in_etc_is_a_conffile_and_settings_are_not_ours(tmp_path, package):
    target = target_of(package)
    root = make_tree(tmp_path, target)
    conffiles = (root / "DEBIAN/conffiles").read_text().splitlines()
    assert conffiles == [f"/etc/default/{target.package.program}"]
    assert sorted(f"/{path.relative_to(root)}" for path in (root / "etc").rglob("*") if path.is_file()) == conffiles


def test_sums_are_those_of_the_files(tmp_path):
    root = make_tree(tmp_path, target_of())
    sums = (root / "DEBIAN/md5sums").read_text().splitlines()
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.md5((root / name).read_bytes()).hexdigest() == digest
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert {line.split("  ")[1] for line in sums} == {name for name in files if not name.startswith("DEBIAN/")}


def test_a_package_fits_one_python_only(tmp_path, package):
    deb = make_deb(tmp_path, target_of(package, "3.10", "amd64"))
    assert field(deb, "Depends").startswith("python3 (>= 3.10), python3 (<< 3.11), libc6 (>= 2.28)")
    assert (field(deb, "Package"), field(deb, "Architecture")) == (package, "amd64")
    assert "Python 3.10" in field(deb, "Description")


def test_a_package_is_compressed_by_zstd(tmp_path):
    members = subprocess.run(["ar", "t", make_deb(tmp_path, target_of())], check=True, capture_output=True, text=True)
    assert members.stdout.split() == ["debian-binary", "control.tar.zst", "data.tar.zst"]


def test_a_package_that_is_too_large_is_none(tmp_path):
    with pytest.raises(building.TooLargeError, match="1000 allowed"):
        make_deb(tmp_path, target_of(), max_bytes=1000)
    assert not list(tmp_path.glob("*.deb"))
    assert MAX_BYTES == 45_000_000


@pytest.mark.parametrize("name", control.SCRIPTS)
def test_maintainer_scripts_are_scripts_and_name_their_package(tmp_path, package, name):
    text = control.script(target_of(package), name)
    assert "@" not in text
    assert package in text
    (tmp_path / name).write_text(text)
    assert subprocess.run(["sh", "-n", tmp_path / name], check=False).returncode == 0


def test_the_changelog_goes_along(tmp_path):
    target = target_of()
    path = make_tree(tmp_path, target) / "usr/share/doc/fedistill-agent/changelog.gz"
    assert gzip.decompress(path.read_bytes()).startswith(b"# Changelog")


def test_the_time_of_a_build_is_stated_or_that_of_the_commit(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    assert building.source_date() == EPOCH
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    git = subprocess.run(["git", "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False)
    if git.returncode:
        pytest.skip("not in a checkout")
    assert building.source_date() == int(git.stdout)
