"""What a device may believe: each attack that TUF is made against, by real documents over real HTTP."""

import json
import shutil
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from tuf.api.metadata import Metadata

from fd_protocol.targets import InvalidTargetError, TargetFacts, target_name
from fd_runtime.tuf import root as tuf_root
from fd_runtime.tuf import targets as tuf_targets
from fd_runtime.tuf.client import UnreachableError, UntrustedError
from fd_runtime.tuf.documents import TrustError
from fd_runtime.tuf.online import OnlineTrust
from fd_runtime.tuf.root import Changes
from fd_runtime.tuf.signing_keys import SigningKeyError, is_locked, load_public, load_signer, make_key
from fd_runtime.tuf.targets import to_tuf
from tests.support.trust import DAY, FACTS, NOW, Dripping, Trust, serving

PACKAGE = b"package" * 1000
OTHER = b"another package"


@pytest.fixture
def trust(tmp_path):
    made = Trust(tmp_path / "owner")
    made.target = made.add(PACKAGE)
    made.deliver()
    return made


@pytest.fixture
def url(trust):
    with serving(trust.web) as address:
        yield address


@pytest.fixture
def ask(trust, url, tmp_path):
    """Look for a name as a device does, with what it kept of the last time."""

    def ask(name=None, *, device="device", **terms):
        client = trust.client(tmp_path / device, url, **terms)
        ask.traffic = client.traffic
        client.refresh()
        return client.find([name or trust.target.name])

    return ask


def keep(trust):
    """Return what the server gives now, to be given again later."""
    return {path.name: path.read_bytes() for path in trust.documents.iterdir()}


def give(trust, documents, *names):
    for name in names or documents:
        (trust.documents / name).write_bytes(documents[name])


# What is vouched for.


def test_what_the_workstation_signed_is_found_with_all_that_it_says(trust, ask):
    found = ask()
    assert (found.name, found.package_bytes, found.facts) == (trust.target.name, len(PACKAGE), FACTS)
    assert (trust.blobs / found.package).read_bytes() == PACKAGE


def test_what_nobody_signed_is_not_found(ask):
    assert ask(target_name("bundles", "mlp-s", "0" * 64)) is None


def test_what_is_retired_is_found_no_more(trust, ask):
    assert ask() is not None
    tuf_targets.retire(trust.signed, trust.signer("targets"), FACTS.bundle, now_s=NOW)
    trust.deliver()
    assert ask() is None
    with pytest.raises(TrustError, match="no package"):
        tuf_targets.retire(trust.signed, trust.signer("targets"), FACTS.bundle, now_s=NOW)


def test_when_nothing_is_new_a_poll_is_a_few_hundred_bytes(trust, ask):
    ask()
    trust.online.tend(NOW + 2 * DAY)
    ask()
    assert set(ask.traffic.sizes) == {"timestamp.json"}
    assert ask.traffic.sizes["timestamp.json"] <= 400


def test_facts_of_later_versions_are_passed_over_and_missing_ones_are_not(trust):
    plain = FACTS.to_plain()
    assert TargetFacts.from_plain({**plain, "colour": "red"}) == FACTS
    for wrong in ({**plain, "opset": 0}, {key: plain[key] for key in plain if key != "golden"}, None, "x"):
        with pytest.raises(InvalidTargetError):
            TargetFacts.from_plain(wrong)


# Attacks.


def test_rollback_of_the_timestamp(trust, ask):
    old = keep(trust)
    trust.add(OTHER)
    trust.deliver()
    assert ask() is not None
    give(trust, old, "timestamp.json")
    with pytest.raises(UntrustedError, match="version"):
        ask()


def test_rollback_of_targets_by_whoever_holds_the_servers_key(trust, ask, tmp_path):
    old = keep(trust)
    trust.add(OTHER)
    trust.deliver()
    assert ask() is not None
    stolen = tmp_path / "stolen" / "v1" / "tuf"
    stolen.mkdir(parents=True)
    for name in ("1.root.json", "2.targets.json"):
        (stolen / name).write_bytes(old[name])
    for name in ("timestamp.json", f"{max_version(trust, 'snapshot')}.snapshot.json"):
        (stolen / name).write_bytes((trust.documents / name).read_bytes())
    OnlineTrust(stolen, trust.blobs, trust.signer("online")).tend(NOW + DAY)  # properly signed, with the old targets
    for path in stolen.iterdir():
        shutil.copy(path, trust.documents)
    with pytest.raises(UntrustedError, match="version"):
        ask()


