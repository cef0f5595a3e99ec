"""What narrower arithmetic does to features, and to a head that is fitted on them.

    python benchmarks/precision.py VIDEO... [--archs c3d-small,c3d-full]
                                   [--weights random] [--dataset AQA-7]

Processors without bf16, and all CPUs for fp16 and TF32, would take hours, so that the
arithmetic is imitated in fp32: weights, inputs and activations are rounded to the
narrower type and sums are taken in fp32, as the kernels of CPUs and GPUs do. The
first line checks that against torch's own bf16 on one clip of c3d-tiny.

For each video: cosine similarity of its features with those in fp32, and the largest
difference over the largest feature. With `--dataset`, a labelled data set, the test
rho of all-action SVRs and LSTMs fitted on either kind of features.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aqa.cache.provenance import Provenance
from aqa.cache.store import Features
from aqa.extract import c3d, overlap
from aqa.extract.config import ClipConfig, ExtractConfig
from aqa.extract.datasets import read_dataset
from aqa.extract.datasets.dataset import Video
from aqa.extract.extractor import Extracted
from aqa.extract.network import C3DExtractor
from aqa.extract.stage import extract
from aqa.regress.config import FitConfig, Schedule
from aqa.regress.heads.fit import fit

IMITATED = ("bf16", "fp16", "tf32")


def narrow(x: Tensor, precision: str) -> Tensor:
    """Round to what the precision can hold, in float32."""
    if precision == "tf32":
        # Ten bits of mantissa, ties to even: the rest of fp32's 23 is rounded off.
        bits = x.contiguous().view(torch.int32)
        bits = bits + 0xFFF + ((bits >> 13) & 1)
        return (bits & ~0x1FFF).view(torch.float32)
    return x.to(torch.bfloat16 if precision == "bf16" else torch.float16).float()


@contextmanager
def imitate(precision: str) -> Iterator[None]:
    """Make every layer compute in a narrower precision; "fp32" changes nothing."""
    convolve, feature = c3d.convolve, c3d.C3D.feature

    def stored(x: Tensor) -> Tensor:
        # TF32 rounds what is multiplied and stores fp32; others store what they round.
        return x if precision == "tf32" else narrow(x, precision)

    def narrow_convolve(conv: nn.Conv3d, x: Tensor, *taps: Any, **pad: Any) -> Tensor:
        return stored(convolve(conv, narrow(x, precision), *taps, **pad))

    def narrow_feature(net: c3d.C3D, x: Tensor) -> Tensor:
        return stored(feature(net, narrow(x, precision)))

    with ExitStack() as patches:
        if precision != "fp32":
            for module in (c3d, overlap):
                patches.enter_context(patch.object(module, "convolve", narrow_convolve))
            patches.enter_context(patch.object(c3d.C3D, "feature", narrow_feature))
        yield


class Imitator(C3DExtractor):
    """An extractor whose arithmetic is narrower than it thinks."""

    def __init__(self, config: ExtractConfig, precision: str) -> None:
        """Round the weights."""
        super().__init__(config)
        self.imitated = precision
        if precision != "fp32":
            for value in self._net.parameters():
                value.data = narrow(value.data, precision)
            record = {**self.provenance.record, "precision": f"{precision}, imitated"}
            self.provenance = Provenance(record)

    def _compute(self, frames: NDArray[np.uint8]) -> Tensor:
        with imitate(self.imitated):
            return super()._compute(frames)


def check() -> None:
    """Print how far imitated bf16 is from torch's, on one clip."""
    config = ExtractConfig(
        weights="random", arch="c3d-tiny", clips=ClipConfig(16, offsets=1), device="cpu"
    )
    frames = np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3), np.uint8)
    exact = C3DExtractor(config).features(frames)
    torchs = C3DExtractor(replace(config, precision="bf16")).features(frames)
    ours = Imitator(config, "bf16").features(frames)
    print(
        f"bf16 by torch differs from fp32 by {apart(torchs, exact):.2e}, imitated by "
        f"{apart(ours, exact):.2e}, one from the other by {apart(torchs, ours):.2e}"
    )


def apart(found: Features, expected: Features) -> float:
    """Largest difference over the largest feature."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def cosine(found: Features, expected: Features) -> float:
    """Cosine similarity of all features of a video."""
    a, b = found.ravel().astype(np.float64), expected.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def compare_videos(paths: Sequence[Path], arch: str, weights: str) -> None:
    """Print a line for each video and precision."""
    config = ExtractConfig(weights=weights, arch=arch, device="cpu")
    videos = [Video(path.name, path, "", "", float("nan")) for path in paths]
    found = {
        precision: [
            made.features
            for _, made in Imitator(config, precision).extract(videos)
            if isinstance(made, Extracted)
        ]
        for precision in ("fp32", *IMITATED)
    }
    for place, path in enumerate(paths):
        exact = found["fp32"][place]
        for precision in IMITATED:
            features = found[precision][place]
            print(
                f"{arch:10} {path.name[:30]:30} {precision:5} "
                f"1 - cosine {1 - cosine(features, exact):8.1e} "
                f"largest difference {apart(features, exact):8.1e}",
                flush=True,
            )


def compare_heads(folder: Path, arch: str, weights: str) -> None:
    """Print the test rho of heads fitted on features of each precision."""
    config = ExtractConfig(weights=weights, arch=arch, device="cpu")
    dataset = read_dataset(folder)
    with tempfile.TemporaryDirectory() as temporary:
        for precision in ("fp32", "bf16", "fp16"):
            cache = Path(temporary) / f"{precision}.h5"
            extract(dataset, cache, Imitator(config, precision))
            for head in ("svr", "lstm"):
                fitted = FitConfig(
                    schedule=Schedule(iterations=2000), head=head, calibration_folds=0
                )
                report = fit(cache, fitted, cache.with_suffix(f".{head}"))
                rho = {
                    action: round(said["spearman"] or math.nan, 4)
                    for action, said in report.results.items()
                }
                print(
                    f"{arch} {precision} {head}: average {report.average} {rho}",
                    flush=True,
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--archs", default="c3d-small,c3d-full")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--dataset", type=Path)
    options = parser.parse_args()
    check()
    for arch in options.archs.split(","):
        if options.videos:
            compare_videos(options.videos, arch, options.weights)
        if options.dataset:
            compare_heads(options.dataset, arch, options.weights)


if __name__ == "__main__":
    main()
