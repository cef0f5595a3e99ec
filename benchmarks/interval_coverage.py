"""How often 95 % intervals cover, and how often equal rows are called different.

    python benchmarks/interval_coverage.py [--trials N] [--part PART]

Scores and predictions are drawn from a bivariate normal distribution, so that the true
rho is known: 6 / pi * arcsin(r / 2). With ties the scores are rounded to about seven
values, and the true rho is that of 400,000 samples. With several seeds, each seed's
head has a correlation of its own (standard deviation 0.15 on Fisher's z) and half of
its error is common to all seeds; what should be covered is the mean over all seeds.

Four tables in Markdown (PART: cells, averages, verdicts, folds): intervals of one cell,
of averages over six actions, and the share of comparisons of two rows with the same
distribution that end in "better than" or "worse than", where 5 % is right (with
untrained heads on one side, as in zero-shot). The fourth leaves one group
out in turn and ranks the held-out predictions as they are, and aligned
(`splits.join_folds`): the mean rho beside that of the same heads on 1,000 samples of
new groups, and how often the interval holds the latter.
"""

import argparse
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from aqa.regress.evaluation.bootstrap import (
    AVERAGES,
    Cell,
    HeldOut,
    Resamples,
    SeedDraws,
    covers_zero,
    draw_groups,
    draw_samples,
    judge,
)
from aqa.regress.evaluation.metrics import Floats, spearman
from aqa.regress.experiments.describe import compare_rows, describe, describe_average
from aqa.regress.splits import join_folds

COUNT = 400
DRAWS = SeedDraws(COUNT, 0)
#: Standard deviation of the seeds' correlations, on Fisher's z.
SEED_STD = 0.15
ACTIONS = 6


def pearson(rho: ArrayLike) -> Floats:
    """Return the correlation of a bivariate normal with this Spearman's rho."""
    return np.asarray(2 * np.sin(np.pi * np.asarray(rho) / 6))


def draw_cell(
    generator: Generator, n: int, rho: float, seeds: int, ties: bool, trial: int
) -> Cell:
    """Draw scores and each seed's predictions, and judge them."""
    x = generator.normal(size=n)
    common = generator.normal(size=n)
    predicted = []
    for _ in range(seeds):
        shift = SEED_STD * generator.normal() if seeds > 1 else 0.0
        r = pearson(np.tanh(np.arctanh(rho) + shift))
        own = generator.normal(size=n)
        noise = np.sqrt(0.5) * (common + own) if seeds > 1 else own
        predicted.append(r * x + np.sqrt(1 - r * r) * noise)
    truth = rounded(x) if ties else x
    resamples = Resamples(truth, draw_samples(n, COUNT, [trial]))
    test = HeldOut(np.arange(n), truth, resamples)
    return judge([test] * seeds, predicted)


def rounded(x: Floats) -> Floats:
    """Round scores to about seven values."""
    return np.round(x * 1.2)


def true_rho(rho: float, seeds: int, ties: bool) -> float:
    """Return the mean rho of all seeds on endlessly many samples."""
    generator = np.random.default_rng(99)
    if seeds > 1:
        shifts = SEED_STD * generator.normal(size=4_000)
        rhos = np.tanh(np.arctanh(rho) + shifts)
    else:
        rhos = np.array([rho])
    if not ties:
        return float(rhos.mean())
    x, e = generator.normal(size=(2, 400_000))
    r = pearson(rhos.mean())
    return spearman(rounded(x), r * x + np.sqrt(1 - r * r) * e)


def covered(ends: Sequence[float], value: float) -> float:
    """Return 1 or 0; nan where there is no interval."""
    return np.nan if np.isnan(ends[0]) else float(ends[0] <= value <= ends[1])


def cells(trials: int) -> None:
    """Print coverage and mean width of intervals of one cell."""
    print("| n | rho | ties | seeds | covers | mean width |\n" + "|---:" * 6 + "|")
    for n in (4, 5, 7, 10, 15, 25, 40, 70):
        for rho in (0.0, 0.3, 0.6, 0.8, 0.9, 0.95):
            for ties in (False, True):
                for seeds in (1, 5):
                    generator = np.random.default_rng([n, int(100 * rho), ties, seeds])
                    true = true_rho(rho, seeds, ties)
                    hits, widths = [], []
                    for trial in range(trials):
                        cell = draw_cell(generator, n, rho, seeds, ties, trial)
                        ends = describe(cell, DRAWS).ci95
                        hits.append(covered(ends, true))
                        widths.append(ends[1] - ends[0])
                    print(
                        f"| {n} | {rho} | {'yes' if ties else 'no'} | {seeds} "
                        f"| {np.nanmean(hits):.3f} | {np.nanmean(widths):.2f} |",
                        flush=True,
                    )


def averages(trials: int) -> None:
    """Print coverage of intervals of averages over six actions."""
    print("| n | rho | seeds | Fisher z | arithmetic |\n" + "|---:" * 5 + "|")
    for n in (5, 10, 25, 50):
        for rho in (0.0, 0.6, 0.9, 0.95):
            for seeds in (1, 5):
                generator = np.random.default_rng([n, int(100 * rho), seeds, 7])
                true = true_rho(rho, seeds, False)
                hits: dict[str, list[float]] = {kind: [] for kind in AVERAGES}
                for trial in range(trials):
                    drawn = [
                        draw_cell(generator, n, rho, seeds, False, 10 * trial + action)
                        for action in range(ACTIONS)
                    ]
                    found = describe_average(drawn, DRAWS)
                    for kind in AVERAGES:
                        hits[kind].append(covered(found.ci95[kind], true))
                fisher, arithmetic = (np.nanmean(hits[kind]) for kind in AVERAGES)
                print(
                    f"| {n} | {rho} | {seeds} | {fisher:.3f} | {arithmetic:.3f} |",
                    flush=True,
                )


