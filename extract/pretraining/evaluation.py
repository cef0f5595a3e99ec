"""How well a classifier tells the test list's clips, and its videos.

Conventions: an accuracy is the part that is right, 0 to 1. A video's class is the
one with the largest probability averaged over its clips.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from aqa.extract.preprocessing import Preprocessing, normalise
from aqa.extract.pretraining.classifier import Classifier
from aqa.extract.pretraining.loading import Batch


class Accuracy(NamedTuple):
    """Of clips, each on its own, and of videos."""

    clip: float
    video: float


def as_input(frames: Tensor, pre: Preprocessing) -> Tensor:
    """Prepare clips: uint8 (B, 16, crop, crop, 3) -> float (B, 3, 16, crop, crop)."""
    batch, length, crop = frames.shape[:3]
    values = normalise(frames.flatten(0, 1), pre)  # (3, B * 16, crop, crop)
    return values.view(3, batch, length, crop, crop).movedim(1, 0)


@torch.no_grad()
def evaluate(
    net: Classifier,
    batches: Iterable[Batch],
    labels: Tensor,
    pre: Preprocessing,
    autocast: torch.autocast,
) -> Accuracy:
    """Classify clips, of which each process may see its own part.

    Args:
        net: on its device.
        batches: clips and the index of the video that each is of.
        labels: the class of each video, (videos,).
        pre: of the network.
        autocast: the precision to compute in.
    """
    device = net.fc8.weight.device
    labels = labels.to(device)
    right = torch.zeros(2, dtype=torch.float64, device=device)  # clips right, clips
    summed = torch.zeros(
        len(labels), net.fc8.out_features, dtype=torch.float64, device=device
    )
    net.eval()
    for frames, videos in batches:
        index = torch.from_numpy(videos).to(device)
        with autocast:
            scores = net(as_input(torch.from_numpy(frames).to(device), pre))
        summed.index_add_(0, index, scores.double().softmax(1))
        hits = (scores.argmax(1) == labels[index]).sum()
        right += torch.stack([hits.double(), hits.new_tensor(len(index)).double()])
    net.train()
    if distributed.is_initialized():
        distributed.all_reduce(right)
        distributed.all_reduce(summed)
    video = (summed.argmax(1) == labels).double().mean()
    return Accuracy(float(right[0] / right[1]), float(video))
