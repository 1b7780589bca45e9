"""What packages hold is licensed as we say, and what is known against it is found without a network."""

import json
import zipfile

import pytest

from deploy.deb import wheels
from deploy.supply.audit import audit, is_affected
from deploy.supply.bills import complete, completed
from deploy.supply.licences import DOCS, LOCKS, Library, libraries

LOCK = LOCKS / "fedistill-server-py3.11-amd64.txt"


def test_every_library_of_a_package_has_a_licence_that_may_be_in_it():
    assert [one for one in libraries() if not one.is_allowed] == []


@pytest.mark.parametrize("licence", ["GPL-3.0-only", "AGPL-3.0-or-later", "MIT AND GPL-2.0-only", "Proprietary", ""])
def test_other_licences_may_not(licence):
    assert not Library("x", licence, ()).is_allowed


def test_the_documentation_names_every_library_and_no_other():
    named = [line.split(" | ")[0].strip("| ") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    assert named[1:] == [one.name for one in libraries()], "run `python -m deploy.supply licences --write`"


def bill_of(folder, *libraries, lock=LOCK.stem):
    """What cyclonedx-bom writes of a lock, as far as it matters here."""
    components = [{"bom-ref": f"L{n}", "name": name, "type": "library"} for n, name in enumerate(libraries)]
    own = {"bom-ref": "root-component", "name": "fedistill", "type": "library", "version": "0.1.0"}
    told = {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": own}, "components": components}
    path = folder / f"{lock}.cdx.json"
    path.write_text(json.dumps(told))
    return path


def test_a_bill_says_whose_it_is_and_under_which_licences(tmp_path):
    path = bill_of(tmp_path, "starlette", "PyYAML", "tomli")
    complete(path)
    once = path.read_bytes()
    told = json.loads(once)
    own = told["metadata"]["component"]
    assert (own["bom-ref"], own["name"], own["type"]) == ("root-component", "fedistill-server", "application")
    assert own["purl"] == "pkg:deb/fedistill/fedistill-server@0.1.0?arch=amd64"
    licences = {one["name"]: one["licenses"] for one in told["components"]}
    assert licences == {
        "starlette": [{"expression": "BSD-3-Clause"}],
        "PyYAML": [{"expression": "MIT"}],
        "tomli": [{"expression": "MIT"}],
    }
    complete(path)
    assert path.read_bytes() == once


def test_what_is_no_bill_of_a_package_is_not_completed(tmp_path):
    with pytest.raises(ValueError, match="no lock of a package"):
        complete(bill_of(tmp_path, lock="build"))
    with pytest.raises(LookupError, match="no-such-library"):
        complete(bill_of(tmp_path, "no-such-library"))
    (tmp_path / "x.cdx.json").write_text("[]")
    with pytest.raises(ValueError, match="no bill"):
        complete(tmp_path / "x.cdx.json")


def test_every_library_of_every_lock_has_a_licence_for_its_bill():
    for lock in LOCKS.glob("fedistill-*.txt"):
        components = [{"name": name} for name in wheels.read_lock(lock)]
        bill = {"metadata": {"component": {"version": "1"}}, "components": components}
        assert all(one["licenses"][0]["expression"] for one in completed(bill, lock.stem)["components"])


def entry(name, *, identity="OSV-1", versions=(), events=(), **more):
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    package = {"ecosystem": "PyPI", "name": name}
    return {"id": identity, "affected": [{"package": package, "versions": list(versions), "ranges": ranges}], **more}


def export(folder, *found):
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, one in enumerate(found):
            archive.writestr(f"{number}.json", json.dumps(one))
    return path


def test_a_vulnerability_of_a_locked_version_is_found(tmp_path):
    version = wheels.read_lock(LOCK)["starlette"]
    database = export(
        tmp_path,
        entry("Starlette", versions=[version], summary="ranges take quadratic time"),
        entry("starlette", identity="OSV-2", events=[{"introduced": "0"}, {"fixed": "0.49.1"}]),
        entry("starlette", identity="OSV-3", versions=[version], withdrawn="2026-01-01T00:00:00Z"),
        entry("django", identity="OSV-4", versions=[version]),
    )
    (found,) = audit([LOCK], database)
    assert str(found) == f"{LOCK.stem}: starlette {version}: OSV-1 ranges take quadratic time"


def test_an_export_may_be_a_folder_and_must_not_be_empty(tmp_path):
    with pytest.raises(ValueError, match="holds no entry"):
        audit([LOCK], tmp_path)
    (tmp_path / "x.json").write_text(json.dumps(entry("numpy", events=[{"introduced": "0"}])))
    assert [one.name for one in audit([LOCK], tmp_path)] == ["numpy"]


@pytest.mark.parametrize(
    ("events", "versions"),
    [
        ([{"introduced": "0"}, {"fixed": "2.0"}], {"1.9": True, "2.0": False, "2.0rc1": True}),
        ([{"introduced": "1.5"}, {"last_affected": "1.9"}], {"1.4": False, "1.5": True, "1.9": True, "1.9.1": False}),
        (
            [{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "3.0"}, {"fixed": "3.1"}],
            {"0.9": True, "2.0": False, "3.0": True, "3.1": False},
        ),
        (  # as PyPA's database writes two lines of releases into one range
            [{"introduced": "2.0.0"}, {"fixed": "2.0.7"}, {"introduced": "0"}, {"fixed": "1.26.18"}],
            {"1.26.17": True, "1.26.18": False, "2.0.6": True, "2.0.7": False},
        ),
    ],
)
def test_ranges_are_read_as_osv_says(events, versions):
    affected = {"ranges": [{"type": "ECOSYSTEM", "events": events}]}
    assert {version: is_affected(affected, version) for version in versions} == versions