def verdicts(trials: int) -> None:
    """Print how often rows of equal distribution are told apart."""
    print("| rows | seeds | told apart |\n|---|---:|---:|")
    for name, seeds, others in (
        ("trained heads, rho 0.6 (4 columns of 40)", 1, 1),
        ("trained heads, rho 0.6 (4 columns of 40)", 2, 2),
        ("trained heads, rho 0.6 (4 columns of 40)", 3, 3),
        ("trained heads, rho 0.6 (4 columns of 40)", 5, 5),
        ("untrained heads against 40 others", 1, 40),
        ("untrained heads against 40 others", 2, 40),
        ("untrained heads against 40 others", 3, 40),
        ("untrained heads against 40 others", 5, 40),
    ):
        generator = np.random.default_rng([seeds, others])
        settled = 0
        for trial in range(trials):
            rows: dict[str, dict[str, Cell]] = {"a": {}, "b": {}}
            directions = {
                side: generator.normal(size=(number, 3))
                for side, number in (("a", seeds), ("b", others))
            }
            shifts = {
                side: SEED_STD * generator.normal(size=number)
                for side, number in (("a", seeds), ("b", others))
            }
            for column in range(4):
                x = generator.normal(size=(40, 3))
                # What the columns' truth has in common makes draws good or bad.
                truth = x @ np.array([1.0, 0.5, 0.2]) + generator.normal(size=40)
                counts = draw_samples(40, COUNT, [trial, column])
                test = HeldOut(np.arange(40), truth, Resamples(truth, counts))
                for side, number in (("a", seeds), ("b", others)):
                    if "untrained" in name:
                        guesses = [x @ each for each in directions[side]]
                    else:
                        z = (truth - truth.mean()) / truth.std()
                        rs = pearson(np.tanh(np.arctanh(0.6) + shifts[side]))
                        guesses = [
                            r * z + np.sqrt(1 - r * r) * generator.normal(size=40)
                            for r in rs
                        ]
                    rows[side][str(column)] = judge([test] * number, guesses)
            found = compare_rows("a", "b", rows, DRAWS)
            verdict = (
                " is better than " in found.words or " is worse than " in found.words
            )
            assert not verdict or not covers_zero(found.average["fisher_z"].ci95)
            settled += verdict
        print(f"| {name} | {seeds} | {settled / trials:.3f} |", flush=True)


def folds(trials: int) -> None:
    """Print what leaving groups out measures, with and without alignment."""
    print(
        "| head | samples | groups | groups differ | signal | new groups | plain rho "
        "| holds | aligned rho | holds |\n|---" + "|---:" * 9 + "|"
    )
    heads = {
        "ridge": make_pipeline(StandardScaler(), Ridge(1_000.0)),
        "SVR": make_pipeline(StandardScaler(), SVR()),
    }
    designs = [(33, 6), (100, 4), (100, 20)]
    for (name, head), (n, groups), differ, signal in product(
        heads.items(), designs, (0.0, 1.0), (0.0, 0.7)
    ):
        generator = np.random.default_rng([n, groups, int(differ), int(10 * signal)])
        found = []
        for trial in range(trials):
            found.append(_grouped(generator, head, n, groups, differ, signal, trial))
        new, plain, in_plain, aligned, in_aligned = np.nanmean(found, axis=0)
        print(
            f"| {name} | {n} | {groups} | {differ:g} | {signal} | {new:.3f} | "
            f"{plain:.3f} | {in_plain:.2f} | {aligned:.3f} | {in_aligned:.2f} |",
            flush=True,
        )


def _grouped(
    generator: Generator,
    head: Pipeline,
    n: int,
    groups: int,
    differ: float,
    signal: float,
    trial: int,
) -> tuple[float, ...]:
    """Return rho on new groups, and rho and whether it is held, plain and aligned."""

    def draw(number: int, of: int) -> tuple[Floats, Floats, NDArray[np.intp]]:
        group = np.arange(number) % of
        x = generator.normal(size=(number, 50))
        x += 0.5 * generator.normal(size=(of, 50))[group]
        score = signal * x[:, :5].sum(1) / np.sqrt(5) + generator.normal(size=number)
        return x, score + differ * generator.normal(size=of)[group], group

    x, score, group = draw(n, groups)
    new_x, new_score, _ = draw(1_000, 1_000)
    tested = [group == name for name in range(groups)]
    predicted, new = [], []
    for own in tested:
        head.fit(x[~own], score[~own])
        predicted.append(head.predict(x))
        new.append(spearman(new_score, head.predict(new_x)))
    counts = draw_groups(group, COUNT, [trial])
    test = HeldOut(np.arange(n), score, Resamples(score, counts), groups)
    cells = [judge([test], [ranked]) for ranked in join_folds(predicted, tested)]
    numbers = [describe(cell, DRAWS) for cell in cells]
    true = float(np.mean(new))
    both = [(each.mean, covered(each.ci95, true)) for each in numbers]
    return (true, *both[0], *both[1])


PARTS = {"cells": cells, "averages": averages, "verdicts": verdicts, "folds": folds}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--part", choices=PARTS, action="append")
    options = parser.parse_args()
    for part in options.part or PARTS:
        print(f"\n{part}\n")
        PARTS[part](options.trials)
