"""How often a model's course marks the clip in which an error was planted.

    python benchmarks/localisation.py CACHE FOLDER [--weights tiny] [--videos 50]

CACHE holds features of `aqa synth` by the same weights. Renders videos with an error
in one known clip into FOLDER, fits an LSTM with incremental labels on CACHE, scores
the videos and compares the clip that is said to have lost most with the one that did.
Beside the rate stand three that see no video: a clip drawn at random, the clips that
were marked in an order drawn at random, and the clip that was planted most often.
"""

import json
from collections import Counter
from pathlib import Path

import click
from planting import plant

from aqa.cache.errors import AqaError
from aqa.extract.config import ExtractConfig
from aqa.extract.datasets import read_dataset
from aqa.extract.network import C3DExtractor
from aqa.extract.preprocessing import clip_starts
from aqa.regress.config import FitConfig, Schedule
from aqa.regress.heads.fit import fit
from aqa.regress.heads.model_file import load_model
from aqa.regress.heads.scoring import score


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--weights", default="tiny")
@click.option("--action", default="diving")
@click.option("--error", default="splash", help="splash, landing or bent_knees")
@click.option("--videos", default=50)
@click.option("--iterations", default=3000)
@click.option("--labels", default="incremental")
def main(
    cache: Path,
    folder: Path,
    weights: str,
    action: str,
    error: str,
    videos: int,
    iterations: int,
    labels: str,
) -> None:
    """Plant errors, score the videos and print how many were found."""
    manifest = plant(folder, action, videos, seed=11, error=error)
    truth = json.loads((folder / "truth.json").read_text())["videos"]
    config = FitConfig(
        schedule=Schedule(iterations=iterations),
        mode="single-action",
        actions=(action,),
        labels=labels,
    )
    model = load_model(fit(cache, config, folder / labels).models[0])
    extractor = C3DExtractor(ExtractConfig(weights=weights))
    model.require(extractor.provenance)
    right = 0
    planted: Counter[int] = Counter()
    marked: Counter[int] = Counter()
    for video, made in extractor.extract(read_dataset(manifest).videos):
        if isinstance(made, AqaError):
            raise made
        clip = truth[video.key]["clip"]
        said = score(model, made.features, action).worst_clip
        assert said is not None
        planted[clip] += 1
        marked[said] += 1
        right += clip == said
    total = planted.total()
    print(f"{right} of {total} right: {right / total:.0%}")
    print(f"at random: {1 / len(clip_starts(extractor.config.clips)[0]):.0%}")
    shuffled = sum(planted[clip] * marked[clip] for clip in planted) / total**2
    print(f"marked in another order: {shuffled:.0%}")
    print(f"always the commonest clip: {max(planted.values()) / total:.0%}")
    for clip in sorted(planted | marked):
        print(f"clip {clip + 1}: planted {planted[clip]}, marked {marked[clip]}")


if __name__ == "__main__":
    main()
