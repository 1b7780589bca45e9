"""What packages hold is what pyproject.toml asks for, wheel by wheel."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.deb import wheels
from deploy.deb.catalogue import MACHINES, PACKAGES, PYTHONS, ROOT, targets
from deploy.deb.locking import UNUSED

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

TARGETS = targets(list(PACKAGES), list(PYTHONS), list(MACHINES))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
names = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.lock.stem)


def asked(extras, python):
    """Every requirement of the project and of some extras that counts for a Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pending = [*PROJECT["dependencies"]]
    for extra in extras:
        pending += PROJECT["optional-dependencies"][extra]
    for text in pending:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        if requirement.name == PROJECT["name"]:
            yield from asked(requirement.extras, python)
        else:
            yield requirement


@names
def test_a_lock_holds_what_the_project_asks_for(target):
    pinned = wheels.read_lock(target.lock)
    for requirement in asked(target.package.extras, target.python.name):
        assert wheels.canonical(requirement.name) in pinned, f"{requirement}: run `make deb-locks`"
        assert requirement.specifier.contains(pinned[wheels.canonical(requirement.name)]), requirement


@names
def test_a_lock_holds_nothing_for_the_workstation(target):
    assert not {"torch", "onnx", "scipy", "pytest", *UNUSED} & set(wheels.read_lock(target.lock))


@pytest.mark.parametrize(("python", "numpy"), [("3.10", "1"), ("3.11", "1"), ("3.12", "1"), ("3.13", "2")])
def test_the_agent_has_the_numpy_that_cameras_of_its_system_are_built_for(python, numpy):
    for target in targets(["fedistill-agent"], [python], list(MACHINES)):
        assert wheels.read_lock(target.lock)["numpy"].split(".")[0] == numpy


def test_no_lock_is_left_over():
    expected = {target.lock for target in TARGETS} | {wheels.BUILD_LOCK}
    assert set((ROOT / "deploy/deb/locks").iterdir()) == expected


@names
def test_both_processors_get_the_same_versions(target):
    for (other,) in (targets([target.package.name], [target.python.name], [name]) for name in MACHINES):
        assert wheels.read_lock(other.lock) == wheels.read_lock(target.lock)


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy==2.4.6",
        "numpy>=2 --hash=sha256:" + "0" * 64,
        "numpy==2.4.6 --hash=sha256:" + "0" * 63,
        "numpy==2.4.6 --hash=md5:" + "0" * 64,
        "--index-url https://example.org/simple",
    ],
)
def test_a_line_without_its_digest_is_refused(tmp_path, line):
    (tmp_path / "lock").write_text(f"# a remark\n{line}\n")
    with pytest.raises(ValueError, match="not a wheel with its digest"):
        wheels.read_lock(tmp_path / "lock")


def test_wheels_of_another_machine_or_a_newer_system_are_not_asked_for():
    (target,) = targets(["fedistill-agent"], ["3.11"], ["arm64"])
    options = wheels.tags(target)
    assert "--platform=manylinux_2_28_aarch64" in options
    assert "--platform=manylinux_2_36_aarch64" in options
    assert "--platform=manylinux_2_37_aarch64" not in options
    assert not [option for option in options if "x86" in option]
    assert "--only-binary=:all:" in options


def test_the_oldest_glibc_is_that_of_the_most_demanding_wheel():
    names = (
        "a-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "b-1-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        "c-1-py3-none-any.whl",
    )
    assert wheels.oldest_glibc([Path(name) for name in names]) == 27
    assert wheels.oldest_glibc([Path(names[2])]) == 17
