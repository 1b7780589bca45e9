"""Hypothesis strategies: any valid value of the protocol."""

import string

from hypothesis import strategies as st

from fd_protocol.identity import RoundId
from fd_protocol.messages import (
    MAX_PARTS,
    Codec,
    Command,
    CommandState,
    CompetenceMap,
    ConsensusBlock,
    Contribution,
    DeviceState,
    Kind,
    Part,
    Prediction,
    PrivacyTerms,
    ProbeNotice,
    PublicSetRef,
    Receipt,
    Release,
    RoundOffer,
    RoundReport,
    Sampling,
    ServerState,
    Slice,
    StagedRelease,
    Status,
    TrainingTerms,
)

digests = st.binary(min_size=32, max_size=32)
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
lines = st.text(alphabet=string.digits + string.ascii_letters + string.punctuation + " é漢", max_size=40)
bodies = st.binary(min_size=1, max_size=200)
temperatures = st.floats(0.1, 100.0)
counters = st.integers(0, 2**63 - 1)
round_ids = st.builds(RoundId, names, counters, st.integers(0, 2**31 - 1))


@st.composite
def slices(draw):
    classes = draw(st.integers(2, 256))
    count = draw(st.integers(1, 2**16))
    return Slice(draw(digests), draw(st.integers(0, 2**20 - count)), count, classes)


@st.composite
def codings(draw, classes, codecs=tuple(Codec)):
    """A codec and the `top_k` that goes with it."""
    codec = draw(st.sampled_from(codecs))
    return codec, draw(st.integers(1, classes - 1)) if codec.names_k else 0


terms = st.builds(
    TrainingTerms,
    st.integers(1, 1000),
    st.floats(0, 10, exclude_min=True),
    st.floats(0, 1000),
    st.integers(0, 1000),
)


privacies = st.builds(
    PrivacyTerms,
    st.floats(0, 1000),
    st.floats(0, 1e-3, exclude_min=True),
    st.integers(1, 100_000),
    st.floats(0, 1, exclude_min=True),
    st.floats(0, 1e6, exclude_min=True),
    st.floats(0, 10, exclude_min=True),
    st.integers(1, 2**31 - 1),
)


@st.composite
def offers(draw):
    probes = draw(slices())
    codec, top_k = draw(codings(probes.classes))
    return RoundOffer(
        round=draw(round_ids),
        remaining_s=draw(st.integers(1, 366 * 86_400)),
        deadline_utc_s=draw(st.integers(0, 2**40 - 1)),
        quorum=draw(st.integers(1, 2**31 - 1)),
        sampling=Sampling(draw(st.binary(min_size=16, max_size=16)), draw(st.floats(0, 1, exclude_min=True))),
        method=draw(names),
        temperature=draw(temperatures),
        codec=codec,
        slice=probes,
        task=draw(digests),
        byte_budget=draw(st.integers(1, 4 << 20)),
        training=draw(terms),
        privacy=draw(privacies),
        top_k=top_k,
        shards=draw(st.integers(1, 4096)),
        competence=draw(st.booleans()),
        bundles=tuple(draw(st.lists(digests, max_size=3))),
        devices=tuple(draw(st.lists(names, max_size=3))),
    )


@st.composite
def parts(draw):
    body = draw(bodies)
    count = draw(st.integers(1, MAX_PARTS))
    total = len(body) if count == 1 else draw(st.integers(count, 4 << 20))
    kind = draw(st.sampled_from(Kind))
    return Part(draw(round_ids), kind, draw(digests), total, body, draw(st.integers(0, count - 1)), count)


@st.composite
def contributions(draw):
    probes = draw(slices())
    codec, top_k = draw(codings(probes.classes))
    return Contribution(probes, draw(temperatures), codec, draw(bodies), draw(st.just(b"") | digests), top_k)


@st.composite
def receipts(draw):
    status = draw(st.sampled_from(Status))
    reason = draw(lines.filter(bool)) if status is Status.REFUSED else ""
    missing = sorted(draw(st.sets(st.integers(0, MAX_PARTS - 1), min_size=1))) if status is Status.MISSING else ()
    return Receipt(draw(round_ids), draw(st.sampled_from(Kind)), draw(digests), status, reason, tuple(missing))


@st.composite
def blocks(draw):
    probes = draw(slices())
    codec, _ = draw(codings(probes.classes, (Codec.F16, Codec.U8_SQRT, Codec.U4_SQRT, Codec.TOP_1)))
    count = draw(st.integers(1, MAX_PARTS))
    clusters = draw(st.just([]) | st.lists(bodies, min_size=2, max_size=16))
    return ConsensusBlock(
        draw(round_ids),
        draw(digests),
        draw(st.integers(0, count - 1)),
        count,
        probes,
        draw(temperatures),
        codec,
        draw(bodies),
        draw(st.sampled_from([(), (4096,) * probes.count])) if probes.count < 100 else (),
        tuple(clusters),
        draw(digests) if clusters else b"",
    )


staged = st.builds(
    StagedRelease,
    digests,
    lines,
    digests,
    st.integers(1, 2**39),
    st.just(b"") | digests,
    st.floats(0.0, 1.0),
    st.lists(st.binary(min_size=8, max_size=8), max_size=3).map(tuple),
)
references = st.builds(PublicSetRef, digests, st.integers(1, 2**20), st.integers(0, 2**40 - 1))


@st.composite
def commands(draw):
    state = draw(st.sampled_from(CommandState))
    table = st.dictionaries(lines.filter(bool), lines, max_size=4)
    return Command(
        draw(names),
        draw(names),
        state,
        draw(st.integers(1, 2**40 - 1)),
        draw(table),
        draw(st.just("") | names) if state is CommandState.EXECUTING else "",
        draw(lines.filter(bool)) if state is CommandState.FAILED else "",
        draw(table) if state.has_ended else {},
    )


messages = st.one_of(
    commands(),
    offers(),
    parts(),
    contributions(),
    receipts(),
    blocks(),
    st.builds(CompetenceMap, digests, st.integers(1, 2**20), bodies, counters),
    st.builds(
        DeviceState,
        counters,
        st.booleans(),
        lines,
        st.just(b"") | digests,
        st.just(b"") | digests,
        st.just("") | names,
        lines,
        st.lists(lines, max_size=5).map(tuple),
        lines,
        st.lists(digests, max_size=8).map(tuple),
    ),
    st.builds(ProbeNotice, references, st.lists(references, max_size=7).map(tuple)),
    st.builds(ServerState, st.booleans(), counters, lines),
    st.builds(Release, names, digests, lines, st.just(b"") | digests, digests, st.integers(1, 2**39), st.booleans()),
    st.builds(Release, names, digests, lines),
    st.builds(Release, names, digests, lines, staged=staged),
    st.builds(Prediction, lines.filter(bool), lines.filter(bool), st.floats(0, 1)),
    st.builds(
        RoundReport,
        round_ids,
        digests,
        st.booleans(),
        lines,
        st.dictionaries(lines, st.floats(allow_nan=False, allow_infinity=False), max_size=5),
    ),
)
