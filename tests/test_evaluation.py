"""Cells, averages and comparisons by hand, undefined values among them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, t

from aqa.regress.evaluation.bootstrap import (
    HeldOut,
    Resamples,
    SeedDraws,
    covers_zero,
    draw_groups,
    draw_samples,
    half_width,
    judge,
)
from aqa.regress.evaluation.metrics import fisher_mean, largest_rho
from aqa.regress.experiments.describe import compare_rows, describe, describe_average

COUNT = 400
DRAWS = SeedDraws(COUNT, 0)
UP, DOWN, FLAT = [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [2] * 6
#: rho with UP: 1 - 6 * 2 / 210 and 1 - 6 * 8 / 210.
GOOD, FAIR = [2, 1, 3, 4, 5, 6], [3, 2, 1, 4, 5, 6]


def cell(truth, *predicted, seed=0, matched=False):
    truth = np.array(truth, dtype=float)
    resamples = Resamples(truth, draw_samples(len(truth), COUNT, [seed]))
    test = HeldOut(np.arange(len(truth)), truth, resamples)
    guesses = [np.array(guess, dtype=float) for guess in predicted]
    return judge([test] * len(guesses), guesses, matched=matched)


def compare(better, other, pairs):
    """Compare two rows whose cells are given as pairs by column."""
    sides = zip(*pairs.values(), strict=True)
    rows = [dict(zip(pairs, cells, strict=True)) for cells in sides]
    return compare_rows(better, other, {better: rows[0], other: rows[1]}, DRAWS)


def test_a_cells_numbers_by_hand():
    found = describe(cell(UP, UP, [2, 1, 3, 4, 5, 6]), DRAWS)
    assert found.spearman == pytest.approx([1, 1 - 6 * 2 / (6 * 35)])
    assert found.mean == pytest.approx(1 - 6 / 210)
    assert found.sd == pytest.approx(np.std(found.spearman, ddof=1))
    assert found.kendall == pytest.approx([1, 13 / 15])
    assert found.rl2_x100 == pytest.approx([0, 100 * 2 / 6 / 25])
    assert found.n_test == 6
    assert found.undefined == 0
    low, high = found.ci95
    assert low < found.mean < high <= 1


def test_the_interval_of_one_seed_is_bonett_and_wrights():
    guess = [2, 1, 3, 4, 6, 5]
    rho = 1 - 6 * 4 / 210
    half = norm.ppf(0.975) * math.sqrt((1 + rho**2 / 2) / (6 - 3))
    expected = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    # The resamples stand for a normal distribution; their spread is estimated.
    found = describe(cell(UP, guess), DRAWS)
    np.testing.assert_allclose(found.ci95, expected, atol=0.02)
    assert math.isnan(found.sd)
    # A perfect ranking has an interval all the same.
    low, high = describe(cell(UP, UP), DRAWS).ci95
    assert 0.4 < low < largest_rho(6) < high == 1


def test_three_test_samples_give_no_interval():
    found = describe(cell([1, 2, 3], [1, 2, 3]), DRAWS)
    assert found.mean == 1 and np.isnan(found.ci95).all()
    both = describe_average([cell(UP, UP), cell([1, 2, 3], [1, 2, 3])], DRAWS)
    assert np.isnan(both.ci95["fisher_z"]).all()
    four = describe(cell([1, 2, 3, 4], [1, 2, 4, 3]), DRAWS)
    assert np.isfinite(four.ci95).all()


def test_what_varies_with_seeds_widens_the_interval():
    generator = np.random.default_rng(3)
    truth = generator.normal(size=60)
    same = truth + 0.8 * generator.normal(size=60)
    apart = [truth * k + 0.8 * generator.normal(size=60) for k in (0.1, 0.8, 1.6)]
    narrow, wide = (
        describe(cell(truth, *guesses), DRAWS) for guesses in ([same] * 3, apart)
    )
    (a, b), (c, d) = narrow.ci95, wide.ci95
    assert d - c > 2 * (b - a)
    # By hand: the seeds' variance over their number, on Fisher's z, and Student's t.
    z = np.arctanh(wide.spearman)
    assert (np.arctanh(d) - np.arctanh(c)) / 2 > 1.96 * z.std(ddof=1) / math.sqrt(3)


def test_undefined_seeds_are_counted_and_left_out():
    found = describe(cell(UP, UP, FLAT), DRAWS)
    assert (found.undefined, found.mean) == (1, 1)
    assert math.isnan(found.spearman[1])
    assert not math.isnan(found.ci95[0])
    nothing = describe(cell(UP, FLAT), DRAWS)
    assert math.isnan(nothing.mean) and np.isnan(nothing.ci95).all()


def test_ranks_are_not_scores():
    found = describe(replace(cell(UP, UP), units=False), DRAWS)
    assert math.isnan(found.rl2_x100_mean) and found.mean == 1


def test_averages_leave_matched_cells_and_undefined_values_out():
    guesses = (GOOD, FAIR, FLAT)
    cells = [cell(UP, guess, seed=seed) for seed, guess in enumerate(guesses)]
    found = describe_average([*cells, cell(UP, DOWN, matched=True)], DRAWS)
    rhos = [1 - 6 * 2 / 210, 1 - 6 * 8 / 210]
    assert found.arithmetic == pytest.approx(np.mean(rhos))
    assert found.fisher_z == pytest.approx(fisher_mean(rhos, 6))
    assert (found.actions, found.undefined) == (3, 1)
    for kind in ("fisher_z", "arithmetic"):
        low, high = found.ci95[kind]
        assert low < found.of(kind) < high


def test_averages_are_formed_for_each_seed_and_then_averaged():
    cells = [cell(UP, UP, DOWN), cell(UP, DOWN, DOWN, seed=1)]
    found = describe_average(cells, DRAWS)
    assert found.per_seed["arithmetic"] == pytest.approx([0, -1])
    assert found.arithmetic == pytest.approx(-0.5)
    assert found.sd["arithmetic"] == pytest.approx(np.std([0, -1], ddof=1))
    # Two seeds so far apart leave everything open.
    assert found.ci95["arithmetic"][0] < -0.99 < 0.99 < found.ci95["arithmetic"][1]


@pytest.fixture
def sides():
    """A truth, three good guesses of it, and twenty of nothing."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=40)
    good = [truth + generator.normal(scale=0.3, size=40) for _ in range(3)]
    return truth, good, generator.normal(size=(20, 40))


