"""Another bundle by the owner's hand."""

import json
from dataclasses import replace

import pytest

from edge_agent.cli import main
from edge_agent.slots.machine import Offered, Phase, Slots
from edge_agent.slots.shelf import Shelf, Wish
from fd_protocol.identity import sha256
from tests.edge_agent.artifacts import write_private, write_public_set
from tests.edge_agent.processes import settings_text
from tests.edge_agent.slots.shop import Shop, make_factory


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    return Shop(make_factory(folder / "factory"), folder / "shop")


@pytest.fixture
def device(shop, tmp_path):
    write_public_set(tmp_path / "public")
    write_private(tmp_path / "private.npz")
    text = settings_text(1883, model__runtime="onnxruntime", model__bundle=str(shop.factory.folder))
    (tmp_path / "agent.toml").write_text(text)
    return tmp_path / "agent.toml", Shelf(tmp_path / "state" / "slots")


def typed(device, capsys, *words):
    code = main(["model", *words, "--config", str(device[0]), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_a_package_is_wanted_by_its_digests(device, shop, capsys):
    offered = shop.good("9.r1", epochs=2)
    package = shop.blobs / offered.package
    assert typed(device, capsys, "install", str(package))[:2] == (0, {"obeyed": True, "bundle": offered.bundle})
    assert device[1].wish() == Wish(offered=replace(offered, by_owner=True), path=str(package))
    assert sha256(package.read_bytes()).hex() == offered.package


def test_what_is_known_bad_is_not_wanted(device, shop, capsys):
    offered = shop.good("9.r2", epochs=3)
    device[1].save(Slots(known_bad=(offered.bundle,)))
    assert typed(device, capsys, "install", str(shop.blobs / offered.package))[0] == 1
    assert device[1].wish() is None


@pytest.mark.parametrize(("content", "code"), [(None, 66), (b"no package", 65)])
def test_what_is_no_package_is_refused_in_one_line(device, tmp_path, capsys, content, code):
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    found, _, err = typed(device, capsys, "install", str(tmp_path / "x"))
    assert (found, err.count("\n")) == (code, 1)


def test_there_is_no_way_back_where_nothing_was_before(device, capsys):
    assert typed(device, capsys, "rollback")[:2] == (1, {"obeyed": False})
    device[1].save(Slots(active="a" * 64, previous=""))
    assert typed(device, capsys, "rollback")[:2] == (0, {"obeyed": True})
    assert device[1].wish() == Wish(is_back=True)


def test_the_list_tells_which_one_runs(device, shop, capsys):
    offered = shop.good("9.r3", epochs=4)
    shelf = device[1]
    shelf.folder.mkdir(parents=True)
    (shop.place / "bundles" / "9.r3").rename(shelf.slot(offered.bundle))
    state = Slots(factory=shop.factory.digest.hex(), active=offered.bundle, previous="", outcome="9.r3 runs")
    shelf.save(state)
    told = typed(device, capsys, "list")[1]
    assert [(one["version"], one["is_current"]) for one in told] == [("1", False), ("9.r3", True)]
    shelf.save(replace(state, phase=Phase.DOWNLOAD, release=Offered("b" * 64, "9.r4", "c" * 64, 9)))
    assert len(typed(device, capsys, "list")[1]) == 2
