"""Attacks by a certified device on what others write and read: forged, stolen, poisoned and hijacked messages."""

from __future__ import annotations

from collections.abc import Iterable

from fd_protocol import codec
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import Kind, Receipt, Release, Status
from tests.attacks.entry import NO_ACL
from tests.attacks.ground import (
    MALLORY,
    MARK,
    OBSERVER,
    PUPPETEER,
    TOPICS,
    VICTIM,
    WITNESS,
    Ground,
    Seen,
    Weakening,
    said,
    without,
)
from tests.attacks.raw import (
    PUBACK,
    SUBACK,
    TOPIC_ALIAS,
    HungUpError,
    publish,
    subscribe,
)
from tests.attacks.row import Attack
from tests.support.brokers import AGGREGATOR, FEDERATION

ROUND = RoundId(FEDERATION, 7, 1)
DENIED = "PUBACK 0x87"
LEAVES = ("state", "up/0", "up/7", "report", "cmd/config", "cmd/diag", "prediction", "receipt")
FLEET_WIDE = ("round", "consensus/0", "consensus/7", "probes", f"srv/{AGGREGATOR}", "srv/other", "anything")
ELSEWHERE = (
    "fd/v1/other/round",
    f"fd/v1/other/dev/{MALLORY}/state",
    f"fd/v2/{FEDERATION}/round",
    f"/fd/v1/{FEDERATION}/round",
    f"fd/v1/{FEDERATION}/round/",
    f"fd/v1/{FEDERATION}//round",
    f"fd/v1/{FEDERATION}/dev/{MALLORY}/up",
    f"fd/v1/{FEDERATION}/dev/{MALLORY}/up/0/1",
    f"fd/v1/{FEDERATION}/dev/{MALLORY}/receipt",
    f"fd/v1/{FEDERATION}/dev/{MALLORY}/../{VICTIM}/state",
    f"fd/v1/{FEDERATION}/dev//state",
    "homeassistant/sensor/x/config",
    "$SYS/broker/uptime",
    "$CONTROL/dynamic-security/v1",
)


def _forge(ground: Ground, topics: Iterable[str], payload: bytes = MARK, **how: object) -> Seen:
    """Publish to each topic, retained, over a connection each; what the observer hears of that got through."""
    ground.listen()
    answers = {ground.publish(topic, payload, retain=True, **how) for topic in topics}
    return Seen(", ".join(sorted(answers)), got_through=any(what == payload for _, what in ground.heard()))


def forged_topics_of_devices(ground: Ground) -> Seen:
    return _forge(ground, [TOPICS.device(name, leaf) for name in (VICTIM, WITNESS) for leaf in LEAVES])


def forged_topics_of_the_server(ground: Ground) -> Seen:
    return _forge(ground, [f"{TOPICS.base}/{leaf}" for leaf in FLEET_WIDE])


def topics_of_nobody(ground: Ground) -> Seen:
    return _forge(ground, ELSEWHERE)


def forged_release(ground: Ground) -> Seen:
    release = Release("mlp-s", sha256(b"trojan"), "1", package=sha256(b"trojan package"), package_bytes=1000)
    return _forge(ground, [TOPICS.release("mlp-s")], codec.encode(release))


def forged_receipt(ground: Ground) -> Seen:
    receipt = Receipt(ROUND, Kind.CONTRIBUTION, sha256(b"x"), Status.STORED)
    return _forge(ground, [TOPICS.receipt(VICTIM)], codec.encode(receipt))


def silent_forgery(ground: Ground) -> Seen:
    """MQTT 3.1.1 has no word for a refusal: the broker confirms what it throws away."""
    ground.listen()
    answers = set()
    for topic in (TOPICS.round, TOPICS.state(VICTIM), TOPICS.upload(VICTIM)):
        with ground.client(version=4) as client:
            client.send(publish(topic, MARK, retain=True, version=4))
            try:
                answers.add(f"PUBACK {client.answer(PUBACK).reason:#x}")
            except HungUpError:
                answers.add("hung up")
    return Seen(", ".join(sorted(answers)), got_through=bool(ground.marked()))