def test_a_difference_that_holds_is_said_to_hold(sides):
    truth, good, bad = sides
    a, b = cell(truth, *good), cell(truth, *bad[:3])
    found = compare("good", "bad", {"a": (a, b)})
    assert found.average["fisher_z"].probability == 1
    assert found.words.startswith("Good is better than bad: +")
    other = compare("bad", "good", {"a": (b, a)})
    assert other.words.startswith("Bad is worse than good: -")
    single = compare("good", "bad", {"a": (cell(truth, good[0]), cell(truth, bad[0]))})
    assert single.words.endswith("no verdict.")


def test_a_row_of_many_draws_is_compared_with_one_of_few_seeds(sides):
    truth, good, bad = sides
    pair = cell(truth, *good), cell(truth, *bad)
    found = compare("good", "random", {"a": pair})
    assert found.words.startswith("Good is better than random: +")
    rho = [describe(each, DRAWS).mean for each in pair]
    assert found.average["arithmetic"].difference == pytest.approx(rho[0] - rho[1])


def test_a_difference_between_equals_is_not_settled():
    same = cell(UP, GOOD, [1, 2, 3, 4, 6, 5])
    found = compare("one", "other", {"a": (same, same)})
    assert found.per_column["a"].probability == 0.5
    assert found.per_column["a"].difference == 0
    assert "The interval covers zero" in found.words
    assert "do not settle which is better" in found.words


def test_differences_that_are_undefined_or_have_no_interval_are_said_in_words():
    flat = cell(UP, FLAT)
    found = compare("one", "other", {"a": (flat, flat)})
    assert "undefined" in found.words
    assert math.isnan(found.average["fisher_z"].probability)
    test = HeldOut(np.arange(6), np.array(UP), Resamples(UP, np.zeros((COUNT, 6))))
    pair = [judge([test], [np.array(guess)]) for guess in (UP, DOWN)]
    found = compare("one", "other", {"a": pair})
    assert "no interval" in found.words and "nan" not in found.words


def test_a_column_without_one_side_counts_for_neither():
    """Each side's average is over the columns that both have."""
    poor = cell(UP, [3, 2, 1, 4, 6, 5])
    pairs = {"a": (poor, poor), "b": (cell(UP, FLAT, seed=1), cell(UP, GOOD, seed=1))}
    for found in compare("one", "other", pairs).average.values():
        assert (found.difference, found.ci95, found.probability) == (0, (0, 0), 0.5)


def test_groups_are_drawn_whole_and_widen_the_interval():
    groups = np.repeat(list("ABCDEFGH"), 6)
    counts = draw_groups(groups, COUNT, [0])
    assert (counts.reshape(COUNT, 8, 6) == counts.reshape(COUNT, 8, 6)[..., :1]).all()
    assert (counts.reshape(COUNT, 8, 6)[..., 0].sum(1) == 8).all()
    generator = np.random.default_rng(0)
    level, shift = generator.normal(size=(2, 8))
    truth = np.repeat(level, 6) + 0.3 * generator.normal(size=48)
    guess = np.repeat(level + shift, 6) + 0.3 * generator.normal(size=48)
    widths = []
    for drawn, number in ((counts, 8), (draw_samples(48, COUNT, [0]), None)):
        test = HeldOut(np.arange(48), truth, Resamples(truth, drawn), number)
        low, high = describe(judge([test], [guess]), DRAWS).ci95
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1]


def test_few_groups_have_students_interval():
    values = np.random.default_rng(0).normal(size=4000)
    half = half_width([np.array([0.0])], values, freedom=7)
    assert half == pytest.approx(t.ppf(0.975, 7) * values.std())
    cells = [cell(UP, [2, 1, 3, 4, 5, 6])]
    grouped = [
        replace(each, tests=tuple(replace(test, groups=8) for test in each.tests))
        for each in cells
    ]
    (a, b), (c, d) = (
        describe_average(each, DRAWS).ci95["fisher_z"] for each in (cells, grouped)
    )
    wider = (np.arctanh(d) - np.arctanh(c)) / (np.arctanh(b) - np.arctanh(a))
    assert wider == pytest.approx(t.ppf(0.975, 7) / norm.ppf(0.975))


@pytest.mark.parametrize(
    ("ends", "covers"),
    [
        ((-0.1, 0.1), True),
        ((0, 0), True),
        ((0.1, 0.2), False),
        ((-0.2, -0.1), False),
        ((math.nan, math.nan), False),
    ],
)
def test_which_intervals_cover_zero(ends, covers):
    assert covers_zero(ends) == covers
