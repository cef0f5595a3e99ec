"""How often the interval of a score contains the judges' score.

Usage: python benchmarks/intervals.py --cache features.h5 [--draws N]

SVR models of one action and of all, with labels scaled both ways, are fitted as
`aqa fit --head svr` does. All videos of each action are drawn anew into n training
videos (or as many as the action has, less 20) and 20 test videos. The table has the
share of test scores inside their interval beside the level that the models state, and
the mean width of an interval over the standard deviation of the scores.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from aqa.regress.config import LABEL_SCALES, MODES, FitConfig, SvrConfig
from aqa.regress.data import FeatureSet, load
from aqa.regress.heads import fit as fitting
from aqa.regress.heads.model_file import load_model
from aqa.regress.heads.scoring import score

#: A few candidates suffice: the calibration is under test, not the choice.
SVR = SvrConfig(costs=(1.0, 10.0), epsilons=(0.1,), repeats=1)
TEST = 20


def drawn(
    features: FeatureSet, count: int, generator: np.random.Generator
) -> FeatureSet:
    """Deal the videos of each action into `count` training and `TEST` test videos."""
    split = np.full(len(features.x), "", "U5")
    for action in np.unique(features.action):
        rows = generator.permutation(features.rows(str(action)))
        split[rows[:TEST]] = "test"
        split[rows[TEST : TEST + count]] = "train"
    return replace(features, split=split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    asked = parser.parse_args()
    features, generator = load(asked.cache), np.random.default_rng(0)
    print("| model | n | inside | stated | width / std |\n|---|---|---|---|---|")
    for mode in MODES:
        for scale in LABEL_SCALES:
            config = FitConfig(mode=mode, head="svr", label_scale=scale, svr=SVR)
            for count in (5, 10, 14, 40, 1000):
                inside, stated, widths = [], [], []
                for _ in range(asked.draws if count < 1000 else 3):
                    dealt = drawn(features, count, generator)
                    with (
                        TemporaryDirectory() as out,
                        patch.object(fitting, "load", lambda *_, dealt=dealt: dealt),
                    ):
                        report = fitting.fit(asked.cache, config, Path(out))
                        models = [load_model(path) for path in report.models]
                    for model in models:
                        for row in dealt.rows(model.actions, "test"):
                            action = str(dealt.action[row])
                            said = score(model, dealt.x[row], action)
                            low, high = said.interval or (np.nan, np.nan)
                            inside.append(low <= dealt.score[row] <= high)
                            stated.append(model.calibration[action].level)
                            own = dealt.score[dealt.action == action]
                            widths.append((high - low) / own.std())
                n = "all but 20" if count == 1000 else count
                print(
                    f"| {mode}, {scale} | {n} | {np.mean(inside):.3f} "
                    f"| {np.mean(stated):.3f} | {np.mean(widths):.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
