"""What poses are worth, and what noise on the joints does to it.

Usage: python benchmarks/poses.py AQA-7 [--seeds N]

AQA-7 is a folder that `aqa synth` made, with the true joints under `poses`. The
joints are disturbed as a pose detector might: moved by Gaussian noise of so many
pixels along x and along y, or left out. Features go through the extraction stage into
a cache, then one SVR for each action learns from the training list; printed is
Spearman's rho on the test list, and Fisher's mean over the actions. "svr" chooses its
settings by cross-validation, "nu-svr" is the preset of the original. Disturbances are
drawn anew for each seed, and rho is the mean over the seeds.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aqa.extract.config import PoseConfig
from aqa.extract.datasets import read_dataset
from aqa.extract.poses.features import PoseExtractor
from aqa.extract.stage import extract
from aqa.regress.config import NU_SVR, SvrConfig
from aqa.regress.data import FeatureSet, LabelScale, load
from aqa.regress.evaluation.metrics import fisher_mean, spearman
from aqa.regress.heads.svr import fit_svr

HEADS = {"svr": SvrConfig(), "nu-svr": NU_SVR}


@dataclass(frozen=True)
class Disturbance:
    """Noise in pixels, and the share of joints that are left out."""

    name: str
    pixels: float = 0.0
    missing: float = 0.0


CASES = [
    (Disturbance("true joints"), PoseConfig()),
    (Disturbance("true joints"), PoseConfig(features="pose-apen")),
    (Disturbance("true joints"), PoseConfig(athletes=2)),
    (Disturbance("1 px", pixels=1), PoseConfig()),
    (Disturbance("3 px", pixels=3), PoseConfig()),
    (Disturbance("10 px", pixels=10), PoseConfig()),
    (Disturbance("10 % missing", missing=0.1), PoseConfig()),
    (Disturbance("3 px, 10 % missing", pixels=3, missing=0.1), PoseConfig()),
    (Disturbance("1 px", pixels=1), PoseConfig(features="pose-apen")),
    (Disturbance("3 px", pixels=3), PoseConfig(features="pose-apen")),
]


def disturb(source: Path, target: Path, how: Disturbance, seed: int) -> None:
    """Copy all pose files, disturbed."""
    for number, path in enumerate(sorted(source.rglob("*.json"))):
        rng = np.random.default_rng([seed, number])
        frames = json.loads(path.read_text())
        for person in (person for frame in frames for person in frame):
            joints = np.reshape(person["keypoints"], (-1, 3))
            joints[:, :2] += rng.normal(0, how.pixels, (len(joints), 2))
            joints[rng.random(len(joints)) < how.missing] = 0
            person["keypoints"] = joints.ravel().tolist()
        out = target / path.relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(frames))


def cached(data: Path, how: Disturbance, config: PoseConfig, seed: int) -> FeatureSet:
    """Features of disturbed poses, by way of the stage and its cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        disturb(data / "poses", folder / "poses", how, seed)
        dataset = read_dataset(data)
        extractor = PoseExtractor(folder / "poses", config, dataset.videos)
        result = extract(dataset, folder / "poses.h5", extractor)
        for failure in result.failures:
            print(f"failed: {failure.key}: {failure.reason}")
        return load(result.cache)


def correlations(features: FeatureSet, head: str) -> Iterator[float]:
    """Rho on the test list, action by action."""
    for action in np.unique(features.action):
        train = features.rows(action, "train")
        targets = LabelScale.learn(features, train).to_scaled(
            features.score, features.action
        )
        fitted = fit_svr(features, targets, train, HEADS[head])
        test = features.rows(action, "test")
        yield spearman(fitted.predict(features.x[test, 0]), features.score[test])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    headed = False
    for how, config in CASES:
        disturbed = how.pixels or how.missing
        seeds = range(chosen.seeds if disturbed else 1)
        sets = [cached(chosen.data, how, config, seed) for seed in seeds]
        if not headed:
            actions = np.unique(sets[0].action)
            counts = [str(len(sets[0].rows(action, "test"))) for action in actions]
            names = ["joints", "features", "athletes", "head", *actions, "Fisher"]
            print("|", " | ".join(names), "|")
            print("|" + "---|" * len(names))
            print("|", " | ".join(["test videos", "", "", "", *counts, ""]), "|")
            headed = True
        for head in HEADS:
            rho = np.array([list(correlations(one, head)) for one in sets])
            fisher = np.mean([fisher_mean(one, list(map(int, counts))) for one in rho])
            cells = [f"{value:.3f}" for value in (*rho.mean(axis=0), fisher)]
            row = [how.name, config.features, str(config.athletes), head, *cells]
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