def poisoned_will(ground: Ground) -> Seen:
    """Leave a will for others' topics, and die."""
    ground.listen()
    for topic in (TOPICS.round, TOPICS.state(VICTIM), TOPICS.consensus(0), TOPICS.receipt(VICTIM), "#"):
        try:
            with ground.client(will=(topic, MARK)):
                pass  # the socket closes without DISCONNECT: the broker publishes the will, if it does
        except HungUpError:
            continue
    assert ground.is_open_to(MALLORY)  # by then it has looked at the wills
    return Seen("nothing is delivered", got_through=bool(ground.marked()))


def _steal(ground: Ground, *filters: str) -> Seen:
    """Listen while a victim and the server speak; what is heard that was not for us got through."""
    secret = b"for nobody's ears but the addressee's"
    with ground.client() as spy:
        spy.send(subscribe(*filters))
        granted = spy.answer(SUBACK).body[3:]
        for leaf in ("state", "up/0", "report", "cmd/config", "prediction"):
            ground.publish(TOPICS.device(WITNESS, leaf), secret, name=WITNESS, retain=True)
        for topic in (TOPICS.receipt(WITNESS), TOPICS.receipt(VICTIM)):
            ground.publish(topic, secret, name=PUPPETEER)
        heard = {topic for topic, payload in spy.heard() if secret in payload}
    with ground.client() as late:  # retained messages, this time
        late.send(subscribe(*filters))
        heard |= {topic for topic, payload in late.heard() if secret in payload}
    for leaf in ("state", "up/0", "report", "cmd/config", "prediction"):
        ground.publish(TOPICS.device(WITNESS, leaf), b"", name=WITNESS, retain=True)
    words = "granted, and nothing is delivered" if all(code < 3 for code in granted) else "refused"
    return Seen(words if not heard else f"{len(heard)} topics", got_through=bool(heard))


def wildcards(ground: Ground) -> Seen:
    return _steal(ground, "#", "fd/#", f"{TOPICS.base}/#", f"{TOPICS.base}/dev/+/+", "+/+/+/+/+/+", "$SYS/#")


def foreign_receipts(ground: Ground) -> Seen:
    return _steal(ground, TOPICS.receipt(WITNESS), f"{TOPICS.base}/dev/+/receipt")


def foreign_contributions(ground: Ground) -> Seen:
    return _steal(ground, TOPICS.device(WITNESS, "up/0"), f"{TOPICS.base}/dev/+/up/+")


def foreign_commands(ground: Ground) -> Seen:
    return _steal(ground, TOPICS.device(WITNESS, "cmd/config"), f"{TOPICS.base}/dev/+/cmd/+")


def shared_subscription(ground: Ground) -> Seen:
    """Join the group by which a server would share its devices' words, and have the broker throw them away."""
    base, sent = f"{TOPICS.base}/dev/+/up/+", 20
    group = f"$share/agg/{base}"
    with ground.client(PUPPETEER) as server, ground.client() as thief:
        server.send(subscribe(group if ground.is_weak else base))
        server.answer(SUBACK)
        thief.send(subscribe(group, f"$share/{AGGREGATOR}/{base}", f"$share/{OBSERVER}/fd/#"))
        thief.answer(SUBACK)
        with ground.client(WITNESS) as device:
            for number in range(sent):
                assert (
                    said(device, publish(TOPICS.upload(WITNESS), b"%d" % number, packet_id=1 + number)) == "PUBACK 0x0"
                )
        came = sum(topic == TOPICS.upload(WITNESS) for topic, _ in server.heard())
    return Seen(f"the server hears {came} of {sent}", got_through=came < sent)


def aliased_topic(ground: Ground) -> Seen:
    """Have a topic checked, and say another by its alias; and ask for more aliases than there are."""
    ground.listen()
    for number in (1, 10, 11, 65_535, 0):
        alias = bytes((TOPIC_ALIAS,)) + number.to_bytes(2, "big")
        for first in (TOPICS.round, TOPICS.report(MALLORY)):
            with ground.client() as client:
                said(client, publish(first, b"first", props=alias))
                said(client, publish(TOPICS.round, MARK, packet_id=2, props=alias))
                said(client, publish("", MARK, packet_id=3, props=alias))
    is_heard = TOPICS.round in ground.marked()
    return Seen("delivered" if is_heard else "nothing is delivered", got_through=is_heard)


