"""From a situation to what a person should do, one question a function."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from broker_server.core.coverage import WARN_UNCOVERED
from broker_server.settings import RoundSettings
from edge_agent.learning.clustering import MIN_ROWS
from fd_protocol.terms import MAX_CELLS
from fleet_sim.advice import measured
from fleet_sim.advice.situation import Situation
from fleet_sim.baselines.weight_codec import WeightCodec
from model_export.probes_check import Verdict

_NAMED = 10


def server_alone(of: Situation) -> Iterator[Verdict]:
    """Does anybody need the devices?"""
    labels, held = of.plan.server_labels, of.counts.sum(axis=0) > 0
    if of.server_has(measured.ALONE_LABELS):
        finding = f"the server has {min(labels)} or more labels of every class: alone with the probes it may win"
        remedy = "`fleet-sim compare` with server-only before any device is flashed"
        yield Verdict(f"{finding} ({measured.EVIDENCE_ALONE})", remedy, is_warning=True)
    elif labels and (lacking := np.flatnonzero((np.array(labels) == 0) & held)).size:
        finding = f"only devices know class {_named(of, lacking)}: the server alone cannot learn it"
        yield Verdict(f"{finding} ({measured.EVIDENCE_NEW})")
    else:
        finding = f"the server has fewer than {measured.ALONE_LABELS} labels of some class: devices know more"
        yield Verdict(f"{finding}, but compare with server-only all the same")


def averaging(of: Situation) -> Iterator[Verdict]:
    """Would averaging weights be simpler, shorter, better?"""
    if len(of.models) > 1:
        yield Verdict(f"{len(of.models)} architectures: weights cannot be averaged, labels can")
        return
    form, size, link = affordable(of), of.models[0].whole, of.plan.link
    times = averaging_bytes(size, "int4") / label_bytes(of)
    cost = f"one architecture: in 4 bits its {size:,} weights cost {times:.1f} times the bytes of labels"
    if form is not None:
        finding = f"{cost}, {form} is affordable; averaging may be simpler and better ({measured.EVIDENCE_WHOLE})"
        yield Verdict(finding, "`fleet-sim compare` with fedavg/whole", is_warning=True)
    elif link.is_counted:
        yield Verdict(f"{cost}, which the link does not bear")
    else:
        yield Verdict(cost, f"say what the link bears: where it bears weights, compare ({measured.EVIDENCE_WHOLE})")


def label_bytes(of: Situation) -> float:
    """Return what a device sends and hears a round."""
    return of.coding.mean_bytes(of.plan.rounds) + of.down_bytes


def averaging_bytes(parameters: int, form: WeightCodec) -> float:
    """Return what FedAvg sends and hears of so many parameters a round."""
    return parameters * (measured.FEDAVG_UP[form] + measured.FEDAVG_DOWN[form])


def affordable(of: Situation) -> WeightCodec | None:
    """Return the truest form in which whole models can be averaged; None = none, or there are several architectures.

    Where nobody counts what the link bears, 4 bits are affordable if they cost no more than labels.
    """
    if len(of.models) > 1:
        return None
    link, size = of.plan.link, of.models[0].whole
    if not link.is_counted:
        return "int4" if averaging_bytes(size, "int4") <= label_bytes(of) else None
    fitting = (
        form
        for form, rate in measured.FEDAVG_UP.items()
        if size * rate <= link.up_bytes and size * measured.FEDAVG_DOWN[form] <= link.down_bytes
    )
    return next(fitting, None)


def skew(of: Situation) -> Iterator[Verdict]:
    """How unlike are the devices?"""
    found = (
        f"a device's classes differ from all devices' by {of.skew.total_variation:.2f} (total variation; chance alone "
        f"{of.chance:.2f}), it holds {of.skew.effective_classes:.1f} of {len(of.names)} classes"
    )
    if of.is_homogeneous:
        remedy = "with very homogeneous data standard FL might be simpler; competence adds nothing to the mean"
        yield Verdict(f"homogeneous: {found} ({measured.EVIDENCE_EQUAL})", remedy, is_warning=len(of.models) == 1)
    elif of.is_skewed:
        yield Verdict(f"strongly skewed: {found}")
    else:
        yield Verdict(f"mildly skewed: {found}", "any rule will do; the schedule matters more")


def rule_for(of: Situation) -> str:
    """Return the rule to begin with."""
    if of.plan.epsilon is not None or of.is_homogeneous or of.is_mostly_mapless:
        return "mean-probabilities"
    return "competence" if of.plan.is_trusted or of.has_canaries else "mean-probabilities"


def rule(of: Situation) -> Iterator[Verdict]:
    """Which rule, and why?"""
    name = rule_for(of)
    if of.plan.epsilon is not None:
        finding = f"competence maps read private data outside of the privacy budget ({measured.EVIDENCE_DP})"
        yield Verdict(f"rule {name}: {finding}", "no sample sizes and no private metrics in reports, either")
    elif of.is_homogeneous:
        yield Verdict(f"rule {name}: nobody knows more of a probe than others")
    elif of.is_mostly_mapless:
        yield Verdict(f"rule {name}: most devices have no competence map (fewer than {MIN_ROWS} rows)")
    elif of.plan.is_trusted:
        yield Verdict(f"rule {name}, clip_rank 2: who has data near a probe is heard ({measured.EVIDENCE_SKEW})")
    elif of.has_canaries:
        yield Verdict(f"rule {name}, clip_rank 1 + liars assumed, with canaries ({measured.EVIDENCE_LIAR})")
    else:
        finding = f"rule {name}: without canaries one liar outweighs all by claiming competence"
        remedy = f"label {measured.CANARY_LABELS} probes of every class, and take competence"
        yield Verdict(f"{finding} ({measured.EVIDENCE_LIAR})", remedy, is_warning=True)


def codec(of: Situation) -> Iterator[Verdict]:
    """Which codec, and does the link bear it?"""
    chosen, link = of.coding, of.plan.link
    known = f"{chosen.first_bytes:,} B at first, {chosen.later_bytes:,} B later"
    if chosen.first_bytes <= link.up_bytes:
        losses = f"{chosen.loss_nats:.1e} nats a row lost, {chosen.kept:.1%} of likeliest classes kept"
        yield Verdict(f"codec {chosen.codec.value}: {known} ({losses})")
    else:
        yield Verdict(f"even {chosen.codec.value} takes {known}", "fewer probes a round, or fewer rounds a day", True)
    if of.down_bytes > link.down_bytes:
        fitting = int(of.probes * link.down_bytes / of.down_bytes)
        finding = f"a consensus is {of.down_bytes:,} B, the link bears {link.down_bytes:,.0f} B a round"
        yield Verdict(finding, f"at most {fitting} probes a round (rounds.probes)", is_warning=True)
    if of.probes * len(of.names) > MAX_CELLS or chosen.first_bytes > RoundSettings().byte_budget:
        finding = f"{of.probes} probes of {len(of.names)} classes are beyond the protocol's or the default's limits"
        yield Verdict(finding, "fewer probes a round (rounds.probes), or a larger rounds.byte_budget", is_warning=True)


def devices(of: Situation) -> Iterator[Verdict]:
    """Does everybody have what it takes?"""
    if of.mapless or of.skew.empty:
        finding = (
            f"{of.mapless} of {len(of.counts)} devices have fewer than {MIN_ROWS} rows, {of.skew.empty} none at all"
        )
        yield Verdict(f"{finding}: they claim competence nowhere and learn from the others")
    known = of.counts.sum(axis=0) + np.array(of.plan.server_labels or (0,))
    if (unknown := np.flatnonzero(known == 0)).size:
        yield Verdict(f"nobody holds class {_named(of, unknown)}: no method can teach it", is_warning=True)
    single = np.flatnonzero((of.counts > 0).sum(axis=0) == 1)
    if single.size and len(of.counts) > 1:
        finding = f"one device alone holds class {_named(of, single)}: while it is absent nobody teaches it"
        yield Verdict(finding, "keep method.absence on, so that its last words count")


def probes(of: Situation) -> Iterator[Verdict]:
    """Are they the right ones? Few samples leave more probes uncovered than all rows will: alone that is no warning."""
    if of.check is None:
        yield Verdict("the probes were not checked", "name public_set, bundles and samples of private data")
        return
    yield from of.check.verdicts()
    if of.check.is_out_of_domain:
        yield Verdict(measured.EVIDENCE_DOMAIN, "no federation before the probes are right", is_warning=True)
    if of.guard is not None:
        share = of.guard.uncovered
        finding = f"were the samples all rows, the server would report {share:.1%} of probes far from every device"
        yield Verdict(
            f"{finding} (it warns above {WARN_UNCOVERED:.0%})",
            is_warning=of.check.is_out_of_domain and share > WARN_UNCOVERED,
        )


def _named(of: Situation, classes: npt.NDArray[np.intp]) -> str:
    named = ", ".join(of.names[place] for place in classes[:_NAMED].tolist())
    return named if len(classes) <= _NAMED else f"{named} and {len(classes) - _NAMED} more"


QUESTIONS = (server_alone, averaging, skew, probes, rule, codec, devices)
"""In the order in which they decide."""