def max_version(trust, role):
    return max(int(path.name.partition(".")[0]) for path in trust.documents.glob(f"*.{role}.json"))


def test_freeze(trust, ask):
    ask()
    trust.online.tend(NOW - 60 * DAY)  # the last word that the attacker lets through is from then
    document = Metadata.from_file(str(trust.documents / "timestamp.json"))
    document.signed.version += 1
    document.signed.expires = document.signed.expires.replace(year=2020)
    document.sign(trust.signer("online"))
    document.to_file(str(trust.documents / "timestamp.json"))
    with pytest.raises(UntrustedError, match="xpired"):
        ask()


def test_mix_and_match(trust, ask):
    """Targets of one state beside the snapshot of another."""
    old = keep(trust)
    trust.add(OTHER)
    trust.deliver()
    newest = max_version(trust, "targets")
    (trust.documents / f"{newest}.targets.json").write_bytes(old[f"{newest - 1}.targets.json"])
    with pytest.raises(UntrustedError):
        ask()


def test_targets_altered_without_the_key(trust, ask):
    path = trust.documents / f"{max_version(trust, 'targets')}.targets.json"
    path.write_bytes(path.read_bytes().replace(b'"opset":18', b'"opset":19'))
    with pytest.raises(UntrustedError, match="signed"):
        ask()


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_document_signed_by_a_key_of_another_role(trust, ask, role):
    wrong = "root-1" if role != "targets" else "online"
    path = (
        trust.documents / f"{max_version(trust, role)}.{role}.json"
        if role != "timestamp"
        else trust.documents / "timestamp.json"
    )
    document = Metadata.from_file(str(path))
    document.sign(trust.signer(wrong))
    document.to_file(str(path))
    with pytest.raises(UntrustedError, match="signed"):
        ask()


def test_endless_data(trust, ask):
    with (trust.documents / "timestamp.json").open("ab") as file:
        file.write(b" " * 10_000_000)
    with pytest.raises(UnreachableError):
        ask()
    assert ask.traffic.body_bytes < 100_000


def test_slow_retrieval_ends_when_patience_does(trust, tmp_path):
    with Dripping() as (address, given):
        began_s = time.monotonic()
        with pytest.raises(UnreachableError):
            trust.client(tmp_path / "device", address, patience_s=1.0).refresh()
        assert given  # it did begin to answer
        assert time.monotonic() - began_s < 30.0  # the connection alone would live for ever


def test_what_was_believed_stands_after_an_attack(trust, ask):
    assert ask() is not None
    good = keep(trust)
    (trust.documents / "timestamp.json").write_bytes(b"{}")
    with pytest.raises(UntrustedError):
        ask()
    give(trust, good)
    assert ask() is not None


# Students.


def test_the_servers_key_vouches_for_its_students(trust, ask):
    target = trust.online.vouch(b"student", replace(FACTS, version="2.r1"), NOW, beside=())
    assert target.name.startswith("students/mlp-s/")
    assert ask(target.name).facts.version == "2.r1"
    assert trust.online.vouch(b"student", replace(FACTS, version="2.r1"), NOW, beside=()) == target


def test_of_its_students_the_server_vouches_for_those_that_are_remembered(trust):
    first = trust.online.vouch(b"1", FACTS, NOW, beside=())
    second = trust.online.vouch(b"2", FACTS, NOW, beside=[first.package])
    third = trust.online.vouch(b"3", FACTS, NOW, beside=[second.package])
    assert {one.name for one in trust.online.listed()} == {trust.target.name, second.name, third.name}


def test_the_servers_key_cannot_sign_a_bundle_of_the_workstation(trust, ask):
    """Whoever stole it writes another name into what it may sign: nobody asks the role for that name."""
    forged = tuf_targets.target_of("bundles", b"forged", FACTS)
    students = Metadata.from_file(str(trust.documents / f"{max_version(trust, 'students')}.students.json"))
    students.signed.targets[forged.name] = to_tuf(forged, b"forged")
    students.sign(trust.signer("online"))
    students.to_file(str(trust.documents / f"{students.signed.version}.students.json"))
    assert ask() is not None
    assert ask(forged.name) is None


def test_the_servers_key_cannot_sign_for_another_family(trust):
    with pytest.raises(TrustError, match="may not sign"):
        trust.online.vouch(b"student", replace(FACTS, family="cnn-m"), NOW, beside=())


def test_a_server_that_may_sign_no_students_signs_none(trust):
    tuf_targets.renew(trust.signed, trust.signer("targets"), students="", now_s=NOW)
    trust.deliver()
    with pytest.raises(TrustError, match="may not sign"):
        trust.online.vouch(b"student", FACTS, NOW, beside=())


