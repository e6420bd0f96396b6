"""Couplings [post, pre]: rankings against scikit-learn, tests against scipy and hand counts, and a truth that is not symmetric."""

import numpy as np
import pytest
from scipy.stats import chi2, false_discovery_control
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

from fitspike.errors import InvalidInputError
from fitspike.models import connectivity as c


def noisy(seed=0, n=30):
    generator = np.random.default_rng(seed)
    truth = np.where(generator.random((n, n)) < 0.1, generator.choice([1.0, 1.0, -1.0], (n, n)), 0.0)
    np.fill_diagonal(truth, 0.0)
    shape = np.exp(-np.arange(6) / 2.0)
    filters = truth[..., None] * shape + 0.25 * generator.normal(size=(n, n, 6))
    return truth, filters


def made(filters, p_value=None):
    return c.Connectivity(filters.sum(axis=2), filters=filters, lag_ms=np.arange(1.0, 7.0), p_value=p_value, n_basis=6)


def test_rankings_equal_scikit_learn_with_ties():
    generator = np.random.default_rng(1)
    label, score = generator.random(200) < 0.2, np.round(generator.normal(size=200), 1)
    assert c.roc_auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert c.average_precision(label, score) == pytest.approx(average_precision_score(label, score), abs=1e-12)
    assert c.matthews(label, score > 0.5) == pytest.approx(matthews_corrcoef(label, score > 0.5), abs=1e-12)


def test_false_discovery_adjustment_equals_scipy():
    p = np.random.default_rng(2).random(50) ** 3
    np.testing.assert_allclose(c.benjamini_hochberg(p), false_discovery_control(p), atol=1e-15)


def test_wald_statistic_of_one_pair_by_hand():
    weights = np.array([[[1.0, 2.0]]])
    covariance = np.array([[[[0.5, 0.0], [0.0, 4.0]]]])
    statistic, p_value = c.wald_test(weights, covariance)
    assert statistic[0, 0] == pytest.approx(1 / 0.5 + 4 / 4)
    assert p_value[0, 0] == pytest.approx(chi2.sf(3.0, 2))


def test_wald_test_is_nan_where_there_is_no_covariance():
    statistic, p_value = c.wald_test(np.ones((1, 2, 1)), np.array([[[[np.nan]], [[1.0]]]]))
    assert np.isnan(statistic[0, 0]) and np.isnan(p_value[0, 0])
    assert statistic[0, 1] == 1.0


def test_transposed_truth_scores_at_chance():
    truth, filters = noisy()
    right = c.compare_with_truth(made(filters), truth)
    wrong = c.compare_with_truth(made(filters), truth.T)
    assert right["auc_excitatory"] > 0.9 and right["sign_accuracy"] > 0.9
    assert abs(wrong["auc_excitatory"] - 0.5) < 0.15
    assert wrong["average_precision_excitatory"] < 0.5 * right["average_precision_excitatory"]


def test_excitation_does_not_see_what_a_sender_does_to_all():
    filters = np.zeros((4, 4, 3))
    filters[:, 0, 1] = 5.0  # neuron 0 seems to reach everyone alike
    filters[2, 1, 0] = 1.0
    np.fill_diagonal(filters[..., 1], 0.0)
    found = c.Connectivity(filters.sum(axis=2), filters=filters, lag_ms=np.arange(1.0, 4.0))
    assert found.excitation[2, 1] > found.excitation[1, 0]
    assert found.delay_ms[2, 1] == 1.0
    assert np.isnan(found.delay_ms[3, 1])


def test_calls_are_compared_off_the_diagonal():
    truth, filters = noisy()
    p = np.where(truth != 0, 1e-9, 0.9)
    np.fill_diagonal(p, 1e-12)
    scores = c.compare_with_truth(made(filters, p), truth)
    assert scores["mcc"] == pytest.approx(1.0) and scores["precision"] == 1.0 and scores["recall"] == 1.0
    assert scores["n_called"] == np.count_nonzero(truth) and scores["false_positive_rate"] == 0.0


def test_a_control_without_connections_counts_false_calls():
    _, filters = noisy()
    p = np.full((30, 30), 0.9)
    p[0, 1:30] = 1e-9  # 29 of the 870 pairs
    scores = c.compare_with_truth(made(filters, p), np.zeros((30, 30)))
    assert scores["n_called"] == 29 and scores["false_positive_rate"] == pytest.approx(29 / 870)
    others = set(scores) - {"n_pairs", "n_excitatory", "n_inhibitory", "n_called", "false_positive_rate"}
    assert others and all(np.isnan(scores[name]) for name in others)


def test_truth_of_another_size_or_without_connections_is_refused():
    _, filters = noisy()
    with pytest.raises(InvalidInputError, match=r"\[post, pre\]"):
        c.compare_with_truth(made(filters), np.ones((3, 3)))
    with pytest.raises(InvalidInputError, match="no connection"):
        c.compare_with_truth(made(filters), np.zeros((30, 30)))


def test_truth_with_unknown_pairs_is_refused():
    truth = np.array([[np.nan, 1.0, 0.0], [0.0, np.nan, np.nan], [-1.0, 0.0, np.nan]])
    with pytest.raises(InvalidInputError, match="NaN or infinite for 1 of 6 pairs"):
        c.compare_with_truth(c.Connectivity(np.zeros((3, 3))), truth)
    known = c.compare_with_truth(c.Connectivity(np.zeros((3, 3))), np.nan_to_num(truth, nan=0.0))
    on_diagonal = truth.copy()
    on_diagonal[1, 2] = 0.0
    on_diagonal = c.compare_with_truth(c.Connectivity(np.zeros((3, 3))), on_diagonal)
    assert on_diagonal.keys() == known.keys() and on_diagonal["n_excitatory"] == known["n_excitatory"] == 1


def test_one_neuron_has_no_pairs():
    found = c.Connectivity(np.zeros((1, 1)), filters=np.zeros((1, 1, 3)), lag_ms=np.arange(1.0, 4.0), p_value=np.ones((1, 1)))
    assert np.isnan(found.q_value()).all()
    assert not found.significant().any()


def test_two_neurons_keep_what_each_sends_to_the_other():
    """With one target a sender's mean over targets is all it does: taking it off would leave nothing to rank."""
    filters = np.zeros((2, 2, 6))
    filters[1, 0, 0] = 0.5
    truth = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert c.compare_with_truth(made(filters), truth)["auc_excitatory"] == 1.0


def test_a_singular_covariance_gives_no_p_value_and_leaves_the_others():
    covariance = np.tile(np.eye(2), (2, 2, 1, 1))
    covariance[0, 1] = 1.0
    statistic, p_value = c.wald_test(np.ones((2, 2, 2)), covariance)
    assert np.isnan(p_value[0, 1])
    assert statistic[1, 0] == pytest.approx(2.0) and p_value[1, 0] == pytest.approx(chi2.sf(2.0, 2))