def strange_topics(ground: Ground) -> Seen:
    """Topics too long, too deep, with wildcards, NUL, surrogates, or none at all."""
    ground.listen()
    deep, long = "/".join("a" * 300), "a" * 65_535
    names: tuple[str | bytes, ...] = (
        deep,
        long,
        "/" * 60_000,
        f"{TOPICS.base}/dev/{MALLORY}/up/" + "a" * 60_000,
        f"{TOPICS.base}/dev/{MALLORY}/cmd/" + "a" * 60_000,
        f"{TOPICS.base}/dev/+/state",
        f"{TOPICS.base}/#",
        f"{TOPICS.base}/dev/{MALLORY}/cmd/\0",
        b"fd/v1/\xed\xa0\x80",
        b"fd/v1/\xff\xfe",
        "",
    )
    for topic in names:
        try:
            ground.publish(topic, MARK, retain=True)
        except HungUpError:
            continue
    alive = ground.is_open_to()
    marked = ground.marked()
    return Seen(
        "refused or hung up" if alive else "the broker is gone",
        got_through=not alive or any(len(topic) > 100 for topic in marked),
    )


def hoarded_retained(ground: Ground) -> Seen:
    """Fill the broker's memory with retained messages on topics of one's own that nobody reads."""
    ground.listen()
    names = [f"up/{number}" for number in range(1, 40)] + [f"cmd/x{number}" for number in range(40)]
    kept = sum(ground.publish(TOPICS.device(MALLORY, name), MARK, retain=True) == "PUBACK 0x0" for name in names)
    return Seen(f"{kept} of {len(names)} are kept", got_through=kept > 0)


ANY_LEAF = Weakening("no `acl_file`", without("acl_file"))

ROWS = (
    Attack("forged topic of a device", "publish to each topic of two others", DENIED, forged_topics_of_devices, NO_ACL),
    Attack(
        "forged topic of the server",
        "publish an offer, a consensus, a presence",
        DENIED,
        forged_topics_of_the_server,
        NO_ACL,
    ),
    Attack("forged release", "publish a release of one's own package", DENIED, forged_release, NO_ACL),
    Attack("forged receipt", "tell the victim that its contribution is stored", DENIED, forged_receipt, NO_ACL),
    Attack(
        "topics of nobody",
        "publish beside the tree: other federations, `//`, `..`, `$SYS`",
        DENIED,
        topics_of_nobody,
        NO_ACL,
    ),
    Attack("forged by MQTT 3.1.1", "publish an offer, a birth, a contribution", "PUBACK 0x0", silent_forgery, NO_ACL),
    Attack("poisoned will", "leave wills for others' topics, and die", "nothing is delivered", poisoned_will, NO_ACL),
    Attack(
        "poisoned retained messages",
        "keep 79 messages on topics of one's own that nobody reads",
        "0 of 79 are kept",
        hoarded_retained,
        ANY_LEAF,
    ),
    Attack(
        "wildcard subscription",
        "subscribe to `#`, `fd/#`, `+/+/...`, `$SYS/#`",
        "granted, and nothing is delivered",
        wildcards,
        NO_ACL,
    ),
    Attack(
        "foreign receipts",
        "subscribe to another's receipts",
        "granted, and nothing is delivered",
        foreign_receipts,
        NO_ACL,
    ),
    Attack(
        "foreign contributions",
        "subscribe to another's soft labels",
        "granted, and nothing is delivered",
        foreign_contributions,
        NO_ACL,
    ),
    Attack(
        "foreign commands",
        "subscribe to another's commands",
        "granted, and nothing is delivered",
        foreign_commands,
        NO_ACL,
    ),
    Attack(
        "`$share` theft",
        "join any group that could be the server's",
        "the server hears 20 of 20",
        shared_subscription,
        Weakening("a server that subscribes by `$share`"),
    ),
    Attack(
        "topic alias",
        "say a forbidden topic by an alias, or one that is too high",
        "nothing is delivered",
        aliased_topic,
        Weakening(
            "no `acl_file`, `max_topic_alias 10`", without("acl_file", "max_topic_alias", more="max_topic_alias 10")
        ),
    ),
    Attack(
        "strange topics",
        "65,535 bytes, 300 levels, wildcards, NUL, half a surrogate, none",
        "refused or hung up",
        strange_topics,
        NO_ACL,
    ),
)
