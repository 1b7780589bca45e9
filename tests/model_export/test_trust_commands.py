"""The keys in the drawers, by the command line: a fleet's trust from nothing, a rotation, a bundle, its end."""

import json
import shutil
import time

import pytest

from fd_runtime.tuf.client import TufClient
from fd_runtime.tuf.online import OnlineTrust
from fd_runtime.tuf.signing_keys import is_locked, load_signer
from model_export.cli import main
from tests.support.small_bundles import small_bundle
from tests.support.trust import serving


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return small_bundle(folder / "first"), small_bundle(folder / "second", seed=5, version="2")


@pytest.fixture
def drawers(tmp_path):
    """Five keys, those of root and targets under a passphrase."""
    (tmp_path / "words").write_text("correct horse\n")
    for name in ("root-1", "root-2", "root-3", "root-4", "targets"):
        assert run(tmp_path, "trust", "key", name, "--passphrase-file", "words") == 0
    assert run(tmp_path, "trust", "key", "online", "--no-passphrase") == 0
    return tmp_path


FILES = ("root-", "targets", "online", "words", "signed", "bundle")


def run(folder, *words):
    return main([str(folder / word) if str(word).startswith(FILES) else str(word) for word in words])


def sign(drawers, *names):
    for name in names:
        assert run(drawers, "trust", "sign", "signed", "--key", name, "--passphrase-file", "words") == 0


def begin(drawers):
    roots = ("root-1.pub", "root-2.pub", "root-3.pub")
    first = ("--root", *roots, "--targets", "targets.pub", "--online", "online.pub")
    assert run(drawers, "trust", "init", "signed", *first) == 0
    sign(drawers, "root-1", "root-2")


def with_targets(drawers, *words):
    return run(drawers, *words, "--key", "targets", "--passphrase-file", "words")


@pytest.fixture
def ask(drawers, tmp_path):
    """What a device that was born with the first root believes, after the server has taken in what is signed."""

    def ask(name):
        web = tmp_path / "releases" / "web"
        online = OnlineTrust(web / "v1" / "tuf", web / "v1" / "blobs", load_signer(drawers / "online"))
        online.take_in(drawers / "signed", time.time())
        with serving(web) as url:
            client = TufClient(tmp_path / "device", (drawers / "signed" / "1.root.json").read_bytes(), url)
            client.refresh()
            return client.find([name])

    return ask


def published(drawers):
    (package,) = (drawers / "signed" / "blobs").iterdir()
    return package.name


def test_from_keys_in_a_drawer_to_a_bundle_that_a_device_believes(drawers, bundles, ask, capsys):
    assert is_locked(drawers / "root-1")
    assert not is_locked(drawers / "online")
    begin(drawers)
    assert with_targets(drawers, "publish", bundles[0].folder, "--to", "signed") == 0
    assert "broker-server publish" in capsys.readouterr().out
    name = f"bundles/{bundles[0].manifest.family}/{published(drawers)}"
    found = ask(name)
    assert found.facts.bundle == bundles[0].digest.hex()
    assert (found.facts.opset, found.facts.memory_bytes > 0) == (18, True)
    assert with_targets(drawers, "trust", "renew", "signed", "--days", "30") == 0
    assert with_targets(drawers, "trust", "retire", "signed", bundles[0].digest.hex()[:10]) == 0
    assert ask(name) is None
    assert with_targets(drawers, "trust", "retire", "signed", "9.9") > 0


def test_the_first_root_has_none_before_whose_keys_it_could_lack(drawers, capsys):
    first = ("--root", "root-1.pub", "root-2.pub", "root-3.pub", "--targets", "targets.pub", "--online", "online.pub")
    assert run(drawers, "trust", "init", "signed", *first) == 0
    sign(drawers, "root-1")
    assert "root 1 lacks 1 signature of its own keys\n" in capsys.readouterr().out


def test_a_drawer_is_lost_and_another_key_takes_its_place(drawers, bundles, ask, capsys):
    begin(drawers)
    with_targets(drawers, "publish", bundles[0].folder, "--to", "signed")
    name = f"bundles/{bundles[0].manifest.family}/{published(drawers)}"
    assert ask(name) is not None
    roots = ("root-1.pub", "root-2.pub", "root-4.pub")
    assert run(drawers, "trust", "rotate", "signed", "--root", *roots) == 0
    sign(drawers, "root-1")
    assert "lacks 1 signature of its own keys and 1 signature of the keys of root 1\n" in capsys.readouterr().out
    sign(drawers, "root-4")
    assert (
        "root 2 lacks 0 signatures of its own keys and 1 signature of the keys of root 1\n" in capsys.readouterr().out
    )
    sign(drawers, "root-2")
    assert "signed by all that it takes" in capsys.readouterr().out
    assert ask(name) is not None
    assert run(drawers, "trust", "sign", "signed", "--key", "root-1", "--passphrase-file", "words") > 0  # no draft


def test_the_server_may_sign_students_of_one_family(drawers, capsys):
    begin(drawers)
    assert with_targets(drawers, "trust", "students", "signed", "--family", "cnn-s") == 0
    capsys.readouterr()
    assert run(drawers, "trust", "show", "signed", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["students"] == ["students/cnn-s/*"]
    assert (told["version"][:1], told["root"][0]) == ("1", "2 of")
    assert run(drawers, "trust", "show", "signed") == 0
    assert "students/cnn-s/*" in capsys.readouterr().out
    assert with_targets(drawers, "trust", "students", "signed") == 0
    run(drawers, "trust", "show", "signed", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["students"] == []


def test_what_cannot_be_signed_is_not(drawers, bundles, capsys):
    assert with_targets(drawers, "publish", bundles[0].folder, "--to", "signed") > 0
    assert "no root yet" in capsys.readouterr().err
    begin(drawers)
    wrong = ("--key", "root-1", "--passphrase-file", "words")
    assert run(drawers, "publish", bundles[0].folder, "--to", "signed", *wrong) > 0
    assert "another key for targets" in capsys.readouterr().err
    (drawers / "words").write_text("other words\n")
    assert with_targets(drawers, "publish", bundles[0].folder, "--to", "signed") > 0
    assert run(drawers, "trust", "key", "root-9") > 0  # nobody to ask for a passphrase
    assert "--passphrase-file" in capsys.readouterr().err
    shutil.rmtree(drawers / "signed")
    assert run(drawers, "trust", "show", "signed") == 0
    assert "none yet" in capsys.readouterr().out
