"""Scores agree with scikit-learn's, with brute force, and with what they mean."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from fd_protocol.errors import InvalidValueError
from fd_protocol.soft_labels import soften
from fleet_sim.metrics.scores import SCORES, Scored, ScoreTerms, score_of, scored
from fleet_sim.scenario import PRESETS


def answers(seed, rows=300, classes=2, *, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(0, 1.5, (rows, classes)).astype(np.float32)
    logits[np.arange(rows), labels] += 1
    return (logits.round() if ties else logits), labels


def found(logits, labels, weights, allowed):
    """Most of class 1 that any threshold finds whose alarms, of class 1 and of class 0 by weight, are allowed."""
    p = soften(logits, 1.0)[:, 1].astype(np.float64)
    best = 0.0
    for threshold in [*np.unique(p), 2.0]:
        is_alarm = p >= threshold
        if allowed(weights[is_alarm & (labels == 1)].sum(), weights[is_alarm & (labels == 0)].sum()):
            best = max(best, weights[is_alarm & (labels == 1)].sum() / weights[labels == 1].sum())
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("prevalence", [None, 0.01])
def test_areas_are_those_of_scikit_learn(seed, ties, prevalence):
    logits, labels = answers(seed, ties=ties)
    positives = labels.mean()
    ratio = 1.0 if prevalence is None else positives / (1 - positives) * (1 - prevalence) / prevalence
    weights, p = np.where(labels == 1, 1.0, ratio), soften(logits, 1.0)[:, 1]
    assert score_of("auroc", logits, labels, prevalence) == pytest.approx(roc_auc_score(labels, p))
    expected = average_precision_score(labels, p, sample_weight=weights)
    assert score_of("auprc", logits, labels, prevalence) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_what_an_alarm_rate_finds_is_what_the_best_threshold_finds(seed, ties):
    logits, labels = answers(seed, rows=400, ties=ties)
    ones, negatives = np.ones(len(labels)), (labels == 0).sum()
    at_95 = found(logits, labels, ones, lambda _, false: false <= 0.05 * negatives)
    assert score_of("sensitivity-at-95-specificity", logits, labels) == pytest.approx(at_95)
    rare = np.where(labels == 1, 1.0, (labels == 1).sum() / negatives * 0.999 / 0.001)
    few = found(logits, labels, rare, lambda true, false: true + false <= 0.001 * rare.sum())
    assert score_of("recall-at-1-permille-alerts", logits, labels, 0.001) == pytest.approx(few)


def test_a_thousandth_of_all_rows_is_what_may_raise_an_alarm():
    labels = np.repeat([1, 0], [4, 3996])
    logits = np.stack([np.zeros(4000), np.arange(4000.0, 0, -1)], axis=1).astype(np.float32) / 1000
    assert score_of("recall-at-1-permille-alerts", logits, labels) == 1.0
    assert score_of("recall-at-1-permille-alerts", logits, 1 - labels) == 0.0  # the first four are others


@pytest.mark.parametrize("seed", range(3))
def test_guesses_of_many_classes(seed):
    logits, labels = answers(seed, classes=8)
    assert score_of("top-3", logits, labels) == pytest.approx(top_k_accuracy_score(labels, logits, k=3))
    likelihoods = soften(logits, 1.0)[np.arange(len(labels)), labels]
    assert score_of("perplexity", logits, labels) == pytest.approx(np.prod(likelihoods ** (-1 / len(labels))), rel=1e-4)


def test_who_guesses_evenly_is_as_perplexed_as_there_are_classes():
    assert score_of("perplexity", np.zeros((10, 7), np.float32), np.arange(10) % 7) == pytest.approx(7)


def test_rows_of_one_class_and_no_rows_tell_nothing():
    logits, labels = answers(0)
    for name, score in SCORES.items():
        assert np.isnan(score_of(name, logits[:0], labels[:0]))
        assert np.isnan(score_of(name, logits, labels * 0)) == score.is_binary


def test_devices_that_cannot_tell_count_for_neither_the_mean_nor_the_worst():
    (one,) = scored(ScoreTerms(("auroc",)), [answers(0)], [answers(1), answers(2), (answers(3)[0], answers(3)[1] * 0)])
    own = [score_of("auroc", *answers(seed)) for seed in (1, 2)]
    assert one.own[:2] == tuple(own)
    assert np.isnan(one.own[2])
    assert (one.own_mean, one.own_worst) == (pytest.approx(np.mean(own)), min(own))
    assert Scored("perplexity", 2.0, (3.0, 5.0)).own_worst == 5.0
    assert np.isnan(Scored("auroc", 0.5).own_worst)


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [({"names": ("auc",)}, "no score 'auc'"), ({"names": (), "prevalence": 1.5}, "prevalence")],
)
def test_other_scores_are_refused(terms, complaint):
    with pytest.raises(InvalidValueError, match=complaint):
        ScoreTerms(**terms)


def test_scores_of_two_classes_are_not_asked_of_ten():
    scenario = replace(PRESETS["digits"], scores=ScoreTerms(("top-3", "auroc")))
    with pytest.raises(InvalidValueError, match="auroc: of two classes, not of 10"):
        scenario.world(0)


def test_rows_that_a_model_is_very_sure_of_are_still_told_apart():
    """As float32 probabilities all three are 1."""
    logits, labels = np.array([[0, 40], [0, 50], [0, 45]], np.float32), np.array([0, 1, 1])
    assert (soften(logits, 1.0)[:, 1] == 1).all()
    assert score_of("auroc", logits, labels) == score_of("auprc", logits, labels) == 1.0
