"""Cells, averages and claims by hand, undefined values among them."""

import math

import numpy as np
import pytest

from aqa.regress.evaluation.bootstrap import (
    Resamples,
    covers_zero,
    describe,
    describe_average,
    describe_claim,
    draw_samples,
    draw_seeds,
    judge,
)
from aqa.regress.evaluation.metrics import fisher_mean
from aqa.regress.experiments.study import HeldOut


def held_out(truth, seed=0):
    truth = np.array(truth, dtype=float)
    rows = np.arange(len(truth))
    resamples = Resamples(truth, draw_samples(len(truth), 400, [seed]))
    return HeldOut("diving", rows, truth, resamples)


def cell(truth, *predicted, seed=0, matched=False):
    test = held_out(truth, seed)
    guesses = [np.array(guess, dtype=float) for guess in predicted]
    return judge([test] * len(guesses), guesses, matched=matched)


UP, DOWN, FLAT = [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [2] * 6


def test_a_cells_numbers_by_hand():
    found = describe(cell(UP, UP, [2, 1, 3, 4, 5, 6]))
    assert found["spearman"] == pytest.approx([1, 1 - 6 * 2 / (6 * 35)])
    assert found["mean"] == pytest.approx(1 - 6 / 210)
    assert found["sd"] == pytest.approx(np.std(found["spearman"], ddof=1))
    assert found["kendall"] == pytest.approx([1, 13 / 15])
    assert found["rl2_x100"] == pytest.approx([0, 100 * 2 / 6 / 25])
    assert found["n_test"] == 6
    assert found["undefined"] == 0
    low, high = found["ci95"]
    assert 0.5 < low < high <= 1


def test_one_seed_has_no_spread():
    assert math.isnan(describe(cell(UP, UP))["sd"])


def test_undefined_seeds_are_counted_and_left_out():
    found = describe(cell(UP, UP, FLAT))
    assert found["undefined"] == 1
    assert found["mean"] == 1
    assert math.isnan(found["spearman"][1])
    assert not math.isnan(found["ci95"][0])
    nothing = describe(cell(UP, FLAT))
    assert math.isnan(nothing["mean"])
    assert all(map(math.isnan, nothing["ci95"]))


def test_averages_leave_matched_cells_and_undefined_values_out():
    cells = [
        cell(UP, [2, 1, 3, 4, 5, 6]),
        cell(UP, [3, 2, 1, 4, 5, 6], seed=1),
        cell(UP, FLAT, seed=2),
        cell(UP, DOWN, seed=3, matched=True),
    ]
    found = describe_average(cells, draw_seeds(1, 400, [0]))
    rhos = [1 - 6 * 2 / 210, 1 - 6 * 8 / 210]
    assert found["arithmetic"] == pytest.approx(np.mean(rhos))
    assert found["fisher_z"] == pytest.approx(fisher_mean(rhos))
    assert found["actions"] == 3
    assert found["undefined"] == 1
    for kind in ("fisher_z", "arithmetic"):
        low, high = found["ci95"][kind]
        assert low < found[kind] < high


def test_averages_are_formed_for_each_seed_and_then_averaged():
    cells = [cell(UP, UP, DOWN), cell(UP, DOWN, DOWN, seed=1)]
    found = describe_average(cells, draw_seeds(2, 400, [0]))
    assert found["per_seed"]["arithmetic"] == pytest.approx([0, -1])
    assert found["arithmetic"] == pytest.approx(-0.5)
    assert found["sd"]["arithmetic"] == pytest.approx(np.std([0, -1], ddof=1))
    # Seeds are resampled: some resamples hold the first only, some the second.
    assert found["ci95"]["arithmetic"][0] == pytest.approx(-1)


def test_a_claim_that_holds_is_said_to_hold():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=40)
    good = [truth + generator.normal(scale=0.3, size=40) for _ in range(2)]
    bad = generator.normal(size=(2, 40))
    pairs = {"a": (cell(truth, *good), cell(truth, *bad))}
    found = describe_claim("good", "bad", pairs, draw_seeds(2, 400, [0]))
    assert found["average"]["fisher_z"]["probability"] == 1
    assert found["words"].startswith("Good is better than bad: +")
    other = describe_claim(
        "bad", "good", {"a": pairs["a"][::-1]}, draw_seeds(2, 400, [0])
    )
    assert other["words"].startswith("Bad is worse than good: -")


def test_a_claim_between_equals_is_not_settled():
    same = cell(UP, [2, 1, 3, 4, 5, 6])
    found = describe_claim("one", "other", {"a": (same, same)}, draw_seeds(1, 400, [0]))
    assert found["per_column"]["a"]["probability"] == 0.5
    assert found["per_column"]["a"]["difference"] == 0
    assert "The interval covers zero" in found["words"]
    assert "do not settle which is better" in found["words"]


def test_a_claim_about_what_is_undefined_says_so():
    flat = cell(UP, FLAT)
    found = describe_claim("one", "other", {"a": (flat, flat)}, draw_seeds(1, 400, [0]))
    assert "undefined" in found["words"]
    assert math.isnan(found["average"]["fisher_z"]["probability"])


def test_a_column_without_one_side_counts_for_neither():
    """Each side's average is over the columns that both have."""
    good, poor = [2, 1, 3, 4, 5, 6], [3, 2, 1, 4, 6, 5]
    pairs = {
        "a": (cell(UP, poor), cell(UP, poor)),
        "b": (cell(UP, FLAT, seed=1), cell(UP, good, seed=1)),
    }
    found = describe_claim("one", "other", pairs, draw_seeds(1, 400, [0]))
    for kind in ("fisher_z", "arithmetic"):
        assert found["average"][kind]["difference"] == 0
        assert found["average"][kind]["ci95"] == [0, 0]
        assert found["average"][kind]["probability"] == 0.5


def test_a_difference_without_an_interval_is_said_in_words():
    test = HeldOut("a", np.arange(6), np.array(UP), Resamples(UP, np.zeros((9, 6))))
    sides = [judge([test], [np.array(guess)]) for guess in (UP, DOWN)]
    found = describe_claim("one", "other", {"a": sides}, draw_seeds(1, 9, [0]))
    assert "no interval" in found["words"]
    assert "nan" not in found["words"]


def test_an_undefined_interval_covers_zero():
    assert covers_zero([math.nan, math.nan])
    assert covers_zero([-0.1, 0.1])
    assert not covers_zero([0.1, 0.2])
    assert not covers_zero([-0.2, -0.1])