# Rotation.


def rotate(trust, number, *, signed_by):
    """The next root has a new third key, and is signed by these."""
    make_key(trust.keys / f"root-{number}")
    roots = [trust.public("root-1"), trust.public("root-2"), trust.public(f"root-{number}")]
    tuf_root.draft(trust.signed, Changes(roots=roots), NOW)
    return trust.sign(*signed_by)


def test_a_device_follows_several_rotations_that_it_has_slept_through(trust, ask):
    assert ask() is not None
    for number in (4, 5, 6, 7):
        assert rotate(trust, number, signed_by=("root-1", f"root-{number}", "root-2")).is_whole
    make_key(trust.keys / "targets-2")
    tuf_root.draft(trust.signed, Changes(targets=trust.public("targets-2")), NOW)
    trust.sign("root-2", "root-7")
    tuf_targets.add(trust.signed, trust.signer("targets-2"), PACKAGE, FACTS, now_s=NOW)
    assert trust.deliver().root == 6
    assert ask() is not None
    assert ask(device="a new one, born with the first root") is not None


def test_one_of_three_is_not_enough(trust):
    standing = rotate(trust, 4, signed_by=("root-1",))
    assert (standing.missing_old, standing.missing_new) == (1, 1)
    assert not (trust.signed / "2.root.json").exists()


def test_the_keys_of_the_new_root_alone_make_no_root(trust):
    for name in ("thief-1", "thief-2"):
        make_key(trust.keys / name)
    thieves = [trust.public("thief-1"), trust.public("thief-2")]
    tuf_root.draft(trust.signed, Changes(roots=thieves), NOW)
    standing = trust.sign("thief-1", "thief-2")
    assert (standing.missing_old, standing.missing_new) == (2, 0)
    with pytest.raises(TrustError, match="none of the root's"):
        trust.sign("online")


def test_a_device_refuses_a_root_that_too_few_have_signed(trust, ask):
    make_key(trust.keys / "thief")
    document = Metadata.from_file(str(trust.documents / "1.root.json"))
    document.signed.version = 2
    document.signatures.clear()
    document.sign(trust.signer("root-1"))
    document.to_file(str(trust.documents / "2.root.json"))
    with pytest.raises(UntrustedError, match="signed"):
        ask()


def test_a_revoked_key_of_targets_vouches_for_nothing(trust, ask):
    ask()
    make_key(trust.keys / "targets-2")
    tuf_root.draft(trust.signed, Changes(targets=trust.public("targets-2")), NOW)
    trust.sign("root-1", "root-2")
    shutil.copy(trust.signed / "2.root.json", trust.documents)
    with pytest.raises(UntrustedError, match="signed"):
        ask(device="new")
    with pytest.raises(TrustError, match="another key"):
        tuf_targets.renew(trust.signed, trust.signer("targets"), now_s=NOW)
    tuf_targets.renew(trust.signed, trust.signer("targets-2"), now_s=NOW)
    trust.deliver()
    assert ask(device="new") is not None


def test_the_servers_key_is_replaced(trust, ask):
    student = trust.online.vouch(b"student", FACTS, NOW, beside=())
    assert ask(student.name) is not None
    make_key(trust.keys / "online-2")
    tuf_root.draft(trust.signed, Changes(online=trust.public("online-2")), NOW)
    trust.sign("root-1", "root-2")
    tuf_targets.renew(trust.signed, trust.signer("targets"), now_s=NOW)
    with pytest.raises(TrustError, match="this server's key"):
        trust.deliver()
    OnlineTrust(trust.documents, trust.blobs, trust.signer("online-2")).take_in(trust.signed, NOW)
    assert ask(student.name) is not None
    assert ask(student.name, device="new") is not None


# The server's part.


def test_a_delivery_that_lacks_a_package_changes_nothing(trust):
    before = keep(trust)
    target = trust.add(OTHER)
    (trust.signed / "blobs" / target.package).unlink()
    with pytest.raises(TrustError, match="No such file"):
        trust.deliver()
    (trust.signed / "blobs" / target.package).write_bytes(OTHER[:-1])
    with pytest.raises(TrustError):
        trust.deliver()
    assert keep(trust) == before


