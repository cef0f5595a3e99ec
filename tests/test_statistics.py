"""The bootstrap against SciPy, resample by resample, and against known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm, spearmanr, t

from aqa.regress.evaluation import bootstrap
from aqa.regress.evaluation.metrics import spearman

TIED = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.integers(0, 4)),
        arrays(np.float64, n, elements=st.integers(0, 4)),
    )
)


def made(truth, count, seed):
    """Resamples of as many draws as there are samples."""
    drawn = bootstrap.draw_samples(len(truth), count, seed)
    return bootstrap.Resamples(truth, drawn)


@pytest.mark.parametrize("pool", [1, 2])
@given(pair=TIED)
def test_each_resample_is_scipys_rho_of_the_drawn_samples(pool, pair):
    """Totals of resamples may differ: a test set has its part of a pool's draws."""
    truth, predicted = pair
    n = len(truth)
    counts = bootstrap.draw_samples(pool * n, 20, [4])[:, :n]
    assert (len(set(counts.sum(1))) > 1) == (pool > 1)
    found = bootstrap.Resamples(truth, counts).spearman(predicted)
    for drawn, rho in zip(counts.astype(int), found, strict=True):
        places = np.repeat(np.arange(n), drawn)
        x, y = truth[places], predicted[places]
        if len(places) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
            assert math.isnan(rho)
        else:
            assert rho == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)


def test_draws_are_fixed_by_their_seed():
    a, b, c = (bootstrap.draw_samples(9, 50, seed) for seed in ([3], [3], [3, 1]))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_test_sets_of_one_pool_vary_together(seeds):
    """Seeds that test on 50 of the same 88 samples are no fresh samples.

    Spearman's rho of a bivariate normal is 6 / pi * arcsin(r / 2).
    """
    generator = np.random.default_rng(seeds)
    trials, covered = 200, 0
    for trial in range(trials):
        x = generator.normal(size=88)
        y = 0.5 * x + math.sqrt(0.75) * generator.normal(size=88)
        counts = bootstrap.draw_samples(88, 200, [trial])
        tests = []
        for _ in range(seeds):
            rows = generator.permutation(88)[:50]
            resamples = bootstrap.Resamples(x[rows], counts[:, rows])
            tests.append(bootstrap.HeldOut(rows, x[rows], resamples))
        cell = bootstrap.judge(tests, [y[test.rows] for test in tests])
        drawn = bootstrap.SeedDraws(200, 0).of(seeds)
        resampled = bootstrap.over_seeds(np.tanh(cell.resampled), drawn)
        low, high = bootstrap.interval(cell.rho, resampled)
        covered += low < 6 / math.pi * math.asin(0.25) < high
    assert 0.9 <= covered / trials <= (0.99 if seeds == 1 else 1)


def test_a_clear_winner_wins_and_twins_tie():
    generator = np.random.default_rng(0)
    truth, noise, other = generator.normal(size=(3, 60))
    resamples = made(truth, 500, [0])
    good, bad = resamples.spearman(truth + 0.1 * noise), resamples.spearman(other)
    for pair, share in (((good, bad), 1), ((bad, good), 0), ((good, good), 0.5)):
        assert bootstrap.probability_better(*pair) == share
    # Pairing sees what cannot be seen apart.
    better, worse = (resamples.spearman(truth + k * noise) for k in (1.0, 1.3))
    assert np.quantile(better, 0.025) < np.quantile(worse, 0.975)
    assert bootstrap.probability_better(better, worse) > 0.95


def test_undefined_resamples_are_left_out_of_intervals_and_probabilities():
    half = np.array([math.nan, 0.1, 0.2, math.nan, 0.3, 0.4])
    width = bootstrap.half_width([], half)
    assert width == pytest.approx(norm.ppf(0.975) * np.std([0.1, 0.2, 0.3, 0.4]))
    few = np.array([math.nan, math.nan, 0.3])
    assert math.isnan(bootstrap.half_width([], few))
    assert bootstrap.probability_better(half, np.zeros(6)) == 1
    assert math.isnan(bootstrap.probability_better(few, np.full(3, math.nan)))


def test_seeds_are_averaged_as_drawn():
    resampled = np.array([[1.0, 2.0], [10.0, math.nan]])
    drawn = np.array([[0, 1], [1, 1]])
    found = bootstrap.over_seeds(resampled, drawn)
    assert found[0] == 5.5
    assert math.isnan(found[1])
    draws = bootstrap.SeedDraws(100, 7).of(3)
    assert draws.shape == (100, 2)
    assert set(np.unique(draws)) == {0, 1, 2}
    assert bootstrap.SeedDraws(100, 7).of(1).shape == (100, 1)


def test_resampled_seeds_have_the_variance_of_their_mean():
    """One draw fewer than there are seeds makes up for drawing from the seeds."""
    values = np.random.default_rng(0).normal(size=5)
    drawn = bootstrap.SeedDraws(200_000, 0).of(5)
    found = values[drawn].mean(1).var()
    assert found == pytest.approx(values.var(ddof=1) / 5, rel=0.02)


def test_seeds_vary_alike_in_the_cells_of_a_row():
    generator = np.random.default_rng(0)
    cells = [mean + 0.2 * generator.normal(size=3) for mean in (0, 1, 5)]
    cells.append(np.array([math.nan, 0.3, 0.4]))
    variance, freedom = bootstrap.seed_variance(cells)
    kept = [*cells[:3], cells[3][1:]]
    squares = sum(((values - values.mean()) ** 2).sum() for values in kept)
    assert freedom == 7 and variance == pytest.approx(squares / 7)
    assert bootstrap.seed_variance([np.array([0.5])]) == (0, 0)
    width = bootstrap.half_width([cells[0]], np.zeros(50), (variance, freedom))
    assert width == pytest.approx(t.ppf(0.975, 7) * math.sqrt(variance / 3))


def test_a_mean_of_few_seeds_has_students_interval():
    values = np.array([0.1, 0.3, 0.2, 0.5])
    drawn = bootstrap.SeedDraws(100_000, 0).of(4)
    found = bootstrap.half_width([values], values[drawn].mean(1))
    low, high = t.interval(0.95, 3, loc=0, scale=values.std(ddof=1) / 2)
    assert found == pytest.approx((high - low) / 2, rel=0.02)


def test_standard_deviation():
    assert bootstrap.standard_deviation([1, math.nan, 3]) == pytest.approx(2**0.5)
    assert math.isnan(bootstrap.standard_deviation([1]))


def test_a_resample_that_draws_every_sample_once_is_the_plain_rho():
    truth, predicted = [3.0, 1.0, 2.0], [3.0, 2.0, 1.0]
    resamples = made(truth, 200, [0])
    whole = (resamples.counts == 1).all(axis=1)
    assert whole.any()
    found = resamples.spearman(predicted)[whole]
    np.testing.assert_allclose(found, spearman(truth, predicted))
    np.testing.assert_allclose(found, spearmanr(truth, predicted).statistic)
