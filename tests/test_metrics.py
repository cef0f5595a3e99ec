"""Metrics against SciPy, hand examples and the paper's printed averages."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ConstantInputWarning, kendalltau, spearmanr

from aqa.regress.config import LstmConfig
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.bootstrap import Resamples, draw_samples
from aqa.regress.experiments.paper import TABLE_2, TABLE_3
from aqa.regress.heads.lstm import initial_parameters, predict

NAN = math.nan
#: Few distinct values, so that ties are many.
TIED = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.integers(0, 5)),
        arrays(np.float64, n, elements=st.integers(-3, 3)),
    )
)


@given(TIED)
def test_correlations_are_scipys(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        expected = spearmanr(*pair).statistic
    np.testing.assert_allclose(metrics.spearman(*pair), expected, atol=1e-12)
    np.testing.assert_allclose(metrics.kendall(*pair), kendalltau(*pair).statistic)


def test_spearman_by_hand():
    # Ranks of truth 1.5 1.5 3 4, of predictions 1 2 4 3, both less their mean 2.5:
    # (-1)(-1.5) + (-1)(-.5) + (.5)(1.5) + (1.5)(.5) = 3.5; squares 4.5 and 5.
    rho = metrics.spearman([7, 7, 8, 9], [0.1, 0.2, 0.9, 0.3])
    assert rho == pytest.approx(3.5 / math.sqrt(4.5 * 5))


@pytest.mark.parametrize(
    ("truth", "predicted", "distance"),
    [
        ([], [], False),
        ([1], [2], False),
        ([1, 2, 3], [5, 5, 5], True),  # a distance needs no ranks
        ([4, 4], [1, 2], False),
        ([1, 2, 3], [1, NAN, 3], False),
        ([1, 2, 3], [1, math.inf, 3], False),
    ],
)
def test_undefined_metrics_are_nan(truth, predicted, distance):
    assert math.isnan(metrics.spearman(truth, predicted))
    assert math.isnan(metrics.kendall(truth, predicted))
    assert math.isnan(metrics.rl2_x100(truth, predicted)) != distance


def test_equal_inputs_give_no_rho_however_their_product_is_rounded():
    """BLAS may round the rows of a product one by one: equal rows come out apart."""
    generator = np.random.default_rng(0)
    parameters = initial_parameters(256, LstmConfig(hidden=256), generator)
    one = generator.random((1, 6, 256), np.float32)
    predicted = predict(parameters, np.repeat(one, 55, axis=0)).astype(np.float64)
    # As it was seen on one machine, whether this one does it or not.
    apart = 13.5 * predicted * (1 + 7e-8 * generator.integers(-1, 2, size=55))
    truth = generator.normal(size=55)
    resamples = Resamples(truth, draw_samples(55, 20, [0]))
    for found in (predicted, apart):
        assert math.isnan(metrics.spearman(truth, found))
        assert math.isnan(metrics.kendall(truth, found))
        assert np.isnan(resamples.spearman(found)).all()
    assert not math.isnan(metrics.spearman(truth, 1 + 1e-4 * truth))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        metrics.spearman([1, 2, 3], [1, 2])


def test_rl2_by_hand():
    # Range 50 - 10 = 40; errors 4, 0, -8: (0.01 + 0 + 0.04) / 3.
    assert metrics.rl2_x100([10, 30, 50], [14, 30, 42]) == pytest.approx(5 / 3)


@pytest.mark.parametrize("row", [row for row in TABLE_2.values() if row.average > 0])
def test_table_2_averages_are_fishers(row):
    mean = metrics.fisher_mean(list(row.per_action.values()), 50)
    assert mean == pytest.approx(row.average, abs=6e-5)


@pytest.mark.parametrize("name, row", TABLE_3.items())
def test_table_3_averages_are_arithmetic_without_the_diagonal(name, row):
    columns = list(TABLE_3)[1:-1]
    cells = zip(columns, row.per_action.values(), strict=True)
    unseen = [rho for column, rho in cells if column != name]
    assert metrics.arithmetic_mean(unseen) == pytest.approx(row.average, abs=6e-5)


def test_means_leave_undefined_values_out_and_count_them():
    rhos = [0.5, NAN, 0.1]
    assert metrics.arithmetic_mean(rhos) == pytest.approx(0.3)
    z = (math.atanh(0.5) + math.atanh(0.1)) / 2
    assert metrics.fisher_mean(rhos, 50) == pytest.approx(math.tanh(z))
    assert metrics.undefined(rhos) == 1
    for nothing in ([NAN], []):
        assert math.isnan(metrics.fisher_mean(nothing, 50))
        assert math.isnan(metrics.arithmetic_mean(nothing))


def test_a_perfect_correlation_does_not_decide_fishers_mean():
    # Of six samples without ties the next value below 1 is 1 - 6 * 2 / (216 - 6).
    limit = (1 + spearmanr(range(6), [0, 1, 2, 3, 5, 4]).statistic) / 2
    assert metrics.largest_rho(6) == pytest.approx(limit)
    assert metrics.fisher_mean([1.0, 1.0], 6) == pytest.approx(limit)
    assert metrics.fisher_mean([1.0, -1.0], 6) == pytest.approx(0)
    mean = np.mean(np.arctanh([0.6] * 5 + [limit]))
    found = metrics.fisher_mean([0.6] * 5 + [1.0], [50] * 5 + [6])
    assert found == pytest.approx(np.tanh(mean)) and found < 0.74
    # Two samples say nothing; one perfect list of three does not carry five others.
    assert metrics.fisher_mean([1.0, 1.0], 2) == 0
    assert metrics.fisher_mean([-0.5, -0.5, -0.5, 0.25, 1.0, -0.5], 3) < 0


def test_the_floor_by_hand():
    # Means: a 2, b 10. Test truths 1 (a), 3 (a), 9 (b), 2.5 (b).
    found = metrics.action_means(["a", "a", "b"], [1, 3, 10], ["a", "a", "b", "b", "c"])
    np.testing.assert_array_equal(found, [2, 2, 10, 10, NAN])