def test_an_older_delivery_and_one_past_its_time_are_refused(trust, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(trust.signed, old)
    trust.add(OTHER)
    trust.deliver()
    with pytest.raises(TrustError, match="already"):
        trust.online.take_in(old, NOW)
    trust.add(b"third", now_s=NOW - 500 * DAY)
    with pytest.raises(TrustError, match="past their time"):
        trust.deliver()


def test_a_delivery_by_somebody_else_is_refused(trust, tmp_path):
    other = Trust(tmp_path / "other")
    other.add(OTHER)
    for name in ("1.root.json",):
        shutil.copy(trust.signed / name, other.signed)
    with pytest.raises(TrustError):
        trust.online.take_in(other.signed, NOW)


def test_the_server_signs_again_long_before_the_end(trust, ask):
    ask()
    assert not trust.online.tend(NOW + 3600)
    versions = set()
    for day in range(200):
        trust.online.tend(NOW + day * DAY)
        stamp = Metadata.from_file(str(trust.documents / "timestamp.json")).signed
        snapshot = Metadata.from_file(str(trust.documents / f"{max_version(trust, 'snapshot')}.snapshot.json")).signed
        students = Metadata.from_file(str(trust.documents / f"{max_version(trust, 'students')}.students.json")).signed
        for document in (stamp, snapshot, students):
            assert document.expires.timestamp() > NOW + (day + 7) * DAY
        versions.add(stamp.version)
    assert len(versions) >= 199
    assert len(list(trust.documents.glob("*.snapshot.json"))) <= 4


def ends(trust):
    """When what the server's key signs ends, and when the timestamp says that it was signed."""
    stamp = Metadata.from_file(str(trust.documents / "timestamp.json")).signed
    others = [
        Metadata.from_file(str(trust.documents / f"{max_version(trust, role)}.{role}.json")).signed
        for role in ("snapshot", "students")
    ]
    return [one.expires.timestamp() for one in (stamp, *others)], stamp.unrecognized_fields["at"]


@pytest.mark.parametrize("years", [1, 10])
def test_what_was_signed_by_a_clock_ahead_is_signed_again_once_it_is_right(trust, years):
    trust.online.tend(NOW + years * 365 * DAY)
    assert trust.online.tend(NOW)
    (stamp_s, *others_s), at_s = ends(trust)
    assert at_s <= NOW
    assert stamp_s <= NOW + 14 * DAY
    assert max(others_s) <= NOW + 60 * DAY
    assert not trust.online.tend(NOW + 1)


@pytest.mark.parametrize("field", ["at", "expires"])
def test_a_word_that_is_ahead_in_one_thing_alone_is_signed_again(trust, field):
    path = trust.documents / "timestamp.json"
    document = Metadata.from_file(str(path))
    if field == "at":
        document.signed.unrecognized_fields["at"] += 10 * DAY
    else:
        document.signed.expires += timedelta(days=10)
    document.sign(trust.signer("online"))
    document.to_file(str(path))
    assert trust.online.tend(NOW)
    (stamp_s, *_), at_s = ends(trust)
    assert (at_s, stamp_s) == (int(NOW), int(NOW) + 14 * DAY)


def test_a_word_that_is_hardly_ahead_stands(trust):
    assert trust.online.tend(NOW + 2 * DAY)
    assert not trust.online.tend(NOW + 2 * DAY - 1800)


def test_a_server_whose_clock_says_1970_takes_no_word_back(trust):
    before = keep(trust)
    assert not trust.online.tend(DAY)
    assert keep(trust) == before


def test_a_server_without_a_delivery_signs_nothing(trust, tmp_path):
    empty = OnlineTrust(tmp_path / "a" / "b" / "c" / "tuf", tmp_path / "blobs", trust.signer("online"))
    assert not empty.tend(NOW)
    assert not empty.has_begun


# Keys.


def test_a_key_lies_under_a_passphrase_and_is_never_written_over(tmp_path):
    made = make_key(tmp_path / "key", b"words")
    assert is_locked(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert load_signer(tmp_path / "key", b"words").public_key.keyid == made.keyid
    assert load_public(tmp_path / "key.pub").keyid == made.keyid
    for passphrase in (b"", b"other words"):
        with pytest.raises(SigningKeyError):
            load_signer(tmp_path / "key", passphrase)
    with pytest.raises(FileExistsError):
        make_key(tmp_path / "key")
    (tmp_path / "text.pub").write_text("no key")
    with pytest.raises(SigningKeyError):
        load_public(tmp_path / "text.pub")


def test_documents_are_plain_json_that_other_tools_of_tuf_read(trust):
    said = json.loads((trust.documents / "timestamp.json").read_bytes())
    assert said["signed"]["_type"] == "timestamp"
    assert said["signed"]["spec_version"].startswith("1.0")
