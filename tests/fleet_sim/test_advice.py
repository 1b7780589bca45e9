"""Advice on a fleet that is only planned: what can be computed is exact, what was measured stands in a table."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from broker_server.core.coverage import WARN_UNCOVERED
from fd_protocol import codec
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import RoundId
from fd_protocol.messages import Codec, Contribution, Kind, Slice
from fd_protocol.parts import split
from fd_protocol.payload import encode_body, quantise
from fd_runtime.config import ConfigError
from fleet_sim.advice import FleetPlan, Link, ModelSize, advise, measured, read_plan
from fleet_sim.advice.plan import counts_of
from fleet_sim.advice.situation import chance_of, skew_of
from fleet_sim.advice.verdicts import affordable
from fleet_sim.advice.wire import (
    break_even_probes,
    break_even_rounds,
    codings,
    consensus_bytes,
    contribution_bytes,
    map_bytes,
    representative_labels,
)
from fleet_sim.comparison.comparing import METHODS
from fleet_sim.factory import equip
from fleet_sim.scenario import ModelTerms
from fleet_sim.worlds import digits
from model_export.samples import DataError

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
BENCHMARKS = PAGE.split("<!-- begin comparison on label-skew -->")[0]  # its rows have the same names

EVEN = ((30, 30, 30),) * 4
APART = ((90, 0, 0), (0, 90, 0), (0, 0, 90), (0, 0, 90))
TINY, SMALL, LARGE = ModelSize(650, 1210), ModelSize(3610, 81_674), ModelSize(40_000, 25_000_000)
PLAN = FleetPlan(probes=1000, class_counts=APART, models=(SMALL, LARGE))


def warnings(plan):
    return [str(verdict) for verdict in advise(plan).verdicts if verdict.is_warning]


def said(plan):
    return "\n".join(map(str, advise(plan).verdicts))


def planned(folder, text):
    (folder / "fleet.toml").write_text(text)
    return read_plan(folder / "fleet.toml")


# Skew.


def test_equal_devices_have_no_skew_and_every_class():
    skew = skew_of(np.array(EVEN))
    assert skew.total_variation == 0
    assert skew.effective_classes == pytest.approx(3)


def test_devices_of_one_class_each_differ_by_all_the_others():
    skew = skew_of(np.array(APART))
    assert skew.total_variation == pytest.approx((0.75 + 0.75 + 0.5 + 0.5) / 4)
    assert skew.effective_classes == pytest.approx(1)


def test_a_device_without_rows_counts_as_empty():
    assert skew_of(np.array([[0, 0], [5, 5], [0, 0]])).empty == 2


def test_what_chance_alone_gives_is_what_random_devices_have():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(50, [0.5, 0.3, 0.2], size=2000)
    assert chance_of(counts) == pytest.approx(skew_of(counts).total_variation, rel=0.02)


def test_devices_of_one_row_are_wholly_unlike_by_chance():
    assert chance_of(np.eye(4, dtype=np.int64)) == pytest.approx(skew_of(np.eye(4, dtype=np.int64)).total_variation)


def test_random_devices_are_homogeneous_however_few_rows_they_have():
    counts = np.random.default_rng(1).multinomial(8, np.full(10, 0.1), size=300)
    situation = advise(replace(PLAN, class_counts=tuple(map(tuple, counts.tolist())))).situation
    assert situation.skew.total_variation > measured.SKEWED_TV - 0.1
    assert situation.is_homogeneous


# Bytes.


def test_bytes_are_those_of_the_packets_that_a_device_sends():
    base, now = (quantise(labels, Codec.U4_SQRT) for labels in representative_labels(70, 5))
    for known in (None, base):
        body = encode_body(now, known)
        payload = Contribution(Slice(bytes(32), 0, 70, 5), 2.0, Codec.U4_SQRT, body, bytes(32) if known else b"")
        packets = split(codec.encode(payload), RoundId("another", 1 << 60, 15), Kind.CONTRIBUTION)
        # A federation's name has as many letters as it has bytes.
        assert contribution_bytes(now, known) == sum(map(len, map(codec.encode, packets))) - len("another") + len(
            "advice"
        )


def test_representative_labels_cost_what_labels_of_trained_models_cost():
    """Table "payload": 1000 probes of the first task, first in full, then as a difference."""
    costs = {each.codec: each for each in codings(1000, 10)}
    for kind, name in ((Codec.U8_SQRT, "u8-sqrt"), (Codec.U4_SQRT, "u4-sqrt"), (Codec.TOP_1, "top-1")):
        assert costs[kind].first_bytes == pytest.approx(payload_row(name), rel=0.15)
        assert costs[kind].later_bytes == pytest.approx(payload_row(f"{name} + delta"), rel=0.15)


def payload_row(name):
    cells = rf"^\| mnist, new classes \(0\.83\) \| {re.escape(name)} \| \d+ \| (\d+) "
    [wire_bytes] = re.findall(cells, BENCHMARKS, re.MULTILINE)
    return int(wire_bytes)


def test_codecs_go_from_the_truest_to_the_shortest_and_only_where_they_can():
    tens, many = codings(50, 10), codings(50, 300)
    assert [each.codec.value for each in tens] == ["u8-sqrt", "u4-sqrt", "top-k", "top-1"]
    assert [each.loss_nats for each in tens] == sorted(each.loss_nats for each in tens)
    assert [each.codec.value for each in many] == ["u8-sqrt", "top-k", "top-1"]
    assert [each.codec.value for each in codings(50, 2)] == ["u8-sqrt", "u4-sqrt", "top-1"]


def test_a_later_contribution_is_never_longer_than_the_first():
    assert all(each.later_bytes <= each.first_bytes for probes in (1, 30) for each in codings(probes, 4))


def test_of_many_probes_a_part_is_coded_and_the_bytes_are_scaled():
    exact, scaled = consensus_bytes(1000, 1000), consensus_bytes(4000, 1000)
    assert scaled == pytest.approx(4 * exact, rel=0.02)


def test_a_map_has_four_probes_a_byte():
    assert 250 < map_bytes(1000) < 250 + 160


def test_break_even_is_where_labels_and_weights_have_as_many_bytes():
    probes = break_even_probes(3610, 10, 0.5, 4.0)
    assert probes * 10 * 0.5 == 3610 * 4.0


def test_what_was_sent_once_is_earned_back_by_what_rounds_save():
    assert break_even_rounds(1000, 100, 350) == 4
    assert break_even_rounds(1001, 100, 350) == 5
    assert break_even_rounds(0, 100, 350) == 1
    assert break_even_rounds(1000, 100, 100) is None


def test_the_table_counts_the_chosen_codec():
    advice = advise(replace(PLAN, models=(SMALL,), rounds=1))
    chosen = advice.situation.coding
    most = 81_674 * 4 / (3 * chosen.first_bytes / 3000)
    assert any("whole 81,674, f32" in line and f"{most:,.0f}" in line for line in advice.lines())


# Measured figures.


def test_bytes_of_weights_are_those_of_the_demo_federation():
    for form, up, down in (("int8", 1543, 1716), ("int4", 586, 747)):
        assert f"| FedAvg, tail, {form} | " in BENCHMARKS
        [found] = re.findall(rf"^\| FedAvg, tail, {form} \|.*\| ([\d,]+) \| ([\d,]+) \|$", BENCHMARKS, re.MULTILINE)
        assert found == (f"{up:,}", f"{down:,}")
        assert (measured.FEDAVG_UP[form], measured.FEDAVG_DOWN[form]) == (up / 3610, down / 3610)


@pytest.mark.parametrize(
    ("row", "share", "evidence"),
    [
        ("server only + 200 canary labels", "95.0", measured.EVIDENCE_ALONE),
        ("competence FD, student", "87.4", measured.EVIDENCE_ALONE),
        ("server only", "65.2", measured.EVIDENCE_NEW),
        ("local only", "38.0", measured.EVIDENCE_NEW),
        ("FedAvg, whole model, f32", "90.2", measured.EVIDENCE_WHOLE),
        ("FedAvg, tail, f32", "80.6", measured.EVIDENCE_WHOLE),
        ("attacked, no clip, no canaries, student", "10.5", measured.EVIDENCE_LIAR),
        ("attacked, clip, no canaries, student", "45.1", measured.EVIDENCE_LIAR),
        ("attacked, clip, canaries, student", "87.5", measured.EVIDENCE_LIAR),
        ("competence FD, mean client - FD by the mean, mean client", "+3.6 ± 0.9", measured.EVIDENCE_SKEW),
    ],
)
def test_what_advice_cites_stands_in_the_benchmarks(row, share, evidence):
    assert f"| {row} | {share}" in BENCHMARKS
    assert share.lstrip("+") in evidence


@pytest.mark.parametrize(
    ("section", "row", "place", "evidence"),
    [
        ("Dirichlet splits", "competence, student", 3, measured.EVIDENCE_EQUAL),
        ("Dirichlet splits", "mean of probabilities, student", 3, measured.EVIDENCE_EQUAL),
        ("Dirichlet splits", "local only", 3, measured.EVIDENCE_EQUAL),
        ("weak spots", "competence, student", 2, measured.EVIDENCE_DOMAIN),
        ("weak spots", "factory model", 2, measured.EVIDENCE_DOMAIN),
    ],
)
def test_what_advice_cites_of_a_table_of_evidence_stands_in_it(section, row, place, evidence):
    text = PAGE.partition(f"<!-- begin table: {section} -->")[2]
    found = next(line for line in text.splitlines() if line.startswith(f"| {row} |")).split("|")[1 + place]
    assert f"{found.split('±')[0].strip()} %" in evidence
    assert section in evidence


def test_what_privacy_costs_stands_in_its_table():
    _, _, section = PAGE.partition("<!-- begin table: private heads -->")
    _, _, text = section.partition("points of *no terms, student* above")
    for epsilon in (8, 2, 1):
        row = next(line for line in text.splitlines() if line.startswith(f"| epsilon {epsilon}, student |"))
        points = row.split("|")[4].split("±")[0].strip().lstrip("+")
        assert re.search(rf"(epsilon |, ){epsilon} costs {re.escape(points)}\b", measured.EVIDENCE_DP)


# Verdicts.


def test_a_calm_fleet_and_a_dangerous_one_are_told_different_things():
    calm = replace(PLAN, class_counts=EVEN, models=(TINY,), server_labels=(50, 50, 50))
    dangerous = replace(PLAN, is_trusted=False, server_labels=(50, 0, 0))
    assert advise(calm).try_first == ("server-only", "fedavg/whole/int4", "mean-probabilities")
    assert advise(dangerous).try_first == ("mean-probabilities",)
    for warning, reason in zip(warnings(calm), ("alone with the probes", "averaging", "homogeneous"), strict=True):
        assert reason in warning
    [warning] = warnings(dangerous)
    assert "without canaries one liar" in warning


def test_every_method_that_is_advised_can_be_compared():
    for plan in (PLAN, replace(PLAN, class_counts=EVEN, models=(SMALL,), server_labels=(50, 50, 50))):
        assert set(advise(plan).try_first) <= set(METHODS)


def test_a_skewed_fleet_of_several_architectures_is_the_field_of_distillation():
    assert warnings(PLAN) == []
    assert advise(PLAN).rule == "competence"
    assert "weights cannot be averaged" in said(PLAN)


def test_homogeneous_data_on_one_architecture_is_warned_of():
    [*_, warning] = warnings(replace(PLAN, class_counts=EVEN, models=(LARGE,)))
    assert "with very homogeneous data standard FL might be simpler" in warning


def test_competence_is_for_the_trusted_or_those_with_canaries():
    untrusted = replace(PLAN, is_trusted=False)
    assert advise(untrusted).rule == "mean-probabilities"
    assert advise(replace(untrusted, server_labels=(20, 20, 20))).rule == "competence"
    assert advise(replace(untrusted, server_labels=(20, 20, 19))).rule == "mean-probabilities"


def test_under_differential_privacy_no_map_is_asked_for():
    private = replace(PLAN, epsilon=2.0)
    assert advise(private).rule == "mean-probabilities"
    assert "outside of the privacy budget" in said(private)


def test_devices_of_few_rows_have_no_map():
    assert advise(replace(PLAN, class_counts=((19, 0), (0, 19), (30, 0)))).rule == "mean-probabilities"
    plan = replace(PLAN, class_counts=((19, 0), (0, 19), (0, 20), (30, 0), (0, 0)))
    assert advise(plan).rule == "competence"
    assert "2 of 5 devices have fewer than 20 rows, 1 none at all" in said(plan)


def test_the_server_alone_is_named_where_it_knows_every_class_and_not_where_devices_know_more():
    assert "server-only" in advise(replace(PLAN, server_labels=(10, 10, 10))).try_first
    assert "server-only" not in advise(replace(PLAN, server_labels=(10, 10, 9))).try_first
    assert "only devices know class 2" in said(replace(PLAN, server_labels=(10, 10, 0)))


def test_a_class_that_nobody_has_and_one_that_a_single_device_has_are_named():
    plan = replace(PLAN, class_counts=((40, 0, 9, 0), (40, 7, 0, 0)), server_labels=(0, 0, 0, 0))
    assert "nobody holds class 3" in "\n".join(warnings(plan))
    assert "one device alone holds class 1, 2" in said(plan)


def test_weights_are_averaged_in_the_truest_form_that_the_link_bears():
    def form(up, down=1_000_000):
        link = Link(up_bytes_per_day=24 * up, down_bytes_per_day=24 * down, rounds_per_day=24)
        return affordable(advise(replace(PLAN, models=(SMALL,), link=link)).situation)

    assert form(4 * 81_674) == "f32"
    assert form(4 * 81_674 - 1) == "int8"
    assert form(20_000) == "int4"
    assert form(10_000) is None
    assert form(20_000, 15_000) is None


def test_where_nobody_counts_a_link_weights_are_averaged_if_they_are_no_longer_than_labels():
    situation = advise(replace(PLAN, models=(TINY,), rounds=1)).situation
    labels = situation.coding.first_bytes + situation.down_bytes
    limit = int(labels / (measured.FEDAVG_UP["int4"] + measured.FEDAVG_DOWN["int4"]))
    assert affordable(replace(situation, models=(ModelSize(1, limit),))) == "int4"
    assert affordable(replace(situation, models=(ModelSize(1, limit + 1),))) is None
    assert "say what the link bears" in said(replace(PLAN, models=(LARGE,)))


def test_large_models_behind_a_thin_link_are_left_to_distillation():
    plan = replace(PLAN, models=(LARGE,), link=Link(up_bytes_per_day=20_000))
    assert advise(plan).try_first == ("competence",)
    assert "which the link does not bear" in said(plan)


def test_the_codec_is_the_truest_that_the_link_bears():
    costs = codings(1000, 3)
    for each in costs[:2]:
        plan = replace(PLAN, link=Link(up_bytes_per_day=10 * each.first_bytes, rounds_per_day=10))
        assert advise(plan).situation.coding == each
    thinner = replace(PLAN, link=Link(up_bytes_per_day=costs[0].first_bytes - 1))
    assert advise(thinner).situation.coding == costs[1]
    shut = replace(PLAN, link=Link(up_bytes_per_day=10))
    assert any(f"even {costs[-1].codec.value} takes" in warning for warning in warnings(shut))


def test_a_consensus_that_the_link_cannot_bear_is_told_in_probes():
    down = consensus_bytes(1000, 3)
    assert any("at most 999 probes" in w for w in warnings(replace(PLAN, link=Link(down_bytes_per_day=down - 1))))
    assert warnings(replace(PLAN, link=Link(down_bytes_per_day=down))) == []


def test_more_cells_than_the_protocol_has_are_warned_of():
    plan = replace(PLAN, probes=1 << 20, class_counts=((20,) * 17, (20, *(0,) * 16)))
    assert any("beyond the protocol's" in warning for warning in warnings(plan))


# Files.


def test_counts_come_from_labels_by_device(tmp_path):
    (tmp_path / "labels.csv").write_text("device,label\nb,2\na,0\na,0\nb,0\n")
    np.savez(tmp_path / "labels.npz", devices=["b", "a", "a", "b"], labels=[2, 0, 0, 0])
    for name in ("labels.csv", "labels.npz"):
        plan = planned(tmp_path, f"probes = 10\nlabels = {name!r}\nmodels = [{{ trainable = 5, whole = 9 }}]\n")
        assert counts_of(plan).tolist() == [[2, 0, 0], [1, 0, 1]]
        assert counts_of(replace(plan, server_labels=(0, 0, 1, 0))).shape == (2, 4)


@pytest.mark.parametrize(
    "text", ["device,class\na,1\n", "device,label\n", "device,label\na,cat\n", "device,label\na,-1\n"]
)
def test_a_file_of_labels_that_holds_something_else_is_named(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=r"labels\.csv: "):
        counts_of(replace(PLAN, class_counts=(), labels=tmp_path / "labels.csv"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("probes = 10\nmodels = [{ trainable = 5, whole = 9 }]", "say either class_counts or labels"),
        ("probes = 10\nclass_counts = [[1, 2]]", "say either models or bundles"),
        ("class_counts = [[1, 2]]\nmodels = [{ trainable = 5, whole = 9 }]", "say either probes"),
        ("probes = 10\nclass_counts = [[1, 2], [3]]\nmodels = [{ trainable = 5, whole = 9 }]", "a count for each of"),
        ("probes = 10\nclass_counts = [[1, -2]]\nmodels = [{ trainable = 5, whole = 9 }]", "a count is not negative"),
        ("probes = 10\nclass_counts = [[1, 'x']]", r"class_counts\.0\.1: expected an integer, found text 'x'"),
        ("probes = 10\nclass_counts = [[1, 2]]\nmodels = [{ trainable = 9, whole = 5 }]", r"models\.0: a model trains"),
        ("probs = 10", "probs: unknown key, did you mean 'probes'"),
        (
            "probes = 10\nsamples = ['x']\nclass_counts = [[1, 2]]\nmodels = [{ trainable = 5, whole = 9 }]",
            "need bundles",
        ),
        ("link = { rounds_per_day = 0 }", "link: bytes are not negative, rounds_per_day is above 0"),
    ],
)
def test_a_wrong_plan_is_told_in_one_line(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        planned(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "fleet.toml" in str(caught.value)


def test_a_fleet_without_rows_is_refused():
    with pytest.raises(InvalidValueError, match="no device holds a row"):
        advise(replace(PLAN, class_counts=((0, 0), (0, 0))))


# With real bundles, probes and samples.


@pytest.fixture(scope="module")
def digit_fleet(tmp_path_factory):
    """Bundles of two families, probes and 60 private samples a device, and the plan that names them."""
    folder = tmp_path_factory.mktemp("fleet")
    world = digits(0)
    equip(world, ModelTerms(("mlp-s", "mlp-m"), "mlp-m"), 0, folder / "factory")
    parts = [part for part in world.private if len(part) >= 60]
    for index, part in enumerate(parts):
        np.savez(folder / f"{index}.npz", x=part.values[:60], y=part.labels[:60])
    return FleetPlan(
        class_counts=tuple(tuple(np.bincount(part.labels, minlength=10).tolist()) for part in world.private),
        bundles=(folder / "factory" / "mlp-s", folder / "factory" / "mlp-m"),
        public_set=folder / "factory" / "public-set",
        samples=tuple(folder / f"{index}.npz" for index in range(len(parts))),
    )


def test_bundles_and_samples_are_read_and_the_probes_checked(digit_fleet):
    situation = advise(digit_fleet).situation
    assert situation.probes == 600
    assert situation.check is not None
    assert not situation.check.is_out_of_domain
    assert situation.guard is not None
    sizes = [(model.trainable, model.whole) for model in situation.models]
    assert sizes[0] == (64 * 16 + 16 + 16 * 10 + 10,) * 2 != sizes[1]
    assert situation.set_bytes == sum(
        path.stat().st_size for path in digit_fleet.public_set.iterdir() if path.suffix == ".npy"
    )


def test_samples_from_elsewhere_make_the_probes_wrong(digit_fleet, tmp_path):
    inverted = []
    for path in digit_fleet.samples:
        with np.load(path) as arrays:
            np.savez(tmp_path / path.name, x=16 - arrays["x"], y=arrays["y"])
        inverted.append(tmp_path / path.name)
    told = "\n".join(warnings(replace(digit_fleet, samples=tuple(inverted))))
    assert "probes lie elsewhere" in told
    assert "no federation before the probes are right" in told
    assert "probes far from every device" in told
    assert "collect other probes, then compare" in advise(replace(digit_fleet, samples=tuple(inverted))).lines()[0]


def test_probes_that_few_samples_leave_uncovered_are_no_warning(digit_fleet):
    advice = advise(replace(digit_fleet, samples=digit_fleet.samples[:1]))
    assert advice.situation.guard.uncovered > WARN_UNCOVERED
    assert not any(
        "probes far from every device" in warning for warning in map(str, advice.verdicts) if "WARN" in warning
    )


def test_counts_that_do_not_fit_the_task_are_refused(digit_fleet):
    with pytest.raises(FedistillError, match="have 2 classes, expected 10"):
        advise(replace(digit_fleet, class_counts=((3, 4),)))
