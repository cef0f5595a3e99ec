"""How often plausible videos are flagged, and implausible ones are not.

Usage: python benchmarks/plausibility.py --cache features.h5 --weights tiny
                                         [--videos FILE ...] [--draws N]

For each action of the cache a model's plausibility is learned from the training list.
False alarms: videos of the test list beyond the threshold, and, with all videos of an
action drawn anew into n training and 10 other videos, the same for small n. Flagged:
videos of the other actions; test cards (colour bars, black, white, grey, noise), made
here with the same network; further films given with --videos; the first video of each
action with frames upside down, negative, and standing still.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError
from aqa.extract.config import config_like
from aqa.extract.datasets.dataset import Video
from aqa.extract.network import C3DExtractor
from aqa.regress.data import FeatureSet, load
from aqa.regress.heads.plausibility import Plausibility


def cards(frames: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield test cards of the shape of decoded frames (n, h, w, 3)."""
    colours = [
        [255 * bool(i & 4), 255 * bool(i & 2), 255 * bool(i & 1)] for i in range(8)
    ]
    width = frames.shape[2]
    row = np.array(colours, np.uint8)[np.arange(width) * 8 // width]
    yield "colour bars", np.broadcast_to(row, frames.shape).copy()
    for name, level in (("black", 0), ("grey", 128), ("white", 255)):
        yield name, np.full_like(frames, level)
    yield "noise", np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8)


def changed(frames: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield a film as it should not be."""
    yield "upside down", np.ascontiguousarray(frames[:, ::-1])
    yield "negative", 255 - frames
    yield "standing still", np.repeat(frames[[len(frames) // 2]], len(frames), 0)


def flagged(known: Plausibility, x: NDArray[np.float32], action: str) -> bool:
    """Tell whether a video x (copies, clips, D) is beyond the threshold."""
    return known.distance(x[:1], action) > known.thresholds[action]


def small_training_lists(features: FeatureSet, draws: int) -> None:
    generator = np.random.default_rng(0)
    for count in (6, 10, 14, 20, 40):
        alarms = []
        for action in np.unique(features.action):
            rows = features.rows(str(action))
            for _ in range(draws if len(rows) >= count + 10 else 0):
                drawn = generator.permutation(rows)
                known = Plausibility.learn(features, np.sort(drawn[:count]))
                assert known is not None
                alarms += [
                    flagged(known, features.x[row], str(action))
                    for row in drawn[count : count + 10]
                ]
        print(f"| {count} | {np.mean(alarms):.1%} of {len(alarms)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", type=Path, help="folder of the cache's videos")
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    parser.add_argument("--draws", type=int, default=40)
    asked = parser.parse_args()
    features = load(asked.cache)
    config = config_like(features.provenance.record)
    extractor = C3DExtractor(replace(config, weights=asked.weights))
    actions = [str(name) for name in np.unique(features.action)]
    found: dict[str, list[bool]] = defaultdict(list)
    known = Plausibility.learn(features, features.rows(split="train"))
    assert known is not None, "too few training videos"

    def decoded(paths: list[Path]) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
        videos = [Video(str(path), path, "", "", math.nan) for path in paths]
        for video, result in extractor.decode(videos, None, None):
            if isinstance(result, AqaError):
                print(f"{video.path}: {result}")
            else:
                yield Path(video.path), result.frames

    for action in actions:
        for row in range(len(features.x)):
            x = features.x[row]
            if features.action[row] != action:
                found["other actions"].append(flagged(known, x, action))
            elif features.split[row] == "test":
                found["FALSE ALARMS: held-out videos of the action"].append(
                    flagged(known, x, action)
                )
    shape = None
    for path, frames in decoded(asked.videos):
        x, shape = extractor.features(frames), frames
        for action in actions:
            found[f"film {path.name}"].append(flagged(known, x, action))
    for action in actions if asked.data else ():
        first = sorted((asked.data / "Actions" / action).iterdir())[0]
        for _, frames in decoded([first]):
            shape = frames
            for name, other in changed(frames):
                x = extractor.features(other)
                found[name].append(flagged(known, x, action))
    if shape is not None:
        for name, frames in cards(shape):
            x = extractor.features(frames)
            found[name] += [flagged(known, x, action) for action in actions]
    print("| videos | flagged |\n|---|---|")
    for name, flags in found.items():
        print(f"| {name} | {np.mean(flags):.1%} of {len(flags)} |")
    print("\n| training videos | false alarms |\n|---|---|")
    small_training_lists(features, asked.draws)


if __name__ == "__main__":
    main()
