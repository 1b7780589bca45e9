"""One speller of topics: what it writes it reads, and no device may write outside its own branch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import DecodeError, InvalidValueError
from fd_protocol.topics import COMMANDS, MODEL, Address, Topics, acl_lines, parse
from tests.fd_protocol.strategies import names


@given(names, names, st.integers(1, 4096))
def test_what_is_written_is_read(federation, device, shards):
    topics = Topics(federation)
    upload = parse(topics.upload(device, shards))
    assert upload == Address(federation, "up", device, upload.argument)
    assert 0 <= int(upload.argument) < shards
    assert parse(topics.state(device)) == Address(federation, "state", device)
    assert parse(topics.report(device)) == Address(federation, "report", device)
    assert parse(topics.receipt(device)) == Address(federation, "receipt", device)
    assert parse(topics.command(device, federation)) == Address(federation, "cmd", device, federation)
    assert parse(topics.round) == Address(federation, "round")
    assert parse(topics.consensus(3)) == Address(federation, "consensus", argument="3")
    assert parse(topics.server(device)) == Address(federation, "srv", argument=device)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fd",
        "fd/v1",
        "fd/v1/demo",
        "fd/v2/demo/round",
        "xx/v1/demo/round",
        "fd/v1/Demo/round",
        "fd/v1/demo/dev",
        "fd/v1/demo/dev/d1",
        "fd/v1/demo/dev//state",
        "fd/v1/demo/dev/d 1/state",
        "fd/v1/demo/dev/+/state",
        "fd/v1/demo/dev/d1/up/0/1",
        "fd/v1/demo/consensus/1/2",
        "$share/g/fd/v1/demo/round",
    ],
)
def test_a_topic_that_is_not_ours_is_refused(topic):
    with pytest.raises(DecodeError) as caught:
        parse(topic)
    assert caught.value.reason == "foreign_topic"


def test_of_a_long_topic_the_refusal_tells_the_beginning():
    for topic in ("x" * 65_000, "fd/v1/demo/dev/" + "x" * 65_000 + "/state"):
        with pytest.raises(DecodeError) as caught:
            parse(topic)
        assert len(str(caught.value)) < 200


@given(st.text(max_size=40) | st.lists(st.text(max_size=5), max_size=8).map(lambda rest: "/".join(["fd", "v1", *rest])))
def test_any_text_is_an_address_or_refused(topic):
    try:
        parse(topic)
    except DecodeError:
        return


@pytest.mark.parametrize("name", ["", "Demo", "a/b", "+", "#", "-a", "a" * 65, "é", "a\n"])
def test_a_federation_has_a_name_fit_for_a_topic(name):
    with pytest.raises(InvalidValueError):
        Topics(name)


def matches(pattern, topic):
    """MQTT's own rule for filters without `$`."""
    wanted, found = pattern.split("/"), topic.split("/")
    if wanted[-1] == "#":
        return found[: len(wanted) - 1] == wanted[:-1]
    return len(wanted) == len(found) and all(w in ("+", f) for w, f in zip(wanted, found, strict=True))


def allowed(verb, topic, device, shards=1):
    """Whether the ACL lets `device` do it: patterns only, for a `user` block is another's."""
    lines = acl_lines("demo", "main", shards=shards)
    rights = [line.split(" ", 2)[1:] for line in lines if line.startswith("pattern")]
    return any(right == verb and matches(pattern.replace("%u", device), topic) for right, pattern in rights)


def test_a_device_writes_in_its_own_branch_alone():
    mine, other = Topics("demo"), Topics("other")
    for topic in (
        mine.state("d1"),
        mine.upload("d1", 9),
        mine.report("d1"),
        mine.device("d1", "prediction"),
        *(mine.command("d1", name) for name in (*COMMANDS, MODEL)),
    ):
        assert allowed("write", topic, "d1", shards=9)
        assert not allowed("write", topic, "d2", shards=9)
        assert not allowed("read", topic, "d2", shards=9)
    for topic in (mine.round, mine.consensus(0), mine.server("main"), mine.receipt("d1"), other.state("d1")):
        assert not allowed("write", topic, "d1")


def test_a_device_may_write_to_few_topics_and_no_others():
    """A broker keeps a retained message for each."""
    lines = [line for line in acl_lines("demo", "main", shards=3) if line.startswith("pattern write")]
    assert len(lines) == 3 + 3 + len((*COMMANDS, MODEL))
    assert not any(sign in line for line in lines for sign in "+#")
    for leaf in ("up/3", "up/03", "up/x", "cmd/x", "cmd/"):
        assert not allowed("write", Topics("demo").device("d1", leaf), "d1", shards=3)


def test_a_device_reads_everything_it_subscribes_to():
    topics = Topics("demo")
    for topic in (
        topics.round,
        topics.consensus(0),
        topics.server("main"),
        topics.receipt("d1"),
        topics.command("d1", "diag"),
    ):
        assert allowed("read", topic, "d1")
        assert any(matches(pattern, topic) for pattern in topics.device_filters("d1"))
    assert not allowed("read", topics.receipt("d1"), "d2")


def test_the_server_subscribes_to_all_that_devices_say_and_never_shares():
    topics = Topics("demo")
    for topic in (topics.state("d1"), topics.upload("d1", 9), topics.report("d1"), topics.command("d1", "diag")):
        assert any(matches(pattern, topic) for pattern in topics.server_filters())
    assert "$share" not in " ".join([*acl_lines("demo", "main"), *topics.server_filters()])
