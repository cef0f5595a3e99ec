"""How fast heads train: ours against torch's LSTM with default Adam, in turns.

Usage: python benchmarks/training.py [--widths 2048 4096] [--heads 1 2 8 64]
                                     [--rounds N] [--iterations N]

Both sides learn the same: 300 videos of six copies and six clips, batches of 15, one
LSTM of 256 with its output, the loss of the protocol, fp32. torch's side is nn.LSTM,
autograd and torch.optim.Adam with their defaults on all threads, one head after the
other, so its time per head is that of one head. Ours is `train_heads` as experiments
call it, the start of its processes included: one head on all threads, several in
processes of one thread. In every round each side runs once, so that whatever else the
machine does falls on both; the table has the median over rounds of milliseconds per
iteration and head, and the median of the rounds' ratios.

Features are dense (rectified Gaussians): no column is dead, which would speed up ours.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from aqa.cache.provenance import Provenance
from aqa.regress.config import Schedule
from aqa.regress.data import FeatureSet, SharedArray
from aqa.regress.heads.tasks import HeadTask
from aqa.regress.heads.workers import train_heads

VIDEOS, COPIES, CLIPS, BATCH, HIDDEN = 300, 6, 6, 15, 256


def make_features(width: int) -> FeatureSet:
    shared = SharedArray((VIDEOS, COPIES, CLIPS, width))
    generator = np.random.default_rng(0)
    generator.standard_normal(out=shared.array, dtype=np.float32)
    np.maximum(shared.array, 0, out=shared.array)
    names = np.array([f"{i:03}" for i in range(VIDEOS)])
    return FeatureSet(
        x=shared.array,
        key=names,
        action=np.full(VIDEOS, "any"),
        split=np.full(VIDEOS, "train"),
        score=generator.standard_normal(VIDEOS) + 5,
        provenance=Provenance({"features": "rectified noise"}),
        shared=shared,
        feature_sha256=names,
    )


class TorchHead(torch.nn.Module):
    """The head that one writes without thinking of speed."""

    def __init__(self, width: int) -> None:  # noqa: D107
        super().__init__()
        self.lstm = torch.nn.LSTM(width, HIDDEN, batch_first=True)
        self.output = torch.nn.Linear(HIDDEN, 1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Scores (n,) of clips (n, CLIPS, D)."""
        scores: torch.Tensor = self.output(self.lstm(clips)[0][:, -1])[:, 0]
        return scores


def torch_ms(features: FeatureSet, iterations: int) -> float:
    """Milliseconds per iteration of torch's loop."""
    head = TorchHead(features.x.shape[-1])
    adam = torch.optim.Adam(head.parameters(), lr=0.001)
    sequences = torch.from_numpy(features.x).flatten(0, 1)
    labels = torch.from_numpy(np.repeat(features.score, COPIES).astype(np.float32))
    order = torch.randperm(len(sequences)).repeat(1 + iterations * BATCH // 1800)
    start = time.perf_counter()
    for batch in order[: iterations * BATCH].view(-1, BATCH):
        adam.zero_grad()
        loss = ((head(sequences[batch]) - labels[batch]) ** 2).sum() / (2 * BATCH)
        loss.backward()
        adam.step()
    return (time.perf_counter() - start) / iterations * 1e3


def our_ms(features: FeatureSet, heads: int, iterations: int) -> float:
    """Milliseconds per iteration and head of `train_heads`."""
    schedule = Schedule(iterations=iterations)
    rows, targets = tuple(range(VIDEOS)), tuple(features.score.tolist())
    tasks = [
        HeadTask(f"{i}", rows, targets, i, schedule, keep_parameters=False)
        for i in range(heads)
    ]
    start = time.perf_counter()
    train_heads(features, tasks, device="cpu")
    return (time.perf_counter() - start) / iterations / heads * 1e3


def compare(
    width: int, heads: int, rounds: int, iterations: int
) -> NDArray[np.float64]:
    """(rounds, 2): torch's milliseconds and ours, turn by turn."""
    features = make_features(width)
    torch_ms(features, 5)
    return np.array(
        [
            (torch_ms(features, iterations), our_ms(features, heads, iterations))
            for _ in range(rounds)
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 2, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=200)
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("|    D | heads | torch, ms | ours, ms | ratio | ratios of the rounds |")
    print("|---|---|---|---|---|---|")
    for width in asked.widths:
        for heads in asked.heads:
            times = compare(width, heads, asked.rounds, asked.iterations)
            theirs, ours = np.median(times, axis=0)
            ratios = times[:, 0] / times[:, 1]
            print(
                f"| {width} | {heads} | {theirs:.1f} | {ours:.1f} "
                f"| {statistics.median(ratios):.2f} "
                f"| {' '.join(f'{ratio:.2f}' for ratio in ratios)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
